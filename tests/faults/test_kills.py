"""``kill -9`` of the real command at random instants, again and again, until it has finished."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gped_nas.data import base as data
from gped_nas.distill.student import load_student
from gped_nas.evaluate.student import student_predictions
from tests.faults.checks import (
    assert_finished,
    assert_kept,
    assert_no_leftovers,
    assert_whole,
    recorded,
    sealed,
    write_space,
)
from tests.faults.conftest import soak_or
from tests.faults.forks import Forks

PATIENCE_S = 120.0
COMMAND = Path(sys.executable).with_name("gped-search")
needs_locks = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="sees who holds a lock in /proc/locks"
)


@dataclass
class Kills:
    """What a test's kills came to.

    Attributes:
        landed: kills of a command at work.
        missed: kills that were too late.
        early: those that landed before anything was kept.
    """

    landed: int = 0
    missed: int = 0
    early: int = 0


def _is_locked(folder: Path, pattern: str) -> bool:
    """Whether a process holds the lock file ``pattern`` in ``folder``: its work has begun."""
    inodes = set()
    for line in Path("/proc/locks").read_text().splitlines():
        if "->" not in line:  # an arrow marks a process that waits
            inodes.add(line.split()[5].split(":")[-1])
    return any(str(path.stat().st_ino) in inodes for path in folder.glob(pattern))


def _kill(words: list[str], cache: Path, folder: Path, pattern: str, wait_s: float) -> int | None:
    """Start the command and kill its process group some time after it has begun.

    Args:
        words: the command.
        cache: its ``GPED_CACHE``.
        folder, pattern: see ``_is_locked``.
        wait_s: time to wait once it has begun.

    Returns:
        The exit code of a command that ended before the kill; None when the kill landed.
    """
    process = subprocess.Popen(
        [COMMAND, *words],
        env={**os.environ, "GPED_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while process.poll() is None and not _is_locked(folder, pattern):
            assert time.monotonic() < deadline, f"{words} did not begin"
            time.sleep(0.005)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait(PATIENCE_S)
    return None if code == -signal.SIGKILL else code


@needs_locks
def test_random_kills_during_the_teacher_build(forks: Forks, tmp_path: Path) -> None:
    """Builds that are killed at random instants, burn-in included, end bit-identical.

    Under ``make soak`` 15 kills land. None that went wrong among 15 bounds the share of instants
    that would at 3 / 15 = 20 % with 95 % confidence (rule of three), 3 / 30 = 10 % together with
    the kills of a study; the sweep over instants, which tries every one of a small build, is what
    shows that there are none.
    """
    space = write_space(tmp_path, method={"num_samples": 24, "burn_in": 1200, "thinning": 100})
    build = ["teacher", "build", str(space)]

    # The clock of the whole build stands still: not one chunk is cut.
    started = time.monotonic()
    whole = forks.run(*build, cache=tmp_path / "whole")
    span_s = time.monotonic() - started
    assert whole.code == 0, whole.stderr

    draw = random.Random("build")
    num_kills = soak_or(15, 1)
    kills = Kills()
    builds = 0
    cache = tmp_path / "0"
    while True:
        is_last = kills.landed >= num_kills
        wait_s = PATIENCE_S if is_last else draw.uniform(0, 0.7 * span_s)
        code = _kill(build, cache, cache, "streams/*/lock", wait_s)
        assert_whole(cache)
        if code is None:
            kills.landed += 1
            kills.early += not any(cache.glob("streams/*/building/*/chain-00/chunk-*"))
            continue

        assert code == 0
        assert sealed(cache) == sealed(tmp_path / "whole")
        assert_no_leftovers(cache)
        builds += 1
        if is_last:
            break
        kills.missed += 1
        cache = tmp_path / str(builds)

    print(
        f"\n{kills.landed} kills landed in {builds} builds of {span_s:.1f} s, {kills.early} before "
        "a first chunk"
    )
    assert kills.landed == num_kills


def _nll_of_file(folder: Path, dataset: Any) -> float:
    predictions = student_predictions(load_student(folder), dataset.raw("validation"))
    labels = np.asarray(dataset.labels("validation"))
    log_prob = np.take_along_axis(predictions.log_prob_NC, labels[:, None], 1)
    return float(-log_prob.mean())


@pytest.mark.soak
@needs_locks
def test_random_kills_during_a_study(forks: Forks, tmp_path: Path) -> None:
    """Studies that are killed at random instants end with all their trials, each once.

    Under ``make soak`` 15 kills land; see the kills of the teacher build for what that bounds.
    """
    widths = {"choices": [2, 3, 4, 5, 6]}
    space = write_space(
        tmp_path,
        students=[{"family": "mlp", "genotype": {"depth": 1, "width": widths}}],
        search={"sampler": "tpe", "n_trials": 8, "students_at_once": 2, "keep": {}},
        constraints={"params": 400},  # a width of 6 has 460
        recipe={"steps": 300, "batch_size": 64, "warmup": 5},
    )
    cache = tmp_path / "cache"
    dataset = data.load({"name": "digits"})

    started = time.monotonic()
    whole = forks.run("run", str(space), "--out", str(tmp_path / "whole"), cache=cache)
    span_s = time.monotonic() - started
    assert whole.code == 0, whole.stderr
    stream = sealed(cache)

    draw = random.Random("study")
    num_kills = soak_or(15, 1)
    kills = Kills()
    studies = 0
    out = tmp_path / "0"
    while True:
        is_last = kills.landed >= num_kills
        study = out / "tiny"
        before = recorded(study)
        run = ["run", str(space), "--out", str(out)]
        wait_s = PATIENCE_S if is_last else draw.uniform(0, 0.7 * span_s)
        code = _kill(run, cache, out, "tiny/lock", wait_s)
        assert_kept(before, study)
        assert_whole(out)
        if code is None:
            kills.landed += 1
            kills.early += not recorded(study)
            continue

        assert code == 0
        complete = assert_finished(study, 8)
        nll = {str(r["trial"]): r["metrics"]["nll"] for r in complete.values()}
        for folder in (study / "students").iterdir():
            expected = pytest.approx(nll[folder.name], rel=1e-6)
            assert _nll_of_file(folder, dataset) == expected
        assert_no_leftovers(out)
        studies += 1
        if is_last:
            break
        kills.missed += 1
        out = tmp_path / str(studies)

    assert sealed(cache) == stream
    print(
        f"\n{kills.landed} kills landed in {studies} studies of {span_s:.1f} s, {kills.early} "
        "before a first record"
    )
    assert kills.landed == num_kills
