"""Every registered target keeps the promises that ``gped_nas.testing`` checks."""

from collections.abc import Callable

import pytest
import torch

from gped_nas.targets.base import TARGETS, DerivedTarget, QuantileTarget, parse_targets
from gped_nas.targets.expectations import expect, expect_all
from gped_nas.targets.quantile import empirical_quantile
from gped_nas.testing.targets import TARGET_CHECKS, TargetCase


@pytest.mark.parametrize("check", TARGET_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_keeps_its_promises(name: str, check: Callable[[TargetCase], None]) -> None:
    check(TargetCase(name))


def test_derived_targets_equal_direct_computation_from_all_samples() -> None:
    case = TargetCase("variance")
    log_prob = case.samples
    share = case.weight / case.weight.sum()
    prob = log_prob.exp()
    mean = torch.einsum("s,sbc->bc", share, prob)
    variance = torch.einsum("s,sbc->bc", share, (prob - mean).square())
    information = torch.einsum("s,sbc->b", share, prob * (log_prob - mean.log()))[:, None]
    spread = (mean * (1 - mean)).sum(-1, keepdim=True)
    direct = {
        "variance": variance,
        "mutual_information": information,
        "dirichlet": mean * (spread / variance.sum(-1, keepdim=True) - 1),
    }
    for name, expected in direct.items():
        error = (expect(TARGETS[name], log_prob, case.weight) - expected).abs().max()
        assert error < 1e-12, name


@pytest.mark.parametrize("name", ["variance", "mutual_information", "dirichlet"])
def test_derived_values_of_a_student_are_never_negative(name: str) -> None:
    case = TargetCase(name)
    assert bool((case.layout.predict(case.raw())[name] >= 0).all())


def test_derived_values_of_samples_that_agree_are_not_negative_by_rounding() -> None:
    """What is averaged is kept in float32, where equal numbers differ by their rounding."""
    generator = torch.Generator().manual_seed(0)
    log_prob = torch.randn((1, 1000, 3), generator=generator).double().log_softmax(-1)
    means = ["predictive", "second_moment", "expected_entropy"]
    averages = expect_all(means, log_prob, torch.ones(1))
    rounded = {name: average.float() for name, average in averages.items()}

    for name in ("variance", "mutual_information"):
        target = TARGETS[name]
        assert isinstance(target, DerivedTarget)
        derived = target.derive(rounded)
        assert bool((derived >= 0).all()) and derived.max() < 1e-6, name


def test_quantiles_of_a_student_are_probabilities() -> None:
    case = TargetCase("quantile")
    target = case.target
    assert isinstance(target, QuantileTarget)
    raw = torch.randn((5000, 8), generator=torch.Generator().manual_seed(0))
    raw[:, 3::4] = -50  # nothing above the highest level: its quantile is 1, but for rounding
    quantiles = target.predict(raw, {})
    assert bool((quantiles >= 0).all()) and bool((quantiles <= 1).all())


def test_one_sample_with_all_the_weight_is_every_quantile() -> None:
    case = TargetCase("quantile")
    target = case.target
    assert isinstance(target, QuantileTarget)
    weight = torch.zeros(len(case.weight))
    weight[3] = 0.2
    values = target.values(case.samples)
    quantiles = empirical_quantile(values, weight, (0.1, 0.9)).unflatten(-1, (-1, 2))
    torch.testing.assert_close(quantiles, values[3][..., None].expand_as(quantiles))


def test_quantiles_of_a_student_that_can_fit_are_those_of_the_samples() -> None:
    """One input, 40 posterior samples: an ideal student's bounds are the empirical ones.

    The pinball gradient at level l vanishes between the order statistics around l: here at levels
    .2, .5, .9 of 40 samples between the 8th and 9th, 20th and 21st, 36th and 37th value, so the
    tolerance is that gap and a hundredth.
    """
    levels = (0.2, 0.5, 0.9)
    _, target = parse_targets(["predictive", {"name": "quantile", "levels": list(levels)}], "f")
    assert isinstance(target, QuantileTarget)
    generator = torch.Generator().manual_seed(0)
    values = torch.rand((40, 1, 2), generator=generator, dtype=torch.float64)
    raw = torch.zeros((1, target.num_outputs(2)), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 500)
        optimizer.zero_grad()
        target.loss(raw.expand(40, -1), {}, values[:, 0]).mean().backward()
        optimizer.step()

    predicted = target.predict(raw, {}).detach()[0].view(2, 3)
    empirical = empirical_quantile(values, torch.ones(40), levels)[0].view(2, 3)
    ordered = values[:, 0].sort(0).values.mT
    for c in range(2):
        for i, level in enumerate(levels):
            k = round(40 * level)
            low, high = ordered[c, k - 1], ordered[c, k]
            assert empirical[c, i] == low
            assert low - 0.01 < predicted[c, i] < high + 0.01
        assert (predicted[c].diff() > 0).all()
