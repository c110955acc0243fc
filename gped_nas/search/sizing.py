"""How many students are trained together where there are several workers.

All of it follows from counts and from genotypes, never from a clock: the same draws give the same
populations, and so the same students, on fast workers and on slow ones.
"""

import math
from collections.abc import Sequence

from gped_nas.models.base import Genotype
from gped_nas.models.costs import genotype_cost

_LAYER_MACS = 2_600
"""What a layer costs an example besides its products, as multiply-adds of that time."""
_SLACK = 1.25
"""A population may cost so many times what an average one does."""
_SMALLEST_SHARE = 4
"""The last populations have at least this part of the students of a whole one."""


def population_size(at_once: int, num_missing: int, num_workers: int) -> int:
    """How many students the next population has, before their costs are known.

    Towards the end, populations are a fair share of what is missing, so that workers end at about
    the same time: with 24 missing, 12 at once and 3 workers they have 8, 6, 4, 3 and 3.

    Args:
        at_once: students of a whole one.
        num_missing: students that are to be trained yet.
        num_workers: how many populations are trained at the same time.
    """
    if num_workers == 1:
        return min(at_once, num_missing)
    share = math.ceil(num_missing / num_workers)
    smallest = math.ceil(at_once / _SMALLEST_SHARE)
    return min(at_once, num_missing, max(share, smallest))


def predicted_cost(genotype: Genotype, input_shape: tuple[int, ...], num_outputs: int) -> float:
    """What training a genotype costs, up to a factor: multiply-adds as drawn, and its layers."""
    layers = sum(len(shape) > 1 for shape in genotype.shapes(input_shape, num_outputs).values())
    return genotype_cost(genotype, input_shape, num_outputs).macs + layers * _LAYER_MACS


def num_affordable(costs: Sequence[float], size: int, mean_cost: float) -> int:
    """How many students, from the first one on, cost together about what ``size`` average ones do.

    Args:
        costs: of students that wait.
        size: of a population of average ones; never exceeded.
        mean_cost: of a student.
    """
    spent = 0.0
    for number, cost in enumerate(costs[:size]):
        spent += cost
        if number and spent > _SLACK * size * mean_cost:
            return number
    return min(size, len(costs))
