"""Activations between two lines: bounds of each unit that are linear in its sum.

The lines of a ReLU are CROWN's: above the chord, below zero or the sum itself, whichever leaves the
smaller area. A slope may be any number; it is the shift that makes a line a bound, so shifts are
computed from the rounded slopes and rounded outward.

Source: Zhang et al. 2018, arXiv:1811.00866, section 3.2, table 2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.evaluate.certify.rounding import UNIT

_OUTWARD = 1 + 8 * UNIT


@dataclass(frozen=True, eq=False)
class Relaxation:
    """``low_slope s + low_shift <= f(s) <= high_slope s + high_shift`` for sums s of a range.

    All are of the units' shape, (B, *shape).
    """

    low_slope: Tensor
    low_shift: Tensor
    high_slope: Tensor
    high_shift: Tensor


def relax_relu(low: Tensor, high: Tensor) -> Relaxation:
    """The lines of ``max(s, 0)`` for sums from ``low`` to ``high``."""
    is_on = low >= 0
    is_off = high <= 0
    is_unstable = ~is_on & ~is_off

    chord = torch.where(is_unstable, high / (high - low), is_on.to(low)).clamp(0, 1)
    # a chord lies above a convex function if it does at both ends
    shift = torch.maximum(-chord * low, (1 - chord) * high) * _OUTWARD
    zero = torch.zeros_like(low)
    return Relaxation(
        low_slope=torch.where(is_unstable, (high > -low).to(low), is_on.to(low)),
        low_shift=zero,
        high_slope=chord,
        high_shift=torch.where(is_unstable, shift, zero),
    )


RELAXATIONS: dict[str, Callable[[Tensor, Tensor], Relaxation]] = {"relu": relax_relu}
"""By the activation's name: those that have bounds."""
