"""A pool: the students that studies trained, to be drawn again without training.

Any study is a pool. Each trial that was trained is a member, with its genotype, what the student is
worth, and the same student in its other storage types. Several studies of one space that differ in
their seeds are one pool: its members are the genotypes that all of them trained, and each has a
student a seed. A proposer sees one seed of a member. How far a front is in truth is told from the
mean of its *other* seeds, since the best of what was seen looks better than it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gped_nas.errors import StudyError
from gped_nas.evaluate.measured import Measured
from gped_nas.io import canonical_json
from gped_nas.search.dimensions import Choice
from gped_nas.search.record import TrialRecord

DTYPE = "storage_dtype"
_MIN_MEMBERS = 8


@dataclass(frozen=True)
class Recorded:
    """One study of a pool.

    Attributes:
        name: for messages.
        records: of all its trials.
        params: what was drawn for each, Optuna's parameters by trial number.
        drawn_macs: by trial number, multiply-adds of the network before pruning.
    """

    name: str
    records: Sequence[TrialRecord]
    params: Mapping[int, Mapping[str, Choice]]
    drawn_macs: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Member:
    """A training of a pool.

    Attributes:
        params: Optuna's parameters of the trial that was trained.
        drawn_macs: multiply-adds before pruning.
        students: of each seed, the student by storage type; the one of ``dtype`` was drawn.
        dtype: the storage type that was drawn.
    """

    params: Mapping[str, Choice]
    drawn_macs: float
    students: tuple[Mapping[str, TrialRecord], ...]
    dtype: str

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The storage types that it has with every seed, the drawn one first."""
        others = set.intersection(*(set(of_seed) for of_seed in self.students)) - {self.dtype}
        return (self.dtype, *sorted(others))

    def truth(self, dtype: str, seen: int) -> TrialRecord:
        """What a student is worth in truth: the mean over the seeds that were not seen.

        Of one seed it is what was seen. Costs are averaged as their logarithms.
        """
        unseen = [s for s in range(len(self.students)) if s != seen] or [seen]
        return mean_record([self.students[s][dtype] for s in unseen])


def mean_record(records: Sequence[TrialRecord]) -> TrialRecord:
    """The first of some records with the means of all: of metrics, and of the logs of costs."""
    first = records[0]
    measures = {}
    for key, measured in first.measures.items():
        values = [record.measures[key].value for record in records if key in record.measures]
        finite = [value for value in values if value is not None]
        if len(finite) == len(records):
            measures[key] = Measured(math.fsum(finite) / len(finite), None, None, measured.n, "")
    costs: dict[str, int | float] = {}
    for name in first.costs:
        logs = [math.log(max(float(record.costs[name]), 1e-300)) for record in records]
        costs[name] = math.exp(math.fsum(logs) / len(logs))
    return first.replace(measures=measures, costs=costs)


@dataclass(frozen=True, eq=False)
class Pool:
    """Trainings to draw from.

    Attributes:
        members: in the order of their trials in the first study.
        num_seeds: students of each.
    """

    members: tuple[Member, ...]
    num_seeds: int


def pool_of(studies: Sequence[Recorded]) -> Pool:
    """The pool of one study, or of several of one space with different seeds.

    Raises:
        StudyError: they have too few trainings in common.
    """
    trained = [_trainings(study) for study in studies]
    common = [key for key in trained[0] if all(key in others for others in trained[1:])]
    if len(common) < _MIN_MEMBERS:
        names = ", ".join(f"'{study.name}'" for study in studies)
        raise StudyError(
            f"{names}: found {len(common)} trained genotypes that all of them have, expected at "
            f"least {_MIN_MEMBERS}; give studies of one space and sampler seed whose seeds differ, "
            "or search further"
        )

    first = studies[0]
    members = []
    for key in common:
        number = trained[0][key].trial
        students = tuple(
            _students(study, of_study[key])
            for study, of_study in zip(studies, trained, strict=True)
        )
        dtype = str(trained[0][key].genotype[DTYPE])
        if all(dtype in of_seed for of_seed in students):
            member = Member(first.params[number], first.drawn_macs[number], students, dtype)
            members.append(member)
    return Pool(tuple(members), len(studies))


def _trainings(study: Recorded) -> dict[str, TrialRecord]:
    """The trials that were trained, by what was trained."""
    trained: dict[str, TrialRecord] = {}
    for record in study.records:
        if record.variant_of is None and record.state in ("complete", "infeasible"):
            if record.measures:
                genotype = {k: v for k, v in record.genotype.items() if k != DTYPE}
                trained.setdefault(canonical_json(genotype), record)
    return trained


def _students(study: Recorded, trained: TrialRecord) -> dict[str, TrialRecord]:
    """The student of a training by storage type."""
    students = {str(trained.genotype[DTYPE]): trained}
    for record in study.records:
        if record.variant_of == trained.trial and record.measures:
            students.setdefault(str(record.genotype[DTYPE]), record)
    return students
