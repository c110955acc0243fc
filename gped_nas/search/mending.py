"""What becomes of trials that run and that nobody works on."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from gped_nas.search import rows
from gped_nas.search.answers import Answer, end_of
from gped_nas.search.changes import Change, End, StoredTrial
from gped_nas.search.owners import Owner
from gped_nas.search.record import TrialRecord
from gped_nas.search.rows import ROW, Refusal, Row
from gped_nas.search.trials import (
    FOREIGN,
    RECORD,
    UNBELIEVED,
    read_record,
    row_or_none,
)


def mend(
    trial: FrozenTrial,
    stored: StoredTrial,
    *,
    objectives: Sequence[str],
    is_gone: Callable[[Owner | None], bool],
    now: float,
) -> Change | Refusal:
    """How a trial ends or waits whose owner is gone.

    Args:
        trial: as it was read.
        stored: the same, as it is about to be changed.
        objectives: names, in order.
        is_gone: whether an owner works no more.
        now: by the storage's clock.
    """
    if stored.state.is_finished():
        return Refusal(FOREIGN)

    row = row_or_none(stored.row, trial.number)
    if row is None or row.state == "finished":
        return _end(trial, row, objectives)

    if not (row.is_expired(now) or is_gone(row.owner)):
        return Refusal("somebody works on it")
    back = rows.take_back(row)
    return Change(back.sealed(), None if back.state == "waiting" else End(TrialState.FAIL))


def _end(trial: FrozenTrial, row: Row | None, objectives: Sequence[str]) -> Change:
    """The end of a trial that has no claim."""
    record = read_record(trial, objectives)
    if record.state != "running":
        return Change(None, end_of(Answer(record), objectives))

    is_unclaimed = row is None and not {ROW, RECORD} & set(trial.user_attrs)
    is_lost = row is not None and row.record is None
    if is_unclaimed or is_lost:
        return Change(None, End(TrialState.FAIL))
    return fail(trial.number, record.genotype, UNBELIEVED)


def fail(trial: int, genotype: Mapping[str, Any], reason: str) -> Change:
    """The end of a trial that failed without having been trained."""
    record = TrialRecord(
        trial=trial,
        state="failed",
        genotype=genotype,
        reason=reason,
        created=round(time.time(), 3),
    )
    row = Row(state="finished", record=record.dumps())
    return Change(row.sealed(), End(TrialState.FAIL))
