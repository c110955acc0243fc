"""Whether treatments differ over several blocks: average ranks, Friedman's and Nemenyi's tests.

A block is a data set or a seed on which every treatment was measured. In each block treatments are
ranked, 1 the best, ties sharing their average rank. With N blocks and k treatments of average ranks
R_j,

    chi2 = 12 N / (k (k + 1)) * sum_j (R_j - (k + 1) / 2)^2 / (1 - ties)
    CD   = q sqrt(k (k + 1) / (6 N)),   q = studentized range, infinite df, over sqrt(2)

Two treatments whose average ranks are closer than CD cannot be told apart at the 5 % level. Seeds
of one data set are no independent data sets: over them a statement is about this data set alone.

The p-value of chi2 is that of permutations of each block's ranks. Grids have few blocks, where the
usual laws of it are far off: of three treatments in the same order in two blocks, F (Iman &
Davenport) says p = 0, and chi-square .14; of the 36 pairs of orders, 6 are as extreme: .17.

Source: Demsar 2006, JMLR 7, section 3.2.2 (statistic and distance).
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gped_nas import rng

LEVEL = 0.05
"""Of every test; also of the distance."""
NUM_DRAWS = 19_999
"""Permutations."""
_MOST_FACTORIAL = 12
"""Treatments beyond which nobody counts the permutations."""
_ROUNDING = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """Treatments by average rank, and what may be said of them.

    Attributes:
        names: the best first.
        mean_ranks: of each, 1 the best.
        num_blocks: N.
        chi2, p_value: Friedman's statistic, and its p-value; None where nothing was tested.
        distance: CD; None with fewer than two blocks.
        groups: names that cannot be told apart, as the longest runs in the order of ``names``.
        why: why nothing was tested; empty where it was.
    """

    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    num_blocks: int
    chi2: float | None = None
    p_value: float | None = None
    distance: float | None = None
    groups: tuple[tuple[str, ...], ...] = ()
    why: str = ""

    @property
    def is_different(self) -> bool:
        """Whether Friedman's test finds any difference at all."""
        return self.p_value is not None and self.p_value < LEVEL


def rank(names: Sequence[str], values: Floats, *, higher_is_better: bool) -> Ranking:
    """Rank treatments over blocks.

    Args:
        names: of the treatments, at least two.
        values: finite values, a row a block and a column a treatment.
        higher_is_better: the metric's direction.
    """
    signed = -values if higher_is_better else values
    block_ranks = stats.rankdata(signed, axis=1)
    num_blocks, num_treatments = block_ranks.shape
    mean_ranks = block_ranks.mean(axis=0)

    order = sorted(range(num_treatments), key=lambda column: (mean_ranks[column], column))
    sorted_names = tuple(names[column] for column in order)
    sorted_ranks = tuple(float(mean_ranks[column]) for column in order)
    if num_blocks < 2:
        why = "one block: a test needs two data sets or seeds at least"
        return Ranking(sorted_names, sorted_ranks, num_blocks, why=why)

    chi2 = friedman(block_ranks)
    if chi2 is None:
        why = "every block has all treatments tied"
        return Ranking(sorted_names, sorted_ranks, num_blocks, why=why)

    distance = critical_distance(num_treatments, num_blocks)
    ranking = Ranking(
        names=sorted_names,
        mean_ranks=sorted_ranks,
        num_blocks=num_blocks,
        chi2=chi2,
        p_value=permutation_p_value(block_ranks),
        distance=distance,
        groups=groups(sorted_names, sorted_ranks, distance),
    )
    return ranking


def friedman(block_ranks: Floats) -> float | None:
    """Friedman's statistic, corrected for ties; None where all ranks are tied in every block.

    Args:
        block_ranks: a row a block, a column a treatment.
    """
    num_blocks, k = block_ranks.shape
    ties = 0.0
    for row in block_ranks:
        _, sizes = np.unique(row, return_counts=True)
        ties += float((sizes**3 - sizes).sum())
    untied_share = 1 - ties / (num_blocks * k * (k * k - 1))
    if untied_share <= 0:
        return None

    spread = float(((block_ranks.mean(axis=0) - (k + 1) / 2) ** 2).sum())
    return float(12 * num_blocks / (k * (k + 1)) * spread / untied_share)


def permutation_p_value(block_ranks: Floats) -> float:
    """How often Friedman's statistic is as large where the ranks of each block are permuted.

    All permutations are tried where they are few, else ``NUM_DRAWS`` are drawn by a fixed seed, and
    the observed one counts as one of them.
    """
    num_blocks, k = block_ranks.shape
    observed = _spread(block_ranks.sum(axis=0))
    # the first block may stay: renaming treatments does not change the statistic
    num_orders = math.factorial(min(k, _MOST_FACTORIAL)) ** (num_blocks - 1)
    if num_orders <= NUM_DRAWS:
        orders = np.array(list(itertools.permutations(range(k))))
        sums = block_ranks[0][None]
        for row in block_ranks[1:]:
            sums = (sums[:, None] + row[orders][None]).reshape(-1, k)
        return float((_spread(sums) >= observed - _ROUNDING).mean())

    generator = np.random.default_rng(rng.seed(0, "friedman"))
    sums = np.zeros((NUM_DRAWS, k))
    for row in block_ranks:
        sums += generator.permuted(np.tile(row, (NUM_DRAWS, 1)), axis=1)
    as_large = int((_spread(sums) >= observed - _ROUNDING).sum())
    return (1 + as_large) / (1 + NUM_DRAWS)


def _spread(sums: Floats) -> Floats:
    """What chi2 grows with, of each row's sums of ranks; ties are the same in all permutations."""
    spread: Floats = (sums**2).sum(axis=-1)
    return spread


def critical_distance(num_treatments: int, num_blocks: int) -> float:
    """Nemenyi's CD at the 5 % level, in ranks."""
    k = num_treatments
    return _studentized(k) * math.sqrt(k * (k + 1) / (6 * num_blocks))


@functools.cache
def _studentized(num_treatments: int) -> float:
    """q: table 5 (a) of Demsar 2006 has it for 2 to 10 treatments."""
    range_ = stats.studentized_range.ppf(1 - LEVEL, num_treatments, np.inf)
    return float(range_) / math.sqrt(2)


def groups(
    names: Sequence[str], mean_ranks: Sequence[float], distance: float
) -> tuple[tuple[str, ...], ...]:
    """The longest runs of treatments whose average ranks are all closer than ``distance``.

    Args:
        names: by average rank, the best first.
        mean_ranks: of each.
        distance: in ranks.
    """
    runs: list[tuple[int, int]] = []
    for start in range(len(names)):
        stop = start
        while stop < len(names) and mean_ranks[stop] - mean_ranks[start] < distance:
            stop += 1
        is_new = not runs or stop > runs[-1][1]
        if stop - start > 1 and is_new:
            runs.append((start, stop))
    return tuple(tuple(names[start:stop]) for start, stop in runs)
