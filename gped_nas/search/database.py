"""Where studies lie: storage URLs are opened or refused, and databases' errors made one message."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import BaseStorage

from gped_nas.errors import ConfigError, EnvironmentProblem, GpedError, StudyError
from gped_nas.search.storage import open_storage


def open_database(storage: str) -> BaseStorage:
    """The storage; a SQLite file of another program is refused.

    Optuna would add its tables to it.
    """
    file = sqlite_file(storage)
    if file is not None and file.is_file():
        tables: set[str] = set()
        # Optuna will say why a file cannot be read.
        with contextlib.suppress(sqlite3.Error):
            uri = f"file:{quote(str(file))}?mode=ro"
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
                tables = {name for (name,) in database.execute(query)}

        # Optuna's tables are made one by one: after a kill its first, studies, may be there alone.
        if tables - {"studies"} and "version_info" not in tables:
            raise StudyError(
                f"{shown(storage)}: a SQLite file of another program; choose another --storage"
            )
    return open_storage(storage)


def sqlite_file(storage: str) -> Path | None:
    """The file behind a plain SQLite URL."""
    from sqlalchemy.engine import make_url

    url = make_url(storage)
    is_sqlite = url.get_backend_name() == "sqlite"
    if not is_sqlite or not url.database or url.database == ":memory:" or "uri" in url.query:
        return None
    return Path(url.database)


def shown(storage: str) -> str:
    """A storage URL for messages: without password, and without options, which may hold one."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(storage).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "the storage URL"


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
            f"{shown(storage)}: its database driver is not installed ({error})"
        ) from None
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"{shown(storage)}: not a storage URL; expected for example sqlite:///study.db"
        ) from None
    except OperationalError as error:
        raise EnvironmentProblem(
            f"{shown(storage)}: cannot be opened: {error.orig}; check path, server and permissions"
        ) from None
    except (SQLAlchemyError, OptunaError, AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StudyError(
            f"{shown(storage)}: not a readable study ({reason}); restore it or choose another "
            "--storage"
        ) from None


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
        reason = getattr(cause, "orig", None) or "refused"
        raise EnvironmentProblem(
            f"study '{name}': cannot write to its storage: {reason}; check the free disk space, "
            "the permissions and the server, then run the same command again to go on"
        ) from None


def sqlite_url(path: Path) -> str:
    """The storage URL of a SQLite file."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path.resolve())).render_as_string()
