"""What an Optuna trial says of itself: its row and its record.

The record is the truth. Optuna's own tables hold its parameters, values and state once more, for
samplers and for the dashboard: where they say something else, one of the two was damaged, and
``check_undamaged`` refuses what needs the numbers. A row of a trial that runs is believed where it
is sealed; a record that another program wrote into it never was.

A trial of a study made before there were rows has its record in an attribute of its own,
``gped:record``, and no row. What has no seal was made before there were seals.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from gped_nas.errors import DamageError, StudyError
from gped_nas.search.document import unseal, validate
from gped_nas.search.record import State, TrialRecord
from gped_nas.search.rows import ROW, Row

RECORD = "gped:record"
FLAT = ("accuracy", "rmse", "nll", "params", "macs")
"""Numbers that the Optuna dashboard shows as attributes of a trial."""

INTERRUPTED = "interrupted before it finished"
FOREIGN = "finished by something other than gped-search"
UNBELIEVED = "its row was written by something other than gped-search while it ran"
DAMAGED = "its record was changed by something other than gped-search"
"""How the reason of a trial begins whose numbers are not known any more."""
NOT_DRAWN = "queued with values that the space does not hold"
"""How the reason of a trial begins that another program queued in vain."""
_NOT_ITS_FAULT = (INTERRUPTED, FOREIGN, UNBELIEVED, DAMAGED)


def is_its_fault(reason: str) -> bool:
    """Whether the reason of a failed trial says something of its genotype."""
    return not reason.startswith(_NOT_ITS_FAULT)


def read_row(trial: FrozenTrial) -> Row | None:
    """A trial's row; None where it has none.

    Raises:
        StudyError: it is damaged.
    """
    return parse_row(trial.user_attrs.get(ROW), trial.number)


def parse_row(stored: object, trial: int) -> Row | None:
    """The row of plain data that was stored of a trial; None of nothing.

    Raises:
        StudyError: it is damaged.
    """
    if stored is None:
        return None
    where = f"trial {trial}: {ROW}"
    data, _ = unseal(stored, ROW, where)
    return validate(Row, data, where)


def row_or_none(stored: object, trial: int) -> Row | None:
    """As ``parse_row``; None of a damaged row, too."""
    try:
        return parse_row(stored, trial)
    except StudyError:
        return None


def is_sealed(stored: object) -> bool:
    """Whether plain data of a row carries a digest; ``parse_row`` has checked it."""
    return isinstance(stored, dict) and "digest" in stored


def read_record(trial: FrozenTrial, objectives: Sequence[str] = ()) -> TrialRecord:
    """A trial's record; a failed one where it has none, or none that can be believed.

    Args:
        trial: the trial.
        objectives: names of what a complete record must have, in the order of Optuna's values.
    """
    try:
        record = _parse_record(trial)
    except (StudyError, ValueError) as error:
        return _without(trial, str(error))

    if record is None:
        return _unrecorded(trial)
    if not trial.state.is_finished():
        # A process died, or somebody else wrote it.
        return record if record.is_sealed else _unusable(trial, "running", "")

    problem = _contradiction(trial, record, objectives)
    return record if problem is None else _without(trial, problem)


def sealed_row(trial: FrozenTrial) -> dict[str, Any]:
    """The sealed row of a trial that ended with a record, as plain data.

    Raises:
        StudyError: its row is damaged.
    """
    row = read_row(trial) or Row(state="finished", record=trial.user_attrs[RECORD])
    return row.model_copy(update={"params": dict(trial.params)}).sealed()


def check_undamaged(records: Iterable[TrialRecord]) -> None:
    """Refuse records one of which is damaged: it might be the best.

    Raises:
        DamageError: names the trials.
    """
    damaged = [record for record in records if record.reason.startswith(DAMAGED)]
    if damaged:
        first, others = damaged[0], len(damaged) - 1
        more = f", and {others} more" if others else ""
        raise DamageError(
            f"trial {first.trial}: {first.reason}{more}; restore the study from a backup, or "
            "choose another --study-name"
        )


def _parse_record(trial: FrozenTrial) -> TrialRecord | None:
    """The record that is stored, as far as it is one of this trial; None where there is none.

    Raises:
        StudyError, ValueError: it is damaged.
    """
    row = read_row(trial)
    text = trial.user_attrs.get(RECORD) if row is None else row.record
    if text is None:
        return None

    record = TrialRecord.loads(text)
    if record.trial != trial.number:
        raise ValueError(f"it is of trial {record.trial}")
    if row is not None and row.params is not None and row.params != trial.params:
        raise ValueError("its parameters in Optuna's table are others")
    return record.replace(is_sealed=is_sealed(trial.user_attrs.get(ROW)))


def _unrecorded(trial: FrozenTrial) -> TrialRecord:
    """What a trial without a record is."""
    if not trial.state.is_finished():
        return _unusable(trial, "running", "")
    if trial.state == TrialState.FAIL:
        return _unusable(trial, "failed", INTERRUPTED)

    # Its numbers are there for the dashboard, so there was a row.
    if ROW not in trial.user_attrs and any(name in trial.user_attrs for name in FLAT):
        return _without(trial, "its row is gone")
    is_told = trial.state == TrialState.COMPLETE
    return _unusable(trial, "failed", FOREIGN if is_told else INTERRUPTED)


def _contradiction(
    trial: FrozenTrial, record: TrialRecord, objectives: Sequence[str]
) -> str | None:
    """In what Optuna's tables and a record differ; None where they agree."""
    numbers = record.values
    missing = [name for name in objectives if name not in numbers]
    if record.state == "complete" and missing:
        return f"it has no {missing[0]}"

    expected = ended_state(record, objectives)
    if objectives and trial.state != expected:
        return f"it ended as {trial.state.name} in Optuna's table, as {expected.name} in its record"
    if objectives and expected == TrialState.COMPLETE:
        values = [float(numbers[name]) for name in objectives]
        if trial.values != values:
            return f"its values are {trial.values} in Optuna's table, {values} in its record"
    return None


def ended_state(record: TrialRecord, objectives: Sequence[str]) -> TrialState:
    """Optuna's state of a trial with this record, once it ended."""
    if record.state == "failed":
        return TrialState.FAIL
    is_whole = all(name in record.values for name in objectives)
    return TrialState.COMPLETE if is_whole and record.state != "pruned" else TrialState.PRUNED


def _without(trial: FrozenTrial, problem: str) -> TrialRecord:
    """What a trial is whose row or record is not to be believed."""
    if not trial.state.is_finished():
        return _unusable(trial, "running", "")
    if trial.state == TrialState.FAIL and ROW not in trial.user_attrs:
        # It never had a row, so another program told it, and it has no number to lose.
        return _unusable(trial, "failed", FOREIGN)
    return _unusable(trial, "failed", f"{DAMAGED} ({problem})")


def _unusable(trial: FrozenTrial, state: State, reason: str) -> TrialRecord:
    return TrialRecord(trial=trial.number, state=state, reason=reason, genotype=dict(trial.params))
