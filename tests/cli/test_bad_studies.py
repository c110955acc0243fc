"""Damaged streams and studies, and those of something else: exit code 4, and nothing changes."""

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from gped_nas.io import lock
from tests.cli.harness import (
    Home,
    accepted,
    assert_one_message,
    contents,
    installed,
    refused,
)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x10
    path.write_bytes(bytes(data))


def _future(path: Path) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "format_version": 2}))


def _validation(home: Home) -> Path:
    (folder,) = home.stream.glob("views/validation-*/000000")
    return folder / "log_prob-000000.npy"


DAMAGES: dict[str, tuple[Callable[[Home], None], tuple[str, ...]]] = {
    "a flipped byte in a weight shard": (
        lambda home: _flip(home.stream / "segments/000000/weight-000000.npy"),
        ("weight-000000.npy", "SHA-256", "delete"),
    ),
    "a flipped byte in predictions": (
        lambda home: _flip(_validation(home)),
        ("log_prob-000000.npy", "delete"),
    ),
    "a missing shard": (
        lambda home: (home.stream / "segments/000000/params-000000.npy").unlink(),
        ("params-000000.npy",),
    ),
    "a missing manifest": (
        lambda home: (home.stream / "segments/000000/manifest.json").unlink(),
        ("manifest.json",),
    ),
    "a future segment": (
        lambda home: _future(home.stream / "segments/000000/manifest.json"),
        ("format version 2", "expected 1", "upgrade"),
    ),
    "a future key": (lambda home: _future(home.stream / "key.json"), ("key.json",)),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_stream_is_told_and_the_study_is_not_touched(own: Home, case: str) -> None:
    damage, says = DAMAGES[case]
    damage(own)
    before = contents(own.study)
    refused(4, "run", own.space, "--out", own.out, "--n-trials", "6", says=says)
    refused(4, "teacher", "verify", own.space)
    assert contents(own.study) == before


def test_verify_finds_a_flipped_byte_in_a_shard_that_a_run_no_longer_reads(own: Home) -> None:
    _flip(own.stream / "segments/000000/params-000000.npy")
    refused(4, "teacher", "verify", own.space, says=("params-000000.npy", "SHA-256"))


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_a_teacher_that_was_never_built_is_told(home: Home, verb: str) -> None:
    refused(4, "teacher", verb, home.space, says=("no stream", "gped-search teacher build"))
    assert not home.cache.exists()


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("recipe.steps=41", "recipe"),
        ("objectives=[nll, macs]", "objectives"),
        ("students.0.genotype.depth={int: [1, 3]}", "students"),
        ("constraints={params: 9000}", "constraints"),
        ("views=[{policy: noise, std: 0.1}]", "views"),
        ("targets=[predictive]", "targets"),
        ("seed=1", "seed"),
        ("teacher.genotype.width=9", "teacher and dataset"),
        ("dataset.seed=1", "teacher and dataset"),
    ],
)
def test_a_study_of_another_space_is_refused_and_kept(own: Home, setting: str, part: str) -> None:
    before = contents(own.root)
    says = ("study 'tiny'", "other settings", part, "--study-name")
    refused(4, "run", own.space, "--out", own.out, "--set", setting, says=says)
    assert contents(own.root) == before


def test_garbage_in_place_of_the_database_is_kept(own: Home) -> None:
    database = own.study / "study.db"
    database.write_bytes(b"this is no database" * 400)
    before = contents(own.study)
    readers = [(verb, own.study) for verb in ("front", "status", "report")]
    for command in (("run", own.space), *readers):
        refused(4, *command, "--out", own.out, says=("study.db",))
    assert contents(own.study) == before


def test_the_database_of_another_program_is_kept(own: Home) -> None:
    database = own.study / "study.db"
    database.unlink()
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    before = database.read_bytes()
    refused(4, "run", own.space, "--out", own.out, says=("study.db", "another program"))
    assert database.read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 3}', "null", "{"])
def test_a_damaged_study_file_is_told(own: Home, text: str) -> None:
    (own.study / "study.json").write_text(text)
    refused(4, "front", own.study, says=("study.json",))


def test_a_missing_database_is_told(own: Home) -> None:
    (own.study / "study.db").unlink()
    refused(4, "front", own.study, says=("study.db", "missing", "restore"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gped:document", {"version": 1, "identity": {}, "objectives": "nll"}),
        ("gped:test:0", {"metrics": ["test_nll", 0.1]}),
    ],
)
def test_a_study_edited_by_hand_is_told_by_every_verb(own: Home, key: str, value: object) -> None:
    with sqlite3.connect(own.study / "study.db") as database:
        database.execute("DELETE FROM study_user_attributes WHERE key = ?", [key])
        database.execute(
            "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?, ?)",
            [key, json.dumps(value)],
        )
    database.close()

    before = contents(own.study)
    run = ("run", own.space, "--out", own.out, "--n-trials", "9")
    readers = [(verb, own.study) for verb in ("status", "trials", "front", "pick", "report")]
    for command in (run, *readers, ("show", own.study, "0"), ("export", own.study, "0")):
        refused(4, *command, says=("study 'tiny'", key, "restore"))
    assert contents(own.study) == before


