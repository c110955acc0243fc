"""A study's database as the dashboard reads it: with constraints that it understands.

Optuna 5 stores a constraint as ``constraints:<name>``; optuna-dashboard 0.21 reads only the older
list ``constraints``. The storage below adds that list to what it returns and never to what is
stored, where Optuna would count each constraint twice.
"""

import copy
from collections.abc import Container, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from gped_nas.errors import StudyError
from gped_nas.search.database import sqlite_file, storage_errors
from gped_nas.search.storage import TolerantStorage

_CONSTRAINT = "constraints:"


class LegacyConstraintStorage(TolerantStorage):
    """A database whose trials, as returned, also carry their constraints as the older list."""

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial by its identifier."""
        return _add_legacy_constraints(super().get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All trials of a study."""
        return [
            _add_legacy_constraints(trial)
            for trial in super().get_all_trials(study_id, deepcopy, states)
        ]


def _add_legacy_constraints(trial: FrozenTrial) -> FrozenTrial:
    """The trial with the older list, as a copy: storages may hand out what they keep."""
    attributes: Mapping[str, Any] = trial.system_attrs
    values = [attributes[key] for key in sorted(attributes) if key.startswith(_CONSTRAINT)]
    if not values or "constraints" in attributes:
        return trial

    changed = copy.copy(trial)
    changed.system_attrs = {**attributes, "constraints": values}
    return changed


def open_for_dashboard(storage_url: str) -> LegacyConstraintStorage:
    """The database, which must be there.

    Raises:
        StudyError: there is none, or it cannot be read.
        ConfigError, EnvironmentProblem: the URL is none, or the database is out of reach.
    """
    with storage_errors(storage_url):
        file = sqlite_file(storage_url)
        if file is not None and not file.is_file():
            raise StudyError(
                f"{file}: no study database here; name the study's folder or its storage"
            )
        return LegacyConstraintStorage(
            storage_url, skip_compatibility_check=True, skip_table_creation=True
        )
