"""The verb ``dashboard`` as a process, and verbs that read after another program told a NaN."""

import json
import math
import os
import shutil
import signal
import socket
import urllib.error
import urllib.request

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from tests.cli.harness import N_TRIALS, Home, accepted, finish, start


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_it_serves_the_study_until_it_is_interrupted(own: Home) -> None:
    port = _free_port()
    process = start("dashboard", own.study, "--port", port)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line == f"http://127.0.0.1:{port}/dashboard  (Ctrl-C ends it)\n"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies/1", timeout=20) as answer:
        detail = json.load(answer)

    rows = json.loads(accepted("front", own.study, "--format", "json").out)
    front = [row["trial"] for row in rows]
    assert set(front) <= {trial["number"] for trial in detail["best_trials"]}
    assert detail["objective_names"] == ["flops", "nll", "storage_bytes"], "as the report draws it"
    values = {trial["number"]: trial["values"] for trial in detail["trials"]}
    for row in rows:
        expected = [row["costs"]["flops"], row["metrics"]["nll"], row["costs"]["storage_bytes"]]
        assert values[row["trial"]] == pytest.approx(expected)
    assert detail["note"]["body"].startswith("# tiny") and detail["plotly_graph_objects"]
    assert all(trial["note"]["body"] for trial in detail["trials"] if trial["number"] in front)
    assert detail["artifacts"] == [], "the notes link to them, no icon does"
    notes = {trial["number"]: trial["note"]["body"] for trial in detail["trials"]}
    assert all(f"[trial-{trial}-weights.safetensors](" in notes[trial] for trial in front)
    (stored,) = optuna.load_study(
        study_name=None, storage=f"sqlite:///{own.study}/study.db"
    ).metric_names[:1]
    assert stored == "nll", "nothing of this is stored"

    os.kill(process.pid, signal.SIGINT)
    result = finish(process)
    assert result.code == 130 and "Traceback" not in result.err


@pytest.mark.parametrize(
    "form",
    [
        pytest.param("sqlite:///q.db?timeout=30", marks=pytest.mark.soak),
        pytest.param("sqlite+pysqlite:///q.db", marks=pytest.mark.soak),
        None,
    ],
)
def test_it_serves_what_run_takes(own: Home, form: str | None) -> None:
    """From a folder that a quoted URL spells otherwise, and for each form of URL."""
    folder = own.root / "José 50% #1?"
    folder.mkdir()
    shutil.copytree(own.study, folder / "tiny")
    storage: tuple[str, ...] = ()
    if form is not None:
        shutil.copy(own.study / "study.db", folder / "q.db")
        storage = ("--storage", form)

    port = _free_port()
    process = start("dashboard", "tiny", "--out", ".", "--port", port, *storage, cwd=folder)
    assert process.stderr is not None
    line = process.stderr.readline()
    os.kill(process.pid, signal.SIGINT)
    result = finish(process)
    assert line == f"http://127.0.0.1:{port}/dashboard  (Ctrl-C ends it)\n", result.err
    assert result.code == 130, result.err


def _tell_from_outside(own: Home) -> None:
    """What a client of a plain optuna-dashboard can do to trials that run.

    One is told a NaN, the other too few values.
    """
    url = f"sqlite:///{own.study}/study.db"
    study = optuna.load_study(study_name="tiny", storage=url)
    storage = RDBStorage(url)
    running = [study.ask(), study.ask()]
    for trial, values in zip(running, ([math.nan, 1.0, 1.0], [1.0]), strict=True):
        storage.set_trial_user_attr(trial._trial_id, "gped:record", "garbage")
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, values)


def test_a_nan_told_from_outside_leaves_the_study_readable_and_growing(own: Home) -> None:
    before = json.loads(accepted("front", own.study, "--format", "json").out)
    _tell_from_outside(own)

    assert json.loads(accepted("front", own.study, "--format", "json").out) == before
    status = json.loads(accepted("status", own.study, "--format", "json").out)
    assert (status["finished"], status["failed"]) == (N_TRIALS, 2)
    rows = json.loads(accepted("trials", own.study, "--format", "json").out)[N_TRIALS:]
    assert [row["state"] for row in rows] == ["failed", "failed"]
    assert all("finished by something other" in row["reason"] for row in rows)
    accepted("report", own.study)
    accepted("run", own.space, "--out", own.out, "--n-trials", N_TRIALS + 1)
    again = json.loads(accepted("status", own.study, "--format", "json").out)
    assert (again["finished"], again["failed"]) == (N_TRIALS + 1, 2)
