"""The ledger of a study: its document, and a row a trial.

The verbs of ``search.rows`` on rows that lie in an Optuna storage. One process asks and tells (on
SQLite two askers lose trials); its workers hold claims.

A trial that ends is written in this order: by how much it breaks constraints, flat numbers for the
dashboard, the row with its record, and Optuna's state and values, after which the trial is frozen.
A process that dies in between leaves it running for Optuna. ``reap``, at the next start, tells it
from its record if the row has one; else its claim is taken back, and unless it can go on from a
checkpoint it has failed, for a reason that counts for nothing.
"""

import functools
import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from gped_nas.errors import StudyError
from gped_nas.search import rows
from gped_nas.search.document import (
    DOCUMENT,
    TEST,
    StudentTest,
    StudyDocument,
    read_document,
    read_tests,
)
from gped_nas.search.goals import Objective
from gped_nas.search.importances import importances
from gped_nas.search.owners import Owner
from gped_nas.search.record import TrialRecord
from gped_nas.search.rows import LEASE_S, ROW, Refusal, Row
from gped_nas.search.storage import clock_of
from gped_nas.search.trials import DAMAGED, FOREIGN, NOT_DRAWN, read_record, read_row

if TYPE_CHECKING:
    from gped_nas.models.base import Genotype
    from gped_nas.search.dimensions import Choice
    from gped_nas.search.space import SearchSpace

FLAT = ("accuracy", "rmse", "nll", "params", "macs")
"""Numbers that the Optuna dashboard shows as attributes of a trial."""
_CONSTRAINT = "constraints:"
"""Before a constraint's name: the system attribute in which Optuna looks for its excess."""

# This tool has a progress line of its own for each trial.
optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Claim:
    """A trial that this process works on.

    Attributes:
        number: trial number.
        genotype: what was drawn.
        until: training steps after which it pauses, earlier ones included; None for no end.
        budget: training steps spent before.
        checkpoint: where to go on from; empty for the beginning.
    """

    number: int
    genotype: "Genotype"
    until: int | None = None
    budget: int = 0
    checkpoint: str = ""


@dataclass(frozen=True)
class Answer:
    """What came out of a trial.

    Attributes:
        record: its record.
        excess: by how much each constraint is broken; at most 0 where it holds.
    """

    record: TrialRecord
    excess: Mapping[str, float] = field(default_factory=dict)


