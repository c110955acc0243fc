"""New trials as samplers draw them, before any of it is written.

Optuna creates an empty trial and writes each parameter as it is drawn. Here a study lies in a
storage that keeps new trials to itself: they are drawn by Optuna's own ``ask`` and ``suggest``
among the trials of the real storage, and written there whole, a population at once. A trial that
another program queued is in the real storage already, and what is drawn for it is written there as
it is drawn.
"""

import copy
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from gped_nas.search.creation import Place, create_trials


class Drafts:
    """A storage for one ``optuna.Study``; see the module.

    Args:
        storage: the real one; what is not said here is asked of it.
        study_id: of the study in it.
    """

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage = storage
        self._study_id = study_id
        self._trials: list[FrozenTrial] = []
        self._known: list[FrozenTrial] = []
        self._waiting: list[FrozenTrial] = []
        self._drafts: dict[int, FrozenTrial] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def begin(self, trials: Sequence[FrozenTrial], known: Sequence[FrozenTrial] = ()) -> None:
        """Draw among these trials from now.

        Args:
            trials: all those of the study as they are stored.
            known: finished trials of another study, which samplers learn from, too.
        """
        self._trials, self._known = list(trials), list(known)
        self._waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        self._drafts = {}

    def is_draft(self, trial_id: int) -> bool:
        """Whether a trial is not written yet."""
        return trial_id in self._drafts

    def write(self, attributes: Mapping[int, dict[str, Any]]) -> list[Place]:
        """Write drafts whole, in one transaction; where each one is, in their order.

        Args:
            attributes: user attributes of each draft, by its identifier here.
        """
        drafts = [self._drafts.pop(trial_id) for trial_id in attributes]
        for draft, user_attributes in zip(drafts, attributes.values(), strict=True):
            draft.user_attrs = user_attributes
        places = create_trials(self._storage, self._study_id, drafts)
        for draft, (trial_id, number) in zip(drafts, places, strict=True):
            draft._trial_id, draft.number = trial_id, number
        return places

    # -- what optuna.Study and its samplers ask for

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """A new draft; returns its identifier, which no trial of the real storage has."""
        draft = copy.deepcopy(template_trial) or _empty_trial()
        draft.number = len(self._trials)
        draft._trial_id = -1 - draft.number
        self._drafts[draft._trial_id] = draft
        self._trials.append(draft)
        if draft.state == TrialState.WAITING:
            self._waiting.append(draft)
        return draft._trial_id

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial by its identifier, which the caller may change."""
        draft = self._drafts.get(trial_id)
        return self._storage.get_trial(trial_id) if draft is None else copy.deepcopy(draft)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All trials by number, drafts among them; first what is known of another study."""
        if states == (TrialState.WAITING,):
            trials = list(self._waiting)
        elif states is None:
            trials = [*self._known, *self._trials]
        else:
            trials = [t for t in (*self._known, *self._trials) if t.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Start a trial that waits; False where somebody else did."""
        self._waiting = [trial for trial in self._waiting if trial._trial_id != trial_id]
        draft = self._drafts.get(trial_id)
        if draft is None:
            return self._storage.set_trial_state_values(trial_id, state, values)

        draft.state, draft.datetime_start = state, datetime.now()
        return True

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """What was drawn for a parameter."""
        draft = self._drafts.get(trial_id)
        if draft is None:
            self._storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        else:
            draft.params[param_name] = distribution.to_external_repr(param_value_internal)
            draft.distributions[param_name] = distribution

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """What a sampler notes of a trial."""
        draft = self._drafts.get(trial_id)
        if draft is None:
            self._storage.set_trial_system_attr(trial_id, key, value)
        else:
            draft.system_attrs[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """What a sampler notes of the study."""
        self._storage.set_study_system_attr(study_id, key, value)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """What samplers noted of a trial."""
        return self.get_trial(trial_id).system_attrs


def _empty_trial() -> FrozenTrial:
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )
