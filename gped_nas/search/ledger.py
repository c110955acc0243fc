"""The ledger of a study: its document, and a row a trial.

The verbs of ``search.rows`` on rows that lie in an Optuna storage. One process asks and tells (on
SQLite two askers lose trials); its workers hold claims.

A trial is written twice. When it is claimed it is written whole, with its parameters and its row.
When it ends, its record is written with flat numbers for the dashboard, by how much it breaks
constraints, and Optuna's state and values, after which it is frozen. In a database each of the two
is one transaction for a whole population, see ``search.creation`` and ``search.changes``.

A process that dies in between leaves the trial claimed. ``reap``, at the next start, takes such a
claim back, and unless it can go on from a checkpoint it has failed, for a reason that counts for
nothing. A trial that runs has a record only where a process died between two writes in memory, or
where another program wrote one. The first is sealed and told. The second is not believed: who holds
the claim finishes the trial with its own record, and where nobody does the trial has failed.
"""

import contextlib
import functools
import itertools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from gped_nas.errors import StudyError, UndigestedWarning
from gped_nas.search import rows
from gped_nas.search.answers import Answer, end_of, fail_unless_finite
from gped_nas.search.changes import (
    Change,
    Decide,
    StoredTrial,
    change_trial,
    change_trials,
    replace_rows,
)
from gped_nas.search.document import (
    DOCUMENT,
    STANDING,
    TEST,
    StudentTest,
    StudyDocument,
    read_document,
    read_tests,
    seal,
)
from gped_nas.search.earlier import EARLIER, Earlier, read_earlier
from gped_nas.search.fence import Fence
from gped_nas.search.goals import Objective
from gped_nas.search.importances import importances
from gped_nas.search.mending import fail, mend
from gped_nas.search.owners import Owner
from gped_nas.search.reading import RecordReader
from gped_nas.search.record import TrialRecord
from gped_nas.search.rows import LEASE_S, ROW, Refusal, Row
from gped_nas.search.storage import clock_of
from gped_nas.search.trials import (
    FOREIGN,
    NOT_DRAWN,
    UNBELIEVED,
    is_sealed,
    row_or_none,
    sealed_row,
)
from gped_nas.search.variants import VariantWriter, is_finite

