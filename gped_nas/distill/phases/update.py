"""What is done to a whole flat buffer in one launch: optimizers' updates, and the proximal step.

An update reads the gradients as a step leaves them and writes what the next step computes with, so
that each number passes through the device once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2, sqrt

import torch
from torch import Tensor

from gped_nas.distill.buffers import Buffers
from gped_nas.distill.bundle import Bundle
from gped_nas.distill.pruning import NEWTON_STEPS
from gped_nas.distill.recipe import Recipe

_BLOCK = 1024
"""Numbers that a program updates."""
_SHARED = 16
"""Neighbors that have one factor: a student begins at a multiple of it."""
_UNITS, _COLUMNS = 16, 128
"""Units that a program shrinks, and how many of their numbers at a time."""
EPS = 1e-8


def factor_table(bundle: Bundle, factors: Sequence[float]) -> Tensor:
    """What step sizes are multiplied by: (total / 16,), float32, on the bundle's device.

    Args:
        bundle: whose students these are.
        factors: one a student.
    """
    theta = bundle.buffers.theta
    table = torch.ones(-(-len(theta) // _SHARED))
    for piece in bundle.pieces():
        table[piece.cut.start // _SHARED : -(-piece.cut.stop // _SHARED)] = factors[piece.student]
    return table.to(theta.device)


class AdamWUpdate:
    """AdamW (Loshchilov & Hutter 2019) of all numbers."""

    def __init__(
        self,
        buffers: Buffers,
        first: Tensor,
        second: Tensor,
        updates: Tensor,
        recipe: Recipe,
        factors: Tensor,
    ) -> None:
        """Bind the buffers.

        Args:
            buffers: parameters and gradients (total,).
            first, second: the running moments (total,), float32.
            updates: how many updates there have been, this one included; a float32 scalar.
            recipe: the constants.
            factors: see ``factor_table``.
        """
        self._buffers = buffers
        self._first, self._second, self._updates = first, second, updates
        self._recipe, self._factors = recipe, factors

    def __call__(self, lr: Tensor) -> None:
        """One update with step size ``lr``, a float32 scalar on the device."""
        from gped_nas.distill.phases import update_programs

        buffers, recipe = self._buffers, self._recipe
        size = buffers.theta.numel()
        update_programs.adamw[(-(-size // _BLOCK),)](
            buffers.theta,
            self._first,
            self._second,
            buffers.work_grad,
            buffers.work,
            lr,
            self._factors,
            self._updates,
            size,
            recipe.beta1,
            recipe.beta2,
            _log2(recipe.beta1),
            _log2(recipe.beta2),
            recipe.weight_decay,
            EPS,
            HAS_WORK=buffers.dtype != torch.float32,
            BLOCK=_BLOCK,
        )


class SgdUpdate:
    """Nesterov's momentum of all numbers, as ``torch.optim.SGD`` has it."""

    def __init__(self, buffers: Buffers, momentum: Tensor, recipe: Recipe, factors: Tensor) -> None:
        """Bind the buffers.

        Args:
            buffers: parameters and gradients (total,).
            momentum: running sums of the gradients (total,), float32.
            recipe: the constants.
            factors: see ``factor_table``.
        """
        self._buffers, self._momentum = buffers, momentum
        self._recipe, self._factors = recipe, factors

    def __call__(self, lr: Tensor) -> None:
        """One update with step size ``lr``, a float32 scalar on the device."""
        from gped_nas.distill.phases import update_programs

        buffers, recipe = self._buffers, self._recipe
        size = buffers.theta.numel()
        update_programs.sgd[(-(-size // _BLOCK),)](
            buffers.theta,
            self._momentum,
            buffers.work_grad,
            buffers.work,
            lr,
            self._factors,
            size,
            recipe.momentum,
            recipe.weight_decay,
            HAS_MOMENTUM=recipe.momentum > 0,
            HAS_WORK=buffers.dtype != torch.float32,
            BLOCK=_BLOCK,
        )


@dataclass(frozen=True, eq=False)
class PenalizedUnits:
    """Units of a layer under a penalty.

    Attributes:
        weight: a view of the flat masters, (units, ...); each unit's numbers lie side by side.
        penalty: lambda, times the student's factor on step sizes.
    """

    weight: Tensor
    penalty: float

    @property
    def is_in_rows(self) -> bool:
        """Whether each unit's numbers lie side by side."""
        return self.weight[:1].is_contiguous()


class Shrinking:
    """The proximal step of the group lasso (``pruning.py``) of all units that have a penalty."""

    def __init__(
        self,
        buffers: Buffers,
        penalized: Sequence[PenalizedUnits],
        recipe: Recipe,
        *,
        second: Tensor | None,
        updates: Tensor,
    ) -> None:
        """Make the table of units.

        Args:
            buffers: parameters (total,).
            penalized: layers of students; at least one.
            recipe: the optimizer's constants.
            second: AdamW's second moment (total,); None of SGD.
            updates: how many updates there have been, a float32 scalar on the device.
        """
        self._buffers, self._second, self._updates = buffers, second, updates
        self._recipe = recipe
        # in the long run a gradient moves its number by lr / (1 - momentum)
        diagonal = 1.0 if second is not None else 1 / (1 - recipe.momentum)

        rows, thresholds = [], []
        for units in penalized:
            weight = units.weight
            num_units, num_columns = len(weight), weight[0].numel()
            for unit in range(0, num_units, _UNITS):
                start = weight.storage_offset() + unit * weight.stride(0)
                rows.append((start, min(_UNITS, num_units - unit), num_columns, weight.stride(0)))
                thresholds.append(units.penalty * sqrt(num_columns) * diagonal)
        device = buffers.theta.device
        self._rows = torch.tensor(rows, dtype=torch.int32, device=device)
        self._thresholds = torch.tensor(thresholds, device=device)

    def __call__(self, lr_sum: float) -> None:
        """The proximal step over step sizes of this sum."""
        from gped_nas.distill.phases import update_programs

        buffers = self._buffers
        update_programs.shrink[(len(self._rows),)](
            self._rows,
            self._thresholds,
            buffers.theta,
            buffers.theta if self._second is None else self._second,
            buffers.work,
            self._updates,
            lr_sum,
            _log2(self._recipe.beta2),
            EPS,
            IS_ADAPTIVE=self._second is not None,
            NEWTON_STEPS=NEWTON_STEPS,
            HAS_WORK=buffers.dtype != torch.float32,
            BM=_UNITS,
            BN=_COLUMNS,
        )


def _log2(beta: float) -> float:
    """Of a decay of zero a large negative number: 2 to it is zero."""
    return log2(beta) if beta else -1e4
