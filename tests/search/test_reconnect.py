"""A server's database that is lost on the way: what was begun is done, and done once.

A SQLite file stands for the server. Its connections are lost before or after a commit, which is all
that a client can tell. ``tests/postgresql`` restarts a server in earnest.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import get_storage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import InvalidRequestError, NoResultFound, OperationalError

from gped_nas.errors import EnvironmentProblem, EnvironmentWarning, StudyError
from gped_nas.search import reconnect
from gped_nas.search.binding import Binding
from gped_nas.search.changes import Change, End, change_trial
from gped_nas.search.database import storage_errors
from gped_nas.search.fence import Fence
from gped_nas.search.reading import RecordReader
from gped_nas.search.reconnect import NetworkStorage, connection_settings, is_lost
from gped_nas.search.rows import Refusal
from gped_nas.search.storage import clock_of

URL = "postgresql://me@host/studies"


class Server(NetworkStorage):
    """A storage whose connections are lost at chosen commits, of those that write.

    Args:
        path: the SQLite file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}")
        self._is_postgresql = True
        self.losses: list[str] = []
        dialect = self.engine.dialect
        commit = dialect.do_commit

        def commit_and_lose(connection: Any) -> None:
            # transactions that only read are left alone
            loss = self.losses.pop(0) if self.losses and connection.in_transaction else ""
            if loss != "before":
                commit(connection)
            if loss:
                raise sqlite3.OperationalError("the connection was lost")

        dialect.do_commit = commit_and_lose  # type: ignore[method-assign, assignment]
        dialect.is_disconnect = (  # type: ignore[method-assign]
            lambda error, connection, cursor: "lost" in str(error)
        )


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(reconnect, "_PAUSE_S", 0.0)
    monkeypatch.setattr("optuna.storages._rdb.storage.time.sleep", lambda seconds: None)
    made = Server(tmp_path / "study.db")
    made.create_new_study([StudyDirection.MINIMIZE], "fake")
    return made


LOSSES = [["before"], ["after"], ["before", "after"], ["after", "before", "after"]]


@pytest.mark.parametrize("losses", LOSSES)
def test_what_was_lost_on_the_way_is_done_once(server: Server, losses: list[str]) -> None:
    storage = get_storage(server)
    study = optuna.load_study(storage=storage, study_name="fake")

    server.losses = list(losses)
    trial = study.ask()
    server.losses = list(losses)
    trial.suggest_float("x", 0.0, 1.0)
    server.losses = list(losses)
    storage.set_trial_user_attr(trial._trial_id, "key", [1, 2])
    server.losses = list(losses)
    assert storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])
    server.losses = []

    (stored,) = server.get_all_trials(1)
    assert (stored.number, stored.state, stored.values) == (0, TrialState.COMPLETE, [0.5])
    assert stored.user_attrs == {"key": [1, 2]} and set(stored.params) == {"x"}


@pytest.mark.parametrize("losses", LOSSES)
def test_a_change_of_a_trial_is_made_once(server: Server, losses: list[str]) -> None:
    storage = get_storage(server)
    number = server.create_new_trial(1)
    end = End(TrialState.COMPLETE, [0.5], numbers={"nll": 0.5}, excess={"macs": -1.0})
    change = Change({"state": "finished"}, end)

    server.losses = list(losses)
    assert change_trial(storage, number, lambda stored: change) == change
    assert not server.losses
    (stored,) = server.get_all_trials(1)
    assert (stored.state, stored.values) == (TrialState.COMPLETE, [0.5])
    assert stored.user_attrs == {"gped:row": {"state": "finished"}, "nll": 0.5}

    # what is refused is refused, whatever was lost
    server.losses = list(losses)
    assert change_trial(storage, number, lambda stored: Refusal("ended")) == Refusal("ended")


@pytest.mark.parametrize("losses", LOSSES)
def test_a_study_is_made_and_bound_once(server: Server, losses: list[str]) -> None:
    storage = get_storage(server)
    server.losses = list(losses)
    optuna.create_study(storage=storage, study_name="new", load_if_exists=True)
    assert len(server.get_all_studies()) == 2

    first, second = (Fence(storage, 2, "study 'new'") for _ in range(2))
    assert first.read() is None and second.read() is None
    binding = Binding(study="s", name="new", folder="f", path="/a", host="h", fence=1)
    server.losses = list(losses)
    assert first.swap(binding)
    assert not second.swap(binding.model_copy(update={"folder": "g"})), "the first one was"

    first.hold(1)
    server.losses = list(losses)
    first.renew(5.0)
    assert not server.losses
    stored = second.read()
    assert stored == binding.model_copy(update={"renewed": 5.0})


def test_a_trial_ends_now_in_every_time_zone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        number = server.create_new_trial(1)
        end = End(TrialState.COMPLETE, [0.5])
        change_trial(get_storage(server), number, lambda stored: Change(None, end))
        trial = server.get_trial(number)
        assert trial.duration is not None and 0 <= trial.duration.total_seconds() < 60
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_another_process_ended_is_not_taken_for_ours(server: Server) -> None:
    number = server.create_new_trial(1)
    server.set_trial_state_values(number, TrialState.FAIL)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        server.set_trial_state_values(number, TrialState.COMPLETE, [1.0])


def test_a_server_that_stays_away_is_told(server: Server) -> None:
    server.losses = ["before"] * 100
    with pytest.raises(StorageInternalError) as caught:
        server.set_study_user_attr(1, "key", 1)
    assert is_lost(caught.value)
    assert len(server.losses) == 95

    # an error that is none of the connection's is not repeated
    with pytest.raises(KeyError):
        server.set_trial_user_attr(99, "key", 1)


