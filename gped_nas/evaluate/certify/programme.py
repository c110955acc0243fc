"""A ReLU network over a box as a mixed-integer programme, whose numbers all lie near 1.

A unit that may be any of several sums has a number of its own, and binaries that say which: a ReLU
is the larger of its sum and zero, max pooling the largest of a window. All else is a sum of these
and of the inputs, so that a network has as many binaries as it has *unstable* units, whatever its
size. An input is ``middle + reach * t``, a unit ``low + range * s``, and rows are divided by ranges
likewise: a solver's tolerances, which are absolute, then mean shares of them.

Source: Tjeng, Xiao & Tedrake 2019, arXiv:1711.07356, with the layers between units multiplied out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.evaluate.certify.bounds import Node
from gped_nas.models.activations import RELU
from gped_nas.models.elementary import Activation, Affine, Elementary, MaxPool

Floats = NDArray[np.float64]
Bounds = tuple[Tensor, Tensor]
"""The smallest and the largest value of each number that a layer reads, for one input."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A unit that may be any of K sums.

    Attributes:
        column: of the number that stands for it.
        size: how far the unit moves where that number moves by 1.
        sums_KV: the sums by column.
        ranges_K: what the rows of each sum were divided by.
    """

    column: int
    size: float
    sums_KV: Floats
    ranges_K: Floats


@dataclass(frozen=True, eq=False)
class Programme:
    """Outputs of a network as sums of V numbers between 0 and 1, or -1 and 1 of inputs.

    Attributes:
        middle, reach: inputs are ``middle + reach * t``; float64, of the shape of an input.
        outputs_VU: what a number adds to each raw output.
        offset_U: what raw outputs are beside that.
        is_binary_V: which numbers are 0 or 1 alone.
        rows_RV, limit_R: ``rows_RV @ v <= limit_R`` for every input's numbers.
        units: those that may be any of several sums, from input to output.
    """

    middle: Tensor
    reach: Tensor
    outputs_VU: Floats
    offset_U: Floats
    is_binary_V: NDArray[np.bool_]
    rows_RV: Floats
    limit_R: Floats
    units: tuple[Unit, ...]

    @property
    def num_inputs(self) -> int:
        """How many numbers are an input's: the first ones."""
        return self.reach.numel()

    @property
    def low_V(self) -> Floats:
        """The smallest value of each number."""
        low_V = np.zeros(len(self.is_binary_V))
        low_V[: self.num_inputs] = -1.0
        return low_V

    def input_of(self, numbers_V: Floats) -> Tensor:
        """The input, float64, that numbers stand for."""
        shares = torch.from_numpy(numbers_V[: self.num_inputs]).reshape(self.reach.shape)
        return self.middle + self.reach * shares.clamp(-1, 1)

    def moved_by_rows(self, form_V: Floats) -> float:
        """How far a form of the numbers moves, at most, where rows are broken by 1, binaries too.

        A unit moves no further than its sums do. The row of the last of K sums has the binaries of
        all others in it, each of which may be off.
        """
        moved_V = np.abs(form_V)
        total = 0.0
        for unit in reversed(self.units):
            by_unit = moved_V[unit.column] / unit.size
            total += by_unit * len(unit.ranges_K) * float(unit.ranges_K.sum())
            num_before = unit.sums_KV.shape[1]
            moved_V[:num_before] += by_unit * np.abs(unit.sums_KV).sum(0)
        return total


def read_bounds(nodes: Sequence[Node]) -> list[Bounds]:
    """Of one box, what each layer that is not affine reads, in their order.

    Args:
        nodes: of the layers, from input to output.
    """
    bounds = []
    for node, behind in zip(nodes, nodes[1:], strict=False):
        if not isinstance(behind.layer, Affine):
            bounds.append((node.low[0], node.high[0]))
    return bounds


