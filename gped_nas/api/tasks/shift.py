"""The task ``shift:NAME``: how good answers are where inputs are not what they were.

A condition that has severities is measured at all five, a row each, and as their mean, whose
condition is called by the bare name. Any other is measured as it is called.
"""

from gped_nas.api.measuring import is_attack
from gped_nas.api.tasks.base import OPTION, Row, add_task
from gped_nas.api.tasks.bench import Answers, Bench, Subject
from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.certify.radius import states_radius
from gped_nas.evaluate.conditions import CONDITIONS
from gped_nas.evaluate.measured import CLEAN, Key, Measured
from gped_nas.evaluate.over_conditions import mean_over_conditions

SEVERITIES = range(1, 6)
METRICS_OF = (
    *("accuracy", "nll", "brier", "ece_debiased", "rmse"),
    *("nll_above_teacher", "entropy_error"),
)
"""What is measured where nothing else is asked for."""


def _check(bench: Bench, argument: str) -> None:
    """Refuse a name that is no shift, or one that these inputs cannot be changed by."""
    if argument == CLEAN:
        raise ConfigError(
            f"{OPTION}: found 'shift:{CLEAN}', which shifts nothing; write prediction"
        )
    for name in _names(argument):
        condition = bench.condition(name, OPTION)
        if is_attack(condition):
            raise ConfigError(
                f"{OPTION}: found 'shift:{name}', which is an attack; write attack:{name}"
            )
        if states_radius(condition):
            raise ConfigError(
                f"{OPTION}: found 'shift:{name}', which shifts nothing; write certify:{name}"
            )
        condition.check_shape(bench.dataset.raw_shape, OPTION)


def _names(argument: str) -> list[str]:
    """The conditions that an argument means."""
    if argument in CONDITIONS and CONDITIONS[argument].has_severities:
        return [f"{argument}-s{severity}" for severity in SEVERITIES]
    return [argument]


@add_task(
    "shift",
    "answers at inputs that are not what they were",
    argument="CONDITION",
    example="noise",
    takes_metrics=True,
    check=_check,
    settings=lambda bench, argument: bench.settings_of(_names(argument)),
)
def shift(bench: Bench, argument: str) -> list[Row]:
    """The metrics at each severity, and their mean."""
    table: list[Row] = []
    names = _names(argument)
    for subject in bench.subjects:
        measured: list[Answers] = []
        for i, name in enumerate(names):
            bench.session.progress(f"{bench.task}: {subject.name}", i, len(names))
            measured.append(bench.answers(subject, bench.condition(name, OPTION)))
            table += bench.rows(subject, bench.measures(measured[-1], bench.metrics_or(METRICS_OF)))
        bench.session.progress(f"{bench.task}: {subject.name}", len(names), len(names))
        if len(names) > 1:
            table += _mean(bench, subject, measured, argument)
    return table


def _mean(bench: Bench, subject: Subject, measured: list[Answers], name: str) -> list[Row]:
    """The rows of the mean over severities."""
    measures: dict[Key, Measured] = {}
    answers = [(each.predictions, each.teacher) for each in measured]
    for metric in bench.metrics_or(METRICS_OF):
        if all(METRICS[metric].applies(*both) for both in answers):
            measures[Key(metric, name, bench.part)] = mean_over_conditions(
                METRICS[metric], answers, bench.labels, resamples=bench.resamples
            )
    note = f"{name}: the mean over severities {SEVERITIES[0]} to {SEVERITIES[-1]}"
    return bench.rows(subject, measures, note=note)
