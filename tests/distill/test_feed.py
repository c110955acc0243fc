"""What a step is shown: averages, single posterior samples, running means."""

from itertools import islice

import numpy as np
import pytest
import torch

from gped_nas.distill.feed import (
    BatchOrder,
    CachedFeed,
    DistillationSet,
    PosteriorPredictions,
    RunningMean,
)
from gped_nas.distill.recipe import Recipe
from gped_nas.targets.base import resolve
from gped_nas.targets.expectations import expect
from gped_nas.targets.layout import HeadLayout

S, M, C = 6, 11, 3
NAMES = ("predictive", "expected_entropy", "mutual_information")


@pytest.fixture
def log_prob():
    return (2 * torch.randn((S, M, C), generator=torch.Generator().manual_seed(0))).log_softmax(-1)


@pytest.fixture
def weight():
    return torch.tensor([0.1, 0.0, 0.2, 0.3, 0.3, 0.1], dtype=torch.float64)


@pytest.fixture
def data(log_prob, weight):
    """Inputs in parts of 7 and 4, posterior samples in blocks of 2 and 4 there, of 6 here."""
    array = log_prob.numpy()
    samples = PosteriorPredictions([[array[:2, :7], array[2:, :7]], [array[:, 7:]]], weight)
    averages = {t.name: expect(t, log_prob, weight) for t in resolve(NAMES[:2])}
    return DistillationSet(
        torch.arange(M).float()[:, None], averages, HeadLayout(NAMES, C), samples
    )


def shown(data, update, steps, root=0):
    return list(islice(CachedFeed(data, Recipe(update=update, batch_size=4), root), steps))


def test_each_sample_is_read_where_it_lies(data, log_prob):
    pairs = np.stack(np.meshgrid(np.arange(S), np.arange(M), indexing="ij")).reshape(2, -1)
    sample, index = (
        torch.from_numpy(row) for row in np.random.default_rng(0).permuted(pairs, axis=1)
    )
    assert torch.equal(data.samples.at(sample, index), log_prob[sample, index])


@pytest.mark.parametrize("update", ["averaged", "newest", "running_mean"])
def test_every_rule_sees_the_same_inputs_and_only_targets_with_a_loss(data, update):
    index = islice(BatchOrder(M, Recipe(batch_size=4), 0), 20)
    for index_B, (x, said) in zip(index, shown(data, update, 20), strict=True):
        assert torch.equal(x[:, 0].long(), index_B)
        assert {name: tuple(value.shape) for name, value in said.items()} == {
            "predictive": (4, C),
            "expected_entropy": (4, 1),
        }


def test_newest_draws_samples_by_their_weight(data, log_prob, weight):
    """16 000 draws: each sample's share within four standard errors, at most 4 sqrt(.25 / 16000) =
    1.6 %.
    """
    counts, num = torch.zeros(S), 0
    for x, said in shown(data, "newest", 4000):
        distance = (said["predictive"] - log_prob.exp()[:, x[:, 0].long()]).abs().sum(-1)  # (S, B)
        assert distance.min(0).values.max() < 1e-6  # each is exactly one sample's, at its own input
        counts += torch.bincount(distance.argmin(0), minlength=S)
        num += 4
    error = (weight * (1 - weight) / num).sqrt()
    assert ((counts / num - weight).abs() <= 4 * error).all(), counts / num


def test_newest_varies_within_a_batch_and_repeats_with_its_root(data):
    first, again, other = (shown(data, "newest", 3, root) for root in (0, 0, 1))
    assert all(
        torch.equal(a[1]["predictive"], b[1]["predictive"])
        for a, b in zip(first, again, strict=True)
    )
    assert not torch.equal(first[0][1]["predictive"], other[0][1]["predictive"])


def test_the_running_mean_is_that_of_the_newest_ones_so_far(data):
    seen = {i: [] for i in range(M)}
    for (x, newest), (_, mean) in zip(
        shown(data, "newest", 60), shown(data, "running_mean", 60), strict=True
    ):
        index = x[:, 0].long().tolist()
        for i, value in zip(index, newest["predictive"], strict=True):
            seen[i].append(value)
        for i, value in zip(index, mean["predictive"], strict=True):
            assert (value - torch.stack(seen[i]).mean(0)).abs().max() < 1e-6


def test_an_input_that_is_there_twice_counts_twice():
    """Batch (0, 0, 1) of values 1, 3, 5, then (0) of 8: means 2, 2, 5, then (1 + 3 + 8) / 3 = 4."""
    mean = RunningMean(2)
    first = mean(torch.tensor([0, 0, 1]), {"g": torch.tensor([[1.0], [3.0], [5.0]])})
    assert first["g"].flatten().tolist() == [2.0, 2.0, 5.0]
    assert mean(torch.tensor([0]), {"g": torch.tensor([[8.0]])})["g"].tolist() == [[4.0]]
