"""The region of interest: which students are of use at all.

A student that knows next to nothing is of no use, however small it is. Skill says how much is known
beside a predictor that knows the training labels and nothing of the input::

    skill = (NLL of the predictor that knows nothing - NLL) / (the same of the teacher)

on validation, by the values alone. Who knows nothing has skill 0 and the teacher 1. Only
differences count, so that it holds for densities too, whose NLL may be negative. With ``search:
{keep: 0.9}`` a student is inside if its skill is at least .9, also where ``nll`` is no objective:
it is measured of every student. With bounds by objective, ``keep: {accuracy: 0.95}``, these say
who is inside, and nothing else does.

Who is outside is shown apart: never on the front, never chosen, never the knee. Studies that were
begun before there was a region have none; outside is then who cannot be told from the predictor
that knows nothing, see ``search.guess``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from gped_nas.evaluate.measured import CLEAN, Direction, parse_name
from gped_nas.search.goals import Objective
from gped_nas.search.guess import is_guess
from gped_nas.search.record import TrialRecord

SKILL_METRIC = "nll"
Keep = float | Mapping[str, float]
"""What is asked for: a share of the teacher's skill, or bounds by objective in their own units."""
_STORED = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=_STORED)
class Bound:
    """One bound that students inside meet.

    Attributes:
        name: of a metric or a cost.
        direction: what is better of it.
        value: what is met at most; at least where it is maximized.
    """

    name: str
    direction: Direction
    value: float

    def holds(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value >= self.value if self.direction == "maximize" else value <= self.value


@dataclass(frozen=True, config=_STORED)
class Region:
    """Which students are of use; part of a study's document.

    Attributes:
        keep: the least share of the teacher's skill; None where bounds were asked for by name.
        bounds: what students inside meet; with none of them everybody is inside.
        know_nothing: by metric, what the predictor that knows nothing is worth on validation.
        teacher: by metric, what the teacher is worth there.
    """

    keep: float | None = None
    bounds: tuple[Bound, ...] = ()
    know_nothing: Mapping[str, float] = field(default_factory=dict)
    teacher: Mapping[str, float] = field(default_factory=dict)

    @property
    def asked(self) -> Keep:
        """What was asked for, as ``search.keep`` says it."""
        if self.keep is not None:
            return self.keep
        return {bound.name: bound.value for bound in self.bounds}

    @property
    def lacks_skill(self) -> bool:
        """Whether a share of the teacher's skill was asked for, and it has none.

        It is not known of a teacher whose NLL is infinite: it gave some label no probability.
        """
        is_known = SKILL_METRIC in self.know_nothing and SKILL_METRIC in self.teacher
        return self.keep is not None and not self.bounds and is_known

    def bound(self, name: str) -> Bound | None:
        """The bound of a metric or cost; None where it has none."""
        return next((bound for bound in self.bounds if bound.name == name), None)

    def is_inside(self, record: TrialRecord) -> bool:
        """Whether a complete student meets every bound."""
        return self.holds(record.values)

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether metrics and costs by name meet every bound; one that is not there does not."""
        for bound in self.bounds:
            if bound.name not in values or not bound.holds(values[bound.name]):
                return False
        return True

    def skill(self, record: TrialRecord) -> float | None:
        """The share of the teacher's skill that a student keeps; None where none is known."""
        lead = _lead(self.know_nothing, self.teacher)
        value = record.metrics.get(SKILL_METRIC)
        if lead is None or value is None:
            return None
        return (self.know_nothing[SKILL_METRIC] - value) / lead

    def corner(self, goal: Objective) -> float | None:
        """The worst value of an objective that still counts; None for the objective's own.

        It is the region's bound. Of a metric without one it is what the predictor that knows
        nothing is worth, unless the teacher is no better in that metric: then it says nothing.
        """
        bound = self.bound(goal.name)
        if bound is not None:
            return bound.value
        if goal.kind != "metric" or goal.name not in self.know_nothing:
            return None

        # what needs other inputs is not measured of the teacher before a front is concluded
        ignorant = self.know_nothing[goal.name]
        clean = parse_name(goal.name)._replace(condition=CLEAN).metric
        if clean in self.teacher and clean in self.know_nothing:
            sign = -1 if goal.direction == "maximize" else 1
            if sign * (self.know_nothing[clean] - self.teacher[clean]) <= 0:
                return None
        return ignorant

    def asking(self, keep: Keep, objectives: Sequence[Objective]) -> "Region":
        """The region of the same teacher with something else asked for."""
        return make_region(keep, objectives, know_nothing=self.know_nothing, teacher=self.teacher)


def make_region(
    keep: Keep,
    objectives: Sequence[Objective],
    *,
    know_nothing: Mapping[str, float],
    teacher: Mapping[str, float],
) -> Region:
    """The region of a study.

    Args:
        keep: what is asked for.
        objectives: in order.
        know_nothing: by metric, finite values of the predictor that knows nothing, on validation.
        teacher: likewise, of the teacher's average.

    Returns:
        A region without a bound where a share of skill is asked for, and the teacher has none.
    """
    if isinstance(keep, Mapping):
        directions = {goal.name: goal.direction for goal in objectives}
        bounds = tuple(Bound(name, directions[name], value) for name, value in keep.items())
        return Region(None, bounds, dict(know_nothing), dict(teacher))

    lead = _lead(know_nothing, teacher)
    bounds = ()
    if lead is not None:
        value = know_nothing[SKILL_METRIC] - keep * lead
        bounds = (Bound(SKILL_METRIC, "minimize", value),)
    return Region(keep, bounds, dict(know_nothing), dict(teacher))


def _lead(know_nothing: Mapping[str, float], teacher: Mapping[str, float]) -> float | None:
    """By how much the teacher is ahead of who knows nothing, in nats; None where it is not."""
    if SKILL_METRIC not in know_nothing or SKILL_METRIC not in teacher:
        return None
    lead = know_nothing[SKILL_METRIC] - teacher[SKILL_METRIC]
    return lead if lead > 0 else None


def inside(
    records: Iterable[TrialRecord], objectives: Sequence[Objective], region: Region | None
) -> list[TrialRecord]:
    """The complete records that are inside, in their order.

    Args:
        records: any.
        objectives: in order.
        region: None in studies that were begun before there was one.
    """
    complete = [record for record in records if record.state == "complete"]
    if region is None:
        return [record for record in complete if not is_guess(record, objectives)]
    return [record for record in complete if region.is_inside(record)]


def outside(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], region: Region | None
) -> tuple[int, ...]:
    """Numbers of the complete trials that are not inside. Args: as ``inside``."""
    kept = {record.trial for record in inside(records, objectives, region)}
    complete = [record.trial for record in records if record.state == "complete"]
    return tuple(trial for trial in complete if trial not in kept)
