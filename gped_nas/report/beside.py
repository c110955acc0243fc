"""A student beside another predictor on the same examples: what it loses, and how sure that is."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gped_nas.evaluate.measured import TEST, Key, public_name
from gped_nas.search.goals import MetricWords, Objective
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region
from gped_nas.search.region_words import explain_empty_front
from gped_nas.search.snapshot import (
    EXHAUSTED,
    PairedDifference,
    Reference,
    StudySnapshot,
    TwinsOf,
)

TEACHER, GUESS = "teacher", "guess"
TWINS = frozenset({"label_twin", "map_twin"})
MAX_P_VALUE = 0.05
"""Of the exact test, above which two predictors are not told apart."""
STUDENT_NAMES = frozenset({"student", "chosen"})
"""What a paired difference calls the student that it is about."""

Part = Literal["validation", "test"]


@dataclass(frozen=True)
class Evidence:
    """What is known of a study, and of the one student in question.

    Attributes:
        student: the student; None where there is none to be named.
        num_finished: trials that count.
        num_complete: of these, those that have a student within the constraints.
        objectives: in order.
        constraints: bounds of the space by metric or cost name.
        within: a budget beside these, likewise.
        num_on_front: students inside the region that no other beats.
        region: which students are of use; None in a study that was begun before there was one.
        emptiness: why none is on the front where none is, and what to do.
        is_exhausted: whether every genotype of the space was tried.
        references: see ``Reference``.
        differences: paired differences of the student, and of references.
        metrics: what is said of each metric by its name.
        diagnosis: of the teacher, as it is stored.
        trust: the teacher's verdict, ``level`` and ``sentence``; empty where none was made.
        predictions: the verdict on its predictions, likewise.
        twins: of the student; None where it has none.
    """

    student: TrialRecord | None
    num_finished: int
    num_complete: int
    objectives: tuple[Objective, ...]
    constraints: Mapping[str, float] = field(default_factory=dict)
    within: Mapping[str, float] = field(default_factory=dict)
    num_on_front: int = 0
    region: Region | None = None
    emptiness: tuple[str, str] = ("", "")
    is_exhausted: bool = False
    references: tuple[Reference, ...] = ()
    differences: tuple[PairedDifference, ...] = ()
    metrics: Mapping[str, MetricWords] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] = field(default_factory=dict)
    trust: Mapping[str, str] = field(default_factory=dict)
    predictions: Mapping[str, Any] = field(default_factory=dict)
    twins: TwinsOf | None = None

    def reference(self, name: str) -> Reference | None:
        """The reference of a name."""
        return next((r for r in self.references if r.name == name), None)

    @property
    def part(self) -> Part:
        """Where the student is judged: on test if it and the teacher were measured there."""
        sides: Iterable[TrialRecord | Reference | None] = (self.student, self.reference(TEACHER))
        measured = [side for side in sides if side is not None]
        if all(any(key.part == TEST for key in side.measures) for side in measured):
            return "test"
        return "validation"


@dataclass(frozen=True)
class Loss:
    """What a student loses against another predictor in one metric.

    Attributes:
        metric: its name, without part.
        part: of the dataset.
        mine, other: the two values.
        value: how much worse the student is; negative where it is better.
        low, high: ends of its 95 % interval; None where none is honest.
        n: number of examples.
        skill: how much better the other one is than a guess; None where that is not known.
        is_apart: whether the two can be told apart.
    """

    metric: str
    part: str
    mine: float
    other: float
    value: float
    low: float | None
    high: float | None
    n: int | None
    skill: float | None
    is_apart: bool

    @property
    def is_known(self) -> bool:
        """Whether an interval says how sure it is."""
        return self.high is not None

    @property
    def is_lost(self) -> bool:
        """Whether the student is worse, and not by chance."""
        return self.is_apart and self.value > 0

    @property
    def is_gained(self) -> bool:
        """Whether the student is better, and not by chance."""
        return self.is_apart and self.value < 0

    @property
    def kept(self) -> float | None:
        """Share of the other one's skill that the student has."""
        if self.skill is None or self.skill <= 0:
            return None
        return 1 - self.value / self.skill


def losses(evidence: Evidence, other: Reference) -> list[Loss]:
    """What the student loses against a reference, the study's own metrics first.

    They are those of paired test differences. Where none were made, it is the likelihood above the
    teacher's that was measured of the student itself.
    """
    student = evidence.student
    if student is None:
        return []

    rows = [*_tested(evidence, student, other)]
    if not rows and other.name == TEACHER:
        rows = [*_measured_above(evidence, student, other)]

    asked = [objective.name for objective in evidence.objectives]
    return sorted(rows, key=lambda row: asked.index(row.metric) if row.metric in asked else 99)


