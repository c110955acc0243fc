"""Many fully connected students of different widths and depths as few large operations.

Activations are feature-major (features, B), so that a student's units are a contiguous block of
rows. Students are put in order of depth and widths, and the numbers of a layer lie side by side
over all students:

    first layers    one matrix (sum of widths, D): one product with the shared batch
    hidden level l  one buffer (sum of widths, B): the activation and its derivative once for all
                    students of that depth or more; neighbors of equal shape are one batched
                    product, the others a product each
    what is read    the hidden level itself, or another buffer: without the units' means (see
                    ``centering.py``), or where the backward pass needs the sums (``units.py``)
    last layers     one buffer (P * U, B) of raw outputs

Biases are added by the products, before these are rounded: bfloat16 then rounds where autocast
does. The backward pass is written by hand into views of one flat gradient; autograd sees the loss
alone. Widths can be rounded up: the added units have zero weights and stay so, since they send zero
and nothing that reads them passes a gradient back. All students of a bundle have one activation.

``tests/distill/reference.py`` is its oracle.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

import torch
from torch import Tensor

from gped_nas.distill.buffers import Buffers
from gped_nas.distill.bundle import Loss, Piece, align
from gped_nas.distill.centering import Centers
from gped_nas.distill.units import UNITS
from gped_nas.models.activations import activation_in
from gped_nas.models.base import Params, Shapes
from gped_nas.models.dense import Chain
from gped_nas.targets.base import Expectations


@dataclass(frozen=True)
class _Run:
    """Neighboring students with the same shape of one layer: one product.

    Attributes:
        count: how many they are.
        rows, columns: units of the layer and of the one that it reads, rounded up.
        start: where their weights begin in a flat buffer.
        first_row: of their first unit in the buffer of the layer's outputs.
        first_input: row of their first input in the buffer that the layer reads.
    """

    count: int
    rows: int
    columns: int
    start: int
    first_row: int
    first_input: int

    @property
    def stop(self) -> int:
        """Where their weights end in a flat buffer."""
        return self.start + self.count * self.rows * self.columns

    def weight(self, flat: Tensor) -> Tensor:
        """Their weights (n, rows, columns)."""
        return flat[self.start : self.stop].view(self.count, self.rows, self.columns)

    def outputs(self, level: Tensor) -> Tensor:
        """Their rows (n, rows, B) of the layer's outputs, or (n, rows, 1) of its biases."""
        stop = self.first_row + self.count * self.rows
        return level[self.first_row : stop].view(self.count, self.rows, level.shape[1])

    def inputs(self, level: Tensor) -> Tensor:
        """The rows (n, columns, B) that they read."""
        stop = self.first_input + self.count * self.columns
        return level[self.first_input : stop].view(self.count, self.columns, level.shape[1])


