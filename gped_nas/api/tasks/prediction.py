"""The task ``prediction``: what a trial's record has of its student, of everybody."""

from gped_nas.api.tasks.base import Row, add_task
from gped_nas.api.tasks.bench import Bench
from gped_nas.evaluate.base import metrics_to_measure


@add_task(
    "prediction",
    "accuracy, scores and calibration",
    takes_metrics=True,
    settings=lambda bench, argument: [metric.name for metric in metrics_to_measure()],
)
def prediction(bench: Bench, argument: str) -> list[Row]:
    """The metrics that are measured of every trial."""
    table: list[Row] = []
    for subject in bench.subjects:
        table += bench.rows(subject, bench.measures(bench.answers(subject), bench.metrics))
    return table
