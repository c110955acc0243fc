"""A database of studies that stays readable whatever was told to it.

Optuna's own ``tell`` makes a failed trial of a NaN. Its storage does not: whoever writes to it
directly, as optuna-dashboard's web address for telling does, leaves a complete trial whose value
cannot be read, and from then on every read of the study ends in a failed assertion. A number of
values other than that of objectives is taken as well, and breaks samplers later. Here such trials
have failed when they are read, whoever wrote them; reading changes nothing in the database.

What else cannot be read (a distribution that is none, a state that there is not, a page that is no
page) was changed by another program or by rot, and ends in one message.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import DateTime
from sqlalchemy.exc import DatabaseError, OperationalError

from gped_nas.errors import StudyError

Answer = TypeVar("Answer")


class TolerantStorage(RDBStorage):
    """See the module."""

    # Whatever is read of a study passes through one of these.

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As in ``RDBStorage``."""
        with _refused_unless_readable(self):
            return super().get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As in ``RDBStorage``."""
        with _refused_unless_readable(self):
            return super().get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As in ``RDBStorage``."""
        with _refused_unless_readable(self):
            return super().get_study_system_attrs(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As in ``RDBStorage``."""
        with _refused_unless_readable(self):
            return super().get_trial(trial_id)

    def _get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        with _refused_unless_readable(self):
            return super()._get_trials(*args, **kwargs)

    def patiently(self, call: Callable[[], Answer]) -> Answer:
        """The answer of a call, which is made again if its connection to a server was lost.

        It must be the same to make it twice.
        """
        return call()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Finish a trial, or start one that waits; as failed if its values are not finite."""
        if state == TrialState.COMPLETE and not (values and all(map(math.isfinite, values))):
            state, values = TrialState.FAIL, None
        return super().set_trial_state_values(trial_id, state, values)

    def _build_frozen_trial_from_trial_model(self, trial: Any) -> FrozenTrial:
        # Every read of RDBStorage passes here. The model is a live row: changing it would write.
        if trial.state == TrialState.COMPLETE and not _is_readable(trial):
            trial = _Failed(trial)
        return super()._build_frozen_trial_from_trial_model(trial)


@contextlib.contextmanager
def _refused_unless_readable(storage: RDBStorage) -> Iterator[None]:
    """Turn what a reader of damaged rows runs into to one message.

    Raises:
        StudyError: something was changed.
    """
    try:
        yield
    except (LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        reason = repr(error)[:200]
    except RecursionError:
        reason = "nested too deeply"
    except StorageInternalError as error:
        cause = error.__cause__
        reason = str(getattr(cause, "orig", cause))
        is_page = isinstance(cause, DatabaseError) and not isinstance(cause, OperationalError)
        if not is_page and "decode" not in reason:
            raise  # out of reach, or full
    else:
        return

    raise StudyError(
        f"{storage.engine.url.database}: a study in it cannot be read ({reason}); it was changed "
        "by something other than gped-search; restore it from a backup, or choose another "
        "--study-name"
    )


def patiently(storage: RDBStorage, call: Callable[[], Answer]) -> Answer:
    """See ``TolerantStorage.patiently``; of another storage the call is made once."""
    return storage.patiently(call) if isinstance(storage, TolerantStorage) else call()


def _is_readable(trial: Any) -> bool:
    """Whether a complete trial has one finite value an objective."""
    # A NaN or an infinity is stored as no number.
    numbered = {value.objective for value in trial.values if value.value is not None}
    expected = set(range(len(trial.study.directions)))
    return numbered == expected and len(trial.values) == len(expected)


class _Failed:
    """A trial's row as that of a failed trial."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial
        self.state, self.values = TrialState.FAIL, ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)


def clock_of(storage: BaseStorage) -> Callable[[], float]:
    """The clock that all who use a storage share, in seconds since the epoch.

    That of its database: every one of them can be asked for its time through SQLAlchemy, whose
    ``now`` each dialect writes in its own way. SQLite has no server, so its time is that of this
    machine, as it is for everybody who opens the file. Seconds are whole in some databases. MySQL's
    ``now`` is in the session's time zone, which may be put forward by an hour, so its UTC is asked
    for. What lies in memory is used by one process alone, and has that one's clock.
    """
    # get_storage wraps a database in a cache, which does not hand on the engine.
    backend = getattr(storage, "_backend", storage)
    if not isinstance(backend, RDBStorage):
        return time.time

    engine = backend.engine
    is_mysql = engine.dialect.name in ("mysql", "mariadb")
    now = sqlalchemy.func.utc_timestamp(type_=DateTime) if is_mysql else sqlalchemy.func.now()

    def read_once() -> datetime:
        with engine.connect() as connection:
            return connection.execute(sqlalchemy.select(now)).scalar_one()

    return lambda: utc_seconds(patiently(backend, read_once))


def utc_seconds(moment: datetime) -> float:
    """Seconds since the epoch; a moment without a time zone is in UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
