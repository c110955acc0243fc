"""Askers of studies in a database: processes that search without training, and may be killed."""

import os
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
import psycopg

from gped_nas.api.home import find
from gped_nas.api.standing import LOCK
from gped_nas.errors import GpedError, exit_code
from gped_nas.io import lock
from gped_nas.search.ledger import Claim
from gped_nas.search.record import TrialRecord
from gped_nas.search.study import create_or_load, load
from gped_nas.search.trials import INTERRUPTED
from tests.postgresql.servers import Server
from tests.search.fakes import IDENTITY, Fake, make_space, run

VAST = {
    "depth": 3,
    "width": [{"int": [1, 100]}] * 3,
    "storage_dtype": {"choices": ["float32", "int8"]},
}
"""Genotypes of which hardly ever two are drawn alike; each student is told in two types."""


def search(url: str, folder: Path, name: str, num: int, *, adopts: bool = False) -> None:
    """Search in a folder until a study has so many finished trials, as a run does."""
    _search(url, folder, name, num, Fake(), adopts)


def search_slowly(
    url: str, folder: Path, name: str, num: int, *, seconds: float = 0.05, adopts: bool = False
) -> None:
    """``search`` whose populations take so many seconds."""
    fake = Fake()

    def train(claims: Sequence[Claim]) -> list[TrialRecord]:
        time.sleep(seconds)
        return fake(claims)

    _search(url, folder, name, num, train, adopts)


def _search(
    url: str,
    folder: Path,
    name: str,
    num: int,
    train: Callable[[Sequence[Claim]], list[TrialRecord]],
    adopts: bool,
) -> None:
    space = make_space(VAST, students_at_once=4, max_failures=0)
    folder.mkdir(exist_ok=True, parents=True)
    with lock(folder / LOCK, wait=False):
        home = find(folder, name, url, adopts=adopts)
        if home.is_made():
            home.check(create_or_load(url, name, space.objectives, IDENTITY))
        ledger = create_or_load(url, name, space.objectives, IDENTITY, bind=home.bind)
        with home.bound(ledger):
            run(space, ledger, train, n_trials=num)


def fork(work: Callable[[], None]) -> int:
    """The number of a new process that does this; it ends with the exit code of its error."""
    pid = os.fork()
    if pid != 0:
        return pid

    code = 1
    try:
        warnings.simplefilter("ignore")  # of moved studies and absent servers
        work()
        code = 0
    except GpedError as error:
        print(f"asker: {error}", file=sys.stderr)
        code = exit_code(error)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """The exit code of a process, once it ended; the number of its signal, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def num_trials(server: Server, name: str) -> int:
    """How many trials a study has; 0 where it is not there. Asked without the code under test."""
    query = "SELECT count(*) FROM trials NATURAL JOIN studies WHERE study_name = %s"
    try:
        with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
            (num,) = connection.execute(query, [name]).fetchone() or (0,)
    except psycopg.errors.UndefinedTable:  # nobody has used the database yet
        return 0
    return int(num)


def wait_for_trials(server: Server, name: str, num: int) -> None:
    """Wait until a study has so many trials."""
    end = time.monotonic() + 60
    while num_trials(server, name) < num:
        assert time.monotonic() < end
        time.sleep(0.01)


def assert_each_once(url: str, name: str, num: int) -> None:
    """Assert that a study has exactly ``num`` finished trials, each trained once, and none runs."""
    records = load(url, name).records()
    assert [record.trial for record in records] == list(range(len(records)))
    states = Counter(record.state for record in records)
    assert sum(record.is_counted for record in records) == num, states
    assert set(states) <= {"complete", "duplicate", "failed"}, states
    for record in records:
        assert record.is_sealed
        assert record.state != "failed" or record.reason == INTERRUPTED, record

    trained = Counter(str(record.genotype) for record in records if record.state == "complete")
    assert max(trained.values()) == 1, "a genotype was trained twice"
    whole = {record.trial for record in records if record.state == "complete" and record.is_counted}
    variants = [record.variant_of for record in records if record.variant_of is not None]
    assert sorted(variants) == sorted(whole), "each student is there in its other type, once"

    stored = optuna.load_study(storage=url, study_name=name).get_trials(deepcopy=False)
    assert Counter(trial.state.name for trial in stored) == {
        key: num
        for key, num in (
            ("COMPLETE", len(stored) - states["failed"]),
            ("FAIL", states["failed"]),
        )
        if num
    }
