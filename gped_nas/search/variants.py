"""Trials that nobody trained for: a trained student in its other storage types.

Students are trained in float32, and how their weights lie on disk is no reason to train again. A
student that was trained is measured in every storage type that its space holds. The trial that it
was trained for has the type that was drawn. The others become trials of their own, written whole in
the transaction that finishes this one, so that no kill comes in between. They count neither toward
the number of trials nor in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from sqlalchemy import Connection

from gped_nas.search.answers import Answer, end_of, fail_unless_finite
from gped_nas.search.changes import CONSTRAINT
from gped_nas.search.creation import insert_trials
from gped_nas.search.record import TrialRecord
from gped_nas.search.rows import ROW, Row

DTYPE = "storage_dtype"


class VariantWriter:
    """Writes trials for the variants of trials that end; see ``changes.Beside``.

    Args:
        storage: where the study lies.
        study_id: of the study in it.
        objectives: names, in the order of Optuna's values.
        answers: the variants, by Optuna's identifier of the trial that was trained.

    Attributes:
        records: those that were written, by the number of the trial that was trained.
    """

    def __init__(
        self,
        storage: BaseStorage,
        study_id: int,
        objectives: Sequence[str],
        answers: Mapping[int, Sequence[Answer]],
    ) -> None:
        self._storage = storage
        self._study_id = study_id
        self._objectives = objectives
        self._answers = {trial_id: each for trial_id, each in answers.items() if each}
        self._trained = {trial_id: storage.get_trial(trial_id) for trial_id in self._answers}
        self.records: dict[int, list[TrialRecord]] = {}

    def write(self, connection: Connection, changed: Sequence[int]) -> None:
        """See ``changes.Beside``."""
        with_variants = [trial_id for trial_id in changed if trial_id in self._answers]
        if with_variants:
            insert_trials(
                connection, self._study_id, lambda first: self._make(first, with_variants)
            )

    def write_by_calls(self, changed: Sequence[int]) -> None:
        """See ``changes.Beside``."""
        with_variants = [trial_id for trial_id in changed if trial_id in self._answers]
        first = self._storage.get_n_trials(self._study_id)
        for template in self._make(first, with_variants):
            self._storage.create_new_trial(self._study_id, template)

    def _make(self, first: int, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        """The trials, numbered from ``first``; made anew where a transaction is tried again."""
        self.records = {}
        templates: list[FrozenTrial] = []
        for trial_id in trial_ids:
            trained = self._trained[trial_id]
            written = self.records.setdefault(trained.number, [])
            for variant in self._answers[trial_id]:
                record = variant.record.replace(trial=first + len(templates))
                stored, text = fail_unless_finite(replace(variant, record=record))
                templates.append(self._template(trained, stored, text))
                written.append(stored.record)
        return templates

    def _template(self, trained: FrozenTrial, answer: Answer, text: str) -> FrozenTrial:
        """A finished trial.

        Args:
            trained: the trial whose student this is.
            answer: with the record, numbered.
            text: of the record.
        """
        params, distributions = dict(trained.params), dict(trained.distributions)
        params[_name_of_dtype(distributions)] = answer.record.genotype[DTYPE]
        row = Row(state="finished", params=params, record=text)
        end = end_of(answer, self._objectives)
        now = datetime.now()
        return FrozenTrial(
            number=answer.record.trial,
            trial_id=-1,
            state=end.state,
            value=None,
            values=None if end.values is None else list(end.values),
            datetime_start=now,
            datetime_complete=now,
            params=params,
            distributions=distributions,
            user_attrs={**end.numbers, ROW: row.sealed()},
            system_attrs={CONSTRAINT + name: value for name, value in end.excess.items()},
            intermediate_values={},
        )


def is_finite(answer: Answer) -> bool:
    """Whether all numbers of its record are finite."""
    try:
        answer.record.dumps()
    except ValueError:
        return False
    return True


def _name_of_dtype(distributions: Mapping[str, BaseDistribution]) -> str:
    """Which parameter of a trial is the storage type: a space of several families has prefixes."""
    (name,) = [name for name in distributions if name.rpartition(".")[2] == DTYPE]
    return name
