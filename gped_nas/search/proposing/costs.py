"""What a student costs before it is trained: its drawn network exactly, times what pruning leaves.

A drawn network's costs are known. Group penalties remove units, and how many is learned from
students that were trained: a Gaussian process of log10(cost left / cost drawn), one a cost. Drawn
costs alone are upper bounds, and a search that takes them for costs never sees what pruning is for.
Of a genotype with a budget, what the budget counts is known.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gped_nas.models.base import COMMON_VALUES, FAMILIES, Genotype, Value, num_params
from gped_nas.models.storage import storage_bytes
from gped_nas.search.proposing.candidates import DTYPE
from gped_nas.search.proposing.facts import Facts
from gped_nas.search.proposing.features import Features
from gped_nas.search.proposing.gaussian import fit
from gped_nas.search.space import SearchSpace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """A student that was trained, whatever storage types it was told in.

    Attributes:
        genotype: its genotype.
        costs: of its network after pruning, in the cheapest of its storage types.
    """

    genotype: Genotype
    costs: Mapping[str, float]


class DrawnCosts:
    """Costs of networks as they are drawn, in the cheapest storage type that each may have.

    Args:
        space: where genotypes are from.
        facts: of the study.
    """

    def __init__(self, space: SearchSpace, facts: Facts) -> None:
        self._space = space
        self._facts = facts
        self._dtypes = _dtypes_of_families(space)

    def of(self, genotype: Genotype) -> dict[str, float]:
        """Each cost by name."""
        dtypes = self._dtypes_of(genotype)
        values = tuple(item for item in genotype.values if item[0] not in COMMON_VALUES)
        macs, params, num_bytes = _costs_of_shapes(
            genotype.family, values, dtypes, self._facts.input_shape, self._facts.num_outputs
        )
        return {"macs": macs, "flops": 2 * macs, "params": params, "storage_bytes": num_bytes}

    def after_budget(self, genotype: Genotype) -> dict[str, float]:
        """The costs that a genotype's budget makes known, by name; none where it has no budget.

        All of them where the drawn network meets it; see ``models.costs.known_cost``.
        """
        budget = genotype.budget
        if budget is None or budget.dtype not in (None, *self._dtypes_of(genotype)):
            return {}

        drawn = self.of(genotype)
        if drawn[budget.cost] <= budget.most:
            return drawn
        most = float(budget.most)
        if budget.cost == "macs":
            return {"macs": most, "flops": 2 * most}
        if budget.cost == "flops":
            return {"macs": most / 2, "flops": most}
        return {budget.cost: most}

    def _dtypes_of(self, genotype: Genotype) -> tuple[str, ...]:
        """The storage types that a student is told in."""
        dtypes: tuple[str, ...] = (genotype[DTYPE],)
        if self._space.search.every_dtype:
            dtypes = self._dtypes.get(genotype.family, dtypes)
        return dtypes


@functools.lru_cache(maxsize=65_536)
def _costs_of_shapes(
    family: str,
    values: tuple[tuple[str, Value], ...],
    dtypes: tuple[str, ...],
    input_shape: tuple[int, ...],
    num_outputs: int,
) -> tuple[float, float, float]:
    """Multiply-adds, parameters and bytes of a network; many genotypes share one."""
    shapes = FAMILIES[family].shapes(dict(values), input_shape, num_outputs)
    macs = sum(FAMILIES[family].macs(shapes, input_shape).values())
    num_bytes = min(storage_bytes(shapes, dtype) for dtype in dtypes)
    return float(macs), float(num_params(shapes)), float(num_bytes)


def _dtypes_of_families(space: SearchSpace) -> dict[str, tuple[str, ...]]:
    """The storage types that students of each family are told in."""
    dtypes: dict[str, tuple[str, ...]] = {}
    for student in space.students:
        for dimension in student.dimensions:
            if dimension.key == DTYPE:
                choices = tuple(str(choice) for choice in dimension.choices)
                dtypes[student.family] = dtypes.get(student.family, ()) + choices
    return dtypes


class CostModel:
    """Costs that students will have once they are trained, as log10.

    Args:
        names: of the costs that are asked for.
        trained: students, with what they cost.
        features: inputs of genotypes.
        drawn: costs before pruning.
    """

    def __init__(
        self,
        names: Sequence[str],
        trained: Sequence[Trained],
        features: Features,
        drawn: DrawnCosts,
    ) -> None:
        self._names = tuple(names)
        self._drawn = drawn
        self._features = features

        pruned = [student for student in trained if student.genotype.is_pruned]
        self._inputs_ND = features.of([student.genotype for student in pruned])
        self._shares: dict[str, Floats] = {}
        for name in self._names:
            shares = []
            for student in pruned:
                shares.append(student.costs[name] / drawn.of(student.genotype)[name])
            self._shares[name] = np.log10(np.array(shares))

    def of(self, genotypes: Sequence[Genotype]) -> dict[str, tuple[Floats, Floats]]:
        """By cost, means (N,) and standard deviations (N,) of log10 of what is left."""
        is_pruned_N = np.array([genotype.is_pruned for genotype in genotypes])
        known = [self._drawn.after_budget(genotype) for genotype in genotypes]
        drawn = [self._drawn.of(genotype) for genotype in genotypes]
        inputs_ND = self._features.of(genotypes)

        predicted = {}
        for name in self._names:
            mean_N = np.log10(np.array([costs[name] for costs in drawn]))
            share_N, sd_N = self._share(name, inputs_ND)
            share_N[~is_pruned_N], sd_N[~is_pruned_N] = 0.0, 0.0
            expected_N = mean_N + share_N
            for n, costs in enumerate(known):
                if name in costs:
                    expected_N[n], sd_N[n] = np.log10(costs[name]), 0.0
            predicted[name] = expected_N, sd_N
        return predicted

    def _share(self, name: str, inputs_ND: Floats) -> tuple[Floats, Floats]:
        """Log10 of the share of a cost that pruning leaves, and how well it is known."""
        shares = self._shares[name]
        if len(shares) == 0 or np.ptp(shares) < 1e-9:
            known = min(float(shares[0]), 0.0) if len(shares) else 0.0
            return np.full(len(inputs_ND), known), np.zeros(len(inputs_ND))
        beliefs = fit(self._inputs_ND, shares).at(inputs_ND)
        # pruning adds nothing
        return np.minimum(beliefs.mean_C, 0.0), beliefs.sd_C
