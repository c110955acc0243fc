"""The search loop: claim a population, answer what needs no training, train the rest, finish.

Everything that it decides follows from the ledger: a search that is stopped and started again goes
on as if it had not been.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from gped_nas.errors import GpedError, Interrupted
from gped_nas.io import canonical_json
from gped_nas.models.costs import smallest_cost
from gped_nas.search.answers import Answer
from gped_nas.search.ledger import Claim, Ledger
from gped_nas.search.objectives import describe_constraint, violations
from gped_nas.search.record import FINISHED, TrialRecord
from gped_nas.search.rows import Refusal
from gped_nas.search.space import SearchSpace
from gped_nas.search.trials import INTERRUPTED, NOT_DRAWN, is_its_fault

DistilAndEvaluate = Callable[[Sequence[Claim]], Sequence[TrialRecord]]
"""Trains and measures genotypes together: one record each, ``complete`` or ``failed``, in order."""


TIMEOUT = "timeout"
"""Why a search ended whose time was over."""


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
        num_finished: trials that count.
        failed: those that failed by themselves.
        answers: the first answer to each genotype.
    """

    num_finished: int = 0
    failed: list[TrialRecord] = field(default_factory=list)
    answers: dict[str, TrialRecord] = field(default_factory=dict)

    def add(self, record: TrialRecord) -> None:
        """Take a record into account."""
        if record.state in FINISHED:
            self.num_finished += 1
        is_of_others = record.reason == INTERRUPTED or record.reason.startswith(NOT_DRAWN)
        if record.state == "failed" and not is_of_others:
            self.failed.append(record)
        if is_answer(record):
            self.answers.setdefault(_key(record.genotype), record)

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


@dataclass(frozen=True)
class Plan:
    """What becomes of a population.

    Attributes:
        refused: those that need no training, with their answers.
        train: those to train.
        repeats: genotypes that are answered, or will be once ``train`` is.
    """

    refused: tuple[Answer, ...]
    train: tuple[Claim, ...]
    repeats: tuple[Claim, ...]


def search(
    space: SearchSpace,
    ledger: Ledger,
    distil_and_evaluate: DistilAndEvaluate,
    *,
    n_trials: int,
    limit: TimeLimit,
    input_shape: tuple[int, ...],
    num_classes: int,
    told: Callable[[TrialRecord, int], None],
    should_stop: Callable[[], bool],
) -> str:
    """Run the study up to ``n_trials`` finished trials in all.

    Args:
        space: the search space.
        ledger: its study; this process is its only asker.
        distil_and_evaluate: trains and measures a population.
        n_trials: finished trials wanted, earlier runs included.
        limit: how long the run may take; it learns how long populations take.
        input_shape, num_classes: of the dataset, for costs before training.
        told: called with each record and the number of finished trials.
        should_stop: asked before each population.

    Returns:
        Why it ended: ``"done"``, ``"timeout"`` or ``"exhausted"`` (a finite space has no more
            genotypes).

    Raises:
        Interrupted: ``should_stop`` said so; trials that were running are failed as interrupted.
        GpedError: more than ``max_failures`` trials failed, now or in earlier runs, before enough
            were finished.
    """
    ledger.reap()
    ledger.seal()
    standing = Standing()
    for record in ledger.records():
        standing.add(record)

    while standing.num_finished < n_trials:
        standing.check_failures(ledger.name, space.search.max_failures)
        if should_stop():
            raise Interrupted("stopped between populations")
        if not limit.has_room:
            return TIMEOUT

        num = min(space.search.students_at_once, n_trials - standing.num_finished)
        claims = ledger.claim(space, num, space.seed)
        if not claims:
            return "exhausted"

        began = time.monotonic()
        plan = plan_population(space, claims, standing.answers, input_shape, num_classes)
        for record in _carry_out(plan, space, ledger, standing.answers, distil_and_evaluate):
            standing.add(record)
            if record.state != "running":
                told(record, standing.num_finished)
        if plan.train:
            limit.population_s = time.monotonic() - began
    return "done"


def plan_population(
    space: SearchSpace,
    claims: Iterable[Claim],
    answers: Mapping[str, TrialRecord],
    input_shape: tuple[int, ...],
    num_classes: int,
) -> Plan:
    """What becomes of a population: refused early, trained, or answered as before.

    Args:
        space: the search space.
        claims: the population.
        answers: the first one to each genotype, see ``Standing``.
        input_shape, num_classes: of the dataset.
    """
    refused: list[Answer] = []
    train: dict[str, Claim] = {}
    repeats: list[Claim] = []

    for claim in claims:
        key = _key(claim.genotype.to_json())
        refusal = refuse_early(space, claim, input_shape, num_classes)
        if refusal is not None:
            refused.append(refusal)
        elif key in answers or key in train:
            repeats.append(claim)
        else:
            train[key] = claim
    return Plan(tuple(refused), tuple(train.values()), tuple(repeats))