class Ledger:
    """One study in one storage.

    Args:
        storage: where it lies.
        name: the study's name in it.
        owner: who claims trials through this ledger.
        clock: by which claims age; the storage's by default.
        guard: called before everything that is written; it raises where nothing may be.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        owner: Owner | None = None,
        clock: Callable[[], float] | None = None,
        guard: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.owner = owner or Owner.here()
        self._storage = storage
        self._study = optuna.load_study(storage=storage, study_name=name)
        self._study_id = storage.get_study_id_from_name(name)
        self._clock = clock or clock_of(storage)
        self._guard = guard or _allow

        self._held: set[int] = set()
        self._renewed = time.monotonic()
        self._listed: Iterator[dict[str, Choice]] | None = None
        self._ended: dict[int, TrialRecord] = {}

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
        self._guard()
        self._study.set_user_attr(DOCUMENT, document.to_json())

    def tests(self) -> dict[int, StudentTest]:
        """The test evaluations made so far, by trial number.

        Raises:
            StudyError: one is damaged.
        """
        return read_tests(self._study.user_attrs, self._where)

    def write_test(self, trial: int, test: StudentTest) -> None:
        """Write a student's test evaluation, an attribute of its own."""
        self._guard()
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
        return [self._read(trial) for trial in self._study.get_trials(deepcopy=False)]

    def record(self, number: int) -> TrialRecord:
        """The record of one trial, as it is stored now."""
        return self._read(self._storage.get_trial(self._id(number)))

    def _read(self, trial: FrozenTrial) -> TrialRecord:
        if trial.number in self._ended:
            return self._ended[trial.number]
        record = read_record(trial, self._objective_names)
        if trial.state.is_finished():
            # The trial is frozen, so its record is parsed once.
            self._ended[trial.number] = record
        return record

    def rows(self) -> dict[int, Row]:
        """The rows of the trials that have not ended, by number; none of one that is damaged."""
        open_rows = {}
        for trial in self._unfinished():
            row = _row_or_none(trial)
            if row is not None and row.state != "finished":
                open_rows[trial.number] = row
        return open_rows

    def importances(self, objectives: Sequence[Objective]) -> dict[str, dict[str, float]]:
        """See ``search.importances``."""
        return importances(self._study, objectives)

    # -- the verbs

    def claim(self, space: "SearchSpace", num: int, root: int) -> list[Claim]:
        """Up to ``num`` trials to work on: those that wait, then new ones.

        Fewer when a finite sampler has no more genotypes.
        """
        now = self._clock()
        claims: list[Claim] = []
        for trial in self._unfinished():
            row = _row_or_none(trial)
            if len(claims) < num and row is not None and row.state == "waiting":
                genotype = space.genotype_of(trial.params)
                claims.append(self._claim(trial.number, genotype, row, now))

        # Some may have been queued by other programs with values that the space does not hold.
        is_refused = True
        while is_refused:
            is_refused = False
            for asked in self._ask(space, num - len(claims), root):
                drawn = self._draw(space, asked)
                if isinstance(drawn, Refusal):
                    self._refuse(asked.number, drawn.reason)
                    is_refused = True
                else:
                    claims.append(self._claim(asked.number, drawn, None, now))
        return claims

    def _draw(self, space: "SearchSpace", asked: optuna.Trial) -> "Genotype | Refusal":
        """A new trial's genotype; why there is none, where its values were queued and are wrong."""
        with warnings.catch_warnings():
            # Optuna takes a queued number that is out of range, with a warning.
            warnings.filterwarnings("error", message="Fixed parameter")
            try:
                return space.draw(asked)
            except (ValueError, TypeError, KeyError, UserWarning) as error:
                attributes = self._storage.get_trial_system_attrs(self._id(asked.number))
                queued = attributes.get("fixed_params")
                if not queued:
                    raise
                return Refusal(f"{str(queued)[:200]}; {str(error)[:200]}")

    def _refuse(self, number: int, reason: str) -> None:
        """Fail a trial that no genotype could be drawn for."""
        record = TrialRecord(
            trial=number,
            state="failed",
            genotype={},
            reason=f"{NOT_DRAWN}: {reason}",
            created=round(time.time(), 3),
        )
        self._write_row(number, Row(state="finished", record=record.dumps()))
        self._fail(number)

    def _claim(self, number: int, genotype: "Genotype", row: Row | None, now: float) -> Claim:
        claimed = rows.claim(row, self.owner, now)
        assert isinstance(claimed, Row), "it is new or waits"
        self._write_row(number, claimed)
        self._held.add(number)
        return Claim(number, genotype, claimed.until, claimed.budget, claimed.checkpoint)

    def report(
        self, number: int, *, budget: int, metrics: Mapping[str, float], checkpoint: str = ""
    ) -> Row | Refusal:
        """Write down what a claimed trial is worth on its way; see ``rows.report``."""
        row = self._open_row(number)
        if isinstance(row, Row):
            row = rows.report(
                row,
                self.owner,
                self._clock(),
                budget=budget,
                metrics=metrics,
                checkpoint=checkpoint,
            )
        return self._write_unless_refused(number, row)

    def promote(self, number: int, until: int | None) -> Row | Refusal:
        """Let a paused trial go on; see ``rows.promote``."""
        row = self._open_row(number)
        if isinstance(row, Row):
            row = rows.promote(row, until)
        return self._write_unless_refused(number, row)

    def finish(self, answer: Answer) -> TrialRecord | Refusal:
        """Finish a trial with its record.

        A record with a number that is not finite becomes a failed one: it never reaches the front.

        Returns:
            The record as it was stored; or why nothing was stored, where the claim was taken back
            or the trial was finished meanwhile.
        """
        number = answer.record.trial
        record, text, excess = _fail_unless_finite(answer)
        # Who held the claim may not end what was taken from it; the asker may, if nobody holds it.
        owner = self.owner if number in self._held else None

        row = self._open_row(number)
        finished = rows.finish(row, owner, text) if isinstance(row, Row) else row
        if isinstance(finished, Refusal):
            return finished

        # In the order of the module's docstring. Another program may finish the trial meanwhile.
        try:
            self._write_numbers(number, record.values, excess)
            self._write_row(number, finished)
            self._tell(number, record)
        except (UpdateFinishedTrialError, ValueError):
            # Optuna's ``tell`` says it with a ValueError, which may mean anything else as well.
            if not self._storage.get_trial(self._id(number)).state.is_finished():
                raise
            return Refusal(FOREIGN)

        self._held.discard(number)
        return record

    def renew(self) -> None:
        """Give a sign of life for all claims held, once a third of a lease; cheap in between."""
        if time.monotonic() - self._renewed < LEASE_S / 3:
            return

        self._renewed = time.monotonic()
        now = self._clock()
        for number in sorted(self._held):
            row = self._open_row(number)
            if isinstance(row, Row):
                self._write_unless_refused(number, rows.renew(row, self.owner, now))

    def reap(self) -> int:
        """Take back what is held by nobody any more; for the process that asks.

        A claim is taken back when its lease is over, by the storage's clock, or its owner is gone.
        A live one is left alone. A trial without a row was asked for by a process that died before
        it claimed it, or by an earlier version. Beside others who are at work this process takes
        the next number of an asker, so that it draws otherwise than they do.

        Returns:
            How many trials there were.
        """
        now = self._clock()
        num = 0
        askers_at_work = set()
        for trial in self._unfinished():
            row = _row_or_none(trial)
            if row is None or row.state == "finished":
                self._mend(trial, row)
                num += 1
                continue

            is_gone = row.owner is not None and row.owner.is_gone(self.owner)
            if is_gone or row.is_expired(now):
                self._mend(trial, rows.take_back(row))
                num += 1
            elif row.owner is not None and row.owner.name != self.owner.name:
                askers_at_work.add(row.owner.asker)

        free = next(number for number in itertools.count() if number not in askers_at_work)
        self.owner = self.owner.model_copy(update={"asker": free})
        return num

    def _mend(self, trial: FrozenTrial, row: Row | None) -> None:
        """Write what becomes of a trial that nobody works on."""
        if row is not None and row.state == "waiting":
            self._write_row(trial.number, row)
        elif row is not None and row.record is None:
            self._fail(trial.number)
        else:
            self._tell_again(trial)

    def _tell_again(self, trial: FrozenTrial) -> None:
        """Finish a trial from what is written of it."""
        record = read_record(trial, self._objective_names)
        if record.state in ("running", "failed"):
            self._fail(trial.number)
        else:
            self._tell(trial.number, record)

    # -- asking

    def _ask(self, space: "SearchSpace", num: int, root: int) -> Iterator[optuna.Trial]:
        if num < 1:
            return

        # Whoever asks trains, so torch is there already; whoever reads goes without it.
        from gped_nas.search.drawing import make_sampler, sampler_seed
        from gped_nas.search.space import FINITE_SAMPLERS

        self._guard()
        trials = self._study.get_trials(deepcopy=False)
        seed = sampler_seed(root, self.owner.asker, len(trials))
        self._study.sampler = make_sampler(space, seed)

        if space.search.sampler in FINITE_SAMPLERS:
            num_queued = sum(trial.state == TrialState.WAITING for trial in trials)
            num_queued += self._enqueue(space, num - num_queued, root, trials)
            num = min(num, num_queued)
        for _ in range(num):
            yield self._study.ask()

    def _enqueue(
        self, space: "SearchSpace", num: int, root: int, trials: Sequence[FrozenTrial]
    ) -> int:
        """Queue the next genotypes of a finite space; returns how many there were."""
        if self._listed is None:
            from gped_nas.search.drawing import undrawn

            self._listed = iter(undrawn(space, root, trials))
        queued = list(itertools.islice(self._listed, max(0, num)))
        for params in queued:
            self._study.enqueue_trial(params)
        return len(queued)

    # -- storage

    def _unfinished(self) -> list[FrozenTrial]:
        """Trials that Optuna knows as running."""
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _open_row(self, number: int) -> Row | Refusal:
        """The row of a trial that is not finished, as it is stored now."""
        trial = self._storage.get_trial(self._id(number))
        row = _row_or_none(trial)
        if row is None:
            return Refusal(FOREIGN if trial.state.is_finished() else DAMAGED)
        if trial.state.is_finished() and row.state != "finished":
            return Refusal(FOREIGN)
        return row

    def _write_row(self, number: int, row: Row) -> None:
        self._guard()
        self._storage.set_trial_user_attr(self._id(number), ROW, row.to_json())

    def _write_unless_refused(self, number: int, row: Row | Refusal) -> Row | Refusal:
        """Write what a verb made of a row."""
        if isinstance(row, Row):
            self._write_row(number, row)
            if row.state != "claimed":
                self._held.discard(number)
        return row

    def _write_numbers(
        self, number: int, values: Mapping[str, float], excess: Mapping[str, float]
    ) -> None:
        self._guard()
        trial_id = self._id(number)
        for name, value in excess.items():
            self._storage.set_trial_system_attr(trial_id, _CONSTRAINT + name, float(value))
        for name in FLAT:
            if name in values:
                self._storage.set_trial_user_attr(trial_id, name, values[name])

    def _tell(self, number: int, record: TrialRecord) -> None:
        self._guard()
        names = self._objective_names
        is_whole = all(name in record.values for name in names)
        if record.state == "failed":
            self._fail(number)
        elif record.state == "pruned" or not is_whole:
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, [record.value(name) for name in names])

    def _fail(self, number: int) -> None:
        self._guard()
        self._study.tell(number, state=TrialState.FAIL)


def _allow() -> None:
    """The guard of a ledger that may write."""


def _row_or_none(trial: FrozenTrial) -> Row | None:
    """A trial's row; None where it has none that can be read."""
    try:
        return read_row(trial)
    except StudyError:
        return None


def _fail_unless_finite(answer: Answer) -> tuple[TrialRecord, str, Mapping[str, float]]:
    """The record to store, its text, and what it breaks; a failed one if a number is not finite."""
    record = answer.record.replace(created=round(time.time(), 3))
    try:
        return record, record.dumps(), answer.excess
    except ValueError:
        failed = TrialRecord(
            trial=record.trial,
            state="failed",
            reason="a metric is not finite",
            genotype=record.genotype,
            created=record.created,
        )
        return failed, failed.dumps(), {}
