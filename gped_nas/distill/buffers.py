"""Flat buffers of a bundle of students: parameters, gradients, and what a step computes with.

Master parameters are float32, and so is every gradient that an optimizer sees. Where a step
computes in bfloat16 it reads a shadow of the parameters and leaves its gradients in another; in
float32 both are the masters themselves, so that nothing is copied. An update goes block by block: a
bfloat16 gradient is brought to float32, used, and the shadow renewed, while these numbers lie in
the core's cache. In one pass after the other each would come from memory anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_BLOCK = 2**17
"""Numbers of a block: half a megabyte of float32, which stays in a core's second cache."""


@dataclass(eq=False)
class Buffers:
    """Parameters and gradients of students trained side by side, one number after the other.

    Attributes:
        theta: float32 master parameters (total,).
        dtype: what a step computes in.
        work: parameters in ``dtype``; ``theta`` itself where that is float32.
        work_grad: gradients in ``dtype``.
    """

    theta: Tensor
    dtype: torch.dtype
    work: Tensor = field(init=False)
    work_grad: Tensor = field(init=False)
    _scratch: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.work = self.theta if self._is_full else self.theta.to(self.dtype)
        self.work_grad = torch.zeros_like(self.work)
        # a GPU has no cache to keep a block in: its blocks are whole
        is_in_blocks = self.theta.device.type == "cpu" and not self._is_full
        self._size = _BLOCK if is_in_blocks else self.theta.numel()
        self._scratch = self.theta.new_empty(0 if self._is_full else self._size)

    @property
    def _is_full(self) -> bool:
        return self.dtype == torch.float32

    def refresh(self) -> None:
        """Bring parameters that were changed from outside into ``work``."""
        if not self._is_full:
            self.work.copy_(self.theta)

    def blocks(self, cuts: Sequence[slice], factors: Tensor | None = None) -> list["Block"]:
        """Blocks that cover these parts of the buffers, to be updated one after the other.

        Args:
            cuts: where they lie.
            factors: what each number's step is multiplied by, (total,); nothing by default.
        """
        parts: list[list[slice]] = []
        room = 0  # numbers that still fit into the last block

        for cut in cuts:
            start = cut.start
            while start < cut.stop:
                if room == 0:
                    parts.append([])
                    room = self._size
                stop = min(cut.stop, start + room)
                parts[-1].append(slice(start, stop))
                room -= stop - start
                start = stop

        return [self._make_block(part, factors) for part in parts]

    def _make_block(self, cuts: list[slice], factors: Tensor | None) -> "Block":
        params = [self.theta[cut] for cut in cuts]
        work_grads = [self.work_grad[cut] for cut in cuts]

        scaled: list[tuple[Tensor, Tensor, Tensor]] = []
        if factors is not None:
            for param, cut in zip(params, cuts, strict=True):
                scaled.append((param, factors[cut], torch.empty_like(param)))

        # a step computes with the masters themselves: there is nothing to copy
        if self._is_full:
            return Block(cuts, params, work_grads, scaled, (), ())

        # all blocks share one scratch: gradients are valid until the next block collects its own
        sizes = [param.numel() for param in params]
        grads = list(torch.split(self._scratch[: sum(sizes)], sizes))
        works = [self.work[cut] for cut in cuts]
        collected = list(zip(grads, work_grads, strict=True))
        refreshed = list(zip(works, params, strict=True))
        return Block(cuts, params, grads, scaled, collected, refreshed)


@dataclass(frozen=True, eq=False)
class Block:
    """Parts of the buffers that one call updates.

    Attributes:
        cuts: where they lie.
        params: master parameters of each.
        grads: float32 gradients of each, valid after ``collect`` and until another block's.
    """

    cuts: Sequence[slice]
    params: list[Tensor]
    grads: list[Tensor]
    _scaled: Sequence[tuple[Tensor, Tensor, Tensor]]
    _collected: Sequence[tuple[Tensor, Tensor]]
    _refreshed: Sequence[tuple[Tensor, Tensor]]

    def collect(self) -> None:
        """Copy the gradients of a step to ``grads``, and keep what a scaled step begins from."""
        for grad, work_grad in self._collected:
            grad.copy_(work_grad)
        for param, _, before in self._scaled:
            before.copy_(param)

    def refresh(self) -> None:
        """Scale the step of an update, and copy its result to what the next step computes with."""
        for param, factor, before in self._scaled:
            torch.lerp(before, param, factor, out=param)
        for work, param in self._refreshed:
            work.copy_(param)
