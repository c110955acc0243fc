"""An optimizer's update of a whole flat buffer in one launch."""

from math import log2

import torch
from torch import Tensor

from gped_nas.distill.buffers import Buffers
from gped_nas.distill.recipe import Recipe

_BLOCK = 1024
"""Numbers that a program updates."""
EPS = 1e-8


class AdamWUpdate:
    """AdamW (Loshchilov & Hutter 2019) of all numbers with one factor on the step size.

    It reads the gradients as a step leaves them and writes what the next step computes with, so
    that each number passes through the device once.
    """

    def __init__(
        self,
        buffers: Buffers,
        first: Tensor,
        second: Tensor,
        updates: Tensor,
        recipe: Recipe,
        *,
        factor: float,
    ) -> None:
        """Bind the buffers.

        Args:
            buffers: parameters and gradients (total,).
            first, second: the running moments (total,), float32.
            updates: how many updates there have been, this one included; a float32 scalar.
            recipe: the constants.
            factor: what the step size is multiplied by.
        """
        self._buffers = buffers
        self._first, self._second, self._updates = first, second, updates
        self._recipe, self._factor = recipe, factor

    def __call__(self, lr: Tensor) -> None:
        """One update with step size ``lr``, a float32 scalar on the device."""
        from gped_nas.distill.phases import programs

        buffers, recipe = self._buffers, self._recipe
        size = buffers.theta.numel()
        programs.adamw[(-(-size // _BLOCK),)](
            buffers.theta,
            self._first,
            self._second,
            buffers.work_grad,
            buffers.work,
            lr,
            self._updates,
            size,
            self._factor,
            recipe.beta1,
            recipe.beta2,
            # of a decay of zero: 2 to minus a large number is zero
            log2(recipe.beta1) if recipe.beta1 else -1e4,
            log2(recipe.beta2) if recipe.beta2 else -1e4,
            recipe.weight_decay,
            EPS,
            HAS_WORK=buffers.dtype != torch.float32,
            BLOCK=_BLOCK,
        )
