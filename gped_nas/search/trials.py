"""What an Optuna trial says of itself: its row and its record.

A trial of a study made before there were rows has its record in an attribute of its own,
``gped:record``, and no row.
"""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from gped_nas.errors import StudyError
from gped_nas.search.document import validate
from gped_nas.search.record import State, TrialRecord
from gped_nas.search.rows import ROW, Row

RECORD = "gped:record"
INTERRUPTED = "interrupted before it finished"
FOREIGN = "finished by something other than gped-search"
DAMAGED = "its record was changed by something other than gped-search"
NOT_DRAWN = "queued with values that the space does not hold"
"""How the reason of a trial begins that another program queued in vain."""
NOT_ITS_FAULT = frozenset({INTERRUPTED, FOREIGN, DAMAGED})
"""Reasons of failed trials that say nothing of their genotypes."""


def read_row(trial: FrozenTrial) -> Row | None:
    """A trial's row; None where it has none.

    Raises:
        StudyError: it is damaged.
    """
    if ROW not in trial.user_attrs:
        return None
    return parse_row(trial.user_attrs[ROW], trial.number)


def parse_row(stored: object, trial: int) -> Row | None:
    """The row of plain data that was stored of a trial; None of nothing.

    Raises:
        StudyError: it is damaged.
    """
    return None if stored is None else validate(Row, stored, f"trial {trial}: {ROW}")


def read_record(trial: FrozenTrial, objectives: Sequence[str] = ()) -> TrialRecord:
    """A trial's record; a failed one where it has none, or none that can be read.

    Args:
        trial: the trial.
        objectives: names of what a complete record must have.
    """
    try:
        row = read_row(trial)
    except StudyError:
        return _unusable(trial, "failed", DAMAGED)

    text = trial.user_attrs.get(RECORD) if row is None else row.record
    if text is None:
        if trial.state in (TrialState.RUNNING, TrialState.WAITING):
            return _unusable(trial, "running", "")
        was_told = trial.state == TrialState.COMPLETE
        return _unusable(trial, "failed", FOREIGN if was_told else INTERRUPTED)

    try:
        record = TrialRecord.loads(text)
    except ValueError:
        return _unusable(trial, "failed", DAMAGED)

    is_whole = record.state != "complete" or all(name in record.values for name in objectives)
    if record.trial != trial.number or not is_whole:
        return _unusable(trial, "failed", DAMAGED)
    return record


def _unusable(trial: FrozenTrial, state: State, reason: str) -> TrialRecord:
    return TrialRecord(trial=trial.number, state=state, reason=reason, genotype=dict(trial.params))
