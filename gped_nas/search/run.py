"""The search loop: claim populations, have them trained by an engine, and finish their trials.

Everything that it decides follows from the ledger: a search that is stopped and started again goes
on as if it had not been.
"""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gped_nas.errors import GpedError, Interrupted
from gped_nas.search.answers import Answer
from gped_nas.search.engine import Engine, Trained
from gped_nas.search.flatness import FrontWatch
from gped_nas.search.ledger import Claim, Ledger
from gped_nas.search.planning import (
    failed,
    give_variants,
    is_answer,
    judge,
    key_of,
    plan_population,
    refuse_early,
    repeat,
    text_of,
    training_of,
)
from gped_nas.search.proposing.choosing import with_chosen_sampler
from gped_nas.search.proposing.facts import Facts, facts_of
from gped_nas.search.record import TrialRecord
from gped_nas.search.rows import Refusal
from gped_nas.search.sizing import num_affordable, population_size, predicted_cost
from gped_nas.search.space import SearchSpace
from gped_nas.search.trials import INTERRUPTED, NOT_DRAWN

TIMEOUT = "timeout"
"""Why a search ended whose time was over."""
FLAT = "flat"
"""Why a search ended whose front got no better, see ``search.flatness``."""
FRUITLESS = "fruitless"
"""Why a search ended whose last ``FRUITLESS_DRAWS`` draws were genotypes that it had tried."""
FRUITLESS_DRAWS = 100
_FAILURES = "failures"


