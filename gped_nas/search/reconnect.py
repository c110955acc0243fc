"""A database that answers over a network: it may be restarted, vanish, or never answer.

* Nobody waits for ever. To connect takes at most ``CONNECT_S`` seconds, a statement ``STATEMENT_S``
  on the server, and a connection that no packet comes back from is given up after a minute. What a
  URL says of these itself holds.
* Nobody holds up others for ever. A client that stops in the middle of a transaction, or whose
  machine does, is ended by the server after ``IDLE_S`` seconds, and with it the locks of its rows:
  whoever takes its study over waits no longer.
* A server that was there and is gone is waited for, ``PATIENCE_S`` seconds, and what it was in the
  middle of is done again. It may have been done already, with its answer lost: then it is not done
  twice. A new trial is known by the microsecond of its start, a finished one by its state.

Drivers of MySQL are given their timeouts, and dead connections are replaced; nothing is done again.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DBAPIError,
    InvalidRequestError,
    NoResultFound,
    OperationalError,
    SQLAlchemyError,
)

from gped_nas.errors import EnvironmentWarning
from gped_nas.search.storage import Answer, TolerantStorage

CONNECT_S = 10
STATEMENT_S = 300
IDLE_S = 60
PATIENCE_S = 120.0
_ATTEMPTS = 5
_PAUSE_S = 1.0

_LIBPQ = {
    "connect_timeout": CONNECT_S,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_PYMYSQL = {
    "connect_timeout": CONNECT_S,
    "read_timeout": STATEMENT_S,
    "write_timeout": STATEMENT_S,
}
_TIMEOUTS: dict[str, dict[str, int]] = {
    "psycopg": _LIBPQ,
    "psycopg2": _LIBPQ,
    "pymysql": _PYMYSQL,
    "mysqldb": _PYMYSQL,
    "mysqlconnector": {"connection_timeout": CONNECT_S},
    "pg8000": {"timeout": STATEMENT_S},
}
"""Arguments of each driver's ``connect``, seconds but for the user timeout in milliseconds."""


class NetworkStorage(TolerantStorage):
    """See the module.

    Args:
        url: of a database on a server.
    """

    def __init__(self, url: str) -> None:
        self._prepared: Any = None
        super().__init__(url, connection_settings(url))
        self._is_postgresql = self.engine.dialect.name == "postgresql"
        if self._is_postgresql:
            # from here on it is known to be there
            sqlalchemy.event.listen(self.engine, "do_connect", _connect_patiently)
            self.engine.dispose()

    def patiently(self, call: Callable[[], Answer]) -> Answer:
        """See ``TolerantStorage``."""
        attempt = 1
        while True:
            try:
                return call()
            except (StorageInternalError, SQLAlchemyError) as error:
                if not self._is_postgresql or not is_lost(error) or attempt == _ATTEMPTS:
                    raise
            attempt += 1
            time.sleep(_PAUSE_S)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See ``TolerantStorage``; told once, also where the answer to it was lost."""
        write = super().set_trial_state_values
        num_calls = 0

        def call() -> bool:
            nonlocal num_calls
            num_calls += 1
            try:
                is_written = write(trial_id, state, values)
            except UpdateFinishedTrialError:
                # the first call ended it
                if num_calls == 1 or self.get_trial(trial_id).state != state:
                    raise
                return True
            return is_written or (num_calls > 1 and state == TrialState.RUNNING)

        return self.patiently(call)

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        # Optuna's own retries end here too; see ``_get_prepared_new_trial``.
        template = template_trial or optuna.trial.create_trial(state=TrialState.RUNNING)
        make = super()._create_new_trial
        return self.patiently(lambda: make(study_id, template))

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Any
    ) -> Any:
        if template_trial is not None and template_trial is self._prepared:
            # An earlier transaction was lost. The study's row is locked: it was written or is not.
            written = _find_trial(study_id, template_trial, session)
            if written is not None:
                return written
        self._prepared = template_trial
        return super()._get_prepared_new_trial(study_id, template_trial, session)


def _patient(name: str) -> Callable[..., Any]:
    """A method of ``TolerantStorage`` that is called again where its connection was lost."""
    plain = getattr(TolerantStorage, name)

    def method(self: NetworkStorage, *args: Any, **kwargs: Any) -> Any:
        return self.patiently(lambda: plain(self, *args, **kwargs))

    method.__doc__ = plain.__doc__
    return method


_REPEATED = (
    "create_new_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "set_trial_intermediate_value",
    "_set_trial_param",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_trial_id_from_study_id_trial_number",
    "get_all_studies",
    "get_trial",
    "_get_trials",
)
"""What is the same if it is done twice; a second study of one name is refused by the database."""
for _name in _REPEATED:
    setattr(NetworkStorage, _name, _patient(_name))


def connection_settings(url: str) -> dict[str, Any]:
    """Arguments of ``create_engine``: timeouts that the URL does not say itself."""
    parsed = make_url(url)
    timeouts = _TIMEOUTS.get(parsed.get_driver_name(), {})
    chosen = {name: value for name, value in timeouts.items() if name not in parsed.query}
    return {"connect_args": chosen, "pool_pre_ping": True}


def is_lost(error: BaseException) -> bool:
    """Whether a database's error says that its connection is gone, or cannot be had just now."""
    cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
    if isinstance(cause, InvalidRequestError):
        # two new connections died in a row, or a transaction with its connection
        return not isinstance(cause, NoResultFound)
    if not isinstance(cause, DBAPIError):
        return False
    if cause.connection_invalidated:
        return True

    # Drivers of PostgreSQL have a code of the server's, and none where there was no server. Class
    # 08 is about connections, 57P about a server that is stopped or starts.
    for name in ("sqlstate", "pgcode"):
        if hasattr(cause.orig, name):
            code = getattr(cause.orig, name)
            is_mute = code is None and isinstance(cause, OperationalError)
            return is_mute or str(code).startswith(("08", "57P"))
    return False


def _find_trial(study_id: int, template: FrozenTrial, session: Any) -> Any:
    if template.datetime_start is None:
        return None

    trial = models.TrialModel
    # as the column holds it, in UTC
    start = trial(datetime_start=template.datetime_start)._datetime_start_utc
    same_start = (trial.study_id == study_id, trial._datetime_start_utc == start)
    return session.query(trial).filter(*same_start).first()


def _settings() -> dict[str, int]:
    """Settings of a session, in seconds."""
    return {"statement_timeout": STATEMENT_S, "idle_in_transaction_session_timeout": IDLE_S}


def _connect_patiently(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
    """A new connection to a server that was there before; it holds up nobody for ever."""
    end = time.monotonic() + PATIENCE_S
    is_told = False
    while True:
        try:
            connection = dialect.connect(*arguments, **options)
            with connection.cursor() as cursor:
                for setting, seconds in _settings().items():
                    cursor.execute(f"SET SESSION {setting} = {seconds * 1000}")
            connection.commit()
            return connection
        except dialect.loaded_dbapi.OperationalError:
            if time.monotonic() > end:
                raise
        if not is_told:
            warnings.warn(
                f"the database does not answer; waiting up to {PATIENCE_S:.0f} s for it",
                EnvironmentWarning,
                stacklevel=2,
            )
            is_told = True
        time.sleep(_PAUSE_S)