@pytest.mark.parametrize("table", ["study_user_attributes", "trial_user_attributes"])
def test_text_that_is_no_text_is_damage_and_no_lost_server(own: Home, table: str) -> None:
    with sqlite3.connect(own.study / "study.db") as database:
        database.execute(f"UPDATE {table} SET value_json = CAST(x'7bff7d' AS TEXT)")
    database.close()

    before = contents(own.study)
    run = ("run", own.space, "--out", own.out, "--n-trials", "9")
    for command in (run, ("front", own.study), ("show", own.study, "0"), ("report", own.study)):
        refused(4, *command, says=("Could not decode", "restore"))
    assert contents(own.study) == before


READERS = ("status", "trials", "front", "pick", "report", "dashboard")


@pytest.mark.parametrize("verb", READERS)
def test_a_study_that_does_not_exist_is_told_with_those_that_do(finished: Home, verb: str) -> None:
    before = contents(finished.out)
    refused(4, verb, "tinny", "--out", finished.out, says=("tinny", "no such study", "tiny"))
    elsewhere = finished.root / "elsewhere"
    refused(4, verb, "tiny", "--out", elsewhere, says=("tiny", "no such study", "none"))
    assert contents(finished.out) == before
    assert not elsewhere.exists()


@pytest.mark.parametrize("verb", ["show", "export"])
@pytest.mark.parametrize("trial", ["99", "4"])
def test_a_trial_that_does_not_exist_is_told(finished: Home, verb: str, trial: str) -> None:
    refused(2, verb, finished.study, trial, says=(f"no trial {trial}", "0 to 3"))


def test_a_trial_that_is_no_number_is_told(finished: Home) -> None:
    refused(2, "show", finished.study, "first", says=("TRIAL", "a trial's number"))


@pytest.mark.parametrize(
    ("bound", "code", "says"),
    [
        ("params", 2, ("--within: found 'params'", "params=5000")),
        ("params=few", 2, ("--within: found 'params=few'", "params=5000")),
        ("parms=3", 2, ("--within", "'parms'", "'params'")),
        ("test_nll=3", 2, ("--within", "'test_nll'")),
        ("params=3", 3, ("no student", "params <= 3", "loosen")),
        ("accuracy=1.5", 3, ("no student", "accuracy >= 1.5")),
    ],
)
def test_a_budget_that_cannot_be_met_or_read_is_told(
    finished: Home, bound: str, code: int, says: tuple[str, ...]
) -> None:
    refused(code, "pick", finished.study, "--within", bound, says=says)


def test_a_second_run_of_a_study_is_refused_while_the_first_one_works(own: Home) -> None:
    before = contents(own.study)
    says = (str(own.study), "another process")
    with lock(own.study / "lock", wait=False):
        refused(5, "run", own.space, "--out", own.out, "--n-trials", "6", says=says)
    assert contents(own.study) == before


def test_a_finished_search_without_a_feasible_student_fails_its_gate(home: Home) -> None:
    result = refused_gate(home)
    assert (home.study / "report.html").is_file()
    assert "infeasible" in result
    refused(3, "pick", home.study, says=("no student is feasible",))


def refused_gate(home: Home) -> str:
    """The stderr of a run whose students all break a constraint."""
    constraint = "constraints={accuracy: 0.999}"
    says = ("study 'tiny'", "no student is feasible", "report.html")
    command = ("run", home.space, "--out", home.out, "--n-trials", "2", "--set", constraint)
    return refused(3, *command, says=says).err


def test_a_trial_that_was_queued_with_a_wrong_value_fails_by_itself(own: Home) -> None:
    url = f"sqlite:///{own.study / 'study.db'}"
    queue = optuna.load_study(study_name="tiny", storage=url)
    for params in ({"width": 7}, {"depth": 9}, {"depth": "many"}, {"width": 4}):
        queue.enqueue_trial(params)

    own.run("--n-trials", "5")
    trials = json.loads(accepted("trials", own.study, "--format", "json").out)
    assert [trial["state"] == "failed" for trial in trials] == [False] * 4 + [True] * 3 + [False]
    for trial, value in zip(trials[4:], ("7", "9", "many"), strict=False):
        assert "queued" in trial["reason"] and value in trial["reason"]


def test_a_file_system_without_locks_is_told(home: Home, finished: Home) -> None:
    fault = """
import errno, fcntl, os
def refuse(*args):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = refuse
"""
    (home.root / "sitecustomize.py").write_text(fault)
    path = os.pathsep.join([str(home.root), os.environ.get("PYTHONPATH", "")])

    result = installed("run", "tiny.yaml", PYTHONPATH=path)
    assert result.code == 5 and result.out == ""
    assert_one_message(result.err, ("reports/tiny", "No locks available", "--out"))

    status = installed("status", finished.study, PYTHONPATH=path)
    assert status.code == 0, status.err
