"""The ledger of a study: its document, and every trial that was asked for and told.

One process asks and tells (on SQLite two askers lose trials). Each trial carries one JSON record in
the user attribute ``gped:record``, written before ``tell`` because a finished trial is frozen; flat
numbers beside it are for the dashboard. A killed run leaves trials RUNNING: at the next start those
that have a record are told from it, the others become failed trials whose reason says so and which
count for nothing.
"""

import functools
import itertools
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from gped_nas import rng
from gped_nas.errors import StudyError
from gped_nas.io import canonical_json
from gped_nas.models.base import Genotype
from gped_nas.search.dimensions import Choice
from gped_nas.search.document import (
    DOCUMENT,
    TEST,
    StudentTest,
    StudyDocument,
    read_document,
    read_tests,
)
from gped_nas.search.objectives import Objective
from gped_nas.search.record import State, TrialRecord
from gped_nas.search.space import FINITE_SAMPLERS, SearchSpace

RECORD = "gped:record"
INTERRUPTED = "interrupted before it finished"
FOREIGN = "finished by something other than gped-search"
DAMAGED = "its record was changed by something other than gped-search"

optuna.logging.set_verbosity(
    optuna.logging.ERROR
)  # each trial is told by this tool's own progress line


@dataclass(frozen=True)
class Asked:
    """A genotype that the study drew and waits for.

    Attributes:
        number: trial number.
        genotype: what was drawn.
    """

    number: int
    genotype: Genotype


