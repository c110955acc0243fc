"""No room on the disk: one message, exit code 5, nothing partial; with room the command goes on.

``RLIMIT_FSIZE`` stands in for a full disk: the write that would pass it fails with EFBIG after
writing what fits.
"""

from pathlib import Path

import pytest

from tests.faults.checks import assert_finished, assert_no_leftovers, assert_whole, sealed
from tests.faults.conftest import STEP_S, Undisturbed
from tests.faults.forks import Ended, Forks


def _assert_refused(ended: Ended, *words: str) -> None:
    """Assert exit code 5 and one message that holds these words."""
    lines = ended.stderr.splitlines()
    messages = [line for line in lines if "error" in line.lower() or "Traceback" in line]
    assert ended.code == 5, ended.stderr
    assert len(messages) == 1, ended.stderr
    for word in words:
        assert word in messages[0], ended.stderr


# 64 bytes: not even the key fits. 3000 bytes: params of a chunk fit (594 parameters of 4 bytes and
# a header of 128), the state of the random generator does not. 12 000 bytes: chunks fit, the
# segment of six samples does not.
@pytest.mark.parametrize("limit", [64, 3000, 12_000])
def test_a_build_without_room(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path, limit: int
) -> None:
    build = ("teacher", "build", str(undisturbed.space))
    ended = forks.run(*build, cache=tmp_path, step_s=STEP_S, limit=limit)
    _assert_refused(ended, "File too large", str(tmp_path))
    assert_whole(tmp_path)
    assert_no_leftovers(tmp_path)

    resumed = forks.run(*build, cache=tmp_path, step_s=STEP_S)
    assert resumed.code == 0, resumed.stderr
    assert sealed(tmp_path) == undisturbed.sealed[0]


def test_a_report_without_room(forks: Forks, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """The page is above a megabyte, everything else of the study far below."""
    run = ("run", str(undisturbed.space), "--out", str(tmp_path))
    study = tmp_path / "tiny"

    ended = forks.run(*run, cache=undisturbed.cache, limit=700_000)
    _assert_refused(ended, "report.html", "File too large")
    assert not (study / "report.html").exists()
    assert_whole(tmp_path)
    assert_no_leftovers(tmp_path)

    resumed = forks.run(*run, cache=undisturbed.cache)
    assert resumed.code == 0, resumed.stderr
    assert "train" not in {kind for kind, _ in resumed.instants}
    assert_finished(study, 4)


def test_a_database_without_room(forks: Forks, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """SQLite's file reaches its limit while the study runs."""
    run = ("run", str(undisturbed.space), "--out", str(tmp_path))

    ended = forks.run(*run, cache=undisturbed.cache, limit=130_000)
    _assert_refused(ended, "study 'tiny'", "storage")
    assert_whole(tmp_path)

    resumed = forks.run(*run, cache=undisturbed.cache)
    assert resumed.code == 0, resumed.stderr
    assert_finished(tmp_path / "tiny", 4)
