"""``kill -9`` of workers, of who asks them, and of both, at random instants: none ends twice."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cli.harness import finish, start
from tests.faults.checks import FINISHED, assert_whole, trials, write_space
from tests.faults.conftest import soak_or
from tests.faults.test_hangs import left_behind


def workers_of(process: "subprocess.Popen[str]", cache: Path) -> list[int]:
    """The workers that a command has now."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_text()
            environment = (path / "environ").read_bytes()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended, or is another user's
            continue
        is_process = parent == process.pid and "spawn_main" in command
        if str(cache).encode() in environment and (is_process or command.startswith("ray::")):
            pids.append(int(path.name))
    return pids


def kill(pid: int) -> None:
    """Kill a process that may have ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def disturb(words: list[object], cache: Path, num_kills: int, seed: str) -> Counter[str]:
    """Run a command until it ends by itself, killing somebody now and then; who was killed."""
    draw, killed = random.Random(seed), Counter[str]()
    while True:
        process = start(*words, GPED_CACHE=str(cache))
        while killed.total() < num_kills:
            time.sleep(draw.uniform(0.5, 6.0))
            workers = workers_of(process, cache)
            if process.poll() is not None:
                break
            who = draw.choice(["asker", "worker", "worker", "both"])
            if who != "asker" and not workers:
                continue

            killed[who] += 1
            if who != "worker":
                kill(process.pid)
            if who != "asker":
                kill(draw.choice(workers))
            if who != "worker":
                break

        result = finish(process, 600)
        if result.code != -signal.SIGKILL:
            assert result.code == 0, result.err
            return killed


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_random_kills_lose_no_trial_and_finish_none_twice(tmp_path: Path, engine: str) -> None:
    num_kills = soak_or(100, 6)
    num_trials = 8 * num_kills
    space = write_space(
        tmp_path,
        students=[{"family": "mlp", "genotype": {"depth": 1, "width": {"int": [8, 60_000]}}}],
        search={"sampler": "random", "students_at_once": 4, "max_failures": 10_000},
        recipe={"steps": 30, "batch_size": 64, "lr": 0.02, "precision": "float32"},
    )
    words = ["run", space, "--out", tmp_path, "--n-trials", num_trials]
    words += ["--engine", engine, "--workers", 2]
    killed = disturb(words, tmp_path / "cache", num_kills, engine)
    print(f"\n{engine}: {dict(killed)}")

    states, trained = Counter[str](), Counter[str]()
    for state, text in trials(tmp_path / "tiny").values():
        assert state != "RUNNING"
        if text is None:
            continue  # taken back from an asker that was killed
        record = json.loads(text)
        states[record["state"]] += 1
        if record["state"] == "failed":
            assert record["reason"].startswith("its process was "), record["reason"]
        elif record["state"] != "duplicate":
            trained[json.dumps(record["genotype"], sort_keys=True)] += 1
    assert (
        sum(num for state, num in states.items() if state in FINISHED - {"duplicate"}) == num_trials
    )
    assert max(trained.values()) == 1
    assert_whole(tmp_path / "tiny")

    deadline = time.monotonic() + 30  # a cluster notices the end of its command
    while left_behind(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left_behind(tmp_path)
