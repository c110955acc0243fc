"""Every registered metric, for every kind of label it judges: finite and ordered on sane
predictions, and at its best where nothing can be better."""

import math

import numpy as np
import pytest
import torch

from gped_nas.data.base import Normalization
from gped_nas.errors import ConfigError
from gped_nas.evaluate import METRICS, Key, NormalPredictions, Predictions, draw_resamples, evaluate
from gped_nas.evaluate.base import LabelFacts
from gped_nas.evaluate.teacher import averaged
from gped_nas.search.objectives import axis_ends, check_objectives, objective
from gped_nas.targets.base import TARGETS

N, CLASSES, SAMPLES = 60, 5, 4
TASKS = ("classification", "regression")
CASES = [(name, task) for name in sorted(METRICS) for task in METRICS[name].tasks]
MAIN = {"predictive", "predictive_normal"}


def targets_of(task):
    prediction = "log_prob" if task == "classification" else "normal"
    return [target for target in TARGETS.values() if target.prediction == prediction]


def random_samples(seed, task):
    """What four posterior samples predict, (S, N, G)."""
    generator = np.random.default_rng(seed)
    if task == "regression":
        mean = generator.normal(size=(SAMPLES, N))
        return torch.from_numpy(np.stack([mean, 0.5 + generator.random((SAMPLES, N))], -1))
    return torch.from_numpy(np.log(generator.dirichlet(np.ones(CLASSES), (SAMPLES, N))))


def predictions_of(samples, task):
    unit = Normalization(0.0, 1.0) if task == "regression" else None
    return averaged(samples, torch.ones(len(samples)), unit, targets_of(task))


def random_predictions(seed, task):
    return predictions_of(random_samples(seed, task), task)


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
    student, teacher = random_samples(0, task), random_samples(1, task)
    order = np.random.default_rng(3).permutation(N)
    value = metric.value(predictions_of(student, task), labels, predictions_of(teacher, task))
    again = metric.value(
        predictions_of(student[:, order], task),
        labels[order],
        predictions_of(teacher[:, order], task),
    )
    assert again == pytest.approx(value, rel=1e-12)


def test_nothing_beats_the_right_answer_or_the_teacher_itself(case, labels):
    metric, task = case
    if task == "classification":
        right = torch.full((SAMPLES, N, CLASSES), -torch.inf, dtype=torch.float64)
        right[:, torch.arange(N), torch.from_numpy(labels)] = 0.0
        perfect = predictions_of(right, task)
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
    samples = random_samples(0, task)
    samples[:, 7] = torch.nan
    value = metric.value(predictions_of(samples, task), labels, random_predictions(1, task))
    assert not math.isfinite(value)


def test_it_can_be_an_objective_if_it_has_ends(case):
    metric, task = case
    one = objective(metric.name, "here")
    assert (one.kind, one.direction, one.label) == ("metric", metric.direction, metric.label)
    if metric.worst is None:
        with pytest.raises(ConfigError, match=f"'{metric.name}' has no worst value"):
            check_objectives([metric.name], "here")
        return

    check_objectives([metric.name], "here")
    is_real = task == "regression"
    facts = LabelFacts(
        1 if is_real else CLASSES, 3.0 if is_real else None, {t.name: t for t in targets_of(task)}
    )
    best, worst = axis_ends(one, facts, {}, {})
    assert (worst < best) if metric.direction == "maximize" else (worst > best)


def test_its_ends_hold_what_sane_predictions_get(case, labels):
    """A predictor that knows nothing but the labels' spread is no worse than the worst value."""
    metric, task = case
    if metric.worst is None or metric.name in ("entropy_excess", "mean_error", "variance_error"):
        return
    if task == "classification":
        blind = predictions_of(
            torch.full((SAMPLES, N, CLASSES), -math.log(CLASSES), dtype=torch.float64), task
        )
        facts = LabelFacts(CLASSES, None, {t.name: t for t in targets_of(task)})
        teacher = random_predictions(1, task)
    else:
        std = float(labels.std())
        blind = NormalPredictions(np.full(N, labels.mean()), np.full(N, std**2))
        facts, teacher = LabelFacts(1, std), blind
    _, worst = axis_ends(objective(metric.name, "here"), facts, {}, {})
    sign = -1 if metric.direction == "maximize" else 1
    assert sign * metric.value(blind, labels, teacher) <= sign * worst + 1e-9


def test_a_metric_that_lacks_what_it_reads_does_not_apply(case, labels):
    metric, task = case
    given = random_predictions(0, task)
    bare = (
        Predictions(given.log_prob_NC)
        if task == "classification"
        else NormalPredictions(given.mean_N, given.variance_N)
    )
    needs_more = metric.needs_teacher or metric.needs_samples or set(metric.reads) - MAIN
    assert metric.applies(bare, None) == (not needs_more)
    assert metric.applies(given, given)
    for other in set(TASKS) - set(metric.tasks):
        strange = random_predictions(0, other)
        assert not metric.applies(strange, strange)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_is_read_by_a_metric(target):
    """What is distilled is measured: a target that no metric reads is trained for unseen."""
    assert [name for name, metric in METRICS.items() if target in metric.reads]
