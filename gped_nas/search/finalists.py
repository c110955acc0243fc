"""Finalists: genotypes of the front and near it, trained anew, and what their means say.

A student on the front was picked for its figures, so that they are too good: it is the lucky one of
many. Its genotype is trained anew with other seeds, and these trainings alone make the mean. So do
those that are near the front, since some of them would be on it with another seed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from gped_nas.evaluate.measured import Measured, Measures, from_public, parse_name
from gped_nas.search.choice import FrontDifferences
from gped_nas.search.goals import Objective
from gped_nas.search.pareto import Floats
from gped_nas.search.record import TrialRecord

_STORED = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=_STORED)
class Finalist:
    """A genotype over seeds; part of a study's document.

    Attributes:
        trial: whose genotype it is.
        num_seeds: fresh trainings that are behind it; fewer than were asked for where one failed.
        metrics, intervals, n, why: means over the seeds on validation, in their public form; the
            intervals are over seeds and examples.
        costs: means over the seeds.
        is_on_front: whether no other finalist is better by the means.
        tied_with: trials of finalists that cost less and are not told from it, nearest first.
    """

    trial: int
    num_seeds: int
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    is_on_front: bool = False
    tied_with: tuple[int, ...] = ()

    @property
    def measures(self) -> Measures:
        """The means as a table."""
        return from_public(self.metrics, self.intervals, self.n, self.why)

    def measured(self, name: str) -> Measured | None:
        """The mean of a public name; None where it was not made."""
        return self.measures.get(parse_name(name))


@dataclass(frozen=True, config=_STORED)
class Finalists:
    """All finalists of a study.

    Attributes:
        seeds: fresh trainings of each that were asked for.
        near: how near the front they are, see ``near_front``.
        students: those of the front first, in its order; then the others.
        differences: of those on the front by the means to the best of them, over seeds and
            examples; None where the first objective is no quality.
    """

    seeds: int
    near: float
    students: tuple[Finalist, ...]
    differences: FrontDifferences | None = None

    def of(self, trial: int) -> Finalist | None:
        """The finalist of a trial; None where it is none."""
        return next((row for row in self.students if row.trial == trial), None)

    def deciding(self, front: Collection[int]) -> FrontDifferences | None:
        """What decides between the students of a front; None where one of it is no finalist."""
        is_covered = set(front) <= {row.trial for row in self.students}
        return self.differences if is_covered else None


def near_front(
    records: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    best: Sequence[float],
    near: float,
) -> list[TrialRecord]:
    """Records off the front that would be on it if their qualities were a little better.

    Each quality comes nearer to its best value by the factor exp(-near). For NLL, whose best value
    is 0, that is ``near`` in log NLL.

    Args:
        records: complete ones inside the region, by number.
        front: those of them on the front.
        objectives: in order.
        best: the best value of each objective.
        near: the noise of the logarithm between seeds.
    """
    on_front = {record.trial for record in front}
    sign_M = np.array([-1.0 if goal.direction == "maximize" else 1.0 for goal in objectives])
    front_FM = _values(front, objectives) * sign_M

    chosen = []
    for record in records:
        if record.trial in on_front:
            continue
        (values_M,) = _values([record], objectives)
        for i, goal in enumerate(objectives):
            if goal.kind == "metric":
                values_M[i] = best[i] + (values_M[i] - best[i]) * np.exp(-near)
        point_M = values_M * sign_M
        is_beaten = (front_FM <= point_M).all(axis=1) & (front_FM < point_M).any(axis=1)
        if not is_beaten.any():
            chosen.append(record)
    return chosen


def _values(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> Floats:
    """The objectives of records, (N, M)."""
    rows = [[record.value(goal.name) for goal in objectives] for record in records]
    return np.array(rows, np.float64).reshape(len(records), len(objectives))


def describe_ties(finalists: Finalists, front: Sequence[int]) -> str:
    """Which students of the front are not told from cheaper ones; empty where all are.

    Args:
        finalists: of the study.
        front: trials of the front, best first.
    """
    tied = []
    for trial in front:
        row = finalists.of(trial)
        if row is not None and row.tied_with:
            tied.append(f"{trial} from {row.tied_with[0]}")
    if not tied:
        return ""
    return f"Within noise, these are not told from a cheaper one: {', '.join(tied)}."
