"""The verb ``dashboard`` as a process, and verbs that read after another program told a NaN."""

import json
import math
import os
import signal
import socket
import urllib.error
import urllib.request

import optuna
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
    said = process.stderr.readline()
    assert said == f"http://127.0.0.1:{port}/dashboard  (Ctrl-C ends it)\n"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies/1", timeout=20) as answer:
        found = json.load(answer)
    front = [
        row["trial"] for row in json.loads(accepted("front", own.study, "--format", "json").out)
    ]
    assert sorted(t["number"] for t in found["best_trials"]) == sorted(front)
    assert found["objective_names"] == ["nll", "flops", "storage_bytes"]
    assert found["note"]["body"].startswith("# tiny") and found["plotly_graph_objects"]
    assert all(trial["note"]["body"] for trial in found["trials"] if trial["number"] in front)
    assert {a["filename"] for a in found["artifacts"]} >= {
        f"trial-{t}-weights.safetensors" for t in front
    }
    os.kill(process.pid, signal.SIGINT)
    result = finish(process)
    assert result.code == 130 and "Traceback" not in result.err


def _tell_from_outside(own: Home) -> None:
    """What a client of a plain optuna-dashboard can do to a trial that runs: a NaN, and a value
    short of one.
    """
    url = f"sqlite:///{own.study}/study.db"
    study = optuna.load_study(study_name="tiny", storage=url)
    storage, running = RDBStorage(url), [study.ask(), study.ask()]
    for trial, values in zip(running, ([math.nan, 1.0, 1.0], [1.0]), strict=True):
        storage.set_trial_user_attr(trial._trial_id, "gped:record", "garbage")
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, values)


def test_a_nan_told_from_outside_leaves_the_study_readable_and_growing(own: Home) -> None:
    before = json.loads(accepted("front", own.study, "--format", "json").out)
    _tell_from_outside(own)
    assert json.loads(accepted("front", own.study, "--format", "json").out) == before
    status = json.loads(accepted("status", own.study, "--format", "json").out)
    assert (status["finished"], status["failed"]) == (N_TRIALS, 2)
    told = json.loads(accepted("trials", own.study, "--format", "json").out)[N_TRIALS:]
    assert [row["state"] for row in told] == ["failed", "failed"]
    assert all("changed by something other" in row["reason"] for row in told)
    accepted("report", own.study)
    accepted("run", own.space, "--out", own.out, "--n-trials", N_TRIALS + 1)
    again = json.loads(accepted("status", own.study, "--format", "json").out)
    assert (again["finished"], again["failed"]) == (N_TRIALS + 1, 2)