@dataclass(frozen=True)
class _Level:
    """One layer of all students that have it.

    Attributes:
        members: indices of these students, in order.
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
    """One level of all students in a step: views into the level buffers and the flat ones.

    ``output`` are the sums, and then the activations unless ``activated`` holds these. ``centered``
    is what later layers read; it is ``activated`` itself where nothing is taken off it.
    """

    forward: list[_Product]
    backward: list[_Product]
    output: Tensor
    activated: Tensor
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


@dataclass(frozen=True)
class _Location:
    """Where a parameter lies in a flat buffer, in its shape with rounded-up units."""

    start: int
    shape: tuple[int, ...]

    @property
    def cut(self) -> slice:
        return slice(self.start, self.start + prod(self.shape))


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
        rounds_ends: bool = False,
    ) -> None:
        """Make buffers for students of these shapes, all zero.

        Args:
            shapes: parameter shapes of each student, equal ones side by side (see ``layout.py``).
            chains: the layers of each student.
            loss: raw outputs (P, B, U) and what the teacher says to losses (P,).
            dtype: what products are computed in.
            device: where the buffers lie.
            round_to: hidden widths are rounded up to a multiple of it.
            centers: what is taken off the hidden units of each student; nothing by default.
            rounds_ends: whether inputs and raw outputs are rounded up as well.
        """
        self.shapes = shapes
        self._chains, self._loss = chains, loss
        self._units = UNITS[activation_in(weight for chain in chains for weight, _ in chain)]
        self._sizes = [
            _layer_sizes(shape, chain, round_to, rounds_ends)
            for shape, chain in zip(shapes, chains, strict=True)
        ]
        self._depths = [len(chain) - 1 for chain in chains]
        self._locations: list[dict[str, _Location]] = [{} for _ in shapes]
        total = self._lay_out()

        self.buffers = Buffers(torch.zeros(total, device=device), dtype)
        self._centers = self._by_level(centers) if any(centers) else []
        self._plan: _Plan | None = None

    # ---------------------------------------------------------------------------------------------
    # layout

    def _lay_out(self) -> int:
        """Give every layer its numbers in the flat buffers and its rows in the level buffers.

        Returns:
            The length of a flat buffer.
        """
        memory = _Allocator()
        row_of: dict[tuple[int, int], int] = {}  # student and layer, from 1, to its first row

        self._hidden: list[_Level] = []
        for level in range(1, max(self._depths, default=0) + 1):
            members = [p for p, depth in enumerate(self._depths) if depth >= level]
            self._hidden.append(self._place(dict.fromkeys(members, level), memory, row_of))

        last_layers = {p: depth + 1 for p, depth in enumerate(self._depths)}
        self._last = self._place(last_layers, memory, row_of)
        return align(memory.end)

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
            return layer, self._sizes[p][layer], self._sizes[p][layer - 1]

        runs: list[_Run] = []
        row = 0
        for (layer, rows, columns), neighbors in groupby(layer_of, key=shape):
            members = list(neighbors)
            # first layers are one matrix, without gaps
            is_aligned = layer > 1 or not runs
            weights = memory.take(len(members) * rows * columns, aligned=is_aligned)
            first_input = row_of[members[0], layer - 1] if layer > 1 else 0
            runs.append(_Run(len(members), rows, columns, weights.start, row, first_input))

            for i, p in enumerate(members):
                name, _ = self._chains[p][layer - 1]
                start = weights.start + i * rows * columns
                self._locations[p][name] = _Location(start, (rows, columns))
                row_of[p, layer] = row
                row += rows

        biases = memory.take(row)
        start = biases.start
        for p, layer in layer_of.items():
            _, name = self._chains[p][layer - 1]
            rows = self._sizes[p][layer]
            self._locations[p][name] = _Location(start, (rows,))
            start += rows

        return _Level(tuple(layer_of), tuple(runs), biases, row)

    def _by_level(self, centers: Sequence[Centers]) -> list[Tensor]:
        """What is taken off each row of each hidden level's buffer: (rows, 1)."""
        dtype, device = self.buffers.dtype, self.buffers.theta.device
        by_level = []
        for i, level in enumerate(self._hidden):
            rows = torch.zeros((level.num_rows, 1), dtype=dtype, device=device)
            start = 0
            for p in level.members:
                center = centers[p][i]
                rows[start : start + len(center), 0] = center
                start += self._sizes[p][i + 1]
            by_level.append(rows)
        return by_level

    def views(self, flat: Tensor) -> list[Params]:
        """See ``Bundle.views``; units that rounding added are not in them."""
        students = []
        for locations, shapes in zip(self._locations, self.shapes, strict=True):
            params = {}
            for name, shape in shapes.items():
                location = locations[name]
                value = flat[location.cut].view(location.shape)
                is_bias = len(shape) == 1
                params[name] = value[: shape[0]] if is_bias else value[: shape[0], : shape[1]]
            students.append(params)
        return students

    def pieces(self) -> Iterator[Piece]:
        """See ``Bundle.pieces``; rows and columns that rounding added are zero."""
        for student, locations in enumerate(self._locations):
            last_weight, _ = self._chains[student][-1]
            for name, location in locations.items():
                matrix = None
                if len(location.shape) > 1 and name != last_weight:
                    rows, columns = location.shape
                    matrix = (rows, columns)
                yield Piece(student, name, location.cut, matrix)

    # ---------------------------------------------------------------------------------------------
    # compute

    @torch.no_grad()
    def compute(self, x: Tensor, expectations: Expectations) -> Tensor:
        """See ``Bundle.compute``."""
        if self._plan is None or self._plan.batch_size != len(x):
            self._plan = self._make_plan(len(x))
        plan = self._plan
        x_BD = x.flatten(1).to(self.buffers.dtype)

        units = self._units

        # forward: raw outputs are neither activated nor centered
        for bias, weight, out in plan.from_inputs:
            torch.addmm(bias, weight, x_BD.t(), out=out)
        for i, layer in enumerate(plan.layers):
            for multiply, operands, out in layer.forward:
                multiply(*operands, out=out)
            if layer.gradient is not plan.raw_gradient:
                units.forward(layer.output, layer.activated)
            if layer.centered is not layer.activated:
                torch.sub(layer.activated, self._centers[i], out=layer.centered)

        losses_P = self._loss_and_gradient(plan, expectations)

        # backward: a level's gradient is complete when all levels above it are done
        for layer in reversed(plan.layers):
            if layer.gradient is not plan.raw_gradient:
                units.backward(layer.gradient, layer.output)
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
        expectations = {name: value.mT.contiguous().mT for name, value in expectations.items()}

        with torch.enable_grad():
            losses_P = self._loss(raw_PUB.mT, expectations)
            (gradient_PUB,) = torch.autograd.grad(losses_P, raw_PUB, torch.ones_like(losses_P))
        plan.raw_gradient.view(shape).copy_(gradient_PUB)
        return losses_P.detach()

    def _make_plan(self, batch_size: int) -> "_Plan":
        """Level buffers for batches of this size, and every product of a step as views of them."""
        work, grad = self.buffers.work, self.buffers.work_grad
        levels = [*self._hidden, self._last]
        outputs = [work.new_empty((level.num_rows, batch_size)) for level in levels]
        gradients = [torch.empty_like(output) for output in outputs]
        # raw outputs are neither activated nor centered
        activated = centered = outputs
        if self._units.keeps_sums:
            activated = [*(torch.empty_like(output) for output in outputs[:-1]), outputs[-1]]
            centered = activated
        if self._centers:
            centered = [*(torch.empty_like(output) for output in outputs[:-1]), outputs[-1]]

        from_inputs, to_inputs, layers = [], [], []
        if self._hidden:
            biases = work[self._hidden[0].bias, None]
            from_inputs.append((biases, self._first_layers(work), outputs[0]))
            to_inputs.append((gradients[0], self._first_layers(grad)))

        for i, level in enumerate(levels):
            forward, backward = [], []
            biases = work[level.bias, None]
            for run, source in self._sources(i):
                weight, bias = run.weight(work), run.outputs(biases)
                out, out_gradient = run.outputs(outputs[i]), run.outputs(gradients[i])
                weight_gradient = run.weight(grad)

                # last layers of students without hidden ones read the inputs
                if source is None:
                    from_inputs.append(
                        (bias.flatten(0, 1), weight.flatten(0, 1), out.flatten(0, 1))
                    )
                    to_inputs.append((out_gradient.flatten(0, 1), weight_gradient.flatten(0, 1)))
                    continue

                hidden = run.inputs(centered[source])
                hidden_gradient = run.inputs(gradients[source])
                forward.append(_product(weight, hidden, out, bias))
                backward.append(_product(out_gradient, hidden.mT, weight_gradient))
                backward.append(_product(weight.mT, out_gradient, hidden_gradient))

            bias_gradient = grad[level.bias]
            layers.append(
                _Layer(
                    forward=forward,
                    backward=backward,
                    output=outputs[i],
                    activated=activated[i],
                    centered=centered[i],
                    gradient=gradients[i],
                    bias_gradient=bias_gradient,
                )
            )

        return _Plan(batch_size, from_inputs, layers, to_inputs, gradients[-1])

    def _first_layers(self, flat: Tensor) -> Tensor:
        """The first layers of all students that have hidden ones: one matrix (sum of widths, D)."""
        runs = self._hidden[0].runs
        return flat[runs[0].start : runs[-1].stop].view(-1, runs[0].columns)

    def _sources(self, i: int) -> list[tuple[_Run, int | None]]:
        """The runs of a level, each with the hidden level that it reads; None is the inputs.

        The last layers are the level after the hidden ones. The first hidden level has no runs
        here: it is one product with the inputs.
        """
        if i < len(self._hidden):
            return [(run, i - 1) for run in self._hidden[i].runs] if i else []

        sources: list[tuple[_Run, int | None]] = []
        p = 0
        for run in self._last.runs:
            # neighbors that share a run have one depth
            depth = self._depths[p]
            sources.append((run, depth - 1 if depth else None))
            p += run.count
        return sources


