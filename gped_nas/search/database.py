"""Where studies lie: storage URLs are opened or refused, and databases' errors made one message."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import optuna
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import BaseStorage

from gped_nas.errors import ConfigError, EnvironmentProblem, GpedError, StudyError
from gped_nas.search.reconnect import NetworkStorage, is_lost
from gped_nas.search.storage import TolerantStorage

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError


SQLITE_WAIT_S = 60
"""How long a SQLite file that another program holds is waited for, unless the URL says it."""


def open_database(storage: str) -> BaseStorage:
    """The storage; a SQLite file of another program is refused.

    Optuna would add its tables to it.
    """
    _check_host(storage)
    file = sqlite_file(storage)
    if file is not None and file.is_file():
        tables: set[str] = set()
        # Optuna will say why a file cannot be read.
        with contextlib.suppress(sqlite3.Error):
            uri = f"file:{quote(str(file))}?mode=ro"
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            connection = sqlite3.connect(uri, uri=True, timeout=_sqlite_wait(storage))
            with contextlib.closing(connection) as database:
                tables = {name for (name,) in database.execute(query)}

        # Optuna's tables are made one by one: after a kill its first, studies, may be there alone.
        if tables - {"studies"} and "version_info" not in tables:
            raise StudyError(
                f"{shown(storage)}: a SQLite file of another program; choose another --storage"
            )
    return open_storage(storage)


def open_storage(url: str) -> BaseStorage:
    """The storage of a database URL, read once a finished trial.

    Raises:
        ValueError: not a database's URL.
        ImportError, SQLAlchemyError: its driver is not installed, or it cannot be reached.
    """
    from sqlalchemy.engine import make_url

    if url.startswith("redis"):
        raise ValueError("Redis is no database that Optuna knows")
    if make_url(url).get_backend_name() != "sqlite":
        return optuna.storages.get_storage(NetworkStorage(url))

    settings = {"connect_args": {"timeout": _sqlite_wait(url)}}
    return optuna.storages.get_storage(TolerantStorage(url, settings))


def _sqlite_wait(url: str) -> float:
    """Seconds to wait for a SQLite file that another program holds."""
    from sqlalchemy.engine import make_url

    chosen = make_url(url).query.get("timeout", SQLITE_WAIT_S)
    assert not isinstance(chosen, tuple)
    return float(chosen)


def _check_host(storage: str) -> None:
    """Refuse a password that ends early, at an ``@`` of its own: its rest would be the host."""
    from sqlalchemy.engine import make_url

    if "@" in (make_url(storage).host or ""):
        raise ConfigError(
            f"{shown(storage)}: found more than one '@' before the host; write '@' as %40, '/' as "
            "%2F and ':' as %3A in the user's name and password"
        )


def sqlite_file(storage: str) -> Path | None:
    """The file behind a plain SQLite URL."""
    from sqlalchemy.engine import make_url

    url = make_url(storage)
    is_sqlite = url.get_backend_name() == "sqlite"
    if not is_sqlite or not url.database or url.database == ":memory:" or "uri" in url.query:
        return None
    return Path(url.database)


def absolute(storage: str) -> str:
    """A storage URL that means the same from every working directory."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        file = sqlite_file(storage)
        if file is None:
            return storage
        url = make_url(storage).set(database=str(file.resolve()))
    except (ArgumentError, ValueError):  # whoever opens it says so
        return storage
    return url.render_as_string(hide_password=False)


def has_hidden_parts(storage: str) -> bool:
    """Whether ``shown`` leaves out what is needed to open it."""
    from sqlalchemy.engine import make_url

    url = make_url(storage)
    return url.password is not None or bool(url.query)


