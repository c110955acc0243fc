"""What came out of a trial, and how Optuna is told of it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from optuna.trial import TrialState

from gped_nas.search.changes import End
from gped_nas.search.record import TrialRecord
from gped_nas.search.trials import FLAT, ended_state


@dataclass(frozen=True)
class Answer:
    """What came out of a trial.

    Attributes:
        record: its record.
        excess: by how much each constraint is broken; at most 0 where it holds.
        variants: of the same student in other storage types; trials are made of them once this
            one is stored.
    """

    record: TrialRecord
    excess: Mapping[str, float] = field(default_factory=dict)
    variants: "tuple[Answer, ...]" = ()


def fail_unless_finite(answer: Answer) -> tuple[Answer, str]:
    """The answer to store, and the text of its record; a failed one if a number is not finite."""
    record = answer.record.replace(created=round(time.time(), 3))
    try:
        return replace(answer, record=record), record.dumps()
    except ValueError:
        failed = TrialRecord(
            trial=record.trial,
            state="failed",
            reason="a metric is not finite",
            genotype=record.genotype,
            created=record.created,
        )
        return Answer(failed), failed.dumps()


def end_of(answer: Answer, objectives: Sequence[str]) -> End:
    """How Optuna is told of an answer.

    Args:
        answer: with a record that is finite.
        objectives: names, in the order of Optuna's values.
    """
    numbers = answer.record.values
    state = ended_state(answer.record, objectives)
    values = None
    if state == TrialState.COMPLETE:
        values = [float(numbers[name]) for name in objectives]

    shown = {name: numbers[name] for name in FLAT if name in numbers}
    return End(state, values, shown, answer.excess)
