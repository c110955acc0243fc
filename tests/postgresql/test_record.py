"""A study in PostgreSQL loses no trial and tells none twice, whatever happens to who asks.

Askers are processes of their own that search without training, so that a search takes a second.
"""

import functools
import os
import platform
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError

from gped_nas.errors import EnvironmentProblem, EnvironmentWarning, StudyError
from gped_nas.search import owners, reconnect
from gped_nas.search.study import load
from tests.faults.conftest import soak_or
from tests.postgresql.askers import (
    assert_each_once,
    fork,
    num_trials,
    search,
    search_slowly,
    wait,
    wait_for_trials,
)
from tests.postgresql.servers import Server, Wire

pytestmark = [
    pytest.mark.filterwarnings("ignore:the database does not answer"),
    pytest.mark.filterwarnings("ignore:.* it lay in postgresql"),
]
NUM = 12
"""Trials of a search, four at once."""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "_PAUSE_S", 0.05)


def _num_commits(server: Server, folder: Path, name: str) -> int:
    """Commits of an undisturbed search in a database whose tables are there."""
    search(server.url, folder / "first", f"{name}-first", 1)
    with Wire(server.port) as wire:
        search(server.url_by(wire.port), folder / "second", name, NUM)
    return wire.num_commits


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_that_is_lost_at_a_commit_loses_nothing(
    server: Server, tmp_path: Path, when: str
) -> None:
    """Sent and not heard of, or done and not answered: in a suite a few commits, all under soak."""
    num_commits = _num_commits(server, tmp_path / "whole", f"whole-{when}")
    draw = random.Random(when)
    chosen = range(1, num_commits + 1)
    sample = draw.sample(chosen, soak_or(len(chosen), 3))

    for number in sample:
        name = f"cut-{when}-{number}"
        with Wire(server.port, lambda seen, at=number: when if seen == at else "") as wire:
            url = server.url_by(wire.port)
            try:
                search(url, tmp_path / name, name, NUM)
            except EnvironmentProblem:  # nothing is waited for before a study is open
                assert num_trials(server, name) == 0
                search(url, tmp_path / name, name, NUM)
            assert wire.num_lost == 1
        assert_each_once(server.url, name, NUM)


def test_a_wire_that_loses_every_third_commit_is_outlived(server: Server, tmp_path: Path) -> None:
    name, num = "every-third", soak_or(400, 40)
    draw = random.Random(3)
    with Wire(server.port) as wire:
        url = server.url_by(wire.port)
        search(url, tmp_path, name, 1)
        num_opened = wire.num_commits + 20  # opening is not waited for

        def loses(number: int) -> str:
            is_lost = number > num_opened and number % 3 == 0
            return draw.choice(["before", "after"]) if is_lost else ""

        wire.loses = loses
        search(url, tmp_path, name, num)
    assert wire.num_lost > 3
    assert_each_once(server.url, name, num)


def test_a_server_that_is_restarted_again_and_again_loses_nothing(
    server: Server, tmp_path: Path
) -> None:
    name, num = "restarted", soak_or(800, 80)
    pid = fork(lambda: search_slowly(server.url, tmp_path, name, num))
    wait_for_trials(server, name, 1)

    draw = random.Random(5)
    for _ in range(soak_or(30, 3)):
        time.sleep(draw.uniform(0.05, 0.3))
        server.stop()
        time.sleep(draw.uniform(0.0, 0.3))
        server.start()
    assert wait(pid) == 0
    assert_each_once(server.url, name, num)


def test_an_asker_that_is_killed_again_and_again_loses_nothing(
    server: Server, tmp_path: Path
) -> None:
    """200 kills under soak. None that did harm bounds the share that would at 1.5 % (95 %)."""
    name, num_kills = "killed", soak_or(200, 4)
    draw = random.Random(7)
    num_wanted = 0
    for _ in range(num_kills):
        num_wanted += 4
        pid = fork(lambda: search_slowly(server.url, tmp_path, name, 10**6, seconds=0.02))
        wait_for_trials(server, name, num_wanted)
        time.sleep(draw.uniform(0.0, 0.1))
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -signal.SIGKILL

    num_finished = sum(record.is_counted for record in load(server.url, name).records())
    search(server.url, tmp_path, name, num_finished + 10)
    assert_each_once(server.url, name, num_finished + 10)


def _as_on_another_machine() -> None:
    platform.node = lambda: "another-machine"
    owners._machine = lambda: "another machine"  # type: ignore[assignment]


def test_a_second_asker_is_refused_and_one_that_lost_the_study_stops(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "two-askers"
    monkeypatch.setattr(reconnect, "IDLE_S", 1)
    slowly = functools.partial(search_slowly, server.url, name=name)
    first = fork(lambda: slowly(tmp_path / "a", num=10**6, seconds=0.2))
    wait_for_trials(server, name, 4)

    def ask_elsewhere(adopts: bool) -> Callable[[], None]:
        def ask() -> None:
            _as_on_another_machine()
            slowly(tmp_path / "b", num=100, seconds=0.0, adopts=adopts)

        return ask

    assert wait(fork(ask_elsewhere(adopts=False))) == 4
    with pytest.raises(StudyError, match=f"study '{name}' .*{tmp_path}/a on .*; go on there"):
        slowly(tmp_path / "c", num=100)

    # wherever it stops: also with a transaction open, whose locks the server takes from it
    os.kill(first, signal.SIGSTOP)
    assert wait(fork(ask_elsewhere(adopts=True))) == 0
    assert_each_once(server.url, name, 100)
    os.kill(first, signal.SIGCONT)
    assert wait(first) == 4
    assert_each_once(server.url, name, 100)


def test_a_server_that_stays_away_ends_a_search_and_the_same_one_goes_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "away"
    search(server.url, tmp_path, name, 4)
    monkeypatch.setattr(reconnect, "PATIENCE_S", 0.3)
    ledger = load(server.url, name)
    server.stop()
    try:
        with pytest.warns(EnvironmentWarning, match="does not answer"):
            with pytest.raises(StorageInternalError):
                ledger.change(notes=("Nobody hears this.",))
        with pytest.raises(EnvironmentProblem, match="cannot be opened: .*refused"):
            search(server.url, tmp_path, name, NUM)
    finally:
        server.start()
    search(server.url, tmp_path, name, NUM)
    assert_each_once(server.url, name, NUM)
