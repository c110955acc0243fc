"""Masses of unions of boxes: never above the truth, and never the product of merged intervals."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from gped_nas import rng
from gped_nas.evaluate.certify.masses import log10_of_union, log_mass

INF = math.inf
WEIGHTS = 101_770
"""Of a network 784-128-10, the paper's."""


def ends(*boxes: list[list[float]]) -> tuple[Tensor, Tensor]:
    """Boxes, each ``[[low, high], ...]`` a coordinate."""
    both = torch.tensor(boxes, dtype=torch.float64)
    return both[..., 0], both[..., 1]


def union_of(low_JD: Tensor, high_JD: Tensor) -> float:
    """The mass of a union, cell by cell of the grid of all ends."""
    axes = []
    for low_J, high_J in zip(low_JD.T, high_JD.T, strict=True):
        axes.append(np.unique(np.concatenate([low_J.numpy(), high_J.numpy()])))
    total = 0.0
    for cell in itertools.product(*[range(len(axis) - 1) for axis in axes]):
        low = np.array([axis[i] for axis, i in zip(axes, cell, strict=True)])
        high = np.array([axis[i + 1] for axis, i in zip(axes, cell, strict=True)])
        inside = (low_JD.numpy() <= low) & (high <= high_JD.numpy())
        if inside.all(1).any():
            total += float(np.prod(norm.cdf(high) - norm.cdf(low)))
    return total


def merged(low_JD: Tensor, high_JD: Tensor) -> float:
    """The published number: a product of the mass of merged intervals, coordinate by coordinate."""
    total = 1.0
    for low_J, high_J in zip(low_JD.T, high_JD.T, strict=True):
        total *= union_of(low_J[:, None], high_J[:, None])
    return total


def test_disjoint_boxes_add_up() -> None:
    """(.84134 - .5)^2 + (.99865 - .97725)^2 = .116974."""
    low, high = ends([[0, 1], [0, 1]], [[2, 3], [2, 3]])
    assert 10 ** log10_of_union(low, high) == pytest.approx(0.116974, abs=5e-7)
    assert 10 ** log10_of_union(low, high) <= union_of(low, high)
    assert merged(low, high) > 1.1 * union_of(low, high)


def test_what_two_boxes_share_counts_once() -> None:
    """.68269^2 + .47725^2 - .34134^2 = .577316."""
    low, high = ends([[-1, 1], [-1, 1]], [[0, 2], [0, 2]])
    assert 10 ** log10_of_union(low, high) == pytest.approx(0.577316, abs=5e-7)
    assert 10 ** log10_of_union(low, high) <= union_of(low, high)
    assert merged(low, high) == pytest.approx((norm.cdf(2) - norm.cdf(-1)) ** 2)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_union_is_never_below_its_bound(dims: int, seed: int) -> None:
    generator = rng.generator(seed, "boxes", dims)
    center = torch.randn(5, dims, generator=generator, dtype=torch.float64)
    reach = torch.rand(5, dims, generator=generator, dtype=torch.float64) + 0.2
    low, high = center - reach, center + reach
    bound, truth = 10 ** log10_of_union(low, high), union_of(low, high)
    assert bound <= truth

    masses = np.prod(norm.cdf(high.numpy()) - norm.cdf(low.numpy()), axis=1)
    shared = 0.0
    for i, j in itertools.combinations(range(5), 2):
        pair = norm.cdf(torch.minimum(high[i], high[j])) - norm.cdf(torch.maximum(low[i], low[j]))
        shared += float(np.prod(np.maximum(pair, 0.0)))
    assert bound >= max(masses.max(), masses.sum() - shared) * (1 - 1e-9)


def test_the_same_box_twice_is_one_box() -> None:
    low, high = ends(*[[[-1, 0.5], [0, 2]]] * 3)
    (one,) = {round(log10_of_union(low[:num], high[:num]), 12) for num in (1, 2, 3)}
    assert 10**one == pytest.approx(union_of(low, high))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (30.0, 31.0, norm.logsf(30) + math.log1p(-math.exp(norm.logsf(31) - norm.logsf(30)))),
        (-INF, -40.0, norm.logcdf(-40)),
        (5.0, INF, norm.logsf(5)),
        (-1.0, 2.0, math.log(norm.cdf(2) - norm.cdf(-1))),
        (-INF, INF, 0.0),
        (-1e-9, 1e-9, math.log(2e-9 * norm.pdf(0))),
        (8.0, 8.0 + 1e-6, math.log(1e-6) + norm.logpdf(8.0 + 5e-7)),
        (-12.0, 12.0, -2 * norm.sf(12)),
    ],
)
def test_tails_are_accurate_between_their_ends(low: float, high: float, expected: float) -> None:
    lower, upper = log_mass(*ends([[low, high]])[0], *ends([[low, high]])[1])
    assert float(lower) <= expected + 1e-12 * abs(expected)
    assert float(upper) >= expected - 1e-12 * abs(expected)
    assert float(upper - lower) <= 1e-8 * max(1.0, abs(expected))


def test_boxes_that_hold_nothing_are_nothing() -> None:
    nothing = torch.empty(0, 3, dtype=torch.float64)
    assert log10_of_union(nothing, nothing) == -INF
    assert log10_of_union(*ends([[1.0, 1.0]])) == -INF


def test_a_box_of_two_deviations_holds_next_to_nothing_of_a_network() -> None:
    """The centered one e^-4739, which rounding to 0 or .964 would both hide."""
    ones = torch.ones(1, WEIGHTS, dtype=torch.float64)
    centered = log10_of_union(-2 * ones, 2 * ones)
    assert centered == pytest.approx(WEIGHTS * math.log10(norm.cdf(2) - norm.cdf(-2)), rel=1e-9)
    assert centered < -2058

    draws = torch.randn(20, WEIGHTS, generator=rng.generator(0, "draws"), dtype=torch.float64)
    assert -10_000 < log10_of_union(draws - 2, draws + 2) < centered


@pytest.mark.soak
def test_1250_boxes_of_two_deviations_hold_next_to_nothing_of_a_network() -> None:
    """Their merged intervals make .964 of the law of 101,770 weights: see ``merged``.

    No box around a draw holds more than the centered one, so that 1,250 of them hold less than 1250
    e^-4739.
    """
    generator = rng.generator(0, "1250 draws")
    draws = torch.randn(1250, WEIGHTS, generator=generator, dtype=torch.float64)
    assert log10_of_union(draws - 2, draws + 2) < -2058 + math.log10(1250)

    # what lies between neighbors more than four deviations apart, and beyond the outer ones
    ordered = draws.sort(0).values
    gap_low, gap_high = ordered[:-1] + 2, ordered[1:] - 2
    gaps = (torch.special.ndtr(gap_high) - torch.special.ndtr(gap_low)).clamp(min=0).sum(0)
    outside = torch.special.ndtr(ordered[0] - 2) + torch.special.ndtr(-ordered[-1] - 2) + gaps
    assert float(torch.log1p(-outside).sum().exp()) == pytest.approx(0.964, abs=0.003)
