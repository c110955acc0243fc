"""One change of a trial: decided on what is stored of it, and written, in one step.

Nobody comes in between, and a process that dies leaves the trial as it was or as it was to be. In a
database that is one transaction. What lies in memory belongs to one process, and public calls of
Optuna do: they write what a trial is worth before the row with its record, and its state last.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from gped_nas.search.rows import ROW, Refusal
from gped_nas.search.storage import patiently
from gped_nas.search.trials import FOREIGN

CONSTRAINT = "constraints:"
"""Before a constraint's name: the system attribute in which Optuna looks for its excess."""


@dataclass(frozen=True)
class StoredTrial:
    """What a change is decided on.

    Attributes:
        state: Optuna's.
        row: plain data of the attribute ``gped:row``; None where there is none.
    """

    state: TrialState
    row: Any


@dataclass(frozen=True)
class End:
    """How Optuna is told that a trial ended; afterwards it is frozen.

    Attributes:
        state: Optuna's.
        values: one an objective; None where it is worth nothing.
        numbers: attributes for the Optuna dashboard, by name.
        excess: by how much each constraint is broken, for samplers.
    """

    state: TrialState
    values: Sequence[float] | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    excess: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What is written of a trial.

    Attributes:
        row: plain data of its row; None to leave it as it is.
        end: None while it goes on.
    """

    row: Mapping[str, Any] | None
    end: End | None = None


Decide = Callable[[StoredTrial], Change | Refusal]
"""May be asked only once: what it decides on cannot change before it is written."""


def change_trial(storage: BaseStorage, trial_id: int, decide: Decide) -> Change | Refusal:
    """What ``decide`` made of a trial, once it is written; see ``change_trials``."""
    return change_trials(storage, {trial_id: decide})[trial_id]


class Beside(Protocol):
    """What else is written with changes of trials."""

    def write(self, connection: Connection, changed: Sequence[int]) -> None:
        """Write it in the same transaction.

        Args:
            connection: in the transaction.
            changed: identifiers of the trials that were changed; perhaps of a transaction that is
                tried again after it was rolled back.
        """
        ...

    def write_by_calls(self, changed: Sequence[int]) -> None:
        """Write it by calls of Optuna, in memory."""
        ...


def change_trials(
    storage: BaseStorage, decisions: Mapping[int, Decide], beside: Beside | None = None
) -> dict[int, Change | Refusal]:
    """What was made of trials, once it is written: in a database, all of it in one transaction.

    Args:
        storage: where they lie.
        decisions: by Optuna's identifier, not the trial's number; see ``Decide``. Nothing is
            written where one refuses.
        beside: what else is written then.

    Raises:
        StorageInternalError: the database takes nothing.
    """
    backend = database_of(storage)
    if backend is None:
        changes = {}
        for trial_id, decide in decisions.items():
            changes[trial_id] = _change_by_calls(storage, trial_id, decide)
        if beside is not None:
            beside.write_by_calls(_changed(changes))
        return changes

    if not decisions:
        return {}

    once = {trial_id: _DecidedOnce(decide) for trial_id, decide in decisions.items()}

    def write() -> dict[int, Change | Refusal]:
        outcomes = {}
        with refusals(), backend.engine.begin() as connection:
            # in one order, so that two who change the same trials do not wait for each other
            for trial_id in sorted(once):
                outcomes[trial_id] = _change_in_database(connection, trial_id, once[trial_id])
            # what a lost connection had written, it had written whole
            if beside is not None:
                beside.write(connection, _changed(outcomes))
        return outcomes

    changes = {}
    for trial_id, outcome in patiently(backend, write).items():
        written = once[trial_id].written
        changes[trial_id] = written if outcome is _WRITTEN and written else outcome
    return changes


def _changed(outcomes: Mapping[int, Change | Refusal]) -> list[int]:
    return [trial_id for trial_id, outcome in outcomes.items() if isinstance(outcome, Change)]


class _DecidedOnce:
    """A decision that is not made again where a lost connection has written it already."""

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        self.written: Change | None = None

    def __call__(self, stored: StoredTrial) -> Change | Refusal:
        if self.written is not None and _is_written(self.written, stored):
            return _WRITTEN
        change = self._decide(stored)
        self.written = change if isinstance(change, Change) else None
        return change


_WRITTEN = Refusal("it was written before")


def _is_written(change: Change, stored: StoredTrial) -> bool:
    if change.end is not None and stored.state != change.end.state:
        return False
    return change.row is None or json.loads(json.dumps(change.row)) == stored.row


def replace_rows(storage: BaseStorage, rows: Mapping[int, Mapping[str, Any]]) -> None:
    """Write rows of trials, by Optuna's identifier, also of those that ended.

    Optuna's calls refuse that, so it happens in databases alone: in memory nothing is old.
    """
    backend = database_of(storage)
    if backend is None:
        return

    attributes = models.TrialUserAttributeModel.__table__

    def write() -> None:
        with refusals(), backend.engine.begin() as connection:
            for trial_id, row in rows.items():
                write_attributes(connection, attributes, trial_id, {ROW: row})

    patiently(backend, write)


def database_of(storage: BaseStorage) -> RDBStorage | None:
    """The database behind a storage; None where there is none."""
    # get_storage wraps a database in a cache; it never keeps a trial that is not finished.
    backend = getattr(storage, "_backend", storage)
    return backend if isinstance(backend, RDBStorage) else None


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Say what a database refuses as Optuna does."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageInternalError("a trial could not be read or written") from error


def _change_by_calls(storage: BaseStorage, trial_id: int, decide: Decide) -> Change | Refusal:
    trial = storage.get_trial(trial_id)
    change = decide(StoredTrial(trial.state, trial.user_attrs.get(ROW)))
    if isinstance(change, Refusal):
        return change

    end = change.end
    try:
        if end is not None:
            for name, value in end.excess.items():
                storage.set_trial_system_attr(trial_id, CONSTRAINT + name, value)
            for name, value in end.numbers.items():
                storage.set_trial_user_attr(trial_id, name, value)
        if change.row is not None:
            storage.set_trial_user_attr(trial_id, ROW, change.row)
        if end is not None:
            storage.set_trial_state_values(trial_id, end.state, end.values)
    except UpdateFinishedTrialError:
        return Refusal(FOREIGN)
    return change


def _change_in_database(connection: Connection, trial_id: int, decide: Decide) -> Change | Refusal:
    trials = models.TrialModel.__table__
    this_trial = trials.c.trial_id == trial_id

    # This locks the trial, and on SQLite the whole file, before anything is read of it.
    connection.execute(sqlalchemy.update(trials).where(this_trial).values(state=trials.c.state))
    state = connection.execute(sqlalchemy.select(trials.c.state).where(this_trial)).scalar_one()
    attributes = models.TrialUserAttributeModel.__table__
    this_row = (attributes.c.trial_id == trial_id) & (attributes.c.key == ROW)
    row_text = connection.execute(
        sqlalchemy.select(attributes.c.value_json).where(this_row)
    ).scalar_one_or_none()

    change = decide(StoredTrial(state, _read_json(row_text)))
    if isinstance(change, Refusal):
        return change

    user_attributes = {} if change.row is None else {ROW: change.row}
    end = change.end
    if end is None:
        write_attributes(connection, attributes, trial_id, user_attributes)
        return change

    write_attributes(connection, attributes, trial_id, {**user_attributes, **end.numbers})
    excess = {CONSTRAINT + name: value for name, value in end.excess.items()}
    write_attributes(connection, models.TrialSystemAttributeModel.__table__, trial_id, excess)
    write_values(connection, trial_id, end.values or ())
    # the column's own zone, whatever that of this machine
    now = datetime.now(UTC).replace(tzinfo=None)
    ended = {"state": end.state, "datetime_complete": now}
    connection.execute(sqlalchemy.update(trials).where(this_trial).values(ended))
    return change


def _read_json(text: str | None) -> Any:
    """The plain data of a stored text; the text itself where it is damaged."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text


def write_attributes(
    connection: Connection, table: Any, trial_id: int, attributes: Mapping[str, Any]
) -> None:
    """Write attributes of a trial, in the place of those of the same names."""
    if not attributes:
        return

    names = list(attributes)
    same = (table.c.trial_id == trial_id) & table.c.key.in_(names)
    connection.execute(sqlalchemy.delete(table).where(same))
    rows = []
    for name, value in attributes.items():
        rows.append({"trial_id": trial_id, "key": name, "value_json": json.dumps(value)})
    connection.execute(sqlalchemy.insert(table), rows)


def write_values(connection: Connection, trial_id: int, values: Sequence[float]) -> None:
    """Write the values of a trial's objectives."""
    model = models.TrialValueModel
    rows = []
    for i, value in enumerate(values):
        stored, kind = model.value_to_stored_repr(value)
        rows.append({"trial_id": trial_id, "objective": i, "value": stored, "value_type": kind})
    if rows:
        connection.execute(sqlalchemy.insert(model.__table__), rows)
