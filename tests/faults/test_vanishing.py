"""Folders and databases that cannot be had, or that are removed while a search writes there."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from tests.cli.harness import assert_one_message
from tests.faults.checks import trials, write_space
from tests.faults.forks import Ended, Forks

SLOW = {"steps": 2000, "batch_size": 64, "warmup": 5}
"""A recipe that trains for longer than it takes to look."""


@pytest.mark.parametrize("what", ["reports", "reports/tiny/study.db"])
def test_what_is_removed_under_a_search_ends_it_with_one_message(
    forks: Forks, tmp_path: Path, what: str
) -> None:
    space = write_space(tmp_path, recipe=SLOW)
    study = tmp_path / "reports" / "tiny"
    answers: list[Ended] = []

    def search() -> None:
        words = ("run", str(space), "--out", str(tmp_path / "reports"))
        answers.append(forks.run(*words, cache=tmp_path / "cache"))

    thread = threading.Thread(target=search)
    thread.start()
    end = time.monotonic() + 60
    while len([state for state, _ in trials(study).values() if state == "RUNNING"]) < 2:
        assert thread.is_alive() and time.monotonic() < end, "no trial began"
        time.sleep(0.01)

    gone = tmp_path / what
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink()
    thread.join()

    (ended,) = answers
    assert ended.code == 5
    assert_one_message(ended.stderr, ("study 'tiny': cannot write to its storage",))
    assert not (study / "study.db").exists(), "nothing goes on in a new database"


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_sampled(
    forks: Forks, tmp_path: Path
) -> None:
    space = write_space(tmp_path)
    (tmp_path / "a file").write_text("mine")
    cache = tmp_path / "cache"
    ended = forks.run("run", str(space), "--out", str(tmp_path / "a file"), cache=cache)
    assert ended.code == 5
    assert_one_message(ended.stderr, ("a file/tiny: cannot create the directory",))
    assert (tmp_path / "a file").read_text() == "mine"
    assert not list(cache.glob("streams/*"))