def build(
    layers: Sequence[Elementary], low: Tensor, high: Tensor, bounds: Sequence[Bounds]
) -> Programme:
    """The programme of a network over a box.

    Args:
        layers: from raw input to raw outputs, with parameters in float64.
        low, high: the box, (*input_shape).
        bounds: as ``read_bounds`` gives them.

    Raises:
        ConfigError: a layer is neither affine, nor a ReLU, nor max pooling.
    """
    rows = _Rows(num_inputs=low.numel())
    low, high = low.double(), high.double()
    middle, reach = (low + high) / 2, (high - low) / 2
    columns = torch.diag(reach.flatten()).reshape(-1, *low.shape)
    offset = middle[None]

    remaining = iter(bounds)
    for layer in layers:
        if isinstance(layer, Affine):
            columns, offset = layer.linear(columns), layer.forward(offset)
            continue

        shape = layer.output_shape(tuple(offset.shape[1:]))
        sums = _Sums.of(columns, offset, *next(remaining))
        flat_columns, flat_offset = rows.take_largest(sums, _windows(layer, offset.shape[1:]))
        columns = torch.from_numpy(flat_columns).reshape(-1, *shape)
        offset = torch.from_numpy(flat_offset).reshape(1, *shape)

    return rows.programme(middle, reach, columns.flatten(1).numpy(), offset.flatten().numpy())


def count_unstable(layers: Sequence[Elementary], bounds: Sequence[Bounds]) -> int:
    """How many binaries the programme of a network has.

    Args:
        layers, bounds: as for ``build``.

    Raises:
        ConfigError: as ``build``.
    """
    num = 0
    bent = [layer for layer in layers if not isinstance(layer, Affine)]
    for layer, (low, high) in zip(bent, bounds, strict=True):
        low_U, high_U = _behind_zero(low), _behind_zero(high)
        for window in _windows(layer, low.shape):
            num += len(_open(window, low_U, high_U)) - 1
    return num


@dataclass(frozen=True, eq=False)
class _Sums:
    """What a layer reads, by the numbers of the programme; the last one is zero.

    Attributes:
        columns_VU, offset_U: the sums.
        low_U, high_U: between which they are.
    """

    columns_VU: Floats
    offset_U: Floats
    low_U: Floats
    high_U: Floats

    @classmethod
    def of(cls, columns: Tensor, offset: Tensor, low: Tensor, high: Tensor) -> "_Sums":
        flat = columns.flatten(1).numpy()
        zero_V1 = np.zeros((len(flat), 1))
        return cls(
            np.hstack([flat, zero_V1]),
            _behind_zero(offset),
            _behind_zero(low),
            _behind_zero(high),
        )


