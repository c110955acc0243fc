"""The teacher that ``init`` writes: its prior and its noise, by a few quick networks."""

import math

import numpy as np
import pytest
import torch

from gped_nas.api import suggestion
from gped_nas.api.suggestion import suggest_teacher
from gped_nas.data.base import Dataset, build, split_of
from gped_nas.models.base import Genotype

SMALL = Genotype("mlp", depth=1, width=16)
NUM, DIMS = 200, 10


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggestion, "_TRIED_STEPS", 200)


def _dataset(labels: np.ndarray, x: np.ndarray) -> Dataset:
    is_class = labels.dtype.kind == "i"
    return build(
        "made",
        split_of(x.astype(np.float32), labels),
        class_names=("a", "b") if is_class else (),
        test=0.2,
        validation=0.1,
        seed=0,
        where="made",
        normalize="columns",
    )


def _inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(NUM, DIMS))


def test_clean_labels_get_a_weaker_prior_than_noise() -> None:
    x = _inputs()
    coins = np.random.default_rng(1).integers(0, 2, NUM)

    clean = suggest_teacher(_dataset((x[:, 0] > 0).astype(int), x), SMALL)
    noise = suggest_teacher(_dataset(coins, x), SMALL)
    assert clean.scale > noise.scale
    assert clean.learns and clean.nll < 0.5 * clean.guess_nll
    assert noise.guess_nll == pytest.approx(math.log(2), abs=0.02)
    assert noise.noise_std is None


def test_the_noise_of_real_labels_is_what_networks_are_wrong_by() -> None:
    x = _inputs()
    signal, noise = x[:, 0], np.random.default_rng(2).normal(size=NUM)
    suggested = suggest_teacher(_dataset(signal + 0.5 * noise, x), SMALL)

    # of a deviation of sqrt(1 + .25), the noise is .447; a network on 96 examples is wrong by more
    assert suggested.noise_std is not None and 0.42 < suggested.noise_std < 0.7
    assert suggested.learns


def test_the_strongest_prior_within_an_error_is_taken() -> None:
    low = torch.tensor([1.0, 1.0, 2.0, 2.0]).double()
    # better by 2/4 on average; deviations 1.5, -.5, -.5, -.5: standard error sqrt(.75 / 4) = .43
    clearly = low - torch.tensor([2.0, 0.0, 0.0, 0.0])
    # better by 1/4; deviations .75, -1.25, .75, -.25: standard error sqrt(.6875 / 4) = .41
    hardly = low - torch.tensor([1.0, -1.0, 1.0, 0.0])
    impossible = torch.full((4,), math.inf).double()
    assert suggestion._strongest({0.5: low, 2.0: clearly}) == 2.0
    assert suggestion._strongest({0.5: low, 2.0: hardly}) == 0.5
    assert suggestion._strongest({0.5: impossible, 2.0: low}) == 2.0


def test_it_is_the_same_every_time_and_sees_training_examples_alone() -> None:
    x = _inputs()
    dataset = _dataset((x[:, 0] > 0).astype(int), x)
    first = suggest_teacher(dataset, SMALL)
    dataset.validation.y.copy_(1 - dataset.validation.y)
    dataset.test.y.copy_(1 - dataset.test.y)
    again = suggest_teacher(dataset, SMALL)
    assert (first.scale, first.nll, first.guess_nll) == (again.scale, again.nll, again.guess_nll)


@pytest.mark.parametrize(("num", "steps"), [(10, 500), (5_000, 1_000), (60_000, 4_000)])
def test_steps_grow_with_the_examples(num: int, steps: int) -> None:
    assert suggestion._steps(num, 4_000) == steps