class Ledger:
    """One study in one storage.

    Args:
        study: the Optuna study.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._running: dict[int, optuna.Trial] = {}
        self._left: Iterator[dict[str, Choice]] | None = None

    @property
    def name(self) -> str:
        """The study's name."""
        return self._study.study_name

    # -- the study's document and its tests

    @property
    def document(self) -> StudyDocument:
        """What the study remembers besides its trials, as it is stored now.

        Raises:
            StudyError: it was not made by gped-search, or it is damaged.
        """
        document = read_document(self._study.user_attrs, self._where)
        if document is None:
            raise StudyError(
                f"{self._where}: it was not made by gped-search; choose another --study-name"
            )
        return document

    def change(self, **changes: Any) -> StudyDocument:
        """Write the document with some fields changed; only the process that asks does so."""
        document = self.document.with_changes(**changes)
        self.write(document)
        return document

    def write(self, document: StudyDocument) -> None:
        """Write the document whole."""
        self._study.set_user_attr(DOCUMENT, document.to_json())

    def tests(self) -> dict[int, StudentTest]:
        """The test evaluations made so far, by trial number.

        Raises:
            StudyError: one is damaged.
        """
        return read_tests(self._study.user_attrs, self._where)

    def write_test(self, trial: int, test: StudentTest) -> None:
        """Write a student's test evaluation, an attribute of its own."""
        self._study.set_user_attr(f"{TEST}{trial}", test.to_json())

    @functools.cached_property
    def _objective_names(self) -> list[str]:
        """They never change; read once."""
        return [objective.name for objective in self.document.objectives]

    @property
    def _where(self) -> str:
        return f"study '{self.name}'"

    # -- reading

    def records(self) -> list[TrialRecord]:
        """Every trial's record by number, as it was told: no test metric is among it."""
        names = self._objective_names
        return [_record(trial, names) for trial in self._study.get_trials(deepcopy=False)]

    # -- asking and telling

    def reap(self) -> int:
        """Finish what a killed run left RUNNING; returns how many trials there were. For the only
        asker.
        """
        left = [t for t in self._study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
        for trial in left:
            if RECORD in trial.user_attrs:
                self._tell(trial.number, _record(trial))
            else:
                self._study.tell(trial.number, state=TrialState.FAIL)
        return len(left)

    def ask(self, space: SearchSpace, num: int, root: int) -> list[Asked]:
        """Draw up to ``num`` genotypes; fewer when a finite sampler has no more."""
        trials = self._study.get_trials(deepcopy=False)
        self._study.sampler = _sampler(space, rng.seed(root, "sampler", len(trials)) % 2**32)
        if space.search.sampler in FINITE_SAMPLERS:
            waiting = sum(t.state == TrialState.WAITING for t in trials)
            num = min(num, waiting + self._enqueue(space, num - waiting, root, trials))
        asked = []
        for _ in range(num):
            trial = self._study.ask()
            self._running[trial.number] = trial
            asked.append(Asked(trial.number, space.draw(trial)))
        return asked

    def _enqueue(
        self, space: SearchSpace, num: int, root: int, trials: Sequence[FrozenTrial]
    ) -> int:
        """Queue the next genotypes of a finite space that no trial has drawn; returns how many
        there were.
        """
        if self._left is None:
            self._left = iter(self._undrawn(space, root, trials))
        queued = list(itertools.islice(self._left, max(0, num)))
        for params in queued:
            self._study.enqueue_trial(params)
        return len(queued)

    def _undrawn(
        self, space: SearchSpace, root: int, trials: Sequence[FrozenTrial]
    ) -> list[dict[str, Choice]]:
        """The parameters of a finite space that no trial has drawn, in the sampler's order.

        One that failed by itself would fail again; one whose run was interrupted is listed again.
        """
        drawn = {
            space.genotype_of({**t.params, **t.system_attrs.get("fixed_params", {})})
            for t in trials
            if t.state != TrialState.FAIL or _record(t).reason != INTERRUPTED
        }
        everything = list(space.enumerate())
        if space.search.sampler == "brute_force":
            order = rng.seed(root, "brute_force")
            everything.sort(key=lambda params: rng.seed(order, canonical_json(params)))
        return [params for params in everything if space.genotype_of(params) not in drawn]

    def tell(self, record: TrialRecord, excess: Mapping[str, float]) -> TrialRecord:
        """Finish a trial with its record.

        A record with a number that is not finite becomes a failed one: it never reaches the front.
        So does that of a trial which another program finished meanwhile.

        Args:
            record: what came out, its trial still running.
            excess: by how much each constraint is broken; at most 0 where it holds.

        Returns:
            The record as it was stored.
        """
        record = record.replace(created=round(time.time(), 3))
        try:
            text = record.dumps()
        except ValueError:
            record = TrialRecord(
                trial=record.trial,
                state="failed",
                reason="a metric is not finite",
                genotype=record.genotype,
                created=record.created,
            )
            text, excess = record.dumps(), {}
        trial = self._running.pop(record.trial)
        values = record.values
        try:
            for name, value in excess.items():
                trial.set_constraint(name, value)
            for name in ("accuracy", "rmse", "nll", "params", "macs"):
                if name in values:
                    trial.set_user_attr(name, values[name])
            trial.set_user_attr(RECORD, text)
        except UpdateFinishedTrialError:
            return record.replace(state="failed", reason=FOREIGN, measures={}, costs={})
        self._tell(record.trial, record)
        return record

    def _tell(self, number: int, record: TrialRecord) -> None:
        names = self._objective_names
        if record.state == "failed":
            self._study.tell(number, state=TrialState.FAIL)
        elif all(name in record.values for name in names):
            self._study.tell(number, [record.value(name) for name in names])
        else:
            self._study.tell(number, state=TrialState.PRUNED)

    # -- what only Optuna can compute

    def importances(self, objectives: Sequence[Objective]) -> dict[str, dict[str, float]]:
        """PED-ANOVA share of each parameter, by objective; empty with fewer than ten complete
        trials.

        PED-ANOVA looks at the low values, so objectives that are maximized are negated first.
        """
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < 10 or not any(t.params for t in complete):
            return {}
        result = {}
        for i, one in enumerate(objectives):
            sign = -1.0 if one.direction == "maximize" else 1.0
            with warnings.catch_warnings():
                # it reminds that low values are looked at, which the sign above takes care of
                warnings.filterwarnings(
                    "ignore", message="PedAnovaImportanceEvaluator", category=UserWarning
                )
                try:
                    shares = optuna.importance.get_param_importances(
                        self._study,
                        target=lambda t, i=i, sign=sign: sign * t.values[i],  # type: ignore[misc]
                    )
                except (ValueError, RuntimeError):  # nothing varies, so nothing has a share
                    continue
            result[one.name] = {name: float(share) for name, share in shares.items()}
        return result


def _sampler(space: SearchSpace, seed: int) -> optuna.samplers.BaseSampler:
    name = space.search.sampler
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(
            seed=seed, population_size=max(2, min(50, space.search.n_trials // 4))
        )
    return optuna.samplers.RandomSampler(seed=seed)


def _record(trial: FrozenTrial, objectives: Sequence[str] = ()) -> TrialRecord:
    """A trial's record; a failed one where it has none, or none that can be read."""
    text = trial.user_attrs.get(RECORD)
    if text is None:
        running = trial.state in (TrialState.RUNNING, TrialState.WAITING)
        reason = FOREIGN if trial.state == TrialState.COMPLETE else INTERRUPTED
        return _unusable(trial, "running" if running else "failed", "" if running else reason)
    try:
        record = TrialRecord.loads(text)
    except ValueError:
        return _unusable(trial, "failed", DAMAGED)
    is_whole = record.state != "complete" or all(name in record.values for name in objectives)
    return (
        record if is_whole and record.trial == trial.number else _unusable(trial, "failed", DAMAGED)
    )


def _unusable(trial: FrozenTrial, state: State, reason: str) -> TrialRecord:
    return TrialRecord(trial=trial.number, state=state, reason=reason, genotype=dict(trial.params))