@dataclass(eq=False)
class _Rows:
    """A programme as far as it is made."""

    num_inputs: int
    units: list[Unit] = field(default_factory=list)
    is_binary: list[bool] = field(default_factory=list)
    rows: list[tuple[Floats, float]] = field(default_factory=list)

    def take_largest(self, sums: _Sums, windows: Iterable[Sequence[int]]) -> tuple[Floats, Floats]:
        """Columns and offsets of the largest sum of each window."""
        columns: list[Floats] = []
        offsets: list[float] = []
        for window in windows:
            open_K = _open(window, sums.low_U, sums.high_U)
            if len(open_K) == 1:
                columns.append(sums.columns_VU[:, open_K[0]])
                offsets.append(float(sums.offset_U[open_K[0]]))
                continue

            unit, low = self._add_unit(sums, np.asarray(open_K))
            columns.append(_single(unit.column, unit.size))
            offsets.append(low)

        num = self._num_numbers
        return np.stack([_as_long(column, num) for column in columns], 1), np.array(offsets)

    def programme(
        self, middle: Tensor, reach: Tensor, outputs_VU: Floats, offset_U: Floats
    ) -> Programme:
        """All of it."""
        num = self._num_numbers
        rows_RV = np.zeros((len(self.rows), num))
        for r, (row, _) in enumerate(self.rows):
            rows_RV[r, : len(row)] = row
        return Programme(
            middle,
            reach,
            np.stack([_as_long(column, num) for column in outputs_VU.T], 1),
            offset_U,
            np.array([False] * self.num_inputs + self.is_binary),
            rows_RV,
            np.array([limit for _, limit in self.rows]),
            tuple(self.units),
        )

    @property
    def _num_numbers(self) -> int:
        return self.num_inputs + len(self.is_binary)

    def _add_unit(self, sums: _Sums, open_K: NDArray[np.int64]) -> tuple[Unit, float]:
        """A unit ``low + size * s`` that is the largest of these sums, and its low.

        The binary of a sum is 1 where the sum is the largest; the last one's is 1 without the
        others', so that a ReLU has one.
        """
        low_K, high_K = sums.low_U[open_K], sums.high_U[open_K]
        low, high = float(low_K.max()), float(high_K.max())
        ranges_K = high - low_K

        column = self._num_numbers
        binaries = [column + 1 + k for k in range(len(open_K) - 1)]
        self.is_binary += [False] + [True] * len(binaries)
        unit = Unit(column, high - low, sums.columns_VU[:, open_K].T, ranges_K)
        self.units.append(unit)

        for k, (sum_V, offset) in enumerate(zip(unit.sums_KV, sums.offset_U[open_K], strict=True)):
            # how far the unit may be above a sum that is not the largest
            most = float(np.delete(high_K, k).max()) - float(low_K[k])
            row_V = _as_long(sum_V, self._num_numbers)
            row_V[column] = -unit.size
            self._add_row(row_V, low - offset, ranges_K[k])

            row_V = -row_V
            if k < len(binaries):
                row_V[binaries[k]] = most
                self._add_row(row_V, offset - low + most, ranges_K[k])
            else:
                row_V[binaries] = -most
                self._add_row(row_V, offset - low, ranges_K[k])

        if len(binaries) > 1:
            row_V = np.zeros(self._num_numbers)
            row_V[binaries] = 1.0
            self._add_row(row_V, 1.0, 1.0)
        return unit, low

    def _add_row(self, row_V: Floats, limit: float, size: float) -> None:
        self.rows.append((row_V / size, limit / size))


def _windows(layer: Elementary, shape: Sequence[int]) -> Iterator[Sequence[int]]:
    """For each number that a layer gives, places of the sums of which it is the largest.

    The place behind all others is zero.
    """
    num = int(np.prod(shape))
    if isinstance(layer, Activation) and layer.name == RELU:
        return iter([(place, num) for place in range(num)])
    if isinstance(layer, MaxPool):
        places = torch.arange(num, dtype=torch.float64).reshape(1, *shape)
        windows = layer.windows(places).transpose(3, 4)
        return iter(windows.reshape(-1, layer.side**2).long().tolist())
    name = layer.name if isinstance(layer, Activation) else type(layer).__name__
    raise ConfigError(
        f"found a network of '{name}', expected ReLUs and max pooling: nothing else can be said "
        "exactly; leave --exact out"
    )


def _open(window: Sequence[int], low_U: Floats, high_U: Floats) -> list[int]:
    """Which sums of a window may be its largest one."""
    lows = low_U[list(window)]
    surest = window[int(lows.argmax())]
    floor = low_U[surest]
    return [place for place in window if place == surest or high_U[place] > floor]


def _behind_zero(values: Tensor) -> Floats:
    """Values as one row, with a zero behind."""
    flat: Floats = np.append(values.detach().double().flatten().numpy(), 0.0)
    return flat


def _single(place: int, value: float) -> Floats:
    """A column that is zero but at its end."""
    column = np.zeros(place + 1)
    column[place] = value
    return column


def _as_long(column: Floats, num: int) -> Floats:
    """A copy with zeros behind."""
    longer = np.zeros(num)
    longer[: len(column)] = column
    return longer
