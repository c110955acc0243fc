"""A study's database as the dashboard reads it. What differs from what is stored is never stored.

* Optuna 5 stores a constraint as ``constraints:<name>``; optuna-dashboard 0.21 reads only the older
  list ``constraints``. Stored, Optuna would count each constraint twice.
* What a trial's rungs looked at are its intermediate values. Stored, Optuna's TPE would take them
  for those of a study of one objective, and fail.
* The first cost comes before the first quality, so that the dashboard's front lies as the report's
  does: the cost across, the quality up.
"""

import copy
import json
from collections.abc import Container, Mapping, Sequence
from typing import Any, TypeVar

from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from gped_nas.errors import StudyError
from gped_nas.models.labels import COSTS
from gped_nas.search.database import sqlite_file, storage_errors
from gped_nas.search.rows import ROW
from gped_nas.search.storage import TolerantStorage

_CONSTRAINT = "constraints:"
_METRIC_NAMES = "study:metric_names"
T = TypeVar("T")


class LegacyConstraintStorage(TolerantStorage):
    """A database whose trials, as returned, are those of the module's docstring."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._study_of: dict[int, int] = {}

    def as_stored(self) -> TolerantStorage:
        """The same database as it is, for Optuna, whose cache reads trials past this class."""
        return TolerantStorage(self.url, skip_compatibility_check=True, skip_table_creation=True)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial by its identifier."""
        study_id = self._study_of.get(trial_id)
        order = [] if study_id is None else self._order(study_id)
        return self._as_shown(super().get_trial(trial_id), order)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All trials of a study."""
        order = self._order(study_id)
        trials = super().get_all_trials(study_id, deepcopy, states)
        self._study_of |= {trial._trial_id: study_id for trial in trials}
        return [self._as_shown(trial, order) for trial in trials]

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """What is better of each objective, in the order that is shown."""
        return _put_in_order(super().get_study_directions(study_id), self._order(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """The study's own attributes, the names of objectives in the order that is shown."""
        attributes = super().get_study_system_attrs(study_id)
        return _with_names_in_order(attributes, _order_of(attributes))

    def get_all_studies(self) -> list[FrozenStudy]:
        """All studies, as the two above give them."""
        studies = []
        for study in super().get_all_studies():
            order = _order_of(study.system_attrs)
            if order:
                study = copy.copy(study)
                study._directions = _put_in_order(study.directions, order)
                study.system_attrs = _with_names_in_order(study.system_attrs, order)
            studies.append(study)
        return studies

    def _order(self, study_id: int) -> list[int]:
        """Places of the objectives in the order that is shown; empty where it is the stored one."""
        return _order_of(super().get_study_system_attrs(study_id))

    def _as_shown(self, trial: FrozenTrial, order: list[int]) -> FrozenTrial:
        """The trial with all that is not stored, as a copy."""
        shown = _add_rungs(_add_legacy_constraints(trial))
        if order and shown.values is not None:
            shown = copy.copy(shown)
            shown._values = _put_in_order(shown.values, order)
        return shown


def _order_of(attributes: Mapping[str, Any]) -> list[int]:
    """The first cost, the first quality, then the others; empty where that is how they are stored.

    Args:
        attributes: the study's system attributes, with the names of its objectives.
    """
    names = attributes.get(_METRIC_NAMES) or []
    costs = [i for i, name in enumerate(names) if name in COSTS]
    if not costs or costs[0] == 0:
        return []
    others = [i for i in range(1, len(names)) if i != costs[0]]
    return [costs[0], 0, *others]


def _put_in_order(values: Sequence[T], order: list[int]) -> list[T]:
    return [values[i] for i in order] if order else list(values)


def _with_names_in_order(attributes: Mapping[str, Any], order: list[int]) -> dict[str, Any]:
    if not order:
        return dict(attributes)
    return {**attributes, _METRIC_NAMES: _put_in_order(attributes[_METRIC_NAMES], order)}


def _add_rungs(trial: FrozenTrial) -> FrozenTrial:
    """The trial with what its rungs looked at, by steps of training."""
    text = _record_text(trial.user_attrs)
    if '"rungs":[[' not in text.replace(" ", ""):
        return trial
    try:
        rungs = dict(json.loads(text)["extra"]["rungs"])
    except (ValueError, KeyError, TypeError):  # damage is told where records are read
        return trial

    changed = copy.copy(trial)
    changed.intermediate_values = {int(step): float(value) for step, value in rungs.items()}
    return changed


def _record_text(attributes: Mapping[str, Any]) -> str:
    """The stored record of a trial; empty where it has none."""
    row = attributes.get(ROW)
    text = row.get("record") if isinstance(row, Mapping) else None
    return text if isinstance(text, str) else ""


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
