"""How tests use the program, and the smallest study worth running.

The program runs inside this process, or as the installed command.
"""

import contextlib
import functools
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gped_nas.cli import main

PROGRAM = Path(sys.executable).with_name("gped-search")
TINY = """\
name: tiny
dataset: {name: digits}
teacher:
  family: mlp
  genotype: {depth: 1, width: 8}
  method:
    {name: sgld, chains: 2, num_samples: 4, step_size: {initial: 2.0e-4}, burn_in: 20, thinning: 10}
views: [{policy: clean}]
students:
  - family: mlp
    genotype:
      depth: {int: [1, 2]}
      width: {choices: [2, 4, 8]}
      storage_dtype: {choices: [float32, int8]}
search: {sampler: tpe, n_trials: 4, students_at_once: 3, keep: {}, every_dtype: false}
recipe: {steps: 40, warmup: 5, lr: 0.02}
baseline: {steps: 100, precisions: [1.0]}
twins: {seeds: 0}
"""
N_TRIALS = 4


@dataclass(frozen=True)
class Result:
    """What one call of the program left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def call(*args: object, terminal: bool = False) -> Result:
    """Run ``gped-search args`` inside this process.

    ``terminal`` makes it believe that it talks to one.
    """
    stream = _Terminal if terminal else io.StringIO
    out, err = stream(), stream()
    argv_before = sys.argv
    sys.argv = ["gped-search", *map(str, args)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = _exit_code(end)
    finally:
        sys.argv = argv_before
    return Result(code, out.getvalue(), err.getvalue())


def _exit_code(end: SystemExit) -> int:
    """The code that a process would end with; a text is an error."""
    if end.code is None:
        return 0
    return end.code if isinstance(end.code, int) else 1


def accepted(*args: object) -> Result:
    """``call`` that must succeed."""
    result = call(*args)
    assert result.code == 0, result.err
    return result


def refused(code: int, *args: object, says: tuple[str, ...] = ()) -> Result:
    """``call`` that must end with ``code`` and one message that holds each of ``says``.

    Stdout must be empty.
    """
    result = call(*args)
    assert result.code == code, (result.code, result.err)
    assert_one_message(result.err, says)
    assert result.out == ""
    return result


def assert_one_message(err: str, says: tuple[str, ...] = ()) -> None:
    """Whether stderr ends with one error for people that holds each of ``says``."""
    assert "Traceback" not in err and "internal error" not in err, err
    assert err.lower().count("error: ") == 1, err
    message = err[err.lower().index("error: ") :]
    for text in says:
        assert text in message, (text, message)


def _hear_interrupts() -> None:
    """A suite that runs in the background ignores Ctrl-C, and what it starts would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*args: object, cwd: Path | None = None, **env: str) -> "subprocess.Popen[str]":
    """The installed command as a process of its own, in a group of its own as a shell starts it."""
    return subprocess.Popen(
        [str(PROGRAM), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, **env, "OMP_NUM_THREADS": "1"},
        process_group=0,
        preexec_fn=_hear_interrupts,
    )


def finish(process: "subprocess.Popen[str]", seconds: float = 240) -> Result:
    """Wait for a process; one that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"still running after {seconds} s: {out}\n{err}")
    return Result(process.returncode, out, err)


def installed(*args: object, cwd: Path | None = None, **env: str) -> Result:
    """Run the installed command to its end."""
    return finish(start(*args, cwd=cwd, **env))


def wait_for(
    what: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 40
) -> None:
    """Wait until ``what`` holds while the process runs."""
    end = time.monotonic() + seconds
    while not what():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"it did not come so far: {process.communicate()}")
        time.sleep(0.02)


def without_region(home: "Home") -> None:
    """Make a study one that was begun before there was a region of interest."""
    from gped_nas.api import open_study

    ledger = open_study(home.study).ledger
    ledger.write(ledger.document.with_changes(region=None))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes; empty where there is no folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@dataclass(frozen=True)
class Home:
    """A folder with a space, its studies and its caches."""

    root: Path

    @property
    def space(self) -> Path:
        """The tiny space."""
        return self.root / "tiny.yaml"

    @property
    def out(self) -> Path:
        """Folder of all studies."""
        return self.root / "reports"

    @property
    def study(self) -> Path:
        """The tiny study."""
        return self.out / "tiny"

    @property
    def cache(self) -> Path:
        """What ``GPED_CACHE`` names."""
        return self.root / "cache"

    @property
    def stream(self) -> Path:
        """The only stream in the cache."""
        (folder,) = (self.cache / "streams").iterdir()
        return folder

    def run(self, *args: object) -> Result:
        """``gped-search run`` of the tiny space, which must succeed."""
        return accepted("run", self.space, "--out", self.out, *args)


def new_home(root: Path, **replaced: str) -> Home:
    """A home with the tiny space in it, some of its text replaced, and nothing run."""
    root.mkdir(parents=True, exist_ok=True)
    text = TINY
    for key, value in replaced.items():
        lines = [line for line in text.splitlines() if line.startswith(f"{key}:")]
        assert len(lines) == 1, key
        text = text.replace(lines[0], f"{key}: {value}")
    home = Home(root)
    home.space.write_text(text)
    return home


@functools.cache
def shared_home(base: Path) -> Home:
    """A home where the tiny study was run to its end, made once a session; never write to it."""
    home = new_home(base / "shared-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPED_CACHE", str(home.cache))
        for name in ("GPED_STORAGE", "OPTUNA_STORAGE"):
            patch.delenv(name, raising=False)
        home.run()
    return home


def snapshot_of(home: Home) -> Any:
    """The snapshot of the tiny study."""
    from gped_nas.api import open_study

    return open_study(home.study).snapshot()
