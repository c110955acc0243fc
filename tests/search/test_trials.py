"""Records are sealed: what is changed in the database is noticed, wherever it is."""

import json
import random
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import pytest

from gped_nas.errors import DamageError, UndigestedWarning
from gped_nas.search.ledger import Ledger
from gped_nas.search.record import TrialRecord
from gped_nas.search.study import load
from gped_nas.search.trials import DAMAGED, check_undamaged
from tests.search.fakes import make_space, open_store, run

ROW_TEXT = "SELECT value_json FROM trial_user_attributes WHERE trial_id = 2 AND key = 'gped:row'"
SET_ROW = "UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = 2 AND key = 'gped:row'"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of six trials that ended in every way; only to be copied."""
    path = tmp_path_factory.mktemp("sealed") / "study.db"
    space = make_space({"depth": 1, "width": {"int": [1, 60_000]}}, seed=3)
    run(space, open_store(space, path), n_trials=6)
    return path


@pytest.fixture
def path(finished: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "study.db"
    copy.write_bytes(finished.read_bytes())
    return copy


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            assert database.execute(statement).rowcount > 0, statement


def ledger_of(path: Path) -> Ledger:
    return load(f"sqlite:///{path}", "fake")


def damaged(records: list[TrialRecord]) -> list[int]:
    return [record.trial for record in records if record.reason.startswith(DAMAGED)]


def test_a_whole_study_is_undamaged_and_sealed(path: Path) -> None:
    records = ledger_of(path).records()
    check_undamaged(records)
    assert len(records) == 6 and all(record.is_sealed for record in records)


# Optuna's trial 2 is our trial 1.
EDITS: dict[str, tuple[str, ...]] = {
    "a value": ("UPDATE trial_values SET value = value * 1.0000001 WHERE trial_id = 2",),
    "values exchanged": (
        "UPDATE trial_values SET objective = 1 - objective + 5 WHERE trial_id = 2",
        "UPDATE trial_values SET objective = objective - 5 WHERE trial_id = 2",
    ),
    "a value less": ("DELETE FROM trial_values WHERE trial_id = 2 AND objective = 1",),
    "no number": ("UPDATE trial_values SET value = NULL WHERE trial_id = 2",),
    "failed": ("UPDATE trials SET state = 'FAIL' WHERE trial_id = 2",),
    "pruned": ("UPDATE trials SET state = 'PRUNED' WHERE trial_id = 2",),
    "a parameter": ("UPDATE trial_params SET param_value = param_value + 1 WHERE trial_id = 2",),
    "no parameter": ("DELETE FROM trial_params WHERE trial_id = 2",),
    "no row": ("DELETE FROM trial_user_attributes WHERE trial_id = 2 AND key = 'gped:row'",),
    "another key": (
        "UPDATE trial_user_attributes SET key = 'gped:rov' WHERE trial_id = 2 AND key = 'gped:row'",
    ),
    "a digit of the record": (
        "UPDATE trial_user_attributes SET value_json = replace(value_json, '\\\"nll\\\":0.', "
        "'\\\"nll\\\":0.0') WHERE trial_id = 2",
    ),
    "no digest": (
        "UPDATE trial_user_attributes SET value_json = replace(value_json, 'digest', 'digesu') "
        "WHERE trial_id = 2",
    ),
    "the row of another trial": (
        "UPDATE trial_user_attributes SET value_json = (SELECT value_json FROM "
        "trial_user_attributes WHERE trial_id = 3 AND key = 'gped:row') WHERE trial_id = 2 "
        "AND key = 'gped:row'",
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_trial_is_refused_by_name(path: Path, what: str) -> None:
    edit(path, *EDITS[what])
    records = ledger_of(path).records()
    assert damaged(records) == [1]
    assert not records[1].values
    with pytest.raises(DamageError, match="^trial 1: its record was changed.*; restore the study"):
        check_undamaged(records)


def test_trials_that_exchanged_their_numbers_are_refused(path: Path) -> None:
    edit(path, "UPDATE trials SET number = 3 - number WHERE trial_id IN (2, 3)")
    records = ledger_of(path).records()
    with pytest.raises(DamageError, match="^trial 1: .* and 1 more; "):
        check_undamaged(records)


def test_a_flipped_bit_of_a_row_is_noticed(path: Path) -> None:
    """Those bits of 60 after which the text is still JSON; Optuna reads no other text."""
    draw = random.Random(0)
    num_noticed = 0
    with closing(sqlite3.connect(path)) as database:
        ((text,),) = database.execute(ROW_TEXT)
        for _ in range(60):
            data = bytearray(text.encode())
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(7)
            if not is_json(data):
                continue
            with database:
                database.execute(SET_ROW, (data.decode(),))
            assert damaged(ledger_of(path).records()) == [1], data
            num_noticed += 1
    assert num_noticed > 30


def is_json(data: bytearray) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


# -- what was made before there were seals


def unseal_all(path: Path) -> None:
    """The rows as an earlier version wrote them."""
    edit(
        path,
        "UPDATE trial_user_attributes SET value_json = json_remove(value_json, '$.digest', "
        "'$.params') WHERE key = 'gped:row'",
    )


def test_unsealed_records_are_read_with_one_warning(path: Path) -> None:
    sealed = ledger_of(path).records()
    unseal_all(path)
    ledger = ledger_of(path)
    with pytest.warns(UndigestedWarning, match="'fake': the record of 6 trials is read unchecked"):
        assert ledger.records() == sealed
    with warnings.catch_warnings(action="error"):
        ledger.records()


@pytest.mark.filterwarnings("ignore:.* is read unchecked:gped_nas.errors.UndigestedWarning")
@pytest.mark.parametrize("what", ["a value", "failed", "pruned", "no row", "no number"])
def test_unsealed_records_are_compared_with_the_tables(path: Path, what: str) -> None:
    unseal_all(path)
    edit(path, *EDITS[what])
    assert damaged(ledger_of(path).records()) == [1]


@pytest.mark.filterwarnings("ignore:.* is read unchecked:gped_nas.errors.UndigestedWarning")
def test_unsealed_records_are_sealed_when_the_study_goes_on(path: Path) -> None:
    before = ledger_of(path).records()
    unseal_all(path)
    space = make_space({"depth": 1, "width": {"int": [1, 60_000]}}, seed=3)
    run(space, open_store(space, path), n_trials=7)

    with warnings.catch_warnings(action="error"):
        records = ledger_of(path).records()
    assert records[:6] == before and all(record.is_sealed for record in records)
    edit(path, *EDITS["a parameter"])
    assert damaged(ledger_of(path).records()) == [1]
