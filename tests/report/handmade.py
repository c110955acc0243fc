"""A study on disk without training: a snapshot's records, told to Optuna as a search does."""

from pathlib import Path

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from gped_nas.api.note import DATABASE, STUDENTS, STUDY_FILE
from gped_nas.api.opening import open_study
from gped_nas.api.study import Study
from gped_nas.io import write_json
from gped_nas.models.base import Genotype
from gped_nas.search.database import sqlite_url
from gped_nas.search.document import (
    Box,
    Description,
    References,
    StudentTest,
    TeacherSummary,
    validate,
)
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import PairedDifference, StudySnapshot
from gped_nas.search.study import create_or_load
from gped_nas.search.trials import RECORD
from tests.export.students import make_student

_OPTUNA_STATES = {
    "complete": TrialState.COMPLETE,
    "infeasible": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}


def make_study(
    root: Path, snapshot: StudySnapshot, *, class_names: tuple[str, ...] = ("cat", "dog", "eel")
) -> Study:
    """A study folder below ``root``; the trials of the front have students.

    Infeasible trials break the constraint.
    """
    folder = root / "study"
    folder.mkdir(parents=True)
    ledger = create_or_load(
        sqlite_url(folder / DATABASE), snapshot.name, snapshot.objectives, {"seed": "0"}
    )
    write_json(folder / STUDY_FILE, {"name": snapshot.name, "storage": "sqlite"})
    study = ledger._study
    for record in snapshot.records:
        _tell(study, record, snapshot)

    ledger.change(
        description=Description(
            config=dict(snapshot.config),
            split_text=snapshot.split_text,
            teacher=validate(TeacherSummary, {**snapshot.teacher, "method": "sgld"}, "teacher"),
            provenance=dict(snapshot.provenance),
            box=Box(best=(0.0, 1.0, 1.0), worst=tuple(snapshot.reference_point.values())),
        ),
        references=References.of(snapshot.references),
    )
    for record in snapshot.records:
        if record.trial in snapshot.front:
            ledger.write_test(record.trial, _test_of(record))
    ledger.seal()

    made = open_study(folder)
    for record in made.front_records():
        genotype = Genotype("mlp", depth=1, width=3)
        make_student(folder / STUDENTS / str(record.trial), genotype, class_names=class_names)
    return made


def _test_of(record: TrialRecord) -> StudentTest:
    """What is told of a student's test: its figures, and one comparison with the teacher."""
    compared = PairedDifference("student", "teacher", "nll", "test", 0.02, (0.01, 0.03), 360)
    tested = {key: measured for key, measured in record.measures.items() if key.part == "test"}
    return StudentTest.of(tested, [compared])


def _tell(study: optuna.Study, record: TrialRecord, snapshot: StudySnapshot) -> None:
    validation = {key: value for key, value in record.measures.items() if key.part != "test"}
    attributes: dict[str, object] = {RECORD: record.replace(measures=validation).dumps()}
    for name in ("accuracy", "nll"):
        if name in record.metrics:
            attributes[name] = record.metrics[name]
    if record.state == "running":
        attributes = {}

    values = None
    excess = {}
    if record.state in ("complete", "infeasible"):
        values = [record.value(objective.name) for objective in snapshot.objectives]
        excess = {
            "constraints:params": -1.0,
            "constraints:storage_bytes": 1.0 if record.state == "infeasible" else -1.0,
        }

    trial = create_trial(
        state=_OPTUNA_STATES.get(record.state, TrialState.PRUNED),
        values=values,
        params={"width": record.genotype["width"]},
        distributions={"width": IntDistribution(1, 128)},
        user_attrs=attributes,
        system_attrs=excess,
    )
    study.add_trial(trial)
