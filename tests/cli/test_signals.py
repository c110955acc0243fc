"""Ctrl-C and SIGTERM at the installed command: once ends the step, twice stops; all is kept."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.cli.harness import (
    Home,
    Result,
    accepted,
    finish,
    installed,
    new_home,
    refused,
    start,
    wait_for,
)

SLOW_TEACHER = "teacher.method.burn_in=10000000"
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


class Listener:
    """Collects a process's stderr while it runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.text = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text += line

    def end(self) -> Result:
        """The process's end; it must come within a minute."""
        try:
            code = self.process.wait(60)
        finally:
            self.process.kill()
        self._thread.join(10)
        assert self.process.stdout is not None and self.process.stderr is not None
        with self.process.stdout, self.process.stderr:
            return Result(code, self.process.stdout.read(), self.text)


def _is_sampling(home: Home) -> bool:
    return any(home.cache.glob("streams/*/building/*/chain-00"))


def _assert_told_how_to_go_on(result: Result, code: int, command: str) -> None:
    assert result.code == code, result.err
    assert "Traceback" not in result.err and result.out == ""
    assert "finishing the current step" in result.err
    assert f"go on with: {command}" in result.err


GRID = "n_trials: 4, sampler: grid, keep: {}, every_dtype: false"
SLOW = {
    "cached": {
        "search": f"{{{GRID}, students_at_once: 1}}",
        "recipe": "{steps: 400}",
    },
    # two at once have two workers, where there are two cores
    "online": {
        "search": f"{{{GRID}, students_at_once: 2}}",
        "recipe": "{steps: 150, warmup: 5, mode: online}",
    },
}
"""Settings of studies that take a few seconds."""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Home:
    """A study of a few seconds: four students, one or two at a time."""
    home = new_home(tmp_path / "home", **SLOW[request.param])
    monkeypatch.setenv("GPED_CACHE", str(home.cache))
    monkeypatch.chdir(home.root)
    return home


@pytest.mark.parametrize(
    ("slow", "number", "code"),
    [("cached", *SIGNALS[0]), ("online", *SIGNALS[1])],
    indirect=["slow"],
)
def test_a_study_that_is_stopped_once_ends_as_one_that_was_not(
    slow: Home, number: int, code: int
) -> None:
    process = start("run", "tiny.yaml", "--seed", "0")
    heard = Listener(process)
    wait_for(lambda: "trial 0: complete" in heard.text, process)
    process.send_signal(number)
    result = heard.end()
    _assert_told_how_to_go_on(result, code, "gped-search run tiny.yaml --seed 0")

    trials = json.loads(accepted("trials", "tiny", "--format", "json").out)
    before = [t for t in trials if t["state"] == "complete"]
    assert 1 <= len(before) < 4 and not [t for t in trials if t["state"] == "running"]
    reasons = {t["reason"] for t in trials if t["state"] == "failed"}
    assert reasons <= {"interrupted before it finished"}

    command = result.err.split("go on with: gped-search ")[1].strip().split()
    accepted(*command)
    trials = json.loads(accepted("trials", "tiny", "--format", "json").out)
    assert json.loads(accepted("status", "tiny", "--format", "json").out)["finished"] == 4
    for old, new in zip(before, trials, strict=False):
        # the front has metrics on the test part by now
        metrics = {name: new["metrics"].get(name) for name in before[0]["metrics"]}
        assert (new["genotype"], new["created"]) == (old["genotype"], old["created"])
        assert metrics == old["metrics"]
    done = [json.dumps(t["genotype"]) for t in trials if t["state"] == "complete"]
    assert len(done) == len(set(done)) == 4


def test_a_teacher_that_is_stopped_once_goes_on_from_there(home: Home) -> None:
    process = start("teacher", "build", "tiny.yaml", "--set", SLOW_TEACHER)
    wait_for(lambda: _is_sampling(home), process)
    process.send_signal(signal.SIGTERM)
    result = finish(process)
    assert result.code == 143 and result.out == "", result.err
    assert "gped-search teacher build tiny.yaml" in result.err
    (chunk,) = home.cache.glob("streams/*/building/*/chain-00/chunk-*")
    step = next(chunk.glob("state-00-step.npy"))
    assert int(_number(step)) > 0


