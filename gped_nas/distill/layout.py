"""How a population is laid out: who trains whom, and what is computed together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gped_nas import device as devices
from gped_nas.models.activations import RELU, activation_in
from gped_nas.models.base import FAMILIES, Genotype, Shapes

_LAYER_MACS = 2_000_000
"""What a layer costs a step besides its products: some 0.05 ms, as multiply-adds of that time."""
_WORTH_A_WORKER = 150_000_000
"""Multiply-adds a step that a worker must have: with fewer, workers mostly wait for Python."""


@dataclass(frozen=True)
class Share:
    """Students of one family that one worker trains as one bundle.

    Attributes:
        worker: number of the worker.
        family: their family.
        is_dense: whether they are chains of dense layers, computed together.
        activation: of all their hidden units, where they are computed together.
        phase_start: the step that the phase began with that they are in.
        members: places in the population, in the order of the bundle.
    """

    worker: int
    family: str
    is_dense: bool
    activation: str
    phase_start: int
    members: tuple[int, ...]


def lay_out(
    genotypes: Sequence[Genotype],
    shapes: Sequence[Shapes],
    are_dense: Sequence[bool],
    phase_starts: Sequence[int],
    *,
    input_shape: tuple[int, ...],
    batch_size: int,
    num_workers: int,
) -> list[Share]:
    """The layout of a population.

    1. Students are shared out over the workers, the dearest first, each to the worker with the
       least to do.
    2. On each worker the students of a family and phase are one bundle; chains of dense layers one
       for each activation.
    3. In a bundle of chains of dense layers, equal shapes are put side by side, so that they become
       one product. Other students are taken in turn, in the order of the population.

    Args:
        genotypes: the population.
        shapes: parameter shapes of each student as it is now, pruned or whole.
        are_dense: whether each is a chain of dense layers.
        phase_starts: the step that each one's phase began with: an optimizer counts from there.
        input_shape: shape of one input.
        batch_size: inputs a step.
        num_workers: how many workers there may be.
    """
    products = []
    costs = []
    for genotype, shape in zip(genotypes, shapes, strict=True):
        macs = sum(FAMILIES[genotype.family].macs(shape, input_shape).values())
        num_layers = sum(len(size) > 1 for size in shape.values())
        products.append(3 * batch_size * macs)
        costs.append(products[-1] + _LAYER_MACS * num_layers)

    num_workers = max(1, min(num_workers, sum(products) // _WORTH_A_WORKER, len(genotypes)))
    loads = [0] * num_workers
    bundles: dict[tuple[int, str, bool, str, int], list[int]] = {}
    dearest_first = sorted(range(len(genotypes)), key=lambda p: -costs[p])
    for p in dearest_first:
        worker = loads.index(min(loads))
        loads[worker] += costs[p]
        activation = activation_in(shapes[p]) if are_dense[p] else RELU
        bundle = (worker, genotypes[p].family, are_dense[p], activation, phase_starts[p])
        bundles.setdefault(bundle, []).append(p)

    shares = []
    for kind, members in sorted(bundles.items()):
        worker, family, is_dense, activation, phase_start = kind
        members.sort()
        if is_dense:
            # by depth, then widths, then place: the sort keeps the order of equals
            members.sort(key=lambda p: _sizes(shapes[p]))
        shares.append(Share(worker, family, is_dense, activation, phase_start, tuple(members)))
    return shares


def _sizes(shapes: Shapes) -> tuple[int, ...]:
    """Number of layers and the widths of each."""
    weights = [shape for shape in shapes.values() if len(shape) > 1]
    return (len(weights), *(shape[0] for shape in weights))


def num_workers(device: torch.device) -> int:
    """One worker a core on a CPU, each with one thread of torch's own; one worker on a GPU."""
    return devices.usable_cores() if device.type == "cpu" else 1
