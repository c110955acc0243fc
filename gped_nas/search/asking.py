"""Asks Optuna for new trials: queued ones first, then those that the space's sampler draws.

Samplers that are not Optuna's queue what they propose, which Optuna then draws.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from gped_nas.models.base import Genotype
from gped_nas.search.creation import Place
from gped_nas.search.dimensions import Choice
from gped_nas.search.drafts import Drafts
from gped_nas.search.drawing import make_sampler, next_trainings, sampler_seed, undrawn
from gped_nas.search.earlier import Earlier, as_trials
from gped_nas.search.proposing.costs_known import propose
from gped_nas.search.proposing.facts import Facts
from gped_nas.search.record import TrialRecord
from gped_nas.search.rows import Refusal
from gped_nas.search.space import FINITE_SAMPLERS, SearchSpace


class Asker:
    """New trials of one study.

    Args:
        storage: where the study lies.
        name: its name in it.
        earlier: what it was told of another study.
    """

    def __init__(self, storage: BaseStorage, name: str, earlier: Earlier | None = None) -> None:
        study_id = storage.get_study_id_from_name(name)
        self._drafts = Drafts(storage, study_id)
        self._earlier = earlier
        self._known: list[FrozenTrial] | None = None
        self._study = optuna.load_study(storage=self._drafts, study_name=name)  # type: ignore[arg-type]
        self._listed: list[dict[str, Choice]] | None = None

    def ask(
        self,
        space: SearchSpace,
        num: int,
        root: int,
        *,
        trials: Sequence[FrozenTrial],
        number: int,
        records: Callable[[], Sequence[TrialRecord]],
        facts: Facts | None,
    ) -> Iterator[optuna.Trial]:
        """Up to ``num`` new trials; fewer when a sampler has no more genotypes.

        Args:
            space: whose sampler draws.
            num: how many are wanted.
            root: the seed of the sampler.
            trials: all trials of the study as they are stored now.
            number: this asker's among those who ask at the same time.
            records: gives the records of these trials.
            facts: of the study, for a sampler that asks for them.
        """
        if self._known is None:
            self._known = as_trials(space, self._earlier)
        self._drafts.begin(trials, self._known)
        seed = sampler_seed(root, number, len(trials))
        self._study.sampler = make_sampler(space, seed)

        num_waiting = sum(trial.state == TrialState.WAITING for trial in trials)
        if space.search.sampler in FINITE_SAMPLERS:
            num_waiting += self._queue(self._next_listed(space, num - num_waiting, root, trials))
            num = min(num, num_waiting)
        elif space.search.sampler == "costs_known" and num_waiting < num:
            assert facts is not None, "whoever searches has facts"
            if self._earlier is not None:
                facts = replace(facts, earlier=self._earlier.records)
            proposed = propose(space, records(), num - num_waiting, seed=seed, facts=facts)
            num = num_waiting + self._queue(proposed)
        for _ in range(num):
            yield self._study.ask()

    def _next_listed(
        self, space: SearchSpace, num: int, root: int, trials: Sequence[FrozenTrial]
    ) -> list[dict[str, Choice]]:
        """The next genotypes of a finite space, as parameters."""
        if self._listed is None:
            self._listed = undrawn(space, root, trials)
        listed, self._listed = next_trainings(space, self._listed, max(0, num), trials)
        return list(listed)

    def _queue(self, queued: Sequence[Mapping[str, Choice]]) -> int:
        """Queue genotypes as parameters; returns how many there are."""
        for params in queued:
            self._study.enqueue_trial(dict(params))
        return len(queued)

    def draw(self, space: SearchSpace, asked: optuna.Trial) -> Genotype | Refusal:
        """A new trial's genotype; why there is none, where its values were queued and are wrong."""
        with warnings.catch_warnings():
            # Optuna takes a queued number that is out of range, with a warning.
            warnings.filterwarnings("error", message="Fixed parameter")
            try:
                return space.draw(asked)
            except (ValueError, TypeError, KeyError, UserWarning) as error:
                attributes = self._drafts.get_trial_system_attrs(asked._trial_id)
                queued = attributes.get("fixed_params")
                if not queued or self.is_draft(asked):
                    raise
                return Refusal(f"{str(queued)[:200]}; {str(error)[:200]}")

    def is_draft(self, asked: optuna.Trial) -> bool:
        """Whether a trial is nowhere but here; another program queued one that is not."""
        return self._drafts.is_draft(asked._trial_id)

    def write(
        self, asked: Sequence[optuna.Trial], attributes: Sequence[Mapping[str, Any]]
    ) -> list[Place]:
        """Write drafts whole, with user attributes, at once; where each one is, in their order."""
        by_id = {}
        for trial, user_attributes in zip(asked, attributes, strict=True):
            by_id[trial._trial_id] = dict(user_attributes)
        return self._drafts.write(by_id)
