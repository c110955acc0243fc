"""The oracle's way to a budget: units taken away one at a time, every network built and counted.

What ``distill.budget`` finds by bisection on counts is found here by walking up the prices; a
network's cost is that of its real parameters after ``compact``.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gped_nas.models.base import Genotype, shapes_of
from gped_nas.models.compact import compact
from gped_nas.models.costs import cost_of

Unit = tuple[float, int, int]
"""Price, group, and place in the group."""


def prices_of(rows: Tensor, scale: Tensor, factor: float, *, by_length: bool) -> list[float]:
    """The price of each unit of a group: its numbers in a row, each with its metric."""
    lengths = [float(row.double().norm()) for row in rows]
    if by_length:
        return [length / (sum(lengths) / len(lengths)) for length in lengths]
    prices = []
    for row, of_row in zip(rows.double(), scale.double(), strict=True):
        prices.append(float((row / of_row).norm()) / math.sqrt(len(row)) / factor)
    return prices


class Budgeted:
    """One genotype's networks."""

    def __init__(self, genotype: Genotype, input_shape: tuple[int, ...], num_outputs: int) -> None:
        self.genotype = genotype
        self.shapes = genotype.shapes(input_shape, num_outputs)
        self.groups = genotype.prunable(self.shapes)
        self.input_shape = input_shape

    def cost(self, removed: Sequence[Unit]) -> int:
        """What the budget counts of the network without these units."""
        params = {name: torch.ones(shape) for name, shape in self.shapes.items()}
        for _, group, place in removed:
            for name in self.groups[group].weights:
                params[name][place] = 0
        shapes = shapes_of(compact(self.genotype.family, params))
        budget = self.genotype.budget
        assert budget is not None
        cost = cost_of(self.genotype.family, shapes, self.input_shape, budget.dtype or "float32")
        return int(getattr(cost, budget.cost))

    def removed(self, prices: Sequence[Sequence[float]]) -> list[Unit]:
        """The cheapest units, as few as meet the budget; the best of each group stays."""
        units: list[Unit] = []
        for group, of_group in enumerate(prices):
            best = max(range(len(of_group)), key=lambda place: of_group[place])
            units += [(p, group, place) for place, p in enumerate(of_group) if place != best]
        units.sort()

        assert self.genotype.budget is not None
        removed: list[Unit] = []
        while self.cost(removed) > self.genotype.budget.most:
            removed.append(units[len(removed)])
        return removed

    def landed(self, prices: Sequence[Sequence[float]]) -> list[Unit]:
        """Those that go at the end: the cheapest, or near that what is close to the budget."""
        removed = self.removed(prices)
        assert self.genotype.budget is not None
        most = self.genotype.budget.most
        if not removed or self.cost(removed) >= 0.98 * most:
            return removed

        num_gone = [0] * len(prices)
        for _, group, _ in removed:
            num_gone[group] += 1
        tried = [(self._rank(removed, prices), removed)]
        for i in range(len(prices)):
            for j in range(i + 1):
                for of_first in range(-3, 4):
                    for of_second in range(-3, 4):
                        gone = list(num_gone)
                        gone[i] += of_first
                        gone[j] += of_second
                        near = self._without(gone, prices)
                        if near is not None and self.cost(near) <= most:
                            tried.append((self._rank(near, prices), near))
        return max(tried, key=lambda pair: pair[0])[1]

    def _without(
        self, num_gone: Sequence[int], prices: Sequence[Sequence[float]]
    ) -> list[Unit] | None:
        """So many of each group's cheapest; None where a group would be gone or had back."""
        removed: list[Unit] = []
        for group, (num, of_group) in enumerate(zip(num_gone, prices, strict=True)):
            num_zero = sum(price == 0 for price in of_group)
            if not num_zero <= num < len(of_group):
                return None
            places = sorted(range(len(of_group)), key=lambda place: of_group[place])
            removed += [(of_group[place], group, place) for place in places[:num]]
        return removed

    def _rank(
        self, removed: Sequence[Unit], prices: Sequence[Sequence[float]]
    ) -> tuple[bool, float, float]:
        assert self.genotype.budget is not None
        cost = self.cost(removed)
        is_close = cost >= 0.98 * self.genotype.budget.most
        worth = sum(map(sum, prices)) - sum(price for price, _, _ in removed)
        return is_close, 0.0 if is_close else float(cost), worth

    def threshold(self, prices: Sequence[Sequence[float]], num_left: int) -> float:
        """A share of what would meet the budget at once, with which no group goes whole."""
        removed = self.removed(prices)
        least = removed[-1][0] if removed else 0.0
        best = [max(of_group) for of_group in prices if max(of_group) > 0]
        return min(least / num_left, 0.99 * min(best, default=0.0))


def set_to_zero(
    removed: Sequence[Unit], names: Sequence[Sequence[str]], params: Mapping[str, Tensor]
) -> None:
    """Remove units: their rows of the parameters of their groups."""
    for _, group, place in removed:
        for name in names[group]:
            params[name].data[place] = 0
