"""Every registered metric keeps the promises that ``gped_nas.testing`` checks."""

import math
from collections.abc import Callable

import pytest
import torch

from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS
from gped_nas.search.objectives import axis_ends, check_objectives, objective
from gped_nas.testing.metrics import (
    METRIC_CHECKS,
    NUM_CLASSES,
    NUM_EXAMPLES,
    NUM_SAMPLES,
    MetricCase,
    metric_cases,
    predictions_of,
)

CASES = [case for name in METRICS for case in metric_cases(name)]
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=str)
BEST_IS_AGREEMENT = ("entropy_excess", "mean_error", "variance_error")
"""Metrics of what a predictor that knows nothing is not bad at."""


@pytest.mark.parametrize("check", METRIC_CHECKS, ids=lambda check: check.__name__)
@EVERY_CASE
def test_a_metric_keeps_its_promises(case: MetricCase, check: Callable[[MetricCase], None]) -> None:
    check(case)


@EVERY_CASE
def test_it_can_be_an_objective_if_it_has_ends(case: MetricCase) -> None:
    metric = case.metric
    axis = objective(metric.name, "here")
    assert (axis.kind, axis.direction, axis.label) == ("metric", metric.direction, metric.label)
    if metric.worst is None:
        with pytest.raises(ConfigError, match=f"'{metric.name}' has no worst value"):
            check_objectives([metric.name], "here")
    else:
        check_objectives([metric.name], "here")


@EVERY_CASE
def test_a_predictor_that_knows_nothing_but_the_spread_is_no_worse_than_worst(
    case: MetricCase,
) -> None:
    metric = case.metric
    if metric.worst is None or metric.name in BEST_IS_AGREEMENT:
        return

    _, worst = axis_ends(objective(metric.name, "here"), case.facts, {}, {})
    if case.task == "classification":
        shape = (NUM_SAMPLES, NUM_EXAMPLES, NUM_CLASSES)
        uniform = torch.full(shape, -math.log(NUM_CLASSES), dtype=torch.float64)
        blind, teacher = predictions_of(uniform, case.task), case.predictions(1)
    else:
        mean, variance = case.labels.mean(), case.labels.var()
        sample = torch.tensor([mean, variance]).expand(1, NUM_EXAMPLES, 2)
        blind = teacher = predictions_of(sample, case.task)

    blind = case.proven(blind)
    sign = -1 if metric.direction == "maximize" else 1
    assert sign * metric.value(blind, case.labels, teacher) <= sign * worst + 1e-9