def lose_reading(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[OperationalError]:
    """The next connection is lost before it reads anything; what is left of that."""
    connect = server.engine.connect
    failures = [OperationalError("", {}, Exception("lost"), connection_invalidated=True)]

    def connect_later() -> object:
        if failures:
            raise failures.pop()
        return connect()

    monkeypatch.setattr(server.engine, "connect", connect_later)
    return failures


def test_the_clock_is_asked_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clock_of(get_storage(server))
    failures = lose_reading(server, monkeypatch)
    assert clock() > 1e9 and not failures


READERS: list[Callable[[RecordReader], object]] = [
    lambda reader: reader.num_trials(),
    lambda reader: len(reader.records(["nll"])),
    lambda reader: len(
        reader.complete(optuna.load_study(storage=reader.storage, study_name="fake")).trials
    ),
]


@pytest.mark.parametrize("read", READERS)
def test_records_are_read_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, read: Callable[[RecordReader], object]
) -> None:
    number = server.create_new_trial(1)
    server.set_trial_state_values(number, TrialState.COMPLETE, [0.5])
    failures = lose_reading(server, monkeypatch)
    assert read(RecordReader(get_storage(server), 1)) == 1 and not failures


def test_a_server_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "_PAUSE_S", 0.0)
    connection = MagicMock()

    class Dialect:
        loaded_dbapi = sqlite3

        def __init__(self, failures: int) -> None:
            self.failures = failures

        def connect(self, host: str, *, port: int) -> MagicMock:
            assert (host, port) == ("host", 1)
            self.failures -= 1
            if self.failures >= 0:
                raise sqlite3.OperationalError("starting up")
            return connection

    with pytest.warns(EnvironmentWarning, match="waiting up to 120 s") as told:
        made = reconnect._connect_patiently(Dialect(3), None, ["host"], {"port": 1})
    assert made is connection and len(told) == 1
    statements = [call.args[0] for call in connection.cursor().__enter__().execute.mock_calls]
    assert statements == [
        "SET SESSION statement_timeout = 300000",
        "SET SESSION idle_in_transaction_session_timeout = 60000",
    ]

    # the server may go again before the first statement
    connection.commit.side_effect = [sqlite3.OperationalError("gone"), None]
    with pytest.warns(EnvironmentWarning):
        reconnect._connect_patiently(Dialect(0), None, ["host"], {"port": 1})
    assert connection.commit.call_count == 3

    monkeypatch.setattr(reconnect, "PATIENCE_S", -1.0)
    with pytest.raises(sqlite3.OperationalError):
        reconnect._connect_patiently(Dialect(3), None, ["host"], {"port": 1})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (URL, {"connect_timeout": 10, "keepalives": 1, "tcp_user_timeout": 60_000}),
        ("postgresql+psycopg2://me@host/studies", {"connect_timeout": 10, "keepalives_idle": 30}),
        ("mysql+pymysql://me@host/studies", {"read_timeout": 300, "write_timeout": 300}),
        ("mysql+mysqlconnector://me@host/studies", {"connection_timeout": 10}),
        ("oracle://me@host/studies", {}),
    ],
)
def test_drivers_are_given_their_timeouts(url: str, expected: dict[str, int]) -> None:
    settings = connection_settings(url)
    assert settings["pool_pre_ping"] is True
    assert settings["connect_args"].items() >= expected.items()


def test_timeouts_of_the_url_hold() -> None:
    chosen = connection_settings(f"{URL}?connect_timeout=3&keepalives=0")["connect_args"]
    assert chosen.keys() >= {"tcp_user_timeout"}
    assert not chosen.keys() & {"connect_timeout", "keepalives"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [(None, True), ("57P03", True), ("08006", True), ("57014", False), ("53100", False)],
)
def test_the_servers_code_says_whether_it_is_there(code: str | None, expected: bool) -> None:
    for name in ("sqlstate", "pgcode"):
        raised = Exception("it said")
        setattr(raised, name, code)
        assert is_lost(_internal(OperationalError("INSERT", {}, raised))) is expected
    assert not is_lost(OperationalError("INSERT", {}, Exception("of another driver")))
    assert not is_lost(_internal(ValueError()))

    assert is_lost(_internal(InvalidRequestError("This connection is closed")))
    assert not is_lost(NoResultFound())


def _internal(cause: BaseException) -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = cause
    return error


def _sqlite_error(make: Callable[[sqlite3.Connection], None]) -> sqlite3.Error:
    database = sqlite3.connect(":memory:")
    try:
        make(database)
    except sqlite3.Error as error:
        return error
    finally:
        database.close()
    raise AssertionError("no error")


def _fill(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA max_page_count = 2")
    database.execute("CREATE TABLE a (x)")
    database.execute("CREATE TABLE b (x)")


def test_a_full_disk_is_no_unreadable_study() -> None:
    full = _sqlite_error(_fill)
    assert "full" in str(full)
    with pytest.raises(EnvironmentProblem, match=r"cannot be reached or written: .*full; check"):
        with storage_errors("sqlite:///study.db"):
            raise _internal(OperationalError("INSERT", {}, full))

    lost = OperationalError("INSERT", {}, Exception("server closed"), connection_invalidated=True)
    with pytest.raises(EnvironmentProblem, match="server closed"), storage_errors(URL):
        raise _internal(lost)

    foreign = _sqlite_error(lambda database: database.execute("SELECT * FROM nothing") and None)
    with pytest.raises(StudyError, match="not a readable study"):
        with storage_errors("sqlite:///study.db"):
            raise _internal(OperationalError("SELECT", {}, foreign))