@dataclass
class TimeLimit:
    """How long a run may take.

    A population is trained whole and cannot be gone on with inside. So none is begun that would not
    end in time, if it takes as long as the last one; the first one of a run is begun in any case.

    Attributes:
        seconds: None for no limit.
        began: when the run began, by ``time.monotonic``.
        population_s: what the last population took; 0 before there is one.
    """

    seconds: float | None = None
    began: float = field(default_factory=lambda: time.monotonic())
    population_s: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the time has passed."""
        return self.seconds is not None and time.monotonic() - self.began >= self.seconds

    @property
    def has_room(self) -> bool:
        """Whether another population would end in time."""
        if self.seconds is None:
            return True
        return time.monotonic() - self.began + self.population_s < self.seconds


@dataclass
class Standing:
    """How far a study is, record by record.

    Attributes:
        num_finished: trials that count, see ``TrialRecord.is_counted``.
        num_fruitless: draws since the last trial that counts, all of them repeats.
        failed: those that failed by themselves.
        answers: the first answer to each genotype.
        watch: looks whether the front is flat; None where nobody asks.
    """

    num_finished: int = 0
    num_fruitless: int = 0
    failed: list[TrialRecord] = field(default_factory=list)
    answers: dict[str, TrialRecord] = field(default_factory=dict)
    watch: FrontWatch | None = None

    def add(self, record: TrialRecord) -> None:
        """Take a record into account."""
        if record.is_counted:
            self.num_finished += 1
            self.num_fruitless = 0
        elif record.repeat_of is not None:
            self.num_fruitless += 1
        if self.watch is not None:
            self.watch.add(record)
        is_of_others = record.reason == INTERRUPTED or record.reason.startswith(NOT_DRAWN)
        if record.state == "failed" and not is_of_others:
            self.failed.append(record)
        if is_answer(record):
            self.answers.setdefault(text_of(record.genotype), record)

    def check_failures(self, name: str, max_failures: int) -> None:
        """Stop a study in which too much fails.

        Raises:
            GpedError: more than ``max_failures`` trials did.
        """
        if len(self.failed) > max_failures:
            last = self.failed[-1]
            raise GpedError(
                f"study '{name}': {len(self.failed)} trials failed, more than "
                f"search.max_failures={max_failures}; the last one (trial {last.trial}): "
                f"{last.reason}"
            )


def search(
    space: SearchSpace,
    ledger: Ledger,
    engine: Engine,
    *,
    n_trials: int,
    limit: TimeLimit,
    input_shape: tuple[int, ...],
    num_classes: int,
    told: Callable[[TrialRecord, int], None],
    should_stop: Callable[[], bool],
    watch: FrontWatch | None = None,
) -> str:
    """Run the study up to ``n_trials`` finished trials in all.

    Args:
        space: the search space.
        ledger: its study; this process is its only asker.
        engine: trains and measures populations.
        n_trials: finished trials wanted, earlier runs included.
        limit: how long the run may take; it learns how long populations take.
        input_shape, num_classes: of the dataset, for costs before training.
        told: called with each record and the number of finished trials.
        should_stop: asked before each population.
        watch: ends the search where the front is flat; None goes on.

    Returns:
        Why it ended: ``"done"``, ``"timeout"``, ``"flat"``, ``"exhausted"`` (a finite space has no
            more genotypes) or ``"fruitless"``.

    Raises:
        Interrupted: ``should_stop`` said so; trials that were running are failed as interrupted.
        GpedError: more than ``max_failures`` trials failed, now or in earlier runs, before enough
            were finished.
    """
    ledger.reap()
    ledger.seal()
    space = with_chosen_sampler(space, n_trials, is_of_before=not ledger.counts_trainings)
    loop = _Loop(
        space, ledger, engine, n_trials, limit, input_shape, num_classes, told, should_stop
    )
    loop.standing.watch = watch
    for record in ledger.records():
        loop.standing.add(record)

    reason = ""
    try:
        while True:
            while engine.has_room:
                if not reason and loop.num_missing > 0:
                    reason = loop.reason_to_end() or loop.ask()
                elif not loop.hand_over():
                    break
            if loop.is_training:
                loop.land(engine.wait())
            elif reason or loop.num_missing <= 0:
                break
    except Interrupted:
        loop.give_up()
        raise

    if reason == _FAILURES:
        loop.standing.check_failures(ledger.name, space.search.max_failures)
    return reason or "done"


@dataclass
class _Loop:
    """The state of a search between two populations; arguments as of ``search``.

    Attributes:
        standing: how far the study is.
    """

    space: SearchSpace
    ledger: Ledger
    engine: Engine
    n_trials: int
    limit: TimeLimit
    input_shape: tuple[int, ...]
    num_classes: int
    told: Callable[[TrialRecord, int], None]
    should_stop: Callable[[], bool]
    standing: Standing = field(default_factory=Standing)
    _training: dict[str, Claim] = field(default_factory=dict)
    """Trials in training by what they train."""
    _repeats: list[Claim] = field(default_factory=list)
    """Trials that wait for the answer of one in training."""
    _landed: dict[str, TrialRecord] = field(default_factory=dict)
    """What came of the trials of the population that landed last, by what they trained."""
    _queue: list[Claim] = field(default_factory=list)
    """Trials to train that were not handed over yet; they count as in training."""
    _costs: dict[int, float] = field(default_factory=dict)
    """Predicted costs of all trials to train of this run."""
    _began: dict[int, float] = field(default_factory=dict)
    """When a population began, by its first trial."""

    @functools.cached_property
    def facts(self) -> Facts:
        """What a proposer knows of the study; it never changes while a run lasts."""
        return facts_of(self.space, self.ledger.document, self.input_shape, self.num_classes)

    @property
    def is_training(self) -> bool:
        """Whether a population is in training."""
        return bool(self._training)

    @property
    def num_missing(self) -> int:
        """How many trials are to be asked for, if all that are in training come to count."""
        num_open = len(self._training)
        if not self.ledger.counts_trainings:
            num_open += len(self._repeats)
        num_missing = self.n_trials - self.standing.num_finished
        watch = self.standing.watch
        return (num_missing if watch is None else min(num_missing, watch.look().room)) - num_open

    def reason_to_end(self) -> str:
        """Why no more is asked for; empty while there is no reason.

        Raises:
            Interrupted: the session said stop.
        """
        if len(self.standing.failed) > self.space.search.max_failures:
            return _FAILURES
        if self.should_stop():
            raise Interrupted("stopped between populations")
        watch = self.standing.watch
        if watch is not None and watch.look().is_flat:
            return FLAT
        if self.standing.num_fruitless + len(self._repeats) >= FRUITLESS_DRAWS:
            return FRUITLESS
        return "" if self.limit.has_room else TIMEOUT

    def ask(self) -> str:
        """Claim a population and hand it over; why no other one is to be asked for, if so."""
        num = self._next_size() - len(self._queue)
        if num <= 0:
            self.hand_over()
            return ""
        claims = self.ledger.claim(self.space, num, self.space.sampler_root, facts=self.facts)
        if not claims:
            return "exhausted"

        plan = plan_population(
            self.space,
            claims,
            self.standing.answers,
            self._training,
            self.input_shape,
            self.num_classes,
        )
        self._finish(plan.refused)
        self._repeats += plan.repeats
        for claim in plan.train:
            self._training[training_of(claim)] = claim
            if self.engine.num_workers > 1:
                self._costs[claim.number] = self._cost_of(claim)
        self._queue += plan.train
        self.hand_over()
        self._answer_repeats()
        return ""

    def hand_over(self) -> bool:
        """Hand over the population that comes next; whether there was one."""
        queue = self._queue
        if not queue:
            return False

        num = len(queue)
        if self.engine.num_workers > 1:
            costs = [self._costs[claim.number] for claim in queue]
            mean_cost = sum(self._costs.values()) / len(self._costs)
            num = num_affordable(costs, self._next_size(), mean_cost)
        population, self._queue = queue[:num], queue[num:]
        self._began[population[0].number] = time.monotonic()
        self.engine.submit(population)
        return True

    def _next_size(self) -> int:
        """How many students the next population has; those that are queued are among them."""
        # a front that may soon be flat leaves no room for what was claimed before
        num_open = max(1, self.num_missing + len(self._queue))
        at_once = self.space.search.students_at_once
        return population_size(at_once, num_open, self.engine.num_workers)

    def _cost_of(self, claim: Claim) -> float:
        num_outputs = self.space.num_outputs(self.num_classes)
        return predicted_cost(claim.genotype, self.input_shape, num_outputs)

    def land(self, trained: Trained) -> None:
        """Finish the trials of a population, and those that waited for one of its answers."""
        judged = [judge(record, self.space.constraints) for record in trained.records]
        judged, self._repeats = give_variants(judged, self._repeats)
        stored = self._finish(judged)

        self._landed = {}
        for claim, record in zip(trained.claims, stored, strict=False):
            self._landed[training_of(claim)] = record
            del self._training[training_of(claim)]
        self._answer_repeats()
        began = self._began.pop(trained.claims[0].number)
        self.limit.population_s = time.monotonic() - began

    def give_up(self) -> None:
        """Fail all trials that are in training, or wait for one that is, as interrupted."""
        claims = (*self._training.values(), *self._repeats)
        _store(self.ledger, [Answer(failed(claim, INTERRUPTED)) for claim in claims])

    def _answer_repeats(self) -> None:
        """Answer the repeats of genotypes that are not in training any more."""
        answers, waiting = [], []
        for claim in self._repeats:
            training = training_of(claim)
            original = self.standing.answers.get(key_of(claim), self._landed.get(training))
            if training in self._training:
                waiting.append(claim)
            elif original is not None and is_answer(original):
                answers.append(self._repeat(claim, original))
            else:
                # The trial that was trained was taken from this process meanwhile.
                answers.append(Answer(failed(claim, INTERRUPTED)))
        self._repeats = waiting
        self._finish(answers)

    def _repeat(self, claim: Claim, original: TrialRecord) -> Answer:
        """The answer to a genotype that was answered before, with what it breaks."""
        again = repeat(claim, original, is_counted=not self.ledger.counts_trainings)
        refusal = None
        if original.state == "infeasible" and not original.measures:
            refusal = refuse_early(self.space, claim, self.input_shape, self.num_classes)
        if refusal is None:
            return Answer(again, judge(original, self.space.constraints).excess)

        # a study that was begun before refuses each draw anew, as it did
        return Answer(again, refusal.excess) if self.ledger.counts_trainings else refusal

    def _finish(self, answers: Sequence[Answer]) -> list[TrialRecord]:
        """Store how trials ended, and tell it; the records, then those of their variants."""
        records = _store(self.ledger, answers)
        for record in records:
            self.standing.add(record)
            if record.state != "running":
                self.told(record, self.standing.num_finished)
        return records


def _store(ledger: Ledger, answers: Sequence[Answer]) -> list[TrialRecord]:
    """The records as they are stored, whether or not the ledger took these ones.

    It takes none of a trial that was taken from this process meanwhile, or finished by another
    program: what stands in the ledger counts.
    """
    if not answers:
        return []

    records = []
    for answer, stored in zip(answers, ledger.finish_all(answers), strict=True):
        if isinstance(stored, Refusal):
            stored = ledger.record(answer.record.trial)
        records.append(stored)

    variants = [variant for record in records for variant in record.variants]
    return [record.replace(variants=()) for record in records] + variants