class _Allocator:
    """Hands out stretches of a flat buffer, one after the other."""

    def __init__(self) -> None:
        self.end = 0

    def take(self, size: int, *, aligned: bool = True) -> slice:
        """The next so many numbers, aligned or right behind the last ones."""
        start = align(self.end) if aligned else self.end
        self.end = start + size
        return slice(start, self.end)


def _layer_sizes(shapes: Shapes, chain: Chain, round_to: int, rounds_ends: bool) -> tuple[int, ...]:
    """Inputs, hidden widths rounded up, raw outputs."""
    inputs = shapes[chain[0][0]][1]
    *widths, outputs = (shapes[weight][0] for weight, _ in chain)
    rounded = [-(-width // round_to) * round_to for width in (inputs, *widths, outputs)]
    return tuple(rounded) if rounds_ends else (inputs, *rounded[1:-1], outputs)


def _product(stack: Tensor, other: Tensor, out: Tensor, bias: Tensor | None = None) -> _Product:
    """Products of stacks (n, a, b) and (n, b, c) into (n, a, c).

    A bias (n, a, 1) is added on the way. A stack of one is spared the batched call.
    """
    operands = (stack, other) if bias is None else (bias, stack, other)
    multiply: Callable[..., Tensor]
    if len(stack) == 1:
        multiply = torch.mm if bias is None else torch.addmm
        return multiply, tuple(operand[0] for operand in operands), out[0]
    multiply = torch.bmm if bias is None else torch.baddbmm
    return multiply, operands, out
