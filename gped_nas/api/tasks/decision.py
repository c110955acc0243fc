"""The task ``decision:COSTS``: what acting by the answers costs under the true labels.

``decision:costs.yaml`` reads a matrix, see ``evaluate.cost_matrix``; ``decision:ursabench`` is
URSABench's; ``decision`` alone takes that of the space's target ``utility``. Beside the predictors
are two who ask none of them: ``nobody`` takes the action that suits the frequencies of the training
labels, and ``always ACTION`` the one that turns out to be the cheapest.
"""

from pathlib import Path

import numpy as np

from gped_nas.api.tasks.base import OPTION, LeftOut, Row, add_task
from gped_nas.api.tasks.bench import Bench
from gped_nas.errors import ConfigError
from gped_nas.evaluate.cost_matrix import (
    URSABENCH,
    CostMatrix,
    matrix_of,
    read_costs,
    ursabench_costs,
)
from gped_nas.evaluate.decisions import true_cost_metrics
from gped_nas.evaluate.ignorance import know_nothing
from gped_nas.evaluate.judging import evaluate_or_explain
from gped_nas.evaluate.measured import rows
from gped_nas.evaluate.predictions import AnyPredictions, Floats
from gped_nas.targets.mean import UtilitySettings


def costs_of(bench: Bench, argument: str) -> CostMatrix:
    """The matrix that is asked for.

    Raises:
        ConfigError: there is none, or it does not fit the classes.
        EnvironmentProblem: its file cannot be read.
    """
    names = bench.dataset.class_names
    where = f"{OPTION}: decision:{argument}" if argument else f"{OPTION}: decision"
    if argument == URSABENCH:
        return ursabench_costs(bench.dataset.name, names, where)
    if argument:
        return read_costs(Path(argument), names, where)

    targets = () if bench.teacher is None else bench.teacher.space.targets
    for target in targets:
        if isinstance(target.settings, UtilitySettings):
            costs = target.settings.costs or (1 - np.eye(len(names))).tolist()
            return matrix_of(costs, names, "targets: utility")
    raise ConfigError(
        f"{where}: found no costs, expected a matrix; write decision:costs.yaml or "
        f"decision:{URSABENCH}, or give the space the target utility with costs"
    )


def _check(bench: Bench, argument: str) -> None:
    costs_of(bench, argument)


@add_task(
    "decision",
    "what acting by the answers costs",
    argument="COSTS",
    default="",
    kinds=("classification",),
    is_together=True,
    metrics=("true_cost",),
    check=_check,
    settings=lambda bench, argument: costs_of(bench, argument).to_json(),
)
def decision(bench: Bench, argument: str) -> list[Row]:
    """Mean and sum of the true costs of Bayes actions, of everybody and of nobody."""
    matrix = costs_of(bench, argument)
    asked = true_cost_metrics(matrix.costs_CA)
    table: list[Row] = []
    for subject in bench.subjects:
        try:
            table += bench.rows(subject, bench.measures(bench.answers(subject), asked))
        except LeftOut as why:
            bench.leave_out(subject, str(why))
    return [*table, *_without_asking(bench, matrix)]


def _without_asking(bench: Bench, matrix: CostMatrix) -> list[Row]:
    """The rows of those who do the same whatever the input is."""
    dataset, costs_CA = bench.dataset, matrix.costs_CA
    ignorant = know_nothing(dataset.train.y, dataset.num_outputs, len(bench.labels))
    counts_C = np.bincount(bench.labels, minlength=dataset.num_outputs)
    cheapest = int((counts_C @ costs_CA).argmin())

    always = f"always {matrix.actions[cheapest]}"
    note = f"the cheapest of {len(matrix.actions)} actions, by the labels asked about"
    return [
        *_rows(bench, "nobody", ignorant, costs_CA),
        *_rows(bench, always, ignorant, costs_CA[:, [cheapest]], note=note),
    ]


def _rows(
    bench: Bench, name: str, ignorant: AnyPredictions, costs_CA: Floats, **extra: str
) -> list[Row]:
    asked = true_cost_metrics(costs_CA)
    measures = evaluate_or_explain(
        ignorant, bench.labels, resamples=bench.resamples, part=bench.part, asked=asked
    )
    names = {metric.name for metric in asked}
    of_costs = {key: measured for key, measured in measures.items() if key.metric in names}
    table = rows(of_costs, predictor=name, task=bench.task)
    return [{**row, **extra} for row in table]