def test_ctrl_c_in_a_terminal_stops_all_processes_gently(home: Home) -> None:
    """A terminal sends it to the whole group, here while the chains' processes still start."""
    process = start("teacher", "build", "tiny.yaml", "--set", SLOW_TEACHER, "--processes", "2")
    wait_for(lambda: any(home.cache.glob("streams/*/building/*")), process)
    os.killpg(process.pid, signal.SIGINT)
    _assert_told_how_to_go_on(finish(process), 130, "gped-search teacher build tiny.yaml")
    chunks = home.cache.glob("streams/*/building/*/chain-0?/chunk-000000/manifest.json")
    assert {path.parts[-3] for path in chunks} == {"chain-00", "chain-01"}


def _number(path: Path) -> int:
    import numpy as np

    return int(np.load(path, allow_pickle=False))


def test_a_run_stopped_while_its_teacher_is_sampled_says_how_to_go_on(home: Home) -> None:
    process = start("run", "tiny.yaml", "--out", "my reports", "--set", SLOW_TEACHER)
    wait_for(lambda: _is_sampling(home), process)
    process.send_signal(signal.SIGINT)
    command = f"gped-search run tiny.yaml --set {SLOW_TEACHER} --out 'my reports'"
    _assert_told_how_to_go_on(finish(process), 130, command)


@pytest.mark.parametrize(
    ("number", "code"), [SIGNALS[0], pytest.param(*SIGNALS[1], marks=pytest.mark.soak)]
)
def test_asking_twice_stops_at_once(home: Home, number: int, code: int) -> None:
    # One thinning step of this chain takes hours, so that the first request can never be met.
    endless = ("--set", "teacher.method.thinning=1000000000", "--set", "teacher.method.burn_in=0")
    process = start("run", "tiny.yaml", *endless)
    heard = Listener(process)
    wait_for(lambda: _is_sampling(home), process)
    says = ("reports/tiny", "another process is working here")
    refused(5, "run", "tiny.yaml", *endless, says=says)

    process.send_signal(number)
    wait_for(lambda: "finishing the current step" in heard.text, process)
    process.send_signal(number)
    result = heard.end()
    assert result.code == code and "stopping now" in result.err and "Traceback" not in result.err
    home.run("--n-trials", "1")


def test_hanging_up_stops_as_sigterm_does(home: Home) -> None:
    process = start("teacher", "build", "tiny.yaml", "--set", SLOW_TEACHER)
    wait_for(lambda: _is_sampling(home), process)
    process.send_signal(signal.SIGHUP)
    _assert_told_how_to_go_on(finish(process), 129, "gped-search teacher build tiny.yaml")


def test_hanging_up_is_not_heard_under_nohup(home: Home) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a process hands on
    try:
        process = start("teacher", "build", "tiny.yaml", "--set", SLOW_TEACHER)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(lambda: _is_sampling(home), process)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    result = finish(process)
    assert "SIGHUP" not in result.err
    _assert_told_how_to_go_on(result, 143, "gped-search teacher build tiny.yaml")


@pytest.mark.parametrize("library", ["typer", "torch"])
def test_ctrl_c_during_an_import_is_one_message(home: Home, library: str) -> None:
    """Of the program itself, or of a library that swallows it and goes on with half of itself."""
    swallowing = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
except BaseException:
    raise RecursionError("half of itself")
"""
    shadows = home.root / "shadows"
    shadows.mkdir()
    (shadows / f"{library}.py").write_text(swallowing)
    path = os.pathsep.join([str(shadows), os.environ.get("PYTHONPATH", "")])
    result = installed("run", "tiny.yaml", PYTHONPATH=path)
    expected = "gped-search: interrupted; run the same command again\n"
    assert result == Result(130, "", expected)
