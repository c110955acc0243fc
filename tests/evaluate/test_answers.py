"""What a posterior says of inputs, against plain loops over samples, inputs and classes."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from gped_nas import rng
from gped_nas.data.base import Normalization
from gped_nas.evaluate.answers import mixture_quantile, posterior_answers
from gped_nas.targets.base import resolve

NUM_SAMPLES, NUM_INPUTS, NUM_CLASSES = 7, 5, 3
WEIGHTS = torch.tensor([0.0, 2.0, 1.0, 1.0, 3.0, 0.5, 1.0], dtype=torch.float64)
UNIT = Normalization(150.0, 77.0)


def log_prob() -> torch.Tensor:
    generator = rng.generator(0, "answers", "classes")
    shape = (NUM_SAMPLES, NUM_INPUTS, NUM_CLASSES)
    return (3 * torch.randn(shape, generator=generator)).log_softmax(-1)


def normals() -> torch.Tensor:
    generator = rng.generator(0, "answers", "normals")
    mean = torch.randn((NUM_SAMPLES, NUM_INPUTS), generator=generator)
    variance = 0.1 + torch.rand((NUM_SAMPLES, NUM_INPUTS), generator=generator)
    return torch.stack([mean, variance], -1)


def slow_quantile(values: list[float], weights: list[float], level: float) -> float:
    """The least value that at least a share ``level`` of the weight does not exceed."""
    total = 0.0
    for value, weight in sorted(zip(values, weights, strict=True)):
        total += weight
        if total >= level * sum(weights) - 1e-12:
            return value
    raise AssertionError("the weights sum to less than themselves")


def excess_below(y: float, parts: list[tuple[float, float, float]], level: float) -> float:
    """How much of a mixture lies below ``y``, less ``level``."""
    return sum(w * 0.5 * math.erfc((m - y) / math.sqrt(2 * v)) for w, m, v in parts) - level


def entropy(probabilities: list[float]) -> float:
    return -sum(p * math.log(p) for p in probabilities)


def test_of_classes_it_is_what_loops_over_the_samples_say() -> None:
    answers = posterior_answers(log_prob(), WEIGHTS, credible=0.8)
    weights = (WEIGHTS / WEIGHTS.sum()).tolist()
    prob = log_prob().double().exp().tolist()

    for n in range(NUM_INPUTS):
        mean = [sum(w * p[n][c] for w, p in zip(weights, prob, strict=True)) for c in range(3)]
        expected = sum(w * entropy(p[n]) for w, p in zip(weights, prob, strict=True))
        assert answers["predictive"][n].tolist() == pytest.approx(mean, abs=1e-12)
        assert answers["entropy"][n].item() == pytest.approx(entropy(mean), abs=1e-12)
        assert answers["expected_entropy"][n].item() == pytest.approx(expected, abs=1e-12)
        information = entropy(mean) - expected
        assert answers["mutual_information"][n].item() == pytest.approx(information, abs=1e-12)

        for c in range(NUM_CLASSES):
            values = [p[n][c] for p in prob]
            low, high = slow_quantile(values, weights, 0.1), slow_quantile(values, weights, 0.9)
            assert answers["low"][n, c].item() == pytest.approx(low, abs=1e-12)
            assert answers["high"][n, c].item() == pytest.approx(high, abs=1e-12)


def test_of_a_real_label_it_is_what_loops_over_the_samples_say() -> None:
    answers = posterior_answers(normals(), WEIGHTS, credible=0.8, label_normalization=UNIT)
    weights = (WEIGHTS / WEIGHTS.sum()).double().tolist()
    samples = normals().double().tolist()

    for n in range(NUM_INPUTS):
        means = [150 + 77 * sample[n][0] for sample in samples]
        variances = [77**2 * sample[n][1] for sample in samples]
        mean = sum(w * m for w, m in zip(weights, means, strict=True))
        noise = sum(w * v for w, v in zip(weights, variances, strict=True))
        model = sum(w * (m - mean) ** 2 for w, m in zip(weights, means, strict=True))
        assert answers["predictive_normal"][n].tolist() == pytest.approx([mean, noise + model])
        assert answers["noise_variance"][n].item() == pytest.approx(noise)
        assert answers["model_variance"][n].item() == pytest.approx(model)

        for bound, level in (("low", 0.1), ("high", 0.9)):
            of_mean = slow_quantile(means, weights, level)
            assert answers[f"mean_{bound}"][n].item() == pytest.approx(of_mean)

            parts = list(zip(weights, means, variances, strict=True))
            of_label = brentq(excess_below, -1e4, 1e4, args=(parts, level), xtol=1e-10)
            assert answers[f"label_{bound}"][n].item() == pytest.approx(of_label, abs=1e-7)


def test_one_sample_has_no_spread() -> None:
    answers = posterior_answers(log_prob()[:1], torch.ones(1), credible=0.9)
    assert torch.equal(answers["low"], answers["high"])
    assert answers["mutual_information"].abs().max() < 1e-12

    real = posterior_answers(
        normals()[:1], torch.ones(1), credible=0.9, label_normalization=Normalization(0.0, 1.0)
    )
    assert real["model_variance"].abs().max() == 0
    # 90 % of a normal lie within 1.6448536 deviations of its mean
    half = (real["label_high"] - real["label_low"])[:, 0] / 2
    assert half.numpy() == pytest.approx(1.6448536 * normals()[0, :, 1].sqrt().numpy(), rel=1e-6)


def test_targets_of_the_space_come_along() -> None:
    targets = resolve(["predictive", "second_moment"])
    answers = posterior_answers(log_prob(), WEIGHTS, credible=0.9, targets=targets)
    second = (2 * log_prob().double()).exp()
    expected = torch.einsum("s,snc->nc", WEIGHTS.double() / WEIGHTS.sum(), second)
    assert answers["second_moment"].numpy() == pytest.approx(expected.numpy())
    assert set(answers) > {"variance", "dirichlet"}


def test_a_quantile_of_a_wide_mixture_is_found_to_the_last_digits() -> None:
    mean = torch.tensor([[-1e6], [1e6]], dtype=torch.float64)
    std = torch.full((2, 1), 1e-3, dtype=torch.float64)
    weight = torch.tensor([0.25, 0.75], dtype=torch.float64)
    found = mixture_quantile(mean, std, weight, 0.125)
    # half of the first part's weight lies below its mean
    assert np.allclose(found, -1e6, rtol=0, atol=1e-9)