def _carry_out(
    plan: Plan,
    space: SearchSpace,
    ledger: Ledger,
    earlier_answers: Mapping[str, TrialRecord],
    distil_and_evaluate: DistilAndEvaluate,
) -> list[TrialRecord]:
    """Finish every trial of a population; its records as they are stored."""
    records = _finish(ledger, plan.refused)

    try:
        trained = distil_and_evaluate(plan.train) if plan.train else ()
    except Interrupted:
        claims = (*plan.train, *plan.repeats)
        _finish(ledger, [Answer(_failed(claim, INTERRUPTED)) for claim in claims])
        raise

    answers = dict(earlier_answers)
    stored = _finish(ledger, [judge(record, space.constraints) for record in trained])
    for claim, record in zip(plan.train, stored, strict=True):
        answers[_key(claim.genotype.to_json())] = record
    records += stored

    repeats = []
    for claim in plan.repeats:
        original = answers[_key(claim.genotype.to_json())]
        if is_answer(original):
            excess = judge(original, space.constraints).excess
            repeats.append(Answer(repeat(claim, original), excess))
        else:
            # The trial that was trained was taken from this process meanwhile.
            repeats.append(Answer(_failed(claim, INTERRUPTED)))
    return records + _finish(ledger, repeats)


def _finish(ledger: Ledger, answers: Sequence[Answer]) -> list[TrialRecord]:
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
    return records


def refuse_early(
    space: SearchSpace, claim: Claim, input_shape: tuple[int, ...], num_classes: int
) -> Answer | None:
    """An answer, if even the smallest network this genotype could become is too large."""
    costs = asdict(smallest_cost(claim.genotype, input_shape, space.num_outputs(num_classes)))
    bounds = {name: bound for name, bound in space.constraints.items() if name in costs}
    excess = violations(costs, bounds)
    if all(value <= 0 for value in excess.values()):
        return None

    reasons = []
    for name, value in excess.items():
        if value > 0:
            reasons.append(
                f"even its smallest network has {name} {costs[name]}, expected "
                f"{describe_constraint(name, bounds[name])}"
            )
    genotype = claim.genotype.to_json()
    record = TrialRecord(claim.number, "infeasible", genotype, reason="; ".join(reasons))
    return Answer(record, excess)


def judge(record: TrialRecord, constraints: Mapping[str, float]) -> Answer:
    """A record with what it breaks.

    A complete one becomes infeasible if the network that is left breaks a constraint.
    """
    if record.state == "failed" or not record.measures:
        return Answer(record)

    values = record.values
    excess = violations(values, constraints)
    broken = [name for name, value in excess.items() if value > 0]
    if record.state != "complete" or not broken:
        return Answer(record, excess)

    reasons = []
    for name in broken:
        expected = describe_constraint(name, constraints[name])
        reasons.append(f"{name} is {values[name]:g}, expected {expected}")
    return Answer(record.replace(state="infeasible", reason="; ".join(reasons)), excess)


def repeat(claim: Claim, first: TrialRecord) -> TrialRecord:
    """The record of a genotype that was answered before.

    One that failed is a duplicate too, without numbers: Optuna then counts it among the worst.
    Failed again, it would teach the sampler nothing, be drawn time after time, and one bad genotype
    would stop the study.
    """
    reason = f"same genotype as trial {first.trial}"
    if first.state == "failed":
        reason += f", which failed: {first.reason}"
        genotype = claim.genotype.to_json()
        return TrialRecord(claim.number, "duplicate", genotype, reason=reason)
    return first.replace(
        trial=claim.number, state="duplicate", reason=reason, seconds=0.0, spec_sha256=""
    )


def is_answer(record: TrialRecord) -> bool:
    """Whether a record says what its genotype is worth, so that no other trial need train it."""
    if record.state == "failed":
        return is_its_fault(record.reason) and bool(record.genotype)
    return record.state in ("complete", "infeasible") and bool(record.genotype)


def _failed(claim: Claim, reason: str) -> TrialRecord:
    return TrialRecord(claim.number, "failed", claim.genotype.to_json(), reason=reason)


def _key(genotype: Mapping[str, object]) -> str:
    return canonical_json(dict(genotype))