def shown(storage: str) -> str:
    """A storage URL for messages: without password, and without options, which may hold one."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(storage).set(query={})
    except (ArgumentError, ValueError):
        return "the storage URL"

    if _may_end_early(storage):
        return f"{url.drivername}://{quote(url.username or '')}:***@..."
    return url.render_as_string(hide_password=True)


def _may_end_early(storage: str) -> bool:
    """Whether a part of the password may have been taken for what follows it."""
    from sqlalchemy.engine import make_url

    return make_url(storage).password is not None and storage.count("@") > 1


def _words_of(error: object, storage: str) -> str:
    """What a driver says, unless it may quote a part of the password."""
    if _may_end_early(storage):
        return "the driver's words may hold a part of the password; write its '@' as %40"
    return str(error)


@contextlib.contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """Turn what a database says into one message without its password."""
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

    try:
        yield
    except GpedError:
        raise
    except (ImportError, NoSuchModuleError) as error:
        raise EnvironmentProblem(
            f"{shown(storage)}: its database driver is not installed ({error}); install it, for "
            "PostgreSQL by `pip install 'gped-nas[postgresql]'`"
        ) from None
    except (ArgumentError, ValueError) as error:
        if _is_no_json(error):
            raise StudyError(
                f"{shown(storage)}: not a readable study (an attribute is no JSON); restore it or "
                "choose another --storage"
            ) from None
        raise ConfigError(
            f"{shown(storage)}: not a storage URL; expected for example sqlite:///study.db"
        ) from None
    except OperationalError as error:
        reason = _words_of(error.orig, storage)
        if _is_damage(error):
            raise _unreadable(shown(storage), reason) from None
        advice = _advice(error.orig) or "check path, server and permissions"
        raise EnvironmentProblem(
            f"{shown(storage)}: cannot be opened: {reason}; {advice}"
        ) from None
    except (SQLAlchemyError, OptunaError, AssertionError, RuntimeError) as error:
        if _is_of_url(error):
            raise ConfigError(
                f"{shown(storage)}: its driver refuses an option "
                f"({_words_of(getattr(error, 'orig', error), storage)}); correct what stands after "
                "the '?' of the URL"
            ) from None
        refusal = _refusal(error)
        if refusal is not None:
            reason = _words_of(refusal.orig, storage)
            advice = _advice(refusal.orig) or (
                "check the server, its free disk space and permissions, then run the same command "
                "again"
            )
            raise EnvironmentProblem(
                f"{shown(storage)}: cannot be reached or written: {reason}; {advice}"
            ) from None
        # Optuna's own words are the same of whatever a driver says.
        words = str(getattr(error.__cause__, "orig", None) or error)
        reason = words.splitlines()[0] if words else type(error).__name__
        reason = _words_of(reason, storage)
        raise _unreadable(shown(storage), reason) from None


def _is_no_json(error: Exception) -> bool:
    """Whether an attribute that Optuna parsed is none: of another form, or an endless number."""
    return isinstance(error, json.JSONDecodeError) or "integer string conversion" in str(error)


def _is_of_url(error: BaseException) -> bool:
    """Whether a driver of PostgreSQL refused what it was given, before it asked a server."""
    from sqlalchemy.exc import ProgrammingError

    orig = getattr(error, "orig", None)
    return isinstance(error, ProgrammingError) and getattr(orig, "sqlstate", "") is None


def _refusal(error: BaseException) -> "DBAPIError | None":
    """What a database said that was lost, full or locked; None of one that holds something else."""
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    cause = error if isinstance(error, DBAPIError) else error.__cause__
    if not isinstance(cause, DBAPIError):
        return None
    # SQLite's own code for a table or column that is not there
    is_foreign = getattr(cause.orig, "sqlite_errorname", "") == "SQLITE_ERROR"
    is_refusal = isinstance(cause, OperationalError | InterfaceError) and not is_foreign
    is_refusal = is_refusal and not _is_damage(cause)
    return cause if is_refusal or is_lost(cause) else None


def _is_damage(error: BaseException | None) -> bool:
    """Whether a database has text that is no text: SQLite's driver calls that operational."""
    return "Could not decode" in str(getattr(error, "orig", ""))


def _unreadable(where: str, reason: str) -> StudyError:
    return StudyError(
        f"{where}: not a readable study ({reason}); restore it from a backup, or choose another "
        "--storage"
    )


@contextlib.contextmanager
def storage_refusals(name: str) -> Iterator[None]:
    """Turn a storage that stops taking what study ``name`` writes into one message.

    Raises:
        EnvironmentProblem: it has no room, or is out of reach.
    """
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except (StorageInternalError, OperationalError) as error:
        cause = error if isinstance(error, OperationalError) else error.__cause__
        reason = getattr(cause, "orig", None) or cause or "refused"
        if _is_damage(cause):
            raise _unreadable(f"study '{name}'", str(reason)) from None
        advice = _advice(reason) or (
            "check the free disk space, the permissions and the server, then run the same command "
            "again to go on"
        )
        raise EnvironmentProblem(
            f"study '{name}': cannot write to its storage: {reason}; {advice}"
        ) from None


def _advice(error: object) -> str:
    """What to do about a file that is locked or a user who is refused; empty for all else."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another program holds it: wait for it or end it, then run the same command again"
    if "authentication failed" in str(error) or "no password supplied" in str(error):
        return "check the user's name and password in the URL"
    return ""


def sqlite_url(path: Path) -> str:
    """The storage URL of a SQLite file."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path.resolve())).render_as_string()
