"""A SQLite file that another program holds, and a process that may open few files."""

import gc
import json
import resource
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from optuna.storages._cached_storage import _CachedStorage

from gped_nas.api import open_study
from gped_nas.search.database import open_storage
from tests.cli.harness import PROGRAM, assert_one_message
from tests.faults.checks import FINISHED, recorded, trials, write_space
from tests.faults.conftest import Undisturbed, soak_or
from tests.faults.forks import Ended, Forks


class Locked:
    """A study in a SQLite file of its own, and the file held by this process."""

    def __init__(self, forks: Forks, folder: Path) -> None:
        self._forks = forks
        self._folder = folder
        self._space = write_space(folder, recipe={"steps": 2000, "batch_size": 64, "warmup": 5})
        self.database = folder / "study.db"

    def run(self, num: int, *, wait_s: float) -> Ended:
        """Search until ``num`` trials are finished, waiting so long for the file."""
        return self._forks.run(
            *("run", str(self._space), "--out", str(self._folder), "--n-trials", str(num)),
            *("--storage", f"sqlite:///{self.database}?timeout={wait_s}"),
            cache=self._folder / "cache",
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else reads or writes the file inside the block."""
        with closing(sqlite3.connect(self.database, isolation_level=None, timeout=60)) as database:
            database.execute("BEGIN EXCLUSIVE")
            yield
            database.execute("ROLLBACK")

    def wait_for_training(self) -> None:
        """Wait until two trials run, which takes much less time than they do."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            states = [state for state, _ in trials(self._folder).values()]
            if states.count("RUNNING") == 2:
                return
            time.sleep(0.01)
        pytest.fail("no trial began")


@pytest.fixture
def locked(forks: Forks, tmp_path: Path) -> Locked:
    """A study of two trials."""
    study = Locked(forks, tmp_path)
    ended = study.run(2, wait_s=60)
    assert ended.code == 0, ended.stderr
    return study


def test_a_short_lock_is_waited_for_and_a_long_one_loses_no_result(
    locked: Locked, tmp_path: Path
) -> None:
    before = recorded(tmp_path)
    assert len(before) == 2

    # Held where the study is opened.
    with locked.held():
        refused = locked.run(2, wait_s=0.3)
    assert refused.code == 5
    assert_one_message(refused.stderr, ("database is locked",))
    assert "hint: another program holds it: wait for it or end it" in refused.stderr

    # Held where trained students are written, longer than is waited.
    answers: list[Ended] = []
    search = threading.Thread(target=lambda: answers.append(locked.run(4, wait_s=0.3)))
    search.start()
    locked.wait_for_training()
    with locked.held():
        search.join()
    (ended,) = answers
    assert ended.code == 5
    assert_one_message(ended.stderr, ("database is locked",))
    assert "then run the same command again" in ended.stderr
    assert recorded(tmp_path) == before

    # The same, and let go before.
    search = threading.Thread(target=lambda: answers.append(locked.run(4, wait_s=60)))
    search.start()
    locked.wait_for_training()
    with locked.held():
        time.sleep(1.0)
    search.join()
    assert answers[1].code == 0, answers[1].stderr
    records = [json.loads(text) for _, text in recorded(tmp_path).values() if text is not None]
    assert sum(record["state"] in FINISHED for record in records) == 4
    assert {number: recorded(tmp_path)[number] for number in before} == before


def test_a_file_is_waited_for_a_minute_unless_the_url_says_otherwise(tmp_path: Path) -> None:
    for query, expected_ms in (("", 60_000), ("?timeout=7", 7_000)):
        storage = open_storage(f"sqlite:///{tmp_path / 'new.db'}{query}")
        assert isinstance(storage, _CachedStorage)
        with storage._backend.engine.connect() as connection:
            found_ms = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
        assert found_ms == expected_ms


def test_a_study_is_opened_often_without_a_file_left_open(undisturbed: Undisturbed) -> None:
    study = undisturbed.space.parent / "reports" / "tiny"

    def num_open() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    open_study(study).snapshot()
    before = num_open()
    kept = [open_study(study) for _ in range(3)]
    assert num_open() > before, "an open study has its file open"
    del kept

    for _ in range(soak_or(1000, 20)):
        open_study(study).snapshot()
    assert num_open() <= before


def test_too_few_open_files_are_one_message(undisturbed: Undisturbed) -> None:
    study = undisturbed.space.parent / "reports" / "tiny"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))

    result = subprocess.run(
        [PROGRAM, "status", study], capture_output=True, text=True, preexec_fn=limit
    )
    assert result.returncode == 5, result.stderr
    assert_one_message(result.stderr, ("Too many open files",))
    assert "hint: raise the limit of open files (`ulimit -n`)" in result.stderr
