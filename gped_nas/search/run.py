"""The search loop: ask for a population, answer what needs no training, distil the rest together,
tell.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from gped_nas.errors import GpedError, Interrupted
from gped_nas.io import canonical_json
from gped_nas.models.costs import smallest_cost
from gped_nas.search.ledger import INTERRUPTED, Asked, Ledger
from gped_nas.search.objectives import describe_constraint, violations
from gped_nas.search.record import FINISHED, TrialRecord
from gped_nas.search.space import SearchSpace

DistilAndEvaluate = Callable[[Sequence[Asked]], Sequence[TrialRecord]]
"""Trains and measures genotypes together: one record each, ``complete`` or ``failed``, in order."""


def search(
    space: SearchSpace,
    ledger: Ledger,
    distil_and_evaluate: DistilAndEvaluate,
    *,
    n_trials: int,
    timeout_s: float | None,
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
        timeout_s: seconds after which no new population is started; None for no limit.
        input_shape, num_classes: of the dataset, for costs before training.
        told: called with each record and the number of finished trials.
        should_stop: asked before each population.

    Returns:
        Why it ended: ``"done"``, ``"timeout"`` or ``"exhausted"`` (a finite space has no more
            genotypes).

    Raises:
        Interrupted: ``should_stop`` said so; trials that were running are failed as interrupted.
        GpedError: more than ``max_failures`` trials failed.
    """
    ledger.reap()
    started = time.monotonic()
    records = ledger.records()
    memory = {
        _identity(r): r for r in records if r.state in ("complete", "infeasible") and r.genotype
    }
    finished = sum(r.state in FINISHED for r in records)
    failed = [r for r in records if r.state == "failed" and r.reason != INTERRUPTED]
    while finished < n_trials:
        if should_stop():
            raise Interrupted("stopped between populations")
        if timeout_s is not None and time.monotonic() - started >= timeout_s:
            return "timeout"
        asked = ledger.ask(
            space, min(space.search.students_at_once, n_trials - finished), space.seed
        )
        if not asked:
            return "exhausted"
        for record in _answer(
            space, asked, memory, distil_and_evaluate, ledger, input_shape, num_classes
        ):
            memory.setdefault(_identity(record), record)
            finished += record.state in FINISHED
            failed += [record] if record.state == "failed" else []
            told(record, finished)
        _check_failures(ledger.name, failed, space.search.max_failures)
    return "done"


def _answer(
    space: SearchSpace,
    asked: Sequence[Asked],
    memory: Mapping[str, TrialRecord],
    distil_and_evaluate: DistilAndEvaluate,
    ledger: Ledger,
    input_shape: tuple[int, ...],
    num_classes: int,
) -> list[TrialRecord]:
    """Tell every asked trial: refused early, repeated, or trained."""
    told: list[TrialRecord] = []
    train: dict[str, Asked] = {}
    repeats: list[Asked] = []
    for one in asked:
        key = canonical_json(one.genotype.to_json())
        refusal = _refusal(space, one, input_shape, num_classes)
        if refusal is not None:
            told.append(ledger.tell(*refusal))
        elif key in memory or key in train:
            repeats.append(one)
        else:
            train[key] = one
    try:
        trained = distil_and_evaluate(list(train.values())) if train else []
    except Interrupted:
        for one in [*train.values(), *repeats]:
            ledger.tell(_failed(one, INTERRUPTED), {})
        raise
    results = dict(memory)
    for key, record in zip(train, trained, strict=True):
        results[key] = ledger.tell(*_judged(record, space.constraints))
        told.append(results[key])
    for one in repeats:
        first = results[canonical_json(one.genotype.to_json())]
        told.append(ledger.tell(_repeated(one, first), _judged(first, space.constraints)[1]))
    return told


def _refusal(
    space: SearchSpace, one: Asked, input_shape: tuple[int, ...], num_classes: int
) -> tuple[TrialRecord, dict[str, float]] | None:
    """A record and what it breaks, if even the smallest network this genotype could become is too
    large.
    """
    costs = asdict(smallest_cost(one.genotype, input_shape, space.num_outputs(num_classes)))
    bounds = {name: bound for name, bound in space.constraints.items() if name in costs}
    excess = violations(costs, bounds)
    if all(value <= 0 for value in excess.values()):
        return None
    reason = "; ".join(
        f"even its smallest network has {name} {costs[name]}, expected "
        f"{describe_constraint(name, bounds[name])}"
        for name, value in excess.items()
        if value > 0
    )
    return TrialRecord(one.number, "infeasible", one.genotype.to_json(), reason=reason), excess


def _judged(
    record: TrialRecord, constraints: Mapping[str, float]
) -> tuple[TrialRecord, dict[str, float]]:
    """A complete record that breaks a constraint on the network that is left becomes an infeasible
    one.
    """
    if record.state == "failed" or not record.measures:
        return record, {}
    values = record.values
    excess = violations(values, constraints)
    broken = [name for name, value in excess.items() if value > 0]
    if record.state != "complete" or not broken:
        return record, excess
    reason = "; ".join(
        f"{n} is {values[n]:g}, expected {describe_constraint(n, constraints[n])}" for n in broken
    )
    return record.replace(state="infeasible", reason=reason), excess


def _repeated(one: Asked, first: TrialRecord) -> TrialRecord:
    """The record of a genotype that was answered before.

    One that failed is a duplicate too, without numbers: Optuna then counts it among the worst.
    Failed again, it would teach the sampler nothing, be drawn time after time, and one bad genotype
    would stop the study.
    """
    reason = f"same genotype as trial {first.trial}"
    if first.state == "failed":
        reason += f", which failed: {first.reason}"
        return TrialRecord(one.number, "duplicate", one.genotype.to_json(), reason=reason)
    return first.replace(trial=one.number, state="duplicate", reason=reason, seconds=0.0)


def _failed(one: Asked, reason: str) -> TrialRecord:
    return TrialRecord(one.number, "failed", one.genotype.to_json(), reason=reason)


def _identity(record: TrialRecord) -> str:
    return canonical_json(dict(record.genotype))


def _check_failures(name: str, failed: Sequence[TrialRecord], max_failures: int) -> None:
    if len(failed) > max_failures:
        raise GpedError(
            f"study '{name}': {len(failed)} trials failed, more than "
            f"search.max_failures={max_failures}; "
            f"the last one (trial {failed[-1].trial}): {failed[-1].reason}"
        )
