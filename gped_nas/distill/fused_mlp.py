"""Many fully connected students of different widths and depths as few large operations.

Activations are feature-major (features, B), so that a student's units are a contiguous block of
rows. Students are put in order of depth and widths, and the numbers of a layer lie side by side
over all students:

    first layers    one matrix (sum of widths, D): one product with the shared batch
    hidden level l  one buffer (sum of widths, B): ReLU and its mask once for all students of that
                    depth or more; neighbors of equal shape are one batched product, the others a
                    product each
    what is read    the hidden level itself, or another buffer without the units' means (see
                    ``centering.py``)
    last layers     one buffer (P * U, B) of raw outputs

Biases are added by the products, before these are rounded: bfloat16 then rounds where autocast
does. The backward pass is written by hand into views of one flat gradient; autograd sees the loss
alone. Widths can be rounded up: the added units have zero weights and stay so, since a ReLU at zero
passes no gradient.

``tests/distill/reference.py`` is its oracle.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

import torch
from torch import Tensor

from gped_nas.distill.buffers import Buffers
from gped_nas.distill.bundle import Loss, Piece
from gped_nas.distill.centering import Centers
from gped_nas.models.base import Params, Shapes
from gped_nas.models.dense import Chain
from gped_nas.targets.base import Expectations


@dataclass(frozen=True)
class _Run:
    """Neighboring students with the same shape of one layer: one product.

    Attributes:
        count: how many they are.
        rows, columns: units of the layer and of the one that it reads, rounded up.
        offset: place of their weights in a flat buffer.
        at: row of their first unit in the buffer of the layer's outputs.
        reads: row of their first input in the buffer that the layer reads.
    """

    count: int
    rows: int
    columns: int
    offset: int
    at: int
    reads: int

    def weight(self, flat: Tensor) -> Tensor:
        """Their weights (n, rows, columns)."""
        stop = self.offset + self.count * self.rows * self.columns
        return flat[self.offset : stop].view(self.count, self.rows, self.columns)

    def outputs(self, level: Tensor) -> Tensor:
        """Their rows (n, rows, B) in the buffer of the layer's outputs, or (n, rows, 1) of its
        biases (all rows, 1).
        """
        return level[self.at : self.at + self.count * self.rows].view(
            self.count, self.rows, level.shape[1]
        )

    def inputs(self, level: Tensor) -> Tensor:
        """The rows (n, columns, B) that they read."""
        return level[self.reads : self.reads + self.count * self.columns].view(
            self.count, self.columns, level.shape[1]
        )


@dataclass(frozen=True)
class _Level:
    """One layer of all students that have it.

    Attributes:
        members: places of these students, in order.
        runs: their weights.
        bias: where their biases lie in a flat buffer.
        num_rows: rows of the level's buffer.
    """

    members: tuple[int, ...]
    runs: tuple[_Run, ...]
    bias: slice
    num_rows: int


_Product = tuple[Callable[..., Tensor], tuple[Tensor, ...], Tensor]
"""What multiplies, its operands, where the result goes."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """One level of all students in a step: tensors are views into the level buffers and the flat
        ones.

    ``centered`` is what later layers read; ``output`` itself where nothing is taken off it.
    """

    forward: list[_Product]
    backward: list[_Product]
    output: Tensor
    centered: Tensor
    gradient: Tensor
    bias_gradient: Tensor


@dataclass(frozen=True, eq=False)
class _Plan:
    """A step for one batch size.

    Attributes:
        batch_size: B.
        from_inputs: biases and weights that read the inputs, and where their products with these
            go.
        layers: hidden levels, then the last layers.
        to_inputs: gradients of outputs, and where their products with the inputs go.
        raw_gradient: the gradient by the raw outputs (P * U, B).
    """

    batch_size: int
    from_inputs: list[tuple[Tensor, Tensor, Tensor]]
    layers: list[_Layer]
    to_inputs: list[tuple[Tensor, Tensor]]
    raw_gradient: Tensor


class FusedMlp:
    """Students that are chains of dense layers, of whatever family, computed together."""

    def __init__(
        self,
        shapes: Sequence[Shapes],
        chains: Sequence[Chain],
        loss: Loss,
        *,
        dtype: torch.dtype,
        device: torch.device,
        round_to: int = 1,
        centers: Sequence[Centers] = (),
    ) -> None:
        """Buffers for students of these shapes, all zero.

        Args:
            shapes: parameter shapes of each student, equal ones side by side (see ``layout.py``).
            chains: the layers of each student.
            loss: raw outputs (P, B, U) and what the teacher says to losses (P,).
            dtype: what products are computed in.
            device: where the buffers lie.
            round_to: hidden widths are rounded up to a multiple of it.
            centers: what is taken off the hidden units of each student; nothing by default.
        """
        self.shapes = shapes
        self._chains, self._loss = chains, loss
        self._padded = [
            _padded(shape, chain, round_to) for shape, chain in zip(shapes, chains, strict=True)
        ]
        self._depths = [len(chain) - 1 for chain in chains]
        self._places: list[dict[str, tuple[int, tuple[int, ...]]]] = [{} for _ in shapes]
        total = self._lay_out()
        self.buffers = Buffers(torch.zeros(total, device=device), dtype)
        self._centers = self._by_level(centers) if any(centers) else []
        self._plan: _Plan | None = None

    # ------------------------------------------------------------------------------------------------
    # layout

    def _lay_out(self) -> int:
        """Give every layer its place in the flat buffers and its rows in the level buffers; returns
        the total.
        """
        memory = _Allocator()
        row_of: dict[tuple[int, int], int] = {}  # student and layer, from 1, to its first row

        self._hidden: list[_Level] = []
        for level in range(1, max(self._depths, default=0) + 1):
            members = [p for p, depth in enumerate(self._depths) if depth >= level]
            self._hidden.append(self._place(dict.fromkeys(members, level), memory, row_of))

        last_layers = {p: depth + 1 for p, depth in enumerate(self._depths)}
        self._last = self._place(last_layers, memory, row_of)
        return _aligned(memory.end)

    def _place(
        self, layer_of: dict[int, int], memory: "_Allocator", row_of: dict[tuple[int, int], int]
    ) -> _Level:
        """One layer of each student in ``layer_of``: weights run by run, then all biases.

        Args:
            layer_of: student to which of its layers it is, counted from 1.
            memory: where numbers are taken from.
            row_of: first row of each student's layer in its level buffer; added to here.
        """

        def shape(p: int) -> tuple[int, int, int]:
            layer = layer_of[p]
            return layer, self._padded[p][layer], self._padded[p][layer - 1]

        runs: list[_Run] = []
        row = 0
        for (layer, rows, columns), neighbors in groupby(layer_of, key=shape):
            members = list(neighbors)
            # first layers are one matrix, without gaps
            is_aligned = layer > 1 or not runs
            weights = memory.take(len(members) * rows * columns, aligned=is_aligned)
            reads = row_of[members[0], layer - 1] if layer > 1 else 0
            runs.append(_Run(len(members), rows, columns, weights.start, row, reads))

            for i, p in enumerate(members):
                name, _ = self._chains[p][layer - 1]
                self._places[p][name] = (weights.start + i * rows * columns, (rows, columns))
                row_of[p, layer] = row
                row += rows

        biases = memory.take(row)
        start = biases.start
        for p, layer in layer_of.items():
            _, name = self._chains[p][layer - 1]
            rows = self._padded[p][layer]
            self._places[p][name] = (start, (rows,))
            start += rows
        return _Level(tuple(layer_of), tuple(runs), biases, row)

    def _by_level(self, centers: Sequence[Centers]) -> list[Tensor]:
        """What is taken off each row of each hidden level's buffer: (rows, 1)."""
        by_level = []
        for i, level in enumerate(self._hidden):
            rows = torch.zeros(
                (level.num_rows, 1), dtype=self.buffers.dtype, device=self.buffers.theta.device
            )
            at = 0
            for p in level.members:
                rows[at : at + len(centers[p][i]), 0] = centers[p][i]
                at += self._padded[p][i + 1]
            by_level.append(rows)
        return by_level

    def views(self, flat: Tensor) -> list[Params]:
        """See ``Bundle.views``; units that rounding added are not in them."""
        students = []
        for places, shapes in zip(self._places, self.shapes, strict=True):
            params = {}
            for name, shape in shapes.items():
                offset, padded = places[name]
                value = flat[offset : offset + prod(padded)].view(padded)
                is_bias = len(shape) == 1
                params[name] = value[: shape[0]] if is_bias else value[: shape[0], : shape[1]]
            students.append(params)
        return students

    def pieces(self) -> Iterator[Piece]:
        """See ``Bundle.pieces``; rows and columns that rounding added are zero."""
        for student, places in enumerate(self._places):
            last, _ = self._chains[student][-1]
            for name, (offset, padded) in places.items():
                is_matrix = len(padded) > 1 and name != last
                matrix = (padded[0], padded[1]) if is_matrix else None
                yield Piece(student, name, slice(offset, offset + prod(padded)), matrix)

    # ------------------------------------------------------------------------------------------------
    # compute

    @torch.no_grad()
    def compute(self, x: Tensor, expectations: Expectations) -> Tensor:
        """See ``Bundle.compute``."""
        if self._plan is None or self._plan.batch_size != len(x):
            self._plan = self._plan_for(len(x))
        plan, buffers = self._plan, self.buffers
        x_BD = x.flatten(1).to(buffers.dtype)
        for bias, weight, raw in plan.from_inputs:
            torch.addmm(bias, weight, x_BD.t(), out=raw)
        for i, layer in enumerate(plan.layers):
            for multiply, operands, out in layer.forward:
                multiply(*operands, out=out)
            if layer.gradient is not plan.raw_gradient:
                layer.output.clamp_min_(0)
            if layer.centered is not layer.output:
                torch.sub(layer.output, self._centers[i], out=layer.centered)
        losses_P = self._loss_and_gradient(plan, expectations)
        for layer in reversed(plan.layers):
            if layer.gradient is not plan.raw_gradient:
                torch.ops.aten.threshold_backward.grad_input(
                    layer.gradient, layer.output, 0, grad_input=layer.gradient
                )
            torch.sum(layer.gradient, 1, out=layer.bias_gradient)
            for multiply, operands, out in layer.backward:
                multiply(*operands, out=out)
        for gradient, weight_gradient in plan.to_inputs:
            torch.mm(gradient, x_BD, out=weight_gradient)
        return losses_P

    def _loss_and_gradient(self, plan: "_Plan", expectations: Expectations) -> Tensor:
        """Losses (P,); the gradient of their sum by the raw outputs is left in the plan."""
        shape = (len(self.shapes), -1, plan.batch_size)
        raw_PUB = plan.layers[-1].output.view(shape).to(torch.float32, copy=True).requires_grad_()
        # in the layout of the raw outputs: autograd would copy where layouts differ
        said = {name: value.mT.contiguous().mT for name, value in expectations.items()}
        with torch.enable_grad():
            losses_P = self._loss(raw_PUB.mT, said)
            (gradient_PUB,) = torch.autograd.grad(losses_P, raw_PUB, torch.ones_like(losses_P))
        plan.raw_gradient.view(shape).copy_(gradient_PUB)
        return losses_P.detach()

    def _plan_for(self, batch_size: int) -> "_Plan":
        """Level buffers for batches of this size, and every product of a step as views that need no
        more slicing.
        """
        work, grad = self.buffers.work, self.buffers.work_grad
        levels = [*self._hidden, self._last]
        outputs = [work.new_empty((level.num_rows, batch_size)) for level in levels]
        gradients = [torch.empty_like(output) for output in outputs]
        centered = (
            [*(torch.empty_like(output) for output in outputs[:-1]), outputs[-1]]
            if self._centers
            else outputs
        )
        from_inputs, to_inputs, layers = [], [], []
        if self._hidden:
            from_inputs.append((work[self._hidden[0].bias, None], self._first(work), outputs[0]))
            to_inputs.append((gradients[0], self._first(grad)))
        for i, level in enumerate(levels):
            forward, backward = [], []
            biases = work[level.bias, None]
            for run, read in self._reads(i):
                out, out_gradient = run.outputs(outputs[i]), run.outputs(gradients[i])
                if read is None:
                    weight, bias = run.weight(work).flatten(0, 1), run.outputs(biases).flatten(0, 1)
                    from_inputs.append((bias, weight, out.flatten(0, 1)))
                    to_inputs.append((out_gradient.flatten(0, 1), run.weight(grad).flatten(0, 1)))
                    continue
                read_in, read_gradient = run.inputs(centered[read]), run.inputs(gradients[read])
                forward.append(_product(run.weight(work), read_in, out, run.outputs(biases)))
                backward.append(_product(out_gradient, read_in.mT, run.weight(grad)))
                backward.append(_product(run.weight(work).mT, out_gradient, read_gradient))
            layers.append(
                _Layer(forward, backward, outputs[i], centered[i], gradients[i], grad[level.bias])
            )
        return _Plan(batch_size, from_inputs, layers, to_inputs, gradients[-1])

    def _first(self, flat: Tensor) -> Tensor:
        """The first layers of all students that have hidden ones: one matrix (sum of widths, D)."""
        runs = self._hidden[0].runs
        start, stop = (
            runs[0].offset,
            runs[-1].offset + runs[-1].count * runs[-1].rows * runs[-1].columns,
        )
        return flat[start:stop].view(-1, runs[0].columns)

    def _reads(self, i: int) -> list[tuple[_Run, int | None]]:
        """The runs of a level, the last layers counted after the hidden ones, each with the hidden
        level that it reads.

        None is the inputs themselves; the first level is none of this function's, since it is one
        product.
        """
        if i < len(self._hidden):
            return [(run, i - 1) for run in self._hidden[i].runs] if i else []
        reads: list[tuple[_Run, int | None]] = []
        place = 0
        for run in self._last.runs:
            depth = self._depths[place]
            reads.append((run, depth - 1 if depth else None))
            place += run.count
        return reads


