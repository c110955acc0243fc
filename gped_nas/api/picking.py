"""Which trial of a study is meant: by number, by what it is, or by what it may cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gped_nas.api.note import STUDENTS, is_study
from gped_nas.errors import ConfigError, GateError
from gped_nas.search.bounds import as_bounds
from gped_nas.search.record import TrialRecord

if TYPE_CHECKING:
    from gped_nas.api.study import Study

CHOSEN, BEST = "chosen", "best"
WITHIN = "--within"


def find_trial(study: "Study", trial: int | str) -> TrialRecord:
    """See ``Study.find``."""
    if isinstance(trial, int):
        return study.record(trial)
    if trial.strip().isdecimal():
        return study.record(int(trial))
    if trial not in (CHOSEN, BEST):
        raise ConfigError(
            f"TRIAL: found '{trial}', expected a trial's number, '{CHOSEN}' or '{BEST}'"
        )

    record = study.chosen() if trial == CHOSEN else study.best()
    if record is None:
        what, remedy = study.explain_empty_front()
        raise GateError(f"study '{study.name}': {what}, so none is {trial}; {remedy}")
    return record


def student_folder(
    student: str | Path, trial: str | None, *, storage: str | None, out: str | Path
) -> Path:
    """The folder of a student: itself, or that of a study's.

    Args:
        student: a student's folder, or a study's name or folder.
        trial: which student of the study, see ``Study.find``; the chosen one by default.
        storage: where the study lies, if not in its folder.
        out: folder of all studies.

    Raises:
        ConfigError: a trial of something that is no study.
        GateError: see ``Study.find``.
    """
    from gped_nas.api.opening import open_study

    if is_study(student, out):
        study = open_study(student, storage=storage, out=out)
        return study.path / STUDENTS / str(study.find(trial or CHOSEN).trial)
    if trial is not None:
        raise ConfigError(f"--trial: found {trial}, but {student} is no study; leave it out")
    return Path(student)


def records_within(
    study: "Study", within: str | Sequence[str] | Mapping[str, float]
) -> list[TrialRecord]:
    """The front's records within bounds, at least one, best by the first objective first.

    Raises:
        ConfigError, GateError: see ``Study.pick``.
    """
    from gped_nas.search.objectives import describe_constraint, objective, violations

    bounds = as_bounds(within, WITHIN)
    front = study.front_records()
    for name in bounds:
        objective(name, WITHIN)  # refuses an unknown one
        if front and name not in front[0].values:
            known = ", ".join(front[0].values)
            raise ConfigError(
                f"{WITHIN}: '{name}' was not measured in study '{study.name}'; there are: {known}"
            )

    if not front or study.is_without_use:
        what, remedy = study.explain_empty_front()
        raise GateError(f"study '{study.name}': {what}; {remedy}")

    records = []
    for record in front:
        if all(excess <= 0 for excess in violations(record.values, bounds).values()):
            records.append(record)
    if records:
        return records

    constraints = ", ".join(describe_constraint(name, bound) for name, bound in bounds.items())
    closest = min(front, key=lambda record: _furthest(record, bounds))
    values = ", ".join(f"{name} {_exact(closest.value(name))}" for name in bounds)
    raise GateError(
        f"study '{study.name}': no student on the front meets {constraints}; the nearest is trial "
        f"{closest.trial} with {values}; loosen the bounds, or search on with them as constraints "
        "of the space"
    )


def _furthest(record: TrialRecord, bounds: Mapping[str, float]) -> float:
    """The largest share of its bound by which a record breaks one."""
    from gped_nas.search.objectives import violations

    excess = violations(record.values, bounds)
    return max(excess[name] / (abs(bound) or 1.0) for name, bound in bounds.items())


def _exact(value: float) -> str:
    """A count whole, anything else to four digits."""
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
