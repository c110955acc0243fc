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
    SharedFeed,
)
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import Interrupted
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


def take_batches(data, update, steps, root=0):
    return list(islice(CachedFeed(data, Recipe(update=update, batch_size=4), root), steps))


def test_each_sample_is_read_where_it_lies(data, log_prob):
    pairs = np.stack(np.meshgrid(np.arange(S), np.arange(M), indexing="ij")).reshape(2, -1)
    permuted = np.random.default_rng(0).permuted(pairs, axis=1)
    sample, index = (torch.from_numpy(row) for row in permuted)
    assert torch.equal(data.samples.at(sample, index), log_prob[sample, index])


@pytest.mark.parametrize("update", ["averaged", "newest", "running_mean"])
def test_every_rule_sees_the_same_inputs_and_only_targets_with_a_loss(data, update):
    order = islice(BatchOrder(M, Recipe(batch_size=4), 0), 20)
    batches = take_batches(data, update, 20)
    for index_B, (x, expectations) in zip(order, batches, strict=True):
        assert torch.equal(x[:, 0].long(), index_B)
        shapes = {name: tuple(value.shape) for name, value in expectations.items()}
        assert shapes == {"predictive": (4, C), "expected_entropy": (4, 1)}


def test_newest_draws_samples_by_their_weight(data, log_prob, weight):
    """16 000 draws: each sample's share is within four standard errors.

    They are at most 4 sqrt(.25 / 16000) = 1.6 %.
    """
    counts, num_draws = torch.zeros(S), 0
    for x, expectations in take_batches(data, "newest", 4000):
        prob_SBC = log_prob.exp()[:, x[:, 0].long()]
        distance_SB = (expectations["predictive"] - prob_SBC).abs().sum(-1)
        # each is exactly one sample's, at its own input
        assert distance_SB.min(0).values.max() < 1e-6
        counts += torch.bincount(distance_SB.argmin(0), minlength=S)
        num_draws += 4

    error = (weight * (1 - weight) / num_draws).sqrt()
    shares = counts / num_draws
    assert ((shares - weight).abs() <= 4 * error).all(), shares


def test_newest_repeats_with_its_root(data):
    batches = take_batches(data, "newest", 3, root=0)
    again = take_batches(data, "newest", 3, root=0)
    other = take_batches(data, "newest", 3, root=1)
    for (_, expectations), (_, repeated) in zip(batches, again, strict=True):
        assert torch.equal(expectations["predictive"], repeated["predictive"])
    assert not torch.equal(batches[0][1]["predictive"], other[0][1]["predictive"])


def test_the_running_mean_is_that_of_the_newest_ones_so_far(data):
    values_of = {i: [] for i in range(M)}
    newest = take_batches(data, "newest", 60)
    means = take_batches(data, "running_mean", 60)
    for (x, values), (_, mean) in zip(newest, means, strict=True):
        index = x[:, 0].long().tolist()
        # first all values: an input may be there twice in a batch
        for i, value in zip(index, values["predictive"], strict=True):
            values_of[i].append(value)
        for i, value in zip(index, mean["predictive"], strict=True):
            assert (value - torch.stack(values_of[i]).mean(0)).abs().max() < 1e-6


def test_an_input_that_is_there_twice_counts_twice():
    """Batch (0, 0, 1) of values 1, 3, 5, then (0) of 8: means 2, 2, 5, then (1 + 3 + 8) / 3 = 4."""
    running_mean = RunningMean(2)
    means = running_mean(torch.tensor([0, 0, 1]), {"g": torch.tensor([[1.0], [3.0], [5.0]])})
    assert means["g"].flatten().tolist() == [2.0, 2.0, 5.0]
    means = running_mean(torch.tensor([0]), {"g": torch.tensor([[8.0]])})
    assert means["g"].tolist() == [[4.0]]


def test_every_reader_of_a_shared_feed_hears_why_it_ended():
    def stopped():
        yield torch.zeros(1), {}
        raise Interrupted("stopped between steps")

    feed = SharedFeed(stopped(), num_readers=3)
    for _ in range(3):
        feed.batch(0)
    for _ in range(3):
        with pytest.raises(Interrupted, match="stopped between steps"):
            feed.batch(1)
