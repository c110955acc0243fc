"""The installed command whose stdin, stdout or stderr is closed, full or narrow in letters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.harness import PROGRAM, Home

RUN = "run tiny.yaml --n-trials 1"


def _shell(home: Home, words: str, **env: str) -> "subprocess.CompletedProcess[bytes]":
    """The installed command as a shell starts it."""
    return subprocess.run(
        ["sh", "-c", f"{PROGRAM} {words}"],
        cwd=home.root,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        timeout=240,
    )


def test_a_run_without_any_stream_finishes(home: Home) -> None:
    result = _shell(home, f"{RUN} --processes 2 <&- >&- 2>&-")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert (home.study / "report.html").is_file()
    # nothing that a library writes on descriptor 2 may land in a file of the study
    assert (home.study / "study.db").read_bytes().startswith(b"SQLite format 3")


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_descriptor_of_a_closed_stream(closed: str) -> None:
    child = "import os; raise SystemExit(min(os.pipe()))"
    program = f"""
import os, subprocess, sys
from gped_nas.cli.streams import mend_streams
mend_streams()
print("nobody"), print("hears", file=sys.stderr)
assert min(os.pipe()) == 3
sys.exit(subprocess.call([sys.executable, "-c", {child!r}]))
"""
    command = ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, program]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 3


@pytest.mark.parametrize("closed", [pytest.param("2>&-", marks=pytest.mark.soak), "2>/dev/full"])
def test_a_run_that_nobody_hears_prints_its_front(own: Home, closed: str) -> None:
    result = _shell(own, f"run tiny.yaml {closed}")
    assert result.returncode == 0
    assert b"<- chosen" in result.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_told(finished: Home, unbuffered: str) -> None:
    env = {"PYTHONUNBUFFERED": unbuffered}
    result = _shell(finished, f"status {finished.study} > /dev/full", **env)
    assert result.returncode == 5
    assert result.stderr.count(b"error: ") == 1
    assert b"No space left on device" in result.stderr and b"Traceback" not in result.stderr


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.soak)])
def test_letters_that_an_encoding_lacks_are_replaced(
    own: Home, tmp_path: Path, encoding: str
) -> None:
    folder = tmp_path / "Δ中"
    own.root.rename(folder)
    moved = Home(folder)
    env = {"PYTHONIOENCODING": encoding, "GPED_CACHE": str(moved.cache)}

    result = _shell(moved, "status tiny", **env)
    assert result.returncode == 0, result.stderr
    missing = _shell(moved, "status 'naïve Δ'", **env)
    assert missing.returncode == 4
    assert "naïve ?".encode(encoding, "replace") in missing.stderr
    assert b"internal error" not in missing.stderr
    shown = _shell(moved, f"report {moved.study}", **env)
    assert shown.returncode == 0 and b"??/reports/tiny" in shown.stdout
