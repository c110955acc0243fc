"""What is expected of genotypes, by the trainings that were made."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gped_nas.models.base import Genotype
from gped_nas.models.labels import COUNTED_COSTS
from gped_nas.search.goals import Objective
from gped_nas.search.objectives import objective, violations
from gped_nas.search.proposing.candidates import random_genotypes
from gped_nas.search.proposing.costs import CostModel, DrawnCosts, Trained
from gped_nas.search.proposing.facts import Facts
from gped_nas.search.proposing.features import Features
from gped_nas.search.proposing.gaussian import Beliefs, Floats, GaussianProcess, fit
from gped_nas.search.proposing.history import Training
from gped_nas.search.proposing.improvement import Axes
from gped_nas.search.proposing.scales import Scale, chance_below
from gped_nas.search.space import SearchSpace

_MOST_TRAININGS = 384
"""Trainings that the models know; of more, those near the front and an even share of the rest."""
_MOST_EARLIER = 192
_NUM_SAMPLE = 256
_LEAST_COST_SD = 0.01


@dataclass(frozen=True)
class Expected:
    """What is expected of N genotypes.

    Attributes:
        costs_NA: log10 of the costs that are objectives.
        measured: beliefs of the other objectives, in their order.
        chance_N: of meeting all bounds on costs.
        limits: of each bounded metric, its beliefs and the modelled bound.
    """

    costs_NA: Floats
    measured: list[Beliefs]
    chance_N: Floats
    limits: list[tuple[Beliefs, float]]

    @property
    def feasible_N(self) -> Floats:
        """The chance of meeting all constraints, those on metrics as independent ones."""
        chance_N = self.chance_N
        for beliefs, bound in self.limits:
            chance_N = chance_N * chance_below(bound, beliefs.mean_C, beliefs.sd_C)
        return chance_N

    def believe(self, index: int) -> None:
        """Believe that one of the genotypes comes to what is expected of it."""
        all_beliefs = [*self.measured, *(beliefs for beliefs, _ in self.limits)]
        for beliefs in {id(each): each for each in all_beliefs}.values():
            beliefs.believe(index)


class Models:
    """Models of all objectives and constraints of a space.

    Args:
        space: whose objectives and constraints they are.
        facts: of the study.
        trainings: those that came to an end.
        earlier: those of another study, which teach and are on no front.
    """

    def __init__(
        self,
        space: SearchSpace,
        facts: Facts,
        trainings: Sequence[Training],
        earlier: Sequence[Training] = (),
    ) -> None:
        self._space = space
        self._facts = facts
        self._counted = [goal for goal in space.objectives if goal.name in COUNTED_COSTS]
        self._measured = [goal for goal in space.objectives if goal.name not in COUNTED_COSTS]
        self._bounded = [objective(name, space.source) for name in space.constraints]

        modelled = {goal.name: goal for goal in (*self._measured, *self._bounded)}
        self._scales: dict[str, Scale] = {}
        for name, goal in modelled.items():
            if name not in COUNTED_COSTS:
                self._scales[name] = self._scale(goal, [*trainings, *earlier])

        sample = random_genotypes(space, _NUM_SAMPLE, 0)
        self.features = Features(sample)
        self.drawn = DrawnCosts(space, facts)
        self._axes = Axes(
            [self._cost_ends(goal.name, sample) for goal in self._counted],
            [self._scales[goal.name] for goal in self._measured],
        )
        self.trainings = self._chosen(trainings)
        self._told = [*self.trainings, *self._shared(earlier)]
        self.costs = self._cost_model()
        self._processes = {name: self._process(name) for name in self._scales}

    @property
    def axes(self) -> Axes:
        """Those of the hypervolume."""
        return self._axes

    def expect(self, genotypes: Sequence[Genotype]) -> Expected:
        """What is expected of genotypes."""
        inputs_ND = self.features.of(genotypes)
        beliefs = {name: process.at(inputs_ND) for name, process in self._processes.items()}

        costs = self.costs.of(genotypes)
        columns = [costs[goal.name][0] for goal in self._counted]
        costs_NA = np.stack(columns, 1) if columns else np.zeros((len(genotypes), 0))

        chance_N = np.ones(len(genotypes))
        limits = []
        for goal in self._bounded:
            bound = self._space.constraints[goal.name]
            if goal.name in self._scales:
                limits.append((beliefs[goal.name], self._scales[goal.name].modelled(bound)))
            else:
                mean_N, sd_N = costs[goal.name]
                limit = np.log10(max(bound, 1e-300))
                chance_N = chance_N * chance_below(limit, mean_N, np.maximum(sd_N, _LEAST_COST_SD))
        measured = [beliefs[goal.name] for goal in self._measured]
        return Expected(costs_NA, measured, chance_N, limits)

    def point(self, training: Training) -> tuple[Floats, Floats]:
        """Log10 of the costs (A,) and the modelled values (Q,) of what came of a training."""
        costs = [np.log10(training.values[goal.name]) for goal in self._counted]
        modelled = [self._modelled(goal.name, training) for goal in self._measured]
        return np.array(costs), np.array(modelled)

    def counts(self, training: Training) -> bool:
        """Whether what came of a training may be on the front: feasible, and in the region."""
        if not training.values or any(
            name not in training.values for name in self._space.goal_names
        ):
            return False
        excess = violations(training.values, self._space.constraints)
        if any(value > 0 for value in excess.values()):
            return False
        region = self._facts.region
        return region is None or region.is_inside(training.record)

    def _scale(self, goal: Objective, trainings: Sequence[Training]) -> Scale:
        ends = self._facts.ends.get(goal.name)
        if ends is not None:
            best, corner = ends
            return Scale.of(goal, best, corner, self._facts.declared.get(goal.name, corner))
        values = [training.values for training in trainings]
        return Scale.plain(goal, [float(each[goal.name]) for each in values if goal.name in each])

    def _cost_ends(self, name: str, sample: Sequence[Genotype]) -> tuple[float, float]:
        """Log10 of the ends of a cost's axis."""
        if name in self._facts.ends:
            best, worst = self._facts.ends[name]
        else:
            costs = [self.drawn.of(genotype)[name] for genotype in sample]
            best, worst = min(costs), max(costs)
        return float(np.log10(best)), float(np.log10(worst))

    def _modelled(self, name: str, training: Training) -> float:
        scale = self._scales[name]
        if name not in training.values:
            return scale.failed
        return scale.modelled(float(training.values[name]))

    def _chosen(self, trainings: Sequence[Training]) -> list[Training]:
        """The trainings that models learn from."""
        telling = [each for each in trainings if each.values or each.is_failed]
        if len(telling) <= _MOST_TRAININGS:
            return telling

        measured = [each for each in telling if each.values]
        points = np.array([np.concatenate(self.point(each)) for each in measured])
        order = np.argsort(num_better(points), kind="stable")
        near = {id(measured[i]) for i in order[: _MOST_TRAININGS // 2]}
        others = [each for each in telling if id(each) not in near]
        spread = np.linspace(0, len(others) - 1, _MOST_TRAININGS - len(near)).round().astype(int)
        chosen = near | {id(others[i]) for i in spread}
        return [each for each in telling if id(each) in chosen]

    def _shared(self, earlier: Sequence[Training]) -> list[Training]:
        """An even share of another study's trainings that have all that is asked for."""
        whole = [t for t in earlier if all(name in t.values for name in self._space.goal_names)]
        if len(whole) <= _MOST_EARLIER:
            return whole
        spread = np.linspace(0, len(whole) - 1, _MOST_EARLIER).round().astype(int)
        return [whole[i] for i in spread]

    def _cost_model(self) -> CostModel:
        names = [goal.name for goal in (*self._counted, *self._bounded)]
        names = [name for name in dict.fromkeys(names) if name in COUNTED_COSTS]
        trained = [Trained(each.genotype, each.values) for each in self._told if each.values]
        return CostModel(names, trained, self.features, self.drawn)

    def _process(self, name: str) -> GaussianProcess:
        inputs_ND = self.features.of([training.genotype for training in self._told])
        values_N = np.array([self._modelled(name, training) for training in self._told])
        return fit(inputs_ND, values_N)


def num_better(points_NM: Floats) -> NDArray[np.int64]:
    """By how many others each point is dominated, (N,); less is better on all axes."""
    counts = np.zeros(len(points_NM), np.int64)
    for i, point in enumerate(points_NM):
        is_no_worse = (points_NM <= point).all(1)
        counts[i] = (is_no_worse & (points_NM < point).any(1)).sum()
    return counts
