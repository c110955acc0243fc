"""Chains of dense layers of many widths and depths, trained by two walks over tiles a step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.distill.bundle import Loss
from gped_nas.distill.centering import Centers
from gped_nas.distill.fused_mlp import FusedMlp
from gped_nas.distill.phases.launch import Launch, Operands, Table, walk
from gped_nas.distill.phases.tiles import DenseLayer, Sizes, walks_of
from gped_nas.models.base import Shapes
from gped_nas.models.dense import Chain
from gped_nas.targets.base import Expectations

ROUNDING = 16
"""Inputs, units and raw outputs are rounded up to it: what a product on a GPU takes at least."""


SMALL, LARGE = Launch(), Launch(Sizes(64, 128))
"""The fastest of nine on an H200 for 8 students, and for 32 to 256 (``docs/kernel.md``)."""
FULL = Launch(depth=32)
"""Of float32: a processor of capability 8.0 has no registers for more."""
_FEW_TILES = 512
"""Forward tiles below which more and smaller ones keep the device busier."""


@dataclass(eq=False)
class _Step:
    """Buffers and tables for one batch size.

    Attributes:
        batch_size: B.
        launch: how the walks are launched.
        operands: what tiles read and write; of activations, inputs come first.
        raw, raw_gradient: views (P, U, B) of the raw outputs and of the gradient by them.
        forward, backward: the two walks.
    """

    batch_size: int
    launch: Launch
    operands: Operands
    raw: Tensor
    raw_gradient: Tensor
    forward: Table
    backward: Table


class PhasedMlp(FusedMlp):
    """The students of ``FusedMlp``, in its layout of parameters, with every size rounded up."""

    def __init__(
        self,
        shapes: Sequence[Shapes],
        chains: Sequence[Chain],
        loss: Loss,
        *,
        dtype: torch.dtype,
        device: torch.device,
        centers: Sequence[Centers] = (),
        launch: Launch | None = None,
    ) -> None:
        """Make buffers for students of these shapes, all zero; see ``FusedMlp``.

        Args:
            shapes, chains, loss, dtype, device, centers: see ``FusedMlp``.
            launch: how the walks are launched; chosen by the population's size by default.
        """
        super().__init__(
            shapes,
            chains,
            loss,
            dtype=dtype,
            device=device,
            round_to=ROUNDING,
            centers=centers,
            rounds_ends=True,
        )
        first_weight, last_weight = chains[0][0][0], chains[0][-1][0]
        self._num_inputs = shapes[0][first_weight][1]
        self._num_outputs = shapes[0][last_weight][0]
        self._launch = launch
        self._step: _Step | None = None

    @torch.no_grad()
    def compute(self, x: Tensor, expectations: Expectations) -> Tensor:
        """See ``Bundle.compute``."""
        if self._step is None or self._step.batch_size != len(x):
            self._step = self._make_step(len(x))
        step = self._step
        # one copy rounds the inputs and turns them
        step.operands.read[: self._num_inputs, : len(x)].copy_(x.flatten(1).t())

        walk(step.forward, step.operands, step.launch)
        losses_P = self._loss_of(step, expectations)
        walk(step.backward, step.operands, step.launch)
        return losses_P

    def _loss_of(self, step: _Step, expectations: Expectations) -> Tensor:
        """Losses (P,); the gradient of their sum by the raw outputs is left in the step."""
        raw_PUB = step.raw.to(torch.float32, copy=True).requires_grad_()
        # in the layout of the raw outputs: autograd would copy where layouts differ
        expectations = {name: value.mT.contiguous().mT for name, value in expectations.items()}

        with torch.enable_grad():
            losses_P = self._loss(raw_PUB.mT, expectations)
            (gradient_PUB,) = torch.autograd.grad(losses_P, raw_PUB, torch.ones_like(losses_P))
        step.raw_gradient.copy_(gradient_PUB)
        return losses_P.detach()

    # ---------------------------------------------------------------------------------------------
    # buffers and tables

    def _make_step(self, batch_size: int) -> _Step:
        """Buffers and tables for batches of this size."""
        students, num_rows = self._layers()
        num_columns = -(-batch_size // ROUNDING) * ROUNDING
        launch = self._launch or self._choose_launch(students, num_columns)

        read = self.buffers.work.new_zeros((num_rows, num_columns))
        output = torch.zeros_like(read) if self._centers else read
        gradient = torch.zeros_like(read)

        centers = self._centers_of_rows(num_rows)
        buffers = self.buffers

        walks = walks_of(students, num_columns, launch.sizes)
        device = read.device
        return _Step(
            batch_size,
            launch,
            Operands(read, output, gradient, centers, buffers.work, buffers.work_grad),
            self._raw(output, batch_size),
            self._raw(gradient, batch_size),
            Table.of(walks.forward, walks.num_slots, device),
            Table.of(walks.backward, walks.num_slots, device),
        )

    def _choose_launch(self, students: Sequence[Sequence[DenseLayer]], num_columns: int) -> Launch:
        """Large tiles where there are many; not in float32, which takes more registers."""
        if self.buffers.dtype == torch.float32:
            return FULL
        num_tiles = len(walks_of(students, num_columns, SMALL.sizes).forward)
        return SMALL if num_tiles < _FEW_TILES else LARGE

    def _raw(self, activations: Tensor, batch_size: int) -> Tensor:
        """The raw outputs' part (P, U, B) of a buffer of activations; they are its last rows."""
        num_students, rows = len(self.shapes), self._sizes[0][-1]
        last = activations[-num_students * rows :].view(num_students, rows, -1)
        return last[:, : self._num_outputs, :batch_size]

    def _centers_of_rows(self, num_rows: int) -> Tensor:
        """What is taken off each row of activations: nothing off inputs and raw outputs."""
        centers = self.buffers.work.new_zeros(num_rows)
        start = self._sizes[0][0]
        for level in self._centers:
            centers[start : start + len(level)] = level[:, 0]
            start += len(level)
        return centers

    def _layers(self) -> tuple[list[list[DenseLayer]], int]:
        """Every layer of every student, and how many rows the buffers of activations have.

        Inputs come first, then the hidden levels, then the raw outputs.
        """
        first_row: dict[tuple[int, int], int] = {}
        row = self._sizes[0][0]
        outputs = [(p, i + 1) for i, level in enumerate(self._hidden) for p in level.members]
        outputs += [(p, depth + 1) for p, depth in enumerate(self._depths)]
        for p, number in outputs:
            first_row[p, number] = row
            row += self._sizes[p][number]

        students = []
        for p, chain in enumerate(self._chains):
            layers = []
            for number, (weight, bias) in enumerate(chain, start=1):
                layers.append(
                    DenseLayer(
                        rows=self._sizes[p][number],
                        columns=self._sizes[p][number - 1],
                        weight=self._locations[p][weight].start,
                        bias=self._locations[p][bias].start,
                        first_input=first_row.get((p, number - 1), 0),
                        first_output=first_row[p, number],
                    )
                )
            students.append(layers)
        return students, row
