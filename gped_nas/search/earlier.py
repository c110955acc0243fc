"""What another study found out, for the sampler of this one: ``--from-study``.

Students of another teacher, dataset or seed say where good genotypes are. They are no trials here:
they count nowhere, answer no genotype and are on no front. A sampler that learns is told of them as
if they had been trained before its first trial.

Their values are of another teacher, so they are carried over. A metric keeps its share of the
teacher's skill: where the predictor that knows nothing is and where the teacher is are known of
both studies (``search.region``). A cost keeps its place between the costs of the space's smallest
and largest genotype, as logarithms; costs that are no objectives change by the same factor. Where
that is not known of both studies, values are taken as they are.

They are kept in the study, ``gped:earlier``, sealed: what it draws follows from itself alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from gped_nas.errors import ConfigError
from gped_nas.evaluate.measured import from_public
from gped_nas.models.labels import COUNTED_COSTS
from gped_nas.search.document import Box, Number, Stored, StudyDocument, unseal, validate
from gped_nas.search.goals import Objective
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region

if TYPE_CHECKING:
    from gped_nas.search.space import SearchSpace

EARLIER = "gped:earlier"
LEARNING_SAMPLERS = ("tpe", "gp", "costs_known")
"""Samplers to which what others trained says something."""
_MOST = 500
"""Students that are taken; of more, an even share."""
_PARTS = ("students", "objectives")
"""Parts of a study's identity that must be the same."""


class EarlierStudent(Stored):
    """A student of another study.

    Attributes:
        trial: its number there.
        params: Optuna's parameters that give its genotype.
        genotype: as records have it.
        metrics, costs: carried over.
    """

    trial: int
    params: dict[str, str | int | float | bool | None]
    genotype: dict[str, Any]
    metrics: dict[str, Number]
    costs: dict[str, Number]

    @property
    def record(self) -> TrialRecord:
        """It as a record; its number is that of no trial here."""
        n = dict.fromkeys(self.metrics, 1)
        measures = from_public(self.metrics, {}, n)
        return TrialRecord(
            -1 - self.trial, "complete", self.genotype, measures=measures, costs=self.costs
        )


class Earlier(Stored):
    """What is known of another study.

    Attributes:
        study: its name.
        stream: digest of its teacher's stream; two studies of one name differ in it.
        students: see the module.
    """

    study: str
    stream: str
    students: tuple[EarlierStudent, ...]

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """Its students as records."""
        return tuple(student.record for student in self.students)

    @property
    def words(self) -> str:
        """A sentence for the report."""
        return (
            f"The sampler began with what {len(self.students)} students of study '{self.study}' "
            "came to, which are no trials of this one."
        )


def read_earlier(attributes: Mapping[str, Any], where: str) -> Earlier | None:
    """What a study was told of another one; None where it was told of none.

    Args:
        attributes: the study's user attributes.
        where: the study, for messages.

    Raises:
        StudyError: it is damaged.
    """
    if EARLIER not in attributes:
        return None
    data, _ = unseal(attributes[EARLIER], EARLIER, f"{where}: {EARLIER}")
    return validate(Earlier, data, f"{where}: {EARLIER}")


def check_same_search(
    identity: Mapping[str, str], objectives: Sequence[Objective], other: StudyDocument, name: str
) -> None:
    """Refuse a study whose students say nothing of this one's.

    Args:
        identity: of this study, see ``api.identity``.
        objectives: of this study.
        other: document of the other study.
        name: of the other study.

    Raises:
        ConfigError: its objectives or its students' ranges are others.
    """
    names = [goal.name for goal in objectives]
    other_names = [goal.name for goal in other.objectives]
    if names != other_names:
        raise ConfigError(
            f"--from-study: study '{name}' has the objectives {', '.join(other_names)}, expected "
            f"{', '.join(names)}; choose a study of the same objectives"
        )
    for part in _PARTS:
        if identity.get(part) != other.identity.get(part):
            raise ConfigError(
                f"--from-study: study '{name}' has other {part} than this space; choose a study "
                f"whose `{part}:` is the same"
            )


def check_sampler(sampler: str) -> None:
    """Refuse a sampler that learns from no student.

    Raises:
        ConfigError: it draws by itself.
    """
    if sampler not in LEARNING_SAMPLERS:
        raise ConfigError(
            f"--from-study: the sampler '{sampler}' does not learn from students of other studies; "
            f"set search.sampler to one of: {', '.join(LEARNING_SAMPLERS)}"
        )


