"""A study stays readable whatever another program told it: NaN, too many values, no record."""

import contextlib
import json
import math
import sqlite3
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from gped_nas.errors import StudyError
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.search.answers import Answer
from gped_nas.search.objectives import objective
from gped_nas.search.record import TrialRecord
from gped_nas.search.rows import Refusal
from gped_nas.search.storage import TolerantStorage
from gped_nas.search.study import create_or_load, load
from gped_nas.search.trials import RECORD
from tests.scenarios import tree
from tests.search.fakes import make_space

# The trials below are told as before there were rows.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.* is read unchecked:gped_nas.errors.UndigestedWarning"
)

WRONG = [
    [math.nan, 1.0],
    [1.0, math.nan],
    [math.inf, 1.0],
    [1.0, -math.inf],
    [1.0],
    [1.0, 2.0, 3.0],
    [],
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Three good trials, told with their records, and one that runs."""
    url = f"sqlite:///{tmp_path}/study.db"
    objectives = [objective("nll", ""), objective("macs", "")]
    create_or_load(url, "s", objectives, {"seed": "0"})
    study = optuna.load_study(storage=url, study_name="s")
    for i in range(3):
        trial = study.ask()
        trial.suggest_int("width", 1, 9)
        measures = {Key("nll"): Measured(1.0 + i)}
        costs = {"macs": 9 - i}
        record = TrialRecord(i, "complete", {"family": "mlp"}, measures=measures, costs=costs)
        trial.set_user_attr(RECORD, record.dumps())
        study.tell(trial, [1.0 + i, 9 - i])
    study.ask().suggest_int("width", 1, 9)
    return url


@pytest.mark.parametrize("values", WRONG)
def test_a_trial_told_past_optuna_has_failed(url: str, tmp_path: Path, values: list[float]) -> None:
    RDBStorage(url).set_trial_state_values(4, TrialState.COMPLETE, values)
    before = tree(tmp_path)

    storage = TolerantStorage(url)
    trials = storage.get_all_trials(1)
    assert [t.state.name for t in trials] == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    assert storage.get_trial(4).state == TrialState.FAIL and trials[3].values is None
    assert [t.values for t in trials[:3]] == [[1, 9], [2, 8], [3, 7]]

    records = load(url, "s").records()
    assert [r.state for r in records] == ["complete"] * 3 + ["failed"]
    assert tree(tmp_path) == before


def test_without_it_the_study_cannot_be_read_at_all(url: str) -> None:
    """What the storage is for; once Optuna reads such a study, it can go."""
    RDBStorage(url).set_trial_state_values(4, TrialState.COMPLETE, [math.nan, 1.0])
    with pytest.raises(AssertionError):
        _ = optuna.load_study(study_name="s", storage=url).trials


@pytest.mark.parametrize("values", [v for v in WRONG if not v or not np.isfinite(v).all()])
def test_values_that_are_not_finite_are_not_even_written(url: str, values: list[float]) -> None:
    TolerantStorage(url).set_trial_state_values(4, TrialState.COMPLETE, values)
    assert optuna.load_study(study_name="s", storage=url).trials[3].state == TrialState.FAIL


def test_good_values_are_written_as_they_are(url: str) -> None:
    TolerantStorage(url).set_trial_state_values(4, TrialState.COMPLETE, [0.5, 2.0])
    assert optuna.load_study(study_name="s", storage=url).trials[3].values == [0.5, 2.0]
    assert load(url, "s").records()[3].reason == "finished by something other than gped-search"


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        3,
        json.dumps({"trial": 3, "state": "complete", "genotype": {}, "metrics": {"nll": 1.0}}),
        json.dumps({"trial": 0, "state": "infeasible", "genotype": {}}),
    ],
)
def test_a_record_that_is_none_of_its_trial_is_a_failed_one(url: str, text: object) -> None:
    storage = RDBStorage(url)
    storage.set_trial_user_attr(4, RECORD, text)
    storage.set_trial_state_values(4, TrialState.COMPLETE, [1.0, 2.0])
    record = load(url, "s").records()[3]
    assert (record.trial, record.state) == (3, "failed")
    assert "changed by something other" in record.reason


def test_a_trial_that_another_program_finished_while_it_was_trained_has_failed(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    space = make_space()
    store = create_or_load(url, "s", space.objectives, {"seed": "0"})
    claims = store.claim(space, 2, 0)
    RDBStorage(url).set_trial_state_values(1, TrialState.COMPLETE, [1.0, 2.0])

    answers = []
    measures = {Key("nll"): Measured(0.5)}
    for claim in claims:
        record = TrialRecord(claim.number, "complete", {}, measures=measures, costs={"params": 9})
        answers.append(store.finish(Answer(record, {"params": -1.0})))
    assert answers[0] == Refusal("finished by something other than gped-search")
    assert [record.state for record in store.records()] == ["failed", "complete"]
    assert store.records()[1] == answers[1]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trial_params SET distribution_json = '{}' WHERE param_id = 2",
        "UPDATE trial_params SET distribution_json = '[1' WHERE param_id = 2",
        "UPDATE trials SET state = 'DONE' WHERE trial_id = 3",
        "UPDATE trials SET datetime_start = 'never' WHERE trial_id = 3",
        "UPDATE trial_user_attributes SET value_json = '{' WHERE trial_id = 1",
        "UPDATE trial_user_attributes SET value_json = CAST(x'22ff22' AS TEXT) WHERE trial_id = 1",
        "UPDATE study_user_attributes SET value_json = '['",
        "UPDATE study_directions SET direction = 'UP'",
    ],
)
def test_what_optuna_cannot_read_is_one_message(url: str, statement: str) -> None:
    database = sqlite3.connect(url.removeprefix("sqlite:///"))
    with contextlib.closing(database), database:
        database.execute(statement)
    with pytest.raises(StudyError, match=r"study.db: .*cannot be read.*; restore"):
        storage = TolerantStorage(url)
        storage.get_study_user_attrs(1)
        storage.get_study_directions(1)
        storage.get_all_trials(1)


def test_turned_directions_are_refused_before_any_trial(url: str) -> None:
    database = sqlite3.connect(url.removeprefix("sqlite:///"))
    with contextlib.closing(database), database:
        database.execute("UPDATE study_directions SET direction = 'MAXIMIZE' WHERE objective = 0")
    objectives = [objective("nll", ""), objective("macs", "")]
    with pytest.raises(StudyError, match="directions in the database"):
        create_or_load(url, "s", objectives, {"seed": "0"})


def test_a_storage_out_of_reach_is_not_called_damaged(url: str) -> None:
    storage = TolerantStorage(url)
    database = sqlite3.connect(url.removeprefix("sqlite:///"))
    with contextlib.closing(database), database:
        database.execute("ALTER TABLE trials RENAME TO elsewhere")
    with pytest.raises(StorageInternalError):
        storage.get_all_trials(1)


def test_pages_of_zeros_are_one_message(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    storage = TolerantStorage(url)
    size = path.stat().st_size
    first_page = path.read_bytes()[:4096]
    path.write_bytes(first_page + bytes(size - len(first_page)))
    with pytest.raises(StudyError, match=r"study.db: .*malformed.*; restore"):
        storage.get_all_trials(1)
