"""Bundles: students of one family trained side by side on one batch, with their numbers in one flat
buffer.

A bundle computes losses and gradients; what is done with these is the optimizer's. Two kinds:
``FusedMlp`` (see ``fused_mlp.py``) computes the layers of many students together and its own
backward pass; ``InTurn``, here, takes students of any family one after the other through autograd.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from gped_nas.distill.buffers import Buffers
from gped_nas.models.base import Family, Params, Shapes, num_params
from gped_nas.posterior.base import unflatten
from gped_nas.targets.base import Expectations

Loss = Callable[[Tensor, Expectations], Tensor]
"""Raw outputs (P, B, U), float32, and what the teacher says to losses (P,)."""

_ALIGNMENT = 16
"""Each student begins at a multiple of so many numbers, a cache line: products of unaligned
matrices are slower.
"""


@dataclass(frozen=True)
class Piece:
    """One parameter of one student in the flat buffers, rounded-up units included.

    Attributes:
        student: place in the bundle.
        name: the parameter's name.
        where: its numbers.
        matrix: rows and columns of a weight that is not the last layer's; a filter is a row. None
            for all others.
    """

    student: int
    name: str
    where: slice
    matrix: tuple[int, int] | None


class Bundle(Protocol):
    """Students of one family trained side by side.

    Attributes:
        buffers: their parameters and gradients.
        shapes: parameter shapes of each student, in the order of the bundle.
    """

    buffers: Buffers
    shapes: Sequence[Shapes]

    def views(self, flat: Tensor) -> list[Params]:
        """Named views of each student's numbers into a flat buffer (total,), in the order of the
        bundle.
        """
        ...

    def pieces(self) -> Iterator[Piece]:
        """Every parameter of every student."""
        ...

    def compute(self, x: Tensor, expectations: Expectations) -> Tensor:
        """Losses (P,) on a batch of inputs (B, *input_shape); their gradients are left in
        ``buffers.work_grad``.
        """
        ...


class InTurn:
    """Students of any family, one after the other through autograd."""

    def __init__(
        self,
        family: Family,
        shapes: Sequence[Shapes],
        loss: Loss,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Buffers for students of these shapes, all zero."""
        self.shapes = shapes
        self._forward, self._loss = family.forward, loss
        self._sizes = [_aligned(num_params(shape)) for shape in shapes]
        self.buffers = Buffers(torch.zeros(sum(self._sizes), device=device), dtype)
        self._leaves: list[Params] = []
        for own, grads in zip(
            self.views(self.buffers.work), self.views(self.buffers.work_grad), strict=True
        ):
            leaves = {name: value.detach().requires_grad_() for name, value in own.items()}
            for name, leaf in leaves.items():
                leaf.grad = grads[name]
            self._leaves.append(leaves)

    def views(self, flat: Tensor) -> list[Params]:
        """See ``Bundle.views``."""
        parts = flat.split(self._sizes)  # type: ignore[no-untyped-call]
        return [
            unflatten(part[: num_params(own)], own)
            for part, own in zip(parts, self.shapes, strict=True)
        ]

    def pieces(self) -> Iterator[Piece]:
        """See ``Bundle.pieces``."""
        start = 0
        for student, (own, size) in enumerate(zip(self.shapes, self._sizes, strict=True)):
            last = [name for name, shape in own.items() if len(shape) > 1][-1]
            offset = start
            for name, shape in own.items():
                where = slice(offset, offset + prod(shape))
                is_matrix = len(shape) > 1 and name != last
                yield Piece(
                    student, name, where, (shape[0], prod(shape[1:])) if is_matrix else None
                )
                offset = where.stop
            start += size

    def compute(self, x: Tensor, expectations: Expectations) -> Tensor:
        """See ``Bundle.compute``."""
        x = x.to(self.buffers.dtype)
        self.buffers.work_grad.zero_()
        raw_PBU = torch.stack([self._forward(own, x) for own in self._leaves]).float()
        losses_P = self._loss(raw_PBU, expectations)
        losses_P.sum().backward()  # type: ignore[no-untyped-call]
        return losses_P.detach()


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
