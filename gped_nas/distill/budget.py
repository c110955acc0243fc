"""The way of a student to its budget: one path of proximal steps, bisected at each of them.

At a proximal step every unit has a price: the threshold ``step * lambda`` at which that step
removes it (``pruning.py``). The network that a threshold leaves costs less the higher it is, so
that bisection finds the least threshold that meets the budget. That one taken at once would remove
units which the loss still holds. So with L proximal steps left to go, each takes an L-th of it from
where the last one led: units that the loss lets go are removed on the way, and a threshold that it
resists rises until the last step. No step goes below the budget, and once it is met none shrinks
anything.

The last step, at the student's pruning step, shrinks nothing either: units below the threshold are
removed and all others left as they are. Where the units are so large that the network ends more
than 2 % below its budget, up to three units of any two groups are taken or left beside that, as
prices allow. What is then nearest below the budget is taken.

With the criterion ``magnitude`` there is no path. At the pruning step a unit's price is the length
of its weights over the mean length in its group.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gped_nas.models.base import Genotype
from gped_nas.models.costs import budgeted_cost, with_units
from gped_nas.models.labels import CLOSE_TO_BUDGET

_MOST_MOVED = 3
"""Units of a group that may be taken or left beside the threshold's."""
_BELOW_WHOLE_GROUP = 0.99
"""Share of the threshold that would remove a group whole."""

Counts = tuple[int, ...]
"""Units left in each group."""


class BudgetPath:
    """What a student's budget asks of its units."""

    def __init__(self, genotype: Genotype, input_shape: tuple[int, ...], num_outputs: int) -> None:
        """Begin.

        Args:
            genotype: with a budget that its smallest network meets.
            input_shape: of one plain input.
            num_outputs: raw outputs.
        """
        budget = genotype.budget
        assert budget is not None
        self._budget, self._family, self._input_shape = budget, genotype.family, input_shape
        self._shapes = genotype.shapes(input_shape, num_outputs)
        self._groups = genotype.prunable(self._shapes)
        self._costs: dict[Counts, int] = {}
        self.is_by_length = dict(genotype.values).get("prune_criterion") == "magnitude"

    def threshold(self, prices: Sequence[Tensor], num_left: int) -> float:
        """The threshold of a proximal step on the way.

        Args:
            prices: of each group's units, (units,).
            num_left: proximal steps left, this one included.
        """
        ranked = _Ranked(prices)
        num_removed = self._num_removed(ranked)
        least = ranked.prices[num_removed - 1] if num_removed else 0.0
        # a layer without units would pass nothing on
        return min(float(least) / num_left, _BELOW_WHOLE_GROUP * ranked.least_of_best)

    def land(self, prices: Sequence[Tensor]) -> list[Tensor]:
        """Which units stay, of each group: (units,) bool.

        Args:
            prices: of each group's units, (units,).
        """
        ranked = _Ranked(prices)
        counts = ranked.counts_without(self._num_removed(ranked))
        if counts != ranked.whole and self.cost(counts) < CLOSE_TO_BUDGET * self._budget.most:
            counts = self._nearest_below(ranked, counts)

        kept = []
        for price, count in zip(prices, counts, strict=True):
            stays = torch.zeros(len(price), dtype=torch.bool, device=price.device)
            stays[torch.argsort(price, descending=True, stable=True)[:count]] = True
            kept.append(stays)
        return kept

    def cost(self, counts: Counts) -> int:
        """What the budget counts of a network with so many units in each group."""
        if counts not in self._costs:
            shapes = with_units(self._shapes, self._groups, counts)
            cost = budgeted_cost(self._budget, self._family, shapes, self._input_shape)
            self._costs[counts] = cost
        return self._costs[counts]

    def _num_removed(self, ranked: "_Ranked") -> int:
        """How many of the cheapest units must go, at least, so that the budget is met."""
        low, high = 0, len(ranked.prices)
        while low < high:
            middle = (low + high) // 2
            if self.cost(ranked.counts_without(middle)) <= self._budget.most:
                high = middle
            else:
                low = middle + 1
        return high

    def _nearest_below(self, ranked: "_Ranked", counts: Counts) -> Counts:
        """Counts near these that are close to the budget, or as near below it as any of them.

        Of those that are close, the ones whose units are worth most.
        """
        best, best_rank = counts, (False, 0.0, 0.0)
        for near in {counts, *_moved(counts, ranked.alive)}:
            cost = self.cost(near)
            if cost > self._budget.most:
                continue
            is_close = cost >= CLOSE_TO_BUDGET * self._budget.most
            rank = (is_close, 0.0 if is_close else float(cost), ranked.worth(near))
            if rank > best_rank:
                best, best_rank = near, rank
        return best


class _Ranked:
    """The units of all groups by price; the best of each group is not among those to remove."""

    def __init__(self, prices: Sequence[Tensor]) -> None:
        # a price that is no number is that of a student that diverged, which others will say
        arrays = [np.nan_to_num(p.double().cpu().numpy(), nan=np.inf) for p in prices]
        descending = [np.sort(array)[::-1] for array in arrays]
        self.whole = tuple(len(array) for array in arrays)
        # what is zero already cannot be had back
        self.alive = tuple(max(1, int(np.count_nonzero(array))) for array in arrays)
        self._worth = [np.concatenate([[0.0], np.cumsum(array)]) for array in descending]
        best = [float(array[0]) for array in descending if array[0] > 0]
        self.least_of_best = min(best, default=0.0)

        others = [array[1:] for array in descending]
        groups = [np.full(len(array), i) for i, array in enumerate(others)]
        flat = np.concatenate([np.empty(0), *others])
        order = np.argsort(flat, kind="stable")
        self.prices = flat[order]
        self._groups = np.concatenate([np.empty(0, dtype=int), *groups])[order]

    def counts_without(self, num: int) -> Counts:
        """Units left in each group without so many of the cheapest."""
        gone = np.bincount(self._groups[:num], minlength=len(self.whole))
        return tuple(size - int(n) for size, n in zip(self.whole, gone, strict=True))

    def worth(self, counts: Counts) -> float:
        """The prices of the best units of each group, together."""
        return float(sum(worth[n] for worth, n in zip(self._worth, counts, strict=True)))


def _moved(counts: Counts, most: Counts) -> Iterator[Counts]:
    """Counts with a few units of any two groups more or less."""
    moves = range(-_MOST_MOVED, _MOST_MOVED + 1)
    places = range(len(counts))
    for i, j in itertools.combinations_with_replacement(places, 2):
        for of_first, of_second in itertools.product(moves, moves):
            moved = list(counts)
            moved[i] += of_first
            moved[j] += of_second
            if all(1 <= n <= limit for n, limit in zip(moved, most, strict=True)):
                yield tuple(moved)