class _Allocator:
    """Hands out stretches of a flat buffer, one after the other."""

    def __init__(self) -> None:
        self.end = 0

    def take(self, size: int, *, aligned: bool = True) -> slice:
        """The next so many numbers, from a multiple of the alignment on or right behind the last."""
        start = _aligned(self.end) if aligned else self.end
        self.end = start + size
        return slice(start, self.end)


def _padded(shapes: Shapes, chain: Chain, round_to: int) -> tuple[int, ...]:
    """Inputs, hidden widths rounded up, raw outputs."""
    inputs = shapes[chain[0][0]][1]
    *hidden, outputs = (shapes[weight][0] for weight, _ in chain)
    return (inputs, *(-(-width // round_to) * round_to for width in hidden), outputs)


def _product(left: Tensor, right: Tensor, out: Tensor, bias: Tensor | None = None) -> _Product:
    """Products of stacks (n, a, b) and (n, b, c) into (n, a, c); one of a kind is spared the
    batched call.

    A bias (n, a, 1) is added on the way.
    """
    operands = (left, right) if bias is None else (bias, left, right)
    if len(left) == 1:
        return (
            (torch.mm if bias is None else torch.addmm),
            tuple(operand[0] for operand in operands),
            out[0],
        )
    return (torch.bmm if bias is None else torch.baddbmm), operands, out


def _aligned(offset: int) -> int:
    return -(-offset // 16) * 16
