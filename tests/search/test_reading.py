"""The bulk reader of records against reading each trial as Optuna does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine

from gped_nas.errors import StudyError
from gped_nas.search.reading import RecordReader
from gped_nas.search.record import TrialRecord
from gped_nas.search.rows import ROW, Row
from gped_nas.search.study import load
from gped_nas.search.trials import RECORD, read_record
from tests.search.fakes import make_space, open_store, optuna_study, run

OBJECTIVES = ("nll", "params")
NUM = 12
WIDE = {"depth": 1, "width": {"int": [1, 60_000]}}


def _record(number: int, **changes: Any) -> dict[str, Any]:
    """The JSON of a record, with changes."""
    record = {"trial": number, "state": "complete", "genotype": {"family": "mlp"}}
    return {**record, "metrics": {"nll": 0.5}, "costs": {"params": 9}, **changes}


def _row(number: int, **changes: Any) -> dict[str, Any]:
    record = json.dumps(_record(number, **changes))
    return Row(state="finished", record=record).to_json()


STRANGE: dict[str, Callable[[int], tuple[str, object]]] = {
    "of a version without rows": lambda n: (RECORD, json.dumps(_record(n))),
    "a row of ours": lambda n: (ROW, _row(n)),
    "of another trial": lambda n: (ROW, _row(n + 1)),
    "without an objective": lambda n: (ROW, _row(n, metrics={})),
    "not a number": lambda n: (ROW, _row(n, metrics={"nll": float("nan")})),
    "not a number, as text": lambda n: (ROW, _row(n, metrics={"nll": "nan"})),
    "infinite inside": lambda n: (ROW, _row(n, extra={"loss": [[0, float("inf")]]})),
    "too large": lambda n: (ROW, Row(state="finished", record='{"trial":1e999}').to_json()),
    "no record": lambda n: (ROW, Row(state="finished", record="[]").to_json()),
    "a lost record": lambda n: (ROW, Row(state="finished").to_json()),
    "a claim": lambda n: (ROW, Row(state="claimed").to_json()),
    "no row": lambda n: (ROW, {"state": "odd"}),
    "a row that is a text": lambda n: (ROW, "row"),
    "nothing": lambda n: ("mine", 1),
    "a deep row": lambda n: (ROW, json.loads("[" * 220 + "]" * 220)),
}
ENDS = [
    (TrialState.COMPLETE, [0.5, 9.0]),
    (TrialState.PRUNED, None),
    (TrialState.FAIL, None),
    (TrialState.RUNNING, None),
]


@pytest.fixture(scope="module", params=["study.db", "study.memory"])
def storage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> BaseStorage:
    """A study of trials that ended, and of every strange attribute in every state; to be read."""
    path = tmp_path_factory.mktemp("study") / request.param
    space = make_space(WIDE)
    ledger = open_store(space, path)
    run(space, ledger, n_trials=NUM)

    study = optuna_study(path)
    for make in STRANGE.values():
        for state, values in ENDS:
            trial = study.ask()
            trial.suggest_int("width", 1, 60_000)
            trial.set_user_attr(*make(trial.number))
            if state != TrialState.RUNNING:
                study.tell(trial, values, state=state)
    study.enqueue_trial({"width": 3})
    storage: BaseStorage = study._storage
    return storage


def _read_each(storage: BaseStorage) -> list[TrialRecord]:
    """The slow way: Optuna's trials, one after the other."""
    trials = storage.get_all_trials(_id(storage), deepcopy=False)
    return [read_record(trial, OBJECTIVES) for trial in trials]


def _id(storage: BaseStorage) -> int:
    return storage.get_study_id_from_name("fake")


def test_records_are_those_of_optunas_trials(storage: BaseStorage) -> None:
    records = RecordReader(storage, _id(storage)).records(OBJECTIVES)
    expected = _read_each(storage)
    assert len(records) == NUM + len(STRANGE) * len(ENDS) + 1
    assert records == expected
    assert {record.state for record in records} == {"complete", "failed", "running"}


def test_one_record_is_that_of_optunas_trial(storage: BaseStorage) -> None:
    reader = RecordReader(storage, _id(storage))
    assert reader.num_trials() == len(storage.get_all_trials(_id(storage)))
    one_by_one = [reader.record(number, OBJECTIVES) for number in range(reader.num_trials())]
    assert one_by_one == _read_each(storage)


def test_many_strange_trials_are_read_together(
    storage: BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gped_nas.search.reading._MANY", 3)
    assert RecordReader(storage, _id(storage)).records(OBJECTIVES) == _read_each(storage)


def test_what_ended_since_is_read_too(tmp_path: Path) -> None:
    space = make_space(WIDE)
    ledger = open_store(space, tmp_path / "study.db")
    run(space, ledger, n_trials=4)
    assert len(ledger.records()) == 4

    beside = load(f"sqlite:///{tmp_path}/study.db", "fake")
    assert len(beside.records()) == 4
    run(space, ledger, n_trials=8)
    assert [record.state for record in beside.records()] == ["complete"] * 8
    assert beside.records() == ledger.records()


def test_the_number_of_queries_does_not_grow_with_the_trials(tmp_path: Path) -> None:
    statements: list[str] = []

    def note(_: object, __: object, sql: str, *rest: object) -> None:
        statements.append(sql)

    counts = []
    for num in (4, 24):
        path = tmp_path / f"{num}.db"
        space = make_space(WIDE, students_at_once=8)
        run(space, open_store(space, path), n_trials=num)
        ledger = load(f"sqlite:///{path}", "fake")

        event.listen(Engine, "before_cursor_execute", note)
        assert len(ledger.records()) == num
        event.remove(Engine, "before_cursor_execute", note)
        counts.append(len(statements))
        statements.clear()
    assert counts[0] == counts[1] <= 7


def test_a_study_in_memory_has_its_records() -> None:
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="fake", directions=["minimize"] * 2)
    study.tell(study.ask(), [1.0, 2.0])
    reader = RecordReader(storage, 0)
    assert reader.num_trials() == 1 and reader.records(OBJECTIVES) == _read_each(storage)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trial_user_attributes SET value_json = 'x{' WHERE key = 'gped:row'",
        "UPDATE trials SET state = 'ODD' WHERE number = 1",
    ],
)
def test_a_database_that_cannot_be_read_is_one_message(damage: str, tmp_path: Path) -> None:
    space = make_space(WIDE)
    path = tmp_path / "study.db"
    run(space, open_store(space, path), n_trials=3)
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(damage))
    engine.dispose()

    ledger = load(f"sqlite:///{path}", "fake")
    with pytest.raises(StudyError, match="restore"):
        ledger.records()
