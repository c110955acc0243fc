"""How much of a normal law lies in a union of boxes: a lower bound, as a logarithm.

Coordinates are independent and standard normal, so that a box [l, u] holds the product of
``Phi(u_j) - Phi(l_j)``. Boxes in many coordinates hold next to nothing: one of two deviations to
each side holds 10^-2058 in 101,770 coordinates. So everything is a logarithm, with tails by the
scaled complementary error function, and each logarithm comes with its rounding on either side.

Boxes overlap. In the order of their masses, box i adds at least what it holds less what it shares
with each one before it, or nothing:

    P(union) >= sum_i max(0, P(B_i) - sum_(j < i) P(B_i and B_j))

This is the sum of the masses where boxes are disjoint, never less than the largest mass, and never
less than Bonferroni's two terms, which end with a subtracted one.

A product over coordinates of the mass of their merged intervals is no bound: it counts combinations
of the coordinates of different boxes, which nobody verified.

Source: Wicker, Laurenti, Patane & Kwiatkowska 2020, arXiv:2004.10281, proposition 3, for boxes that
are disjoint. Their code multiplies merged intervals: 1,250 boxes of two deviations around draws in
101,770 coordinates make .964 of it, whatever the network.
"""

import math

import torch
from torch import Tensor

from gped_nas.evaluate.certify.rounding import UNIT, gamma

_FUNCTION_ERROR = 32 * UNIT
"""Relative error of erf, erfc, exp and log in float64, with a margin."""
_NEGLIGIBLE = 40.0
"""Nats below the largest box, from which on boxes are left out."""
_MOST_BOXES = 128


def log10_of_union(low_JD: Tensor, high_JD: Tensor) -> float:
    """Lower bound of log10 of the mass of a union of J boxes; minus infinity of none.

    Args:
        low_JD, high_JD: the boxes' ends, in deviations from the mean; they may be infinite.
    """
    if not len(low_JD):
        return -math.inf

    lower_J = torch.stack(
        [log_mass(low, high)[0] for low, high in zip(low_JD, high_JD, strict=True)]
    )
    order = lower_J.argsort(descending=True)[:_MOST_BOXES]
    largest = float(lower_J[order[0]])
    if largest == -math.inf:
        return -math.inf
    # to leave a box out makes a union smaller, and the bound with it
    kept = [int(i) for i in order if float(lower_J[i]) > largest - _NEGLIGIBLE]

    total = 0.0
    for place, i in enumerate(kept):
        added = math.exp(float(lower_J[i]) - largest) * (1 - _FUNCTION_ERROR)
        for j in kept[:place]:
            low_D = torch.maximum(low_JD[i], low_JD[j])
            high_D = torch.minimum(high_JD[i], high_JD[j])
            if bool((low_D < high_D).all()):
                shared = float(log_mass(low_D, high_D)[1])
                added -= math.exp(shared - largest) * (1 + _FUNCTION_ERROR)
        total += max(0.0, added)
    slack = gamma(len(kept) ** 2 + 8, UNIT)
    return (largest + math.log(total * (1 - slack))) / math.log(10) - abs(largest) * 4 * UNIT


def log_mass(low_D: Tensor, high_D: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of the logarithm of a box's mass, each a scalar, nats.

    Args:
        low_D, high_D: its ends, in deviations from the mean, float64.
    """
    lower_D, upper_D = _log_masses(low_D.double(), high_D.double())
    lower, upper = lower_D.sum(), upper_D.sum()
    slack = gamma(len(low_D) + 2, UNIT)
    return lower + lower * slack, (upper - upper * slack).clamp(max=0.0)


def _log_masses(low_D: Tensor, high_D: Tensor) -> tuple[Tensor, Tensor]:
    """Both bounds of each coordinate's logarithm, all at most 0."""
    # the law is symmetric: of a tail the lower one, where ends are negative
    is_upper = low_D > 0
    left = torch.where(is_upper, -high_D, low_D)
    right = torch.where(is_upper, -low_D, high_D)

    lower, upper = torch.empty_like(left), torch.empty_like(left)
    is_tail = right < 0
    lower[is_tail], upper[is_tail] = _of_tail(left[is_tail], right[is_tail])
    lower[~is_tail], upper[~is_tail] = _of_middle(left[~is_tail], right[~is_tail])
    return lower.clamp(max=0.0), upper.clamp(max=0.0)


def _of_middle(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Where the mean lies between the ends: two halves of one sign."""
    halves = torch.erf(right * math.sqrt(0.5)) + torch.erf(-left * math.sqrt(0.5))
    mass = (halves / 2).clamp(max=1.0)
    return (mass * (1 - _FUNCTION_ERROR)).log(), (mass * (1 + _FUNCTION_ERROR)).log()


def _of_tail(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Of ends that are both negative.

    ``Phi(r) - Phi(l)`` is ``exp(-r^2 / 2) / 2`` times the difference of the scaled functions at
    both ends, the farther one times ``exp((r^2 - l^2) / 2)``.
    """
    near = torch.special.erfcx(-right * math.sqrt(0.5))
    far = torch.special.erfcx(-left * math.sqrt(0.5))
    far = torch.where(left.isinf(), 0.0, far * ((right - left) * (right + left) / 2).exp())
    difference = near - far
    # the exponential of a product that is large has an error of its size, and is small
    error = 2 * _FUNCTION_ERROR * near
    outer = -right.square() / 2 - math.log(2)
    lower = (difference - error).clamp(min=0.0).log() + outer * (1 + 8 * UNIT)
    upper = (difference + error).log() + outer * (1 - 8 * UNIT)
    return lower, upper
