"""Every registered metric, for every kind of label it judges: finite and ordered on sane
predictions, and at its best where nothing can be better."""

import math

import numpy as np
import pytest

from gped_nas.evaluate import (
    METRICS,
    Key,
    NormalPredictions,
    Predictions,
    draw_resamples,
    entropy,
    evaluate,
)
from gped_nas.search.objectives import best_value, objective, worst_value

N, CLASSES = 60, 5
TASKS = ("classification", "regression")
CASES = [(name, task) for name in sorted(METRICS) for task in METRICS[name].tasks]


def random_predictions(seed, task):
    generator = np.random.default_rng(seed)
    if task == "regression":
        return NormalPredictions(generator.normal(size=N), 0.5 + generator.random(N))
    log_prob = np.log(generator.dirichlet(np.ones(CLASSES), N))
    return Predictions(log_prob, entropy(log_prob) * generator.random(N))


def permuted(predictions, order):
    return type(predictions)(*(values[order] for values in vars(predictions).values()))


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    name, task = request.param
    return METRICS[name], task


@pytest.fixture
def labels(case):
    generator = np.random.default_rng(2)
    return (
        generator.integers(CLASSES, size=N)
        if case[1] == "classification"
        else generator.normal(size=N)
    )


def test_value_and_interval_are_finite_and_ordered(case, labels):
    metric, task = case
    found = evaluate(
        random_predictions(0, task),
        labels,
        random_predictions(1, task),
        resamples=draw_resamples(N, root=0, part="validation", num_resamples=50),
    )
    measured = found[Key(metric.name)]
    assert math.isfinite(measured.low) and math.isfinite(measured.high)
    assert measured.low <= measured.value <= measured.high
    assert measured.n == N


def test_the_order_of_the_examples_does_not_matter(case, labels):
    metric, task = case
    student, teacher = random_predictions(0, task), random_predictions(1, task)
    order = np.random.default_rng(3).permutation(N)
    value = metric.value(student, labels, teacher)
    again = metric.value(permuted(student, order), labels[order], permuted(teacher, order))
    assert again == pytest.approx(value, rel=1e-12)


def test_nothing_beats_the_right_answer_or_the_teacher_itself(case, labels):
    metric, task = case
    if task == "classification":
        right = np.full((N, CLASSES), -np.inf)
        right[np.arange(N), labels] = 0.0
        perfect = Predictions(right, np.zeros(N))
        assert metric.value(perfect, labels, perfect) == pytest.approx(
            1.0 if metric.direction == "maximize" else 0.0
        )
    else:
        perfect = NormalPredictions(labels, np.full(N, 1e-6))
    sign = -1 if metric.direction == "maximize" else 1
    for seed in range(5):
        teacher = random_predictions(seed + 10, task)
        best = min(sign * metric.value(student, labels, teacher) for student in (perfect, teacher))
        if (
            metric.name == "coverage_error"
        ):  # nothing is calibrated by being right: what covers as it says is best
            best = 0.0
        assert sign * metric.value(random_predictions(seed, task), labels, teacher) >= best


def test_nan_predictions_never_give_a_number(case, labels):
    metric, task = case
    broken = random_predictions(0, task)
    for values in vars(broken).values():
        values[7] = np.nan
    assert not math.isfinite(metric.value(broken, labels, random_predictions(1, task)))


def test_it_can_be_an_objective(case):
    metric, task = case
    one = objective(metric.name, "here")
    assert (one.kind, one.direction, one.label) == ("metric", metric.direction, metric.label)
    std = None if task == "classification" else 3.0
    worst, best = worst_value(one, CLASSES, std, {}), best_value(one, std, {})
    assert (
        worst == 0.0 and best == 1.0 if metric.direction == "maximize" else worst > max(best, 0.0)
    )


def test_a_metric_that_lacks_what_it_reads_does_not_apply(case, labels):
    metric, task = case
    given = random_predictions(0, task)
    bare = Predictions(given.log_prob_NC) if task == "classification" else given
    assert metric.applies(bare, None) == (
        not (metric.needs_teacher or metric.needs_entropy or metric.needs_teacher_entropy)
    )
    assert metric.applies(given, given)
    for other in set(TASKS) - set(metric.tasks):
        strange = random_predictions(0, other)
        assert not metric.applies(strange, strange)