def _tested(evidence: Evidence, student: TrialRecord, other: Reference) -> Iterator[Loss]:
    for row in evidence.differences:
        is_first = row.first in STUDENT_NAMES and row.second == other.name
        is_second = row.second in STUDENT_NAMES and row.first == other.name
        sign = _sign_of_loss(row.metric, evidence)
        if not (is_first or is_second) or sign is None:
            continue

        name = public_name(Key(row.metric, part=row.part))
        mine, theirs = student.metrics.get(name), other.metrics.get(name)
        if mine is None or theirs is None:
            continue

        sign = sign if is_first else -sign
        low, high = sorted(sign * end for end in row.interval) if row.interval else (None, None)
        is_apart = low is not None and high is not None and not low <= 0 <= high
        if row.p_value is not None:  # the exact test decides where there is one
            is_apart = is_apart and row.p_value <= MAX_P_VALUE
        yield Loss(
            metric=row.metric,
            part=row.part,
            mine=mine,
            other=theirs,
            value=sign * row.difference,
            low=low,
            high=high,
            n=row.n,
            skill=_skill(evidence, other, name),
            is_apart=is_apart,
        )


def _measured_above(evidence: Evidence, student: TrialRecord, teacher: Reference) -> Iterator[Loss]:
    part = evidence.part
    name = public_name(Key("nll", part=part))
    above = student.measures.get(Key("nll_above_teacher", part=part))
    mine, theirs = student.metrics.get(name), teacher.metrics.get(name)
    if above is None or above.value is None or mine is None or theirs is None:
        return

    low, high = above.interval or (None, None)
    yield Loss(
        metric="nll",
        part=part,
        mine=mine,
        other=theirs,
        value=above.value,
        low=low,
        high=high,
        n=above.n,
        skill=_skill(evidence, teacher, name),
        is_apart=low is not None and high is not None and not low <= 0 <= high,
    )


def _sign_of_loss(metric: str, evidence: Evidence) -> int | None:
    """1 where a larger value is worse, -1 where it is better; None where nobody says."""
    words = evidence.metrics.get(metric)
    if words is None:
        return None
    return 1 if words.direction == "minimize" else -1


def _skill(evidence: Evidence, other: Reference, name: str) -> float | None:
    """How much better a reference is than the guess in a metric."""
    guess = evidence.reference(GUESS)
    sign = _sign_of_loss(name.removeprefix("test_"), evidence)
    theirs = other.metrics.get(name)
    ignorant = None if guess is None else guess.metrics.get(name)
    if sign is None or theirs is None or ignorant is None:
        return None
    return sign * (ignorant - theirs)


def _explain_emptiness(snapshot: StudySnapshot) -> tuple[str, str]:
    """Why no student is on the front, and what to do; nothing where one is."""
    if snapshot.front:
        return "", ""
    return explain_empty_front(snapshot.records, snapshot.objectives, snapshot.region)


_CHOSEN: Any = object()
"""Stands for the student that the snapshot chose, with its differences."""


def evidence_of(
    snapshot: StudySnapshot,
    *,
    student: TrialRecord | None = _CHOSEN,
    differences: tuple[PairedDifference, ...] = (),
    within: Mapping[str, float] | None = None,
) -> Evidence:
    """The evidence of a study on one of its students.

    Args:
        snapshot: the study.
        student: the student, the chosen one by default; None where none can be named.
        differences: paired test differences of a student that is given.
        within: a budget that it was looked for within.
    """
    if student is _CHOSEN:
        student = None if snapshot.chosen is None else snapshot.record(snapshot.chosen)
        differences = snapshot.paired_differences

    # the references of a snapshot are those of the chosen student
    twins_by_trial = {row.trial: row for row in snapshot.twins}
    twins = None if student is None else twins_by_trial.get(student.trial)
    references = tuple(r for r in snapshot.references if r.name not in TWINS)
    differences = tuple(row for row in differences if row.second not in TWINS)
    if twins is not None:
        references += twins.others
        differences += twins.judgments

    states = [record.state for record in snapshot.records]
    constraints = snapshot.config.get("constraints")
    return Evidence(
        student=student,
        num_finished=sum(record.is_counted for record in snapshot.records),
        num_complete=states.count("complete"),
        objectives=snapshot.objectives,
        constraints=constraints if isinstance(constraints, Mapping) else {},
        within=within or {},
        num_on_front=len(snapshot.front),
        region=snapshot.region,
        emptiness=_explain_emptiness(snapshot),
        is_exhausted=any(note.startswith(EXHAUSTED) for note in snapshot.notes),
        references=references,
        differences=differences,
        metrics=snapshot.metrics,
        diagnosis=snapshot.teacher.get("diagnosis") or {},
        trust=snapshot.teacher.get("verdict") or {},
        predictions=snapshot.teacher.get("prediction_verdict") or {},
        twins=twins,
    )
