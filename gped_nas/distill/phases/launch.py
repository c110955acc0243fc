"""Tables on a device, and the launch that walks one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.distill.phases.tiles import Sizes, Tile

MOST_POLLS = 2**24
"""How often a tile looks whether another one is done: for ten seconds, where a step takes one
thousandth of one. It cannot happen (see ``tiles.py``), and does not hang a device if it does."""


@dataclass(frozen=True)
class Launch:
    """How the walks are launched.

    Attributes:
        sizes: of tiles.
        depth: how much of a product's inner axis is taken at a time.
        warps, stages: Triton's options.
        programs_a_processor: how many programs walk on each of the device's processors.
        precision: how float32 numbers are multiplied: ``ieee``, or ``tf32x3``, which makes three
            products of shorter numbers of one; of bfloat16 numbers it says nothing.
    """

    sizes: Sizes = Sizes(64, 64)
    depth: int = 64
    warps: int = 4
    stages: int = 3
    programs_a_processor: int = 2
    precision: str = "ieee"


@dataclass(eq=False)
class Table:
    """A walk on the device: its tiles, and the counters of tickets and slots."""

    tiles: Tensor
    counters: Tensor

    @classmethod
    def of(cls, tiles: Sequence[Tile], num_slots: int, device: torch.device) -> "Table":
        """The table of these tiles, on a device."""
        fields = torch.tensor([tile.fields() for tile in tiles], dtype=torch.int32, device=device)
        return cls(fields, torch.zeros(1 + num_slots, dtype=torch.int32, device=device))


@dataclass(eq=False)
class Operands:
    """What tiles read and write.

    Attributes:
        read: activations as the next layer reads them (rows, B rounded up).
        output: activations before anything is taken off them; ``read`` itself where nothing is.
        gradient: the gradients by them.
        centers: what is taken off each row (rows,).
        weight, weight_grad: parameters and the gradients by them, flat.
    """

    read: Tensor
    output: Tensor
    gradient: Tensor
    centers: Tensor
    weight: Tensor
    weight_grad: Tensor


def walk(table: Table, operands: Operands, launch: Launch) -> None:
    """Compute all tiles of a table."""
    # here, because Triton is there on few machines
    from gped_nas.distill.phases import programs

    num_programs = launch.programs_a_processor * _num_processors(operands.read.device)
    table.counters.zero_()
    programs.walk[(num_programs,)](
        table.tiles,
        len(table.tiles),
        table.counters,
        operands.read,
        operands.output,
        operands.gradient,
        operands.centers,
        operands.weight,
        operands.weight_grad,
        operands.read.shape[1],
        IS_CENTERED=operands.output is not operands.read,
        BM=launch.sizes.rows,
        BN=launch.sizes.columns,
        BK=launch.depth,
        PRECISION=launch.precision,
        MOST_POLLS=MOST_POLLS,
        num_warps=launch.warps,
        num_stages=launch.stages,
    )


def _num_processors(device: torch.device) -> int:
    """Of a GPU; the interpreter runs one program after the other, and the first takes all tiles."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
