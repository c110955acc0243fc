"""The records of a study, read in bulk.

Optuna builds an object for each row of its tables: a millisecond a trial, before anything is
parsed. A record needs one attribute of a trial, and its values and parameters to be compared with.
Plain queries get them for all trials together, from every database that SQLAlchemy knows. A trial
whose record asks for more (one that runs, or that another program told or changed) is read the long
way: ``read_record`` of Optuna's own trial.
"""

import contextlib
import functools
import gc
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState

from gped_nas.errors import GpedError, StudyError
from gped_nas.search.complete import CompleteTrials
from gped_nas.search.database import shown, storage_errors
from gped_nas.search.record import TrialRecord
from gped_nas.search.rows import ROW
from gped_nas.search.storage import Answer, patiently
from gped_nas.search.trials import RECORD, read_record

_MANY = 200
"""So many trials are read together rather than one by one."""


@dataclass
class RecordReader:
    """Reads the records of one study; those of trials that ended are parsed once.

    Attributes:
        storage: where the study lies.
        study_id: its number there.
    """

    storage: BaseStorage
    study_id: int
    _ended: dict[int, TrialRecord] = field(default_factory=dict)

    def records(self, objectives: Sequence[str]) -> list[TrialRecord]:
        """Every trial's record by number.

        Args:
            objectives: names of what a complete record must have.
        """
        num_trials = self.num_trials()
        with self.errors():
            engine = self._engine
            if engine is not None:
                self._patiently(lambda: self._read_together(engine, objectives))

            missing = [number for number in range(num_trials) if number not in self._ended]
            others = self._read_long_way(missing, objectives)
        return [self._ended.get(number) or others[number] for number in range(num_trials)]

    def record(self, number: int, objectives: Sequence[str]) -> TrialRecord:
        """The record of one trial, as it is stored now."""
        if number in self._ended:
            return self._ended[number]
        with self.errors():
            return self._read_long_way([number], objectives)[number]

    def complete(self, study: optuna.Study) -> optuna.Study:
        """The study for those who ask for parameters and values of its complete trials alone."""
        engine = self._engine
        if engine is None:
            return study
        return self._patiently(lambda: CompleteTrials(study, engine))

    def num_trials(self) -> int:
        """How many trials there are, in any state."""
        engine = self._engine
        if engine is None:
            return self.storage.get_n_trials(self.study_id)

        # A database's storage would read them all to count them.
        is_here = models.TrialModel.study_id == self.study_id
        query = sqlalchemy.select(sqlalchemy.func.count()).where(is_here)

        def count() -> int:
            with engine.connect() as connection:
                return int(connection.execute(query).scalar_one())

        with self.errors():
            return self._patiently(count)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what is wrong with stored trials, or with their database, into one message."""
        if self._engine is None:
            yield
            return

        url = self._engine.url.render_as_string(hide_password=False)
        with storage_errors(url):
            try:
                yield
            except GpedError:
                raise
            except (ValueError, LookupError, TypeError) as error:
                problem = str(error).partition("\n")[0][:200]
                raise StudyError(
                    f"{shown(url)}: a trial cannot be read ({problem}); restore the study from a "
                    "backup, or choose another --study-name"
                ) from None

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        """The answer of a call that reads a database; a server that is restarted is waited for."""
        backend = self._database
        assert backend is not None, "it has an engine"
        return patiently(backend, call)

    @property
    def _engine(self) -> sqlalchemy.Engine | None:
        """That of the database that the study lies in; None in memory."""
        return None if self._database is None else self._database.engine

    @property
    def _database(self) -> RDBStorage | None:
        # get_storage wraps a database in a cache, which does not hand on the engine.
        backend = getattr(self.storage, "_backend", self.storage)
        return backend if isinstance(backend, RDBStorage) else None

    def _read_together(self, engine: sqlalchemy.Engine, objectives: Sequence[str]) -> None:
        """Read what is new of the trials that ended, unless it asks for more than was read."""
        query_of_states, *other_queries = self._queries()
        with engine.connect() as connection, _without_collection():
            stored: dict[int, _StoredTrial] = {}
            for trial_id, number, state in connection.execute(query_of_states):
                if state.is_finished() and number not in self._ended:
                    stored[trial_id] = _StoredTrial(number, state)
            if not stored:
                return

            # States came first: what ended by then does not change any more.
            texts, numbers, drawn = (connection.execute(query) for query in other_queries)
            for trial_id, key, text in texts:
                if trial_id in stored:
                    stored[trial_id].texts[key] = text
            for trial_id, objective, value in numbers:
                if trial_id in stored:
                    stored[trial_id].numbers[objective] = value
            for trial_id, name, value, distribution in drawn:
                if trial_id in stored:
                    stored[trial_id].drawn[name] = (value, distribution)

            for trial in stored.values():
                with contextlib.suppress(_AsksForMore, ValueError, RecursionError):
                    self._ended[trial.number] = trial.read(objectives)

    def _queries(self) -> tuple[sqlalchemy.Select[Any], ...]:
        """Of states, of attributes, of values and of parameters of all trials."""
        trials, attributes = models.TrialModel, models.TrialUserAttributeModel
        values, params = models.TrialValueModel, models.TrialParamModel
        is_here = trials.study_id == self.study_id
        return (
            sqlalchemy.select(trials.trial_id, trials.number, trials.state).where(is_here),
            sqlalchemy.select(trials.trial_id, attributes.key, attributes.value_json)
            .join(attributes, attributes.trial_id == trials.trial_id)
            .where(is_here, attributes.key.in_([ROW, RECORD])),
            sqlalchemy.select(trials.trial_id, values.objective, values.value)
            .join(values, values.trial_id == trials.trial_id)
            .where(is_here),
            sqlalchemy.select(
                trials.trial_id, params.param_name, params.param_value, params.distribution_json
            )
            .join(params, params.trial_id == trials.trial_id)
            .where(is_here)
            .order_by(params.param_id),
        )

    def _read_long_way(
        self, numbers: Sequence[int], objectives: Sequence[str]
    ) -> dict[int, TrialRecord]:
        """The records of some trials by number, as Optuna reads trials."""
        if len(numbers) > _MANY:
            wanted = set(numbers)
            all_trials = self.storage.get_all_trials(self.study_id, deepcopy=False)
            trials = [trial for trial in all_trials if trial.number in wanted]
        else:
            trials = []
            for number in numbers:
                trial_id = self.storage.get_trial_id_from_study_id_trial_number(
                    self.study_id, number
                )
                trials.append(self.storage.get_trial(trial_id))

        records = {}
        for trial in trials:
            record = read_record(trial, objectives)
            records[trial.number] = record
            if trial.state.is_finished():
                self._ended[trial.number] = record
        return records


class _AsksForMore(Exception):
    """A record asks for something of its trial that was not read."""


@dataclass
class _StoredTrial:
    """What was read of a trial, in the place of Optuna's."""

    number: int
    state: TrialState
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[int, float | None] = field(default_factory=dict)
    drawn: dict[str, tuple[float, str]] = field(default_factory=dict)

    def read(self, objectives: Sequence[str]) -> TrialRecord:
        """Its record.

        Raises:
            _AsksForMore: it cannot be told from this alone.
            ValueError, RecursionError: an attribute is no JSON.
        """
        is_complete = self.state == TrialState.COMPLETE
        expected = set(range(len(objectives))) if is_complete else set()
        if not self.texts or set(self.numbers) != expected or None in self.numbers.values():
            raise _AsksForMore

        self.user_attrs = {key: json.loads(text) for key, text in self.texts.items()}
        self.values = [self.numbers[i] for i in range(len(expected))]
        self.params = {}
        for name, (value, text) in self.drawn.items():
            self.params[name] = _distribution(text).to_external_repr(value)

        trial: Any = self
        return read_record(trial, objectives)

    def __getattr__(self, name: str) -> Any:
        raise _AsksForMore(name)


@functools.lru_cache
def _distribution(text: str) -> BaseDistribution:
    """A distribution by its text: those of all trials are few."""
    return json_to_distribution(text)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Pause the search for cycles, which takes half the time among a million new objects."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
