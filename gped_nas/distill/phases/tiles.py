"""The tiles of a step of many chains of dense layers, as data.

A step is two walks, one over the forward tiles and one over the backward tiles. A tile is a block
of a product that one program computes by itself:

    FORWARD   rows of a layer's outputs, for a block of the batch
    BACK      the gradient by rows of a layer's inputs, for a block of the batch
    GRADIENT  a block of a layer's weight gradient, over the whole batch; with it the bias'

Programs take the tiles in the order of the table, each the next one that nobody has. A tile may
read what earlier tiles write. It then waits for their *slots*: counters, one for each block of the
batch of each layer of each student, that every tile counts up when it is done. So a student never
waits for another one, and there is no barrier. A table cannot lock itself up: the earliest tile
that is not done waits for earlier ones only, and those are done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """What a tile computes."""

    FORWARD = 0
    BACK = 1
    GRADIENT = 2


@dataclass(frozen=True)
class DenseLayer:
    """A layer of a student and where its numbers lie; sizes and starts are multiples of 16.

    Attributes:
        rows, columns: outputs and inputs.
        weight: where its weights (rows, columns) begin in a flat buffer.
        bias: where its biases begin in a flat buffer.
        first_input: row of its first input in the buffer of activations.
        first_output: row of its first output there.
    """

    rows: int
    columns: int
    weight: int
    bias: int
    first_input: int
    first_output: int


@dataclass(frozen=True)
class Tile:
    """A block of a product.

    Attributes:
        kind: what is computed.
        layer: of which layer.
        row, column: where the block begins in its result.
        is_last: whether the layer is the student's last, which has no ReLU.
        first_slot, num_slots, count: it waits until these slots have this count.
        signal: the slot that it counts up at the end; -1 for none.
    """

    kind: Kind
    layer: DenseLayer
    row: int
    column: int
    is_last: bool
    first_slot: int
    num_slots: int
    count: int
    signal: int

    def fields(self) -> list[int]:
        """The numbers that a program reads, ``NUM_FIELDS`` of them."""
        layer = self.layer
        fields = [
            int(self.kind),
            layer.rows,
            layer.columns,
            layer.weight,
            layer.bias,
            layer.first_input,
            layer.first_output,
            self.row,
            self.column,
            int(self.is_last),
            self.first_slot,
            self.num_slots,
            self.count,
            self.signal,
        ]
        return fields + [0] * (NUM_FIELDS - len(fields))


NUM_FIELDS = 16


@dataclass(frozen=True)
class Sizes:
    """How large tiles are.

    Attributes:
        rows, columns: of a tile's result.
    """

    rows: int
    columns: int


@dataclass(frozen=True)
class Walks:
    """The two tables of a step and how many slots each needs."""

    forward: list[Tile]
    backward: list[Tile]
    num_slots: int


def walks_of(students: Sequence[Sequence[DenseLayer]], batch_size: int, sizes: Sizes) -> Walks:
    """The tables for students given by their layers, first to last.

    Args:
        students: each with at least one layer.
        batch_size: inputs a step, rounded up as the buffers of activations are.
        sizes: of tiles.
    """
    num_blocks = -(-batch_size // sizes.columns)
    forward: list[tuple[int, int, Tile]] = []
    backward: list[tuple[int, int, Tile]] = []
    slot = 0

    for layers in students:
        starts = [slot + num_blocks * i for i in range(len(layers))]
        slot += num_blocks * len(layers)
        for i in range(len(layers)):
            forward += _forward_tiles(layers, i, starts, num_blocks, sizes)
            backward += _backward_tiles(layers, i, starts, num_blocks, sizes)

    # phase by phase, and in each the dearest first: what runs longest should not begin last
    forward.sort(key=lambda item: (item[0], -item[1]))
    backward.sort(key=lambda item: (item[0], -item[1]))
    return Walks([tile for *_, tile in forward], [tile for *_, tile in backward], slot)


def _forward_tiles(
    layers: Sequence[DenseLayer], i: int, starts: Sequence[int], num_blocks: int, sizes: Sizes
) -> list[tuple[int, int, Tile]]:
    """Outputs of a layer: (phase, cost, tile)."""
    layer = layers[i]
    is_last = i == len(layers) - 1
    tiles = []
    for block in range(num_blocks):
        for row in range(0, layer.rows, sizes.rows):
            tile = Tile(
                Kind.FORWARD,
                layer,
                row,
                block * sizes.columns,
                is_last,
                first_slot=starts[i - 1] + block if i else 0,
                num_slots=1 if i else 0,
                count=_num_tiles(layers[i - 1].rows, sizes.rows) if i else 0,
                signal=-1 if is_last else starts[i] + block,
            )
            tiles.append((i, layer.columns, tile))
    return tiles


def _backward_tiles(
    layers: Sequence[DenseLayer], i: int, starts: Sequence[int], num_blocks: int, sizes: Sizes
) -> list[tuple[int, int, Tile]]:
    """Gradients that need the gradient by a layer's outputs: (phase, cost, tile).

    Slots of a layer count the tiles of the gradient by its outputs.
    """
    layer = layers[i]
    is_last = i == len(layers) - 1
    depth = len(layers) - 1 - i
    count = 0 if is_last else _num_tiles(layer.rows, sizes.rows)
    tiles = []

    for block in range(num_blocks if i else 0):
        for row in range(0, layer.columns, sizes.rows):
            tile = Tile(
                Kind.BACK,
                layer,
                row,
                block * sizes.columns,
                is_last,
                first_slot=starts[i] + block,
                num_slots=0 if is_last else 1,
                count=count,
                signal=starts[i - 1] + block,
            )
            tiles.append((2 * depth, layer.rows, tile))

    # what the layers below wait for comes first
    for row in range(0, layer.rows, sizes.rows):
        for column in range(0, layer.columns, sizes.columns):
            tile = Tile(
                Kind.GRADIENT,
                layer,
                row,
                column,
                is_last,
                first_slot=starts[i],
                num_slots=0 if is_last else num_blocks,
                count=count,
                signal=-1,
            )
            tiles.append((2 * depth + 1, 0, tile))
    return tiles


def _num_tiles(length: int, size: int) -> int:
    return -(-length // size)
