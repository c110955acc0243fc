"""``status`` from another terminal: in every phase, after a kill, and after a stop."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import gped_nas as gn
from gped_nas.api.standing import STUDENTS, TEACHER, Standing, read_standing
from gped_nas.cli.status import describe_running
from tests.cli.harness import Home, accepted, finish, installed, refused, start, wait_for

ENDLESS_TEACHER = "teacher.method.burn_in=10000000"
ENDLESS_STUDENTS = "recipe.steps=10000000"


def _status(home: Home) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(accepted("status", home.study, "--format", "json").out)
    return status


def _wait_for_phase(home: Home, phase: str, process: "subprocess.Popen[str]") -> None:
    def is_there() -> bool:
        standing, is_held = read_standing(home.study)
        return is_held and standing is not None and standing.phase == phase

    wait_for(is_there, process)
    if phase == STUDENTS:
        wait_for(lambda: _num_claimed(home) == 3, process)


def _num_claimed(home: Home) -> int:
    return len(gn.open_study(home.study).records())


def test_the_teacher_is_told_of_and_what_is_left_of_it(home: Home) -> None:
    process = start("run", "tiny.yaml", "--set", ENDLESS_TEACHER)
    _wait_for_phase(home, TEACHER, process)

    status = installed("status", "tiny", "-f", "json", PYTHONPROFILEIMPORTTIME="1")
    told = json.loads(status.out)
    assert (told["state"], told["phase"]) == ("running", "teacher, 2 of 5")
    loaded = {line.rpartition("|")[2].strip() for line in status.err.splitlines()}
    assert "gped_nas.api.standing" in loaded
    assert not loaded & {"torch", "optuna", "sqlalchemy", "pandas"}

    process.kill()
    finish(process)
    told = _status(home)
    assert told["state"].startswith("stopped") and told["phase"] == "teacher, 2 of 5"
    assert "running" not in told
    refused(4, "front", home.study, says=("no such study",))


def test_after_a_kill_nothing_runs(home: Home) -> None:
    process = start("run", "tiny.yaml", "--set", ENDLESS_STUDENTS)
    _wait_for_phase(home, STUDENTS, process)
    assert _status(home)["state"] == "running" and gn.open_study(home.study).is_at_work()
    assert "running" in accepted("trials", home.study).out

    process.kill()
    finish(process)
    told = _status(home)
    assert told["state"].startswith("stopped") and told["phase"] == "students, 4 of 5"
    assert told["interrupted"] == 3 and "running" not in told and told["finished"] == 0
    assert not gn.open_study(home.study).is_at_work()
    assert "running" not in accepted("trials", home.study).out


def test_a_study_that_came_to_its_end_is_at_no_phase(finished: Home) -> None:
    told = _status(finished)
    assert "state" not in told and "phase" not in told and told["chosen"] is not None


def test_what_workers_had_nothing_to_do_is_told() -> None:
    standing = Standing("tiny", STUDENTS, done=2.0, total=8, entered=100.0, updated=110.0)
    assert "workers" not in describe_running(standing, Path("tiny"))

    with_workers = replace(standing, workers=2, idle_share=0.0321)
    told = describe_running(with_workers, Path("tiny"))
    assert (told["workers"], told["idle share"]) == (2, 0.032)
    assert told["done"] == "2 of 8 trials" and told["per second"] == 0.2