def carry_over(
    records: Sequence[TrialRecord],
    params: Mapping[int, Mapping[str, Any]],
    *,
    source: StudyDocument,
    target: StudyDocument,
) -> tuple[EarlierStudent, ...]:
    """Students of one study with the values that they may have in another one.

    Args:
        records: of the first study.
        params: Optuna's parameters of its trials, by number.
        source, target: documents of both, with their descriptions.
    """
    complete = [record for record in records if record.state == "complete"]
    complete = [record for record in complete if record.trial in params]
    if len(complete) > _MOST:
        step = len(complete) / _MOST
        complete = [complete[math.floor(i * step)] for i in range(_MOST)]

    carrier = _Carrier(source, target)
    students = []
    for record in complete:
        students.append(
            EarlierStudent(
                trial=record.trial,
                params=dict(params[record.trial]),
                genotype=dict(record.genotype),
                metrics=carrier.metrics(record.metrics),
                costs=carrier.costs(record.costs),
            )
        )
    return tuple(students)


@dataclass(frozen=True)
class _Carrier:
    """Carries values from one study to another."""

    source: StudyDocument
    target: StudyDocument

    def metrics(self, metrics: Mapping[str, float]) -> dict[str, Number]:
        """Metrics, each by its share of skill."""
        carried: dict[str, Number] = {}
        for name, value in metrics.items():
            carried[name] = _by_skill(name, value, self.source.region, self.target.region)
        return carried

    def costs(self, costs: Mapping[str, float]) -> dict[str, Number]:
        """Costs, each by its place between the ends of its axis."""
        carried: dict[str, Number] = {}
        logs = []
        for i, goal in enumerate(self.target.objectives):
            if goal.kind == "cost" and goal.name in costs:
                value = _by_place(i, costs[goal.name], _axes(self.source), _axes(self.target))
                carried[goal.name] = value
                logs.append(math.log(value / costs[goal.name]))

        factor = math.exp(sum(logs) / len(logs)) if logs else 1.0
        for name, value in costs.items():
            if name not in carried and name in COUNTED_COSTS:
                carried[name] = value * factor
        return carried


def _axes(document: StudyDocument) -> Box | None:
    return document.description.box if document.description else None


def _by_skill(name: str, value: float, source: Region | None, target: Region | None) -> float:
    """A metric between who knows nothing and the teacher of another study."""
    for region in (source, target):
        if region is None or name not in region.know_nothing or name not in region.teacher:
            return value
    assert source is not None and target is not None
    lead = source.teacher[name] - source.know_nothing[name]
    if lead == 0:
        return value
    skill = (value - source.know_nothing[name]) / lead
    return target.know_nothing[name] + skill * (target.teacher[name] - target.know_nothing[name])


def _by_place(i: int, value: float, source: Box | None, target: Box | None) -> float:
    """A cost at the same place of the other axis, on a scale of logarithms."""
    if source is None or target is None or value <= 0:
        return value
    ends = (source.best[i], source.worst[i], target.best[i], target.worst[i])
    if min(ends) <= 0 or ends[0] == ends[1]:
        return value
    place = math.log(value / ends[0]) / math.log(ends[1] / ends[0])
    return float(ends[2] * math.exp(place * math.log(ends[3] / ends[2])))


def as_trials(space: "SearchSpace", earlier: Earlier | None) -> list[FrozenTrial]:
    """Students of another study as finished trials, for Optuna's samplers; none without one."""
    if earlier is None:
        return []

    directions = [goal.direction for goal in space.objectives]
    study = optuna.create_study(directions=directions)
    for student in earlier.students:
        values = [student.record.values.get(goal.name) for goal in space.objectives]
        if None in values:
            continue
        study.enqueue_trial(student.params)
        asked = study.ask()
        space.draw(asked)
        study.tell(asked, [value for value in values if value is not None])

    trials = study.get_trials(states=(TrialState.COMPLETE,))
    for i, trial in enumerate(trials):  # the numbers of no trials of the study
        trial.number, trial._trial_id = i - len(trials), -(10**9) + i
        trial.system_attrs.clear()
    return trials
