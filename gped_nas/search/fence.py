"""Every write to a study asks in its own transaction whether the study is still ours.

The binding of a study (``search.binding``) lies in the storage as a system attribute. It changes by
comparing and swapping, so of two runs that start at once one is refused. After its first statement
that writes, each transaction reads the fencing number: the database has locked the binding by then,
and a run that takes over either comes first, and the write is rolled back, or sees what was
written. It costs a read, and no commit.
"""

import contextlib
import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import Connection, column

from gped_nas.errors import StudyError
from gped_nas.search.binding import HOME, Binding
from gped_nas.search.document import validate
from gped_nas.search.storage import patiently

_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE")
_CHECKED = "gped fence checked"
"""Whether the running transaction of a connection was checked."""

_ATTRIBUTES = sqlalchemy.table(
    "study_system_attributes", column("study_id"), column("key"), column("value_json")
)


class Fence:
    """The binding of one study, and the check of every write.

    Args:
        storage: where the study lies.
        study_id: its number there.
        where: the study, for messages.
    """

    def __init__(self, storage: BaseStorage, study_id: int, where: str) -> None:
        self._storage = storage
        self._study_id = study_id
        self._where = where
        # get_storage wraps a database in a cache, which does not hand on the engine.
        backend = getattr(storage, "_backend", storage)
        self._database = backend if isinstance(backend, RDBStorage) else None
        self._engine = None if self._database is None else self._database.engine
        self._text: str | None = None
        self._number: int | None = None
        self._held: str | None = None

    def read(self) -> Binding | None:
        """The binding as it is stored now; None where there is none.

        Raises:
            StudyError: it is damaged.
        """
        if self._database is None:
            stored = self._storage.get_study_system_attrs(self._study_id).get(HOME)
            self._text = None if stored is None else json.dumps(stored)
        else:
            self._text = patiently(self._database, self._read_text)
        return None if self._text is None else self._parse(self._text)

    def swap(self, binding: Binding) -> bool:
        """Write a binding in place of the one that was read last.

        Returns:
            Whether it was written; false where somebody wrote another one meanwhile.
        """
        text = json.dumps(binding.to_json())
        if self._database is None:
            self._storage.set_study_system_attr(self._study_id, HOME, binding.to_json())
        elif not patiently(self._database, lambda: self._swap(text)):
            return False
        self._text = text
        if self.is_up:
            self._held = text
        return True

    @property
    def is_up(self) -> bool:
        """Whether writes are checked."""
        return self._number is not None

    def hold(self, number: int) -> None:
        """Check from now on that every write happens under this number, which was just written."""
        is_first = self._number is None
        self._number, self._held = number, self._text
        if self._engine is not None and is_first:
            _check_writes(self._engine, self._check)

    def check(self) -> None:
        """Ask whether the study is still ours, before something that is no write to the storage.

        Raises:
            StudyError: another run took it over.
        """
        self._refuse_unless_ours(self.read())

    def renew(self, now: float) -> None:
        """Give a sign of life in the binding.

        Raises:
            StudyError: another run took the study over.
        """
        self._write(renewed=now)

    def release(self) -> None:
        """Say that nobody works on the study any more, if that can be said."""
        with contextlib.suppress(StudyError, sqlalchemy.exc.SQLAlchemyError):
            self._write(holder=None)

    def _write(self, **changes: object) -> None:
        if self.is_up:
            binding = self.read()
            self._refuse_unless_ours(binding)
            assert binding is not None, "it is ours"
            self.swap(binding.model_copy(update=changes))

    def _read_text(self) -> str | None:
        assert self._engine is not None, "it is a database"
        with self._engine.connect() as connection:
            text: str | None = connection.execute(self._query).scalar_one_or_none()
        return text

    def _swap(self, text: str) -> bool:
        assert self._engine is not None, "it is a database"
        table, keys = _ATTRIBUTES, {"study_id": self._study_id, "key": HOME}
        statement: Any
        if self._text is None:
            statement = table.insert().values(**keys, value_json=text)
        else:
            statement = (
                table.update().where(*self._is_ours, table.c.value_json == self._text)
            ).values(value_json=text)
        with contextlib.suppress(sqlalchemy.exc.IntegrityError):  # somebody bound it first
            with self._engine.begin() as connection:
                if connection.execute(statement).rowcount == 1:
                    return True
        # No two bindings are alike: this one was written by a connection whose answer was lost.
        return self._read_text() == text

    def _check(self, connection: Connection) -> None:
        text = connection.execute(self._locking_query).scalar_one_or_none()
        if text is None or text != self._held:
            self._refuse_unless_ours(None if text is None else self._parse(text))

    @cached_property
    def _locking_query(self) -> sqlalchemy.Select[tuple[Any]]:
        # Databases with locks of rows hold this one until the transaction ends.
        return self._query.with_for_update(read=True)

    @property
    def _query(self) -> sqlalchemy.Select[tuple[Any]]:
        return sqlalchemy.select(_ATTRIBUTES.c.value_json).where(*self._is_ours)

    @property
    def _is_ours(self) -> tuple[Any, Any]:
        return _ATTRIBUTES.c.study_id == self._study_id, _ATTRIBUTES.c.key == HOME

    def _parse(self, text: str) -> Binding:
        try:
            stored = json.loads(text)
        except (ValueError, RecursionError):
            stored = None  # refused like anything else that is no binding
        return validate(Binding, stored, f"{self._where}: {HOME}")

    def _refuse_unless_ours(self, binding: Binding | None) -> None:
        if self._number is None or (binding is not None and binding.fence == self._number):
            return
        by = "another run" if binding is None else f"a run in the folder {binding.place}"
        raise StudyError(
            f"{self._where}: {by} took it over, so nothing more is written here; go on there, or "
            "take it back with --adopt"
        )


def _check_writes(engine: sqlalchemy.Engine, check: Callable[[Connection], None]) -> None:
    """Call ``check`` once in each transaction that writes, after its first such statement."""

    def begin(connection: Connection) -> None:
        connection.info.pop(_CHECKED, None)

    def after_execute(connection: Connection, cursor: Any, statement: str, *more: Any) -> None:
        is_write = statement.lstrip()[:7].upper().startswith(_WRITES)
        if is_write and not connection.info.get(_CHECKED):
            connection.info[_CHECKED] = True
            check(connection)

    sqlalchemy.event.listen(engine, "begin", begin)
    sqlalchemy.event.listen(engine, "after_cursor_execute", after_execute)
