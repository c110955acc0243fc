"""Bundles: students of one family trained side by side on one batch, in one flat buffer.

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
from gped_nas.distill.certified import WorstLoss
from gped_nas.models.base import Family, Params, Shapes, num_params
from gped_nas.posterior.base import unflatten
from gped_nas.targets.base import Expectations

Loss = Callable[[Tensor, Expectations], Tensor]
"""Raw outputs (P, B, U), float32, and what the teacher says to losses (P,)."""

Forward = Callable[[Params, Tensor], Tensor]
"""Parameters and inputs (B, *input_shape) to raw outputs (B, U)."""

_ALIGNMENT = 16
"""Each student begins at a cache line: products of unaligned matrices are slower."""


@dataclass(frozen=True)
class Piece:
    """One parameter of one student in the flat buffers, rounded-up units included.

    Attributes:
        student: its index in the bundle.
        name: the parameter's name.
        cut: its numbers in the flat buffers.
        matrix: rows and columns of a weight that is not the last layer's; a filter is a row. None
            for all others.
    """

    student: int
    name: str
    cut: slice
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
        """Named views into a flat buffer (total,), one dictionary a student, in their order."""
        ...

    def pieces(self) -> Iterator[Piece]:
        """Every parameter of every student."""
        ...

    def compute(self, x: Tensor, expectations: Expectations) -> Tensor:
        """Losses (P,) on a batch of inputs (B, *input_shape).

        Their gradients are left in ``buffers.work_grad``.
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
        forwards: Sequence[Forward] = (),
        worst: WorstLoss | None = None,
    ) -> None:
        """Make buffers for students of these shapes, all zero.

        Args:
            family: whose forward pass all of them take.
            shapes: parameter shapes of each student, as it is trained.
            loss: raw outputs (P, B, U) and what the teacher says to losses (P,).
            dtype: what products are computed in.
            device: where the buffers lie.
            forwards: that of each student instead, where some are trained in a form of their own.
            worst: a bound of the loss in boxes, which is added; None adds none.
        """
        self.shapes = shapes
        self._forwards = forwards or [family.forward] * len(shapes)
        self._loss = loss
        self._worst = worst
        self._sizes = [align(num_params(shape)) for shape in shapes]
        self.buffers = Buffers(torch.zeros(sum(self._sizes), device=device), dtype)

        # autograd adds into gradients that are views of the flat one
        work_views = self.views(self.buffers.work)
        grad_views = self.views(self.buffers.work_grad)
        self._leaves: list[Params] = []
        for params, grads in zip(work_views, grad_views, strict=True):
            leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
            for name, leaf in leaves.items():
                leaf.grad = grads[name]
            self._leaves.append(leaves)

    def views(self, flat: Tensor) -> list[Params]:
        """See ``Bundle.views``."""
        views = []
        parts = torch.split(flat, self._sizes)
        for part, shapes in zip(parts, self.shapes, strict=True):
            unpadded = part[: num_params(shapes)]
            views.append(unflatten(unpadded, shapes))
        return views

    def pieces(self) -> Iterator[Piece]:
        """See ``Bundle.pieces``."""
        student_start = 0
        for student, shapes in enumerate(self.shapes):
            last_weight = [name for name, shape in shapes.items() if len(shape) > 1][-1]
            start = student_start
            for name, shape in shapes.items():
                cut = slice(start, start + prod(shape))
                is_matrix = len(shape) > 1 and name != last_weight
                matrix = (shape[0], prod(shape[1:])) if is_matrix else None
                yield Piece(student, name, cut, matrix)
                start = cut.stop
            student_start += self._sizes[student]

    def compute(self, x: Tensor, expectations: Expectations) -> Tensor:
        """See ``Bundle.compute``."""
        x = x.to(self.buffers.dtype)
        self.buffers.work_grad.zero_()

        students = zip(self._forwards, self._leaves, strict=True)
        raw_PBU = torch.stack([forward(params, x) for forward, params in students]).float()
        losses_P = self._loss(raw_PBU, expectations)
        if self._worst is not None:
            bounds = [self._worst(params, x, expectations) for params in self._leaves]
            losses_P = losses_P + torch.stack(bounds)
        # no loss reads another student, so that the sum's gradient is each one's own
        losses_P.sum().backward()  # type: ignore[no-untyped-call]
        return losses_P.detach()


def align(size: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT
