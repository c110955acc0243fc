"""The task ``misclassification``: whether uncertainty tells wrong answers from right ones."""

from gped_nas.api.tasks.base import Row, add_task
from gped_nas.api.tasks.bench import Bench, metrics_named


@add_task(
    "misclassification",
    "telling wrong answers by uncertainty",
    kinds=("classification",),
    metrics=("misclassification_",),
)
def misclassification(bench: Bench, argument: str) -> list[Row]:
    """AUROC and AUPR by each score; a wrong answer is the positive class."""
    table: list[Row] = []
    for subject in bench.subjects:
        measures = bench.measures(bench.answers(subject), metrics_named("misclassification_"))
        table += bench.rows(subject, measures)
    return table
