"""How a population is laid out: who trains whom, and what is computed together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gped_nas import device as devices
from gped_nas.models.base import FAMILIES, Genotype, Shapes

FUSED_FAMILY = "mlp"
_LAYER_MACS = 2_000_000
"""What a layer of a student costs a step besides its products, in multiply-adds of the same time:
some 0.05 ms.
"""
_WORTH_A_WORKER = 150_000_000
"""Multiply-adds a step that a worker must have: with fewer, workers wait for the interpreter more
than they compute.
"""


@dataclass(frozen=True)
class Share:
    """Students of one family that one worker trains as one bundle.

    Attributes:
        worker: number of the worker.
        family: their family.
        members: places in the population, in the order of the bundle.
    """

    worker: int
    family: str
    members: tuple[int, ...]


def lay_out(
    genotypes: Sequence[Genotype],
    shapes: Sequence[Shapes],
    *,
    input_shape: tuple[int, ...],
    batch_size: int,
    num_workers: int,
) -> list[Share]:
    """The layout of a population.

    1. Students are shared out over the workers, the dearest first, each to the worker with the
       least to do.
    2. On each worker the students of a family are one bundle.
    3. In a bundle of ``mlp``, equal shapes are put side by side, so that they become one product.
       Other families are taken in turn, in the order of the population.

    Args:
        genotypes: the population.
        shapes: parameter shapes of each student as it is now, pruned or whole.
        input_shape: shape of one input.
        batch_size: inputs a step.
        num_workers: how many workers there may be.
    """
    products = [
        3 * batch_size * sum(FAMILIES[genotype.family].macs(own, input_shape).values())
        for genotype, own in zip(genotypes, shapes, strict=True)
    ]
    costs = [
        macs + _LAYER_MACS * sum(len(shape) > 1 for shape in own.values())
        for macs, own in zip(products, shapes, strict=True)
    ]
    num_workers = max(1, min(num_workers, sum(products) // _WORTH_A_WORKER, len(genotypes)))
    loads = [0] * num_workers
    members: dict[tuple[int, str], list[int]] = {}
    for place in sorted(range(len(genotypes)), key=lambda p: -costs[p]):
        worker = loads.index(min(loads))
        loads[worker] += costs[place]
        members.setdefault((worker, genotypes[place].family), []).append(place)
    return [
        Share(
            worker, family, tuple(sorted(places, key=lambda p: _order(genotypes[p], shapes[p], p)))
        )
        for (worker, family), places in sorted(members.items())
    ]


def _order(genotype: Genotype, shapes: Shapes, place: int) -> tuple[int, ...]:
    if genotype.family != FUSED_FAMILY:
        return (place,)
    weights = [shape for shape in shapes.values() if len(shape) > 1]
    return (len(weights), *(shape[0] for shape in weights), place)


def num_workers(device: torch.device) -> int:
    """One worker a core on a CPU, each with one thread of torch's own; a GPU is kept busy by one."""
    return devices.usable_cores() if device.type == "cpu" else 1
