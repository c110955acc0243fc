"""Every registered metric: finite and ordered on sane predictions, and at its best where nothing can be better."""

import math

import numpy as np
import pytest

from gped_nas.evaluate import METRICS, Predictions, draw_resamples, entropy, evaluate
from gped_nas.search.objectives import objective, worst_value

N, CLASSES = 60, 5


def random_predictions(seed):
    generator = np.random.default_rng(seed)
    log_prob = np.log(generator.dirichlet(np.ones(CLASSES), N))
    return Predictions(log_prob, entropy(log_prob) * generator.random(N))


@pytest.fixture(params=sorted(METRICS))
def metric(request):
    return METRICS[request.param]


@pytest.fixture
def labels():
    return np.random.default_rng(2).integers(CLASSES, size=N)


def test_value_and_interval_are_finite_and_ordered(metric, labels):
    found = evaluate(
        random_predictions(0),
        labels,
        random_predictions(1),
        resamples=draw_resamples(N, root=0, part="validation", num_resamples=50),
    )
    low, high = found.intervals[metric.name]
    assert math.isfinite(low) and low <= found.metrics[metric.name] <= high and math.isfinite(high)
    assert found.n[metric.name] == N


def test_the_order_of_the_examples_does_not_matter(metric, labels):
    student, teacher = random_predictions(0), random_predictions(1)
    order = np.random.default_rng(3).permutation(N)

    def permuted(predictions):
        return Predictions(predictions.log_prob_NC[order], predictions.expected_entropy_N[order])

    value = metric.value(student, labels, teacher)
    assert metric.value(permuted(student), labels[order], permuted(teacher)) == pytest.approx(value, rel=1e-12)


def test_nothing_beats_the_right_answer_or_the_teacher_itself(metric, labels):
    right = np.full((N, CLASSES), -np.inf)
    right[np.arange(N), labels] = 0.0
    perfect = Predictions(right, np.zeros(N))
    value = metric.value(perfect, labels, perfect)
    assert value == pytest.approx(1.0 if metric.direction == "maximize" else 0.0)
    sign = -1 if metric.direction == "maximize" else 1
    for seed in range(5):
        teacher = random_predictions(seed + 10)
        best = min(sign * metric.value(student, labels, teacher) for student in (perfect, teacher))
        assert sign * metric.value(random_predictions(seed), labels, teacher) >= best


def test_nan_predictions_never_give_a_number(metric, labels):
    broken = random_predictions(0)
    broken.log_prob_NC[7], broken.expected_entropy_N[7] = np.nan, np.nan
    assert not math.isfinite(metric.value(broken, labels, random_predictions(1)))


def test_it_can_be_an_objective(metric):
    one = objective(metric.name, "here")
    assert (one.kind, one.direction, one.label) == ("metric", metric.direction, metric.label)
    worst = worst_value(one, CLASSES, {})
    assert worst == 0.0 if metric.direction == "maximize" else worst > 0


def test_a_metric_that_lacks_what_it_reads_does_not_apply(metric, labels):
    bare = Predictions(random_predictions(0).log_prob_NC)
    assert metric.applies(bare, None) == (
        not (metric.needs_teacher or metric.needs_entropy or metric.needs_teacher_entropy)
    )
    with_entropy = random_predictions(0)
    assert metric.applies(with_entropy, with_entropy)