if TYPE_CHECKING:
    from gped_nas.models.base import Genotype
    from gped_nas.search.asking import Asker
    from gped_nas.search.proposing.facts import Facts
    from gped_nas.search.space import SearchSpace

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
        dtypes: the storage types beside that of the genotype in which its student is measured.
    """

    number: int
    genotype: "Genotype"
    until: int | None = None
    budget: int = 0
    checkpoint: str = ""
    dtypes: tuple[str, ...] = ()


class Ledger:
    """One study in one storage.

    Args:
        storage: where it lies.
        name: the study's name in it.
        owner: who claims trials through this ledger.
        clock: by which claims age; the storage's by default.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        owner: Owner | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.name = name
        self.owner = owner or Owner.here()
        self._storage = storage
        self._study = optuna.load_study(storage=storage, study_name=name)
        self._study_id = storage.get_study_id_from_name(name)
        self._clock = clock or clock_of(storage)
        self.fence = Fence(storage, self._study_id, self._where)

        self._held: dict[int, Row] = {}
        self._ids: dict[int, int] = {}
        self._renewed = time.monotonic()
        self._reader = RecordReader(storage, self._study_id)
        self._is_warned = False

    def now(self) -> float:
        """The time by the clock that all who use the storage share."""
        return self._clock()

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
        self._study.set_user_attr(DOCUMENT, seal(document.to_json(), DOCUMENT))

    def tests(self) -> dict[int, StudentTest]:
        """The test evaluations made so far, by trial number.

        Raises:
            StudyError: one is damaged.
        """
        return read_tests(self._study.user_attrs, self._where)

    def write_test(self, trial: int, test: StudentTest) -> None:
        """Write a student's test evaluation, an attribute of its own."""
        name = f"{TEST}{trial}"
        self._study.set_user_attr(name, seal(test.to_json(), name))

    @functools.cached_property
    def earlier(self) -> Earlier | None:
        """What it was told of another study before its first trial; None where of none.

        Raises:
            StudyError: it is damaged.
        """
        return read_earlier(self._study.user_attrs, self._where)

    def begin_with(self, earlier: Earlier) -> None:
        """Tell a study without trials of another one."""
        self._study.set_user_attr(EARLIER, seal(earlier.to_json(), EARLIER))
        self.__dict__.pop("earlier", None)

    @functools.cached_property
    def _asker(self) -> "Asker":
        # Whoever asks trains, so torch is there already; whoever reads goes without it.
        from gped_nas.search.asking import Asker

        return Asker(self._storage, self.name, self.earlier)

    @functools.cached_property
    def _objective_names(self) -> list[str]:
        """They never change; read once."""
        return [objective.name for objective in self.document.objectives]

    @functools.cached_property
    def counts_trainings(self) -> bool:
        """Whether students that were trained count, see ``StudyDocument.counted``."""
        return self.document.counted == "trained"

    @property
    def _where(self) -> str:
        return f"study '{self.name}'"

    # -- what is advice, and never a source

    def write_standing(self, standing: Mapping[str, Any] | None) -> None:
        """Say how far a run is to those who see the storage alone; None where it ended.

        Raises:
            StudyError: another run took the study over.
        """
        now = self._clock()
        written: Any = None if standing is None else {"standing": dict(standing), "now": now}
        with contextlib.suppress(StorageInternalError):
            self._storage.set_study_system_attr(self._study_id, STANDING, written)

    def read_standing(self) -> tuple[Any, float] | None:
        """What was written of a run last, and how many seconds ago by the storage's clock."""
        stored: Any = self._storage.get_study_system_attrs(self._study_id).get(STANDING)
        if not isinstance(stored, dict) or not isinstance(stored.get("now"), int | float):
            return None
        return stored.get("standing"), self._clock() - stored["now"]

    # -- reading

    def records(self) -> list[TrialRecord]:
        """Every trial's record by number, as it was told: no test metric is among it."""
        records = self._reader.records(self._objective_names)
        self._warn_of_unsealed(records)
        return records

    def params(self) -> dict[int, dict[str, Any]]:
        """What was drawn for each trial, Optuna's parameters."""
        trials = self._study.get_trials(deepcopy=False)
        return {trial.number: dict(trial.params) for trial in trials}

    def record(self, number: int) -> TrialRecord:
        """The record of one trial, as it is stored now."""
        return self._reader.record(number, self._objective_names)

    def num_trials(self) -> int:
        """How many trials there are, in any state."""
        return self._reader.num_trials()

    def _warn_of_unsealed(self, records: Sequence[TrialRecord]) -> None:
        """Say once that records were made before they carried digests."""
        num = sum(not record.is_sealed for record in records)
        if num and not self._is_warned:
            self._is_warned = True
            warnings.warn(
                f"{self._where}: the record of {num} trials is read unchecked, since it was made "
                "before records carried digests; the study's next `gped-search run` adds them",
                UndigestedWarning,
                stacklevel=2,
            )

    def seal(self) -> None:
        """Give the records of trials that ended the digests that earlier versions did not write."""
        records = self._reader.records(self._objective_names)
        unsealed = {record.trial for record in records if not record.is_sealed}
        if not unsealed:
            return

        sealed_rows = {}
        for trial in self._study.get_trials(deepcopy=False):
            if trial.number in unsealed:
                sealed_rows[trial._trial_id] = sealed_row(trial)
        replace_rows(self._storage, sealed_rows)

    def rows(self) -> dict[int, Row]:
        """The rows of the trials that have not ended, by number; none of one that is damaged."""
        open_rows = {}
        for trial in self._unfinished():
            row = row_or_none(trial.user_attrs.get(ROW), trial.number)
            if row is not None and row.state != "finished":
                open_rows[trial.number] = row
        return open_rows

    def reading_errors(self) -> contextlib.AbstractContextManager[None]:
        """See ``RecordReader.errors``."""
        return self._reader.errors()

    def importances(self, objectives: Sequence[Objective]) -> dict[str, dict[str, float]]:
        """See ``search.importances``."""
        with self.reading_errors():
            return importances(self._reader.complete(self._study), objectives)

    # -- the verbs

    def claim(
        self, space: "SearchSpace", num: int, root: int, *, facts: "Facts | None" = None
    ) -> list[Claim]:
        """Up to ``num`` trials to work on: those that wait, then new ones.

        Fewer when a sampler has no more genotypes.

        Args:
            space: to draw from.
            num: how many are wanted.
            root: the seed of its sampler.
            facts: of the study, for a sampler that asks for them.
        """
        now = self._clock()
        trials = self._study.get_trials(deepcopy=False)
        claims = self._claim_waiting(space, trials, num, now)

        # Some may have been queued by other programs with values that the space does not hold.
        is_refused = True
        while is_refused and len(claims) < num:
            is_refused = False
            missing = num - len(claims)
            number = self.owner.asker
            drafts: list[tuple[optuna.Trial, Genotype]] = []
            asking = self._asker.ask(
                space,
                missing,
                root,
                trials=trials,
                number=number,
                records=self.records,
                facts=facts,
            )
            for asked in asking:
                drawn = self._asker.draw(space, asked)
                if isinstance(drawn, Refusal):
                    self._refuse(asked.number, drawn.reason)
                    is_refused = True
                elif self._asker.is_draft(asked):
                    drafts.append((asked, drawn))
                else:
                    row = self._claimed_row(asked, now)
                    self._write_row(asked.number, row)
                    claims.append(self._hold(space, asked.number, drawn, row))
            claims += self._claim_drafts(space, drafts, now)
            if is_refused:
                trials = self._study.get_trials(deepcopy=False)
        return claims

    def _claim_waiting(
        self, space: "SearchSpace", trials: Sequence[FrozenTrial], num: int, now: float
    ) -> list[Claim]:
        """Up to ``num`` claims of trials that wait to go on."""
        claims: list[Claim] = []
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in running:
            row = row_or_none(trial.user_attrs.get(ROW), trial.number)
            if len(claims) == num or row is None or row.state != "waiting":
                continue

            genotype = space.genotype_of(trial.params)
            claimed = self._move(trial.number, lambda row: rows.claim(row, self.owner, now))
            if isinstance(claimed, Row):
                claims.append(self._hold(space, trial.number, genotype, claimed))
        return claims

    def _claim_drafts(
        self,
        space: "SearchSpace",
        drafts: Sequence[tuple[optuna.Trial, "Genotype"]],
        now: float,
    ) -> list[Claim]:
        """The claims of trials that were just drawn, written at once."""
        claimed_rows = [self._claimed_row(asked, now) for asked, _ in drafts]
        places = self._asker.write(
            [asked for asked, _ in drafts], [{ROW: row.sealed()} for row in claimed_rows]
        )

        claims = []
        for (trial_id, number), (_, genotype), row in zip(
            places, drafts, claimed_rows, strict=True
        ):
            self._ids[number] = trial_id
            claims.append(self._hold(space, number, genotype, row))
        return claims

    def _claimed_row(self, asked: optuna.Trial, now: float) -> Row:
        """The row of a trial that was just drawn, as this process claims it."""
        new = Row(state="waiting", params=asked.params)
        claimed = rows.claim(new, self.owner, now)
        assert isinstance(claimed, Row), "it waits"
        return claimed

    def _hold(self, space: "SearchSpace", number: int, genotype: "Genotype", row: Row) -> Claim:
        self._held[number] = row
        dtypes = space.other_dtypes(row.params or {}) if self.counts_trainings else ()
        return Claim(number, genotype, row.until, row.budget, row.checkpoint, dtypes)

    def _refuse(self, number: int, reason: str) -> None:
        """Fail a trial that no genotype could be drawn for."""
        failed = fail(number, {}, f"{NOT_DRAWN}: {reason}")
        self._change(number, lambda stored: failed)

    def report(
        self, number: int, *, budget: int, metrics: Mapping[str, float], checkpoint: str = ""
    ) -> Row | Refusal:
        """Write down what a claimed trial is worth on its way; see ``rows.report``."""
        return self._move(
            number,
            lambda row: rows.report(
                row,
                self.owner,
                self._clock(),
                budget=budget,
                metrics=metrics,
                checkpoint=checkpoint,
            ),
        )

    def promote(self, number: int, until: int | None) -> Row | Refusal:
        """Let a paused trial go on; see ``rows.promote``."""
        return self._move(number, lambda row: rows.promote(row, until))

    def finish(self, answer: Answer) -> TrialRecord | Refusal:
        """Finish a trial with its record; see ``finish_all``."""
        return self.finish_all([answer])[0]

    def finish_all(self, answers: Sequence[Answer]) -> list[TrialRecord | Refusal]:
        """Finish trials with their records, all of them at once, and make trials of their variants.

        A record with a number that is not finite becomes a failed one: it never reaches the front.

        Returns:
            The records as they were stored, in order, with those of their variants; or why one was
            not, where the claim was taken back or the trial was finished meanwhile.
        """
        ends = {}
        for answer in answers:
            finite, text = fail_unless_finite(answer)
            ends[finite.record.trial] = (finite, text)
        decisions, variants = {}, {}
        for number, (finite, text) in ends.items():
            decisions[self._id(number)] = functools.partial(self._decide_end, finite, text)
            variants[self._id(number)] = [each for each in finite.variants if is_finite(each)]
        writer = VariantWriter(self._storage, self._study_id, self._objective_names, variants)
        changes = change_trials(self._storage, decisions, writer)

        outcomes: list[TrialRecord | Refusal] = []
        for number, (finite, _) in ends.items():
            change = changes[self._id(number)]
            if isinstance(change, Refusal):
                outcomes.append(change)
            else:
                self._held.pop(number, None)
                made = tuple(writer.records.get(number, ()))
                outcomes.append(finite.record.replace(variants=made))
        return outcomes

    def _decide_end(self, answer: Answer, text: str, stored: StoredTrial) -> Change | Refusal:
        """How a trial ends whose record is this text."""
        number = answer.record.trial
        # Who held the claim may not end what was taken from it; the asker may, if nobody holds it.
        owner = self.owner if number in self._held else None
        row = self._believe(stored, number)
        finished = rows.finish(row, owner, text) if isinstance(row, Row) else row
        if isinstance(finished, Refusal):
            return finished
        return Change(finished.sealed(), end_of(answer, self._objective_names))

    def renew(self) -> None:
        """Give a sign of life for all claims held, once a third of a lease; cheap in between."""
        if time.monotonic() - self._renewed < LEASE_S / 3:
            return

        self._renewed = time.monotonic()
        now = self._clock()
        self.fence.renew(now)
        for number in sorted(self._held):
            self._move(number, lambda row: rows.renew(row, self.owner, now))

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
            decide = functools.partial(
                mend, trial, objectives=self._objective_names, is_gone=self._is_gone, now=now
            )
            change = self._change(trial.number, decide)
            row = row_or_none(trial.user_attrs.get(ROW), trial.number)
            if isinstance(change, Change):
                num += 1
            elif row is not None and row.owner and row.owner.name != self.owner.name:
                askers_at_work.add(row.owner.asker)

        free = next(number for number in itertools.count() if number not in askers_at_work)
        self.owner = self.owner.model_copy(update={"asker": free})
        return num

    def _is_gone(self, owner: Owner | None) -> bool:
        """Whether an owner works no more, or in a folder that the study was taken from."""
        if owner is None:
            return False
        is_fenced = self.fence.is_up and owner.home not in ("", self.owner.home)
        return is_fenced or owner.is_gone(self.owner)

    # -- storage

    def _unfinished(self) -> list[FrozenTrial]:
        """Trials that Optuna knows as running."""
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _id(self, number: int) -> int:
        """Optuna's identifier, which a trial keeps."""
        if number not in self._ids:
            storage, study_id = self._storage, self._study_id
            self._ids[number] = storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return self._ids[number]

    def _change(self, number: int, decide: Decide) -> Change | Refusal:
        """Decide on a trial and write it; every write of a trial that is there passes here."""
        return change_trial(self._storage, self._id(number), decide)

    def _believe(self, stored: StoredTrial, number: int) -> Row | Refusal:
        """The row of a trial that goes on, as it is stored or, if not sealed, as it was claimed."""
        row = row_or_none(stored.row, number)
        if stored.state.is_finished():
            return row if row is not None and row.state == "finished" else Refusal(FOREIGN)

        claimed = self._held.get(number)
        if claimed is not None and (row is None or not is_sealed(stored.row)):
            return claimed
        return Refusal(UNBELIEVED) if row is None else row

    def _move(self, number: int, verb: Callable[[Row], Row | Refusal]) -> Row | Refusal:
        """A trial's row after a verb of ``search.rows``, written unless it was refused."""
        moved: list[Row] = []

        def decide(stored: StoredTrial) -> Change | Refusal:
            row = self._believe(stored, number)
            after = verb(row) if isinstance(row, Row) else row
            if isinstance(after, Refusal):
                return after
            moved.append(after)
            return Change(after.sealed())

        change = self._change(number, decide)
        if isinstance(change, Refusal):
            return change
        if moved[-1].state != "claimed":
            self._held.pop(number, None)
        elif number in self._held:
            self._held[number] = moved[-1]
        return moved[-1]

    def _write_row(self, number: int, row: Row) -> None:
        def decide(stored: StoredTrial) -> Change | Refusal:
            is_over = stored.state.is_finished()
            return Refusal(FOREIGN) if is_over else Change(row.sealed())

        self._change(number, decide)
