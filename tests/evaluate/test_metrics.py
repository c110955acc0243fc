"""Metrics of classifiers against scikit-learn, closed forms and hand calculations."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.judging import evaluate, paired_difference
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.metrics import reliability
from gped_nas.evaluate.predictions import Predictions, entropy, kl_divergence


def predictions_of(prob_NC, expected_entropy_N=None):
    with np.errstate(divide="ignore"):
        log_prob = np.log(np.asarray(prob_NC, np.float64))
    if expected_entropy_N is None:
        return Predictions(log_prob)
    return Predictions(log_prob, {"expected_entropy": np.array(expected_entropy_N)})


def random_predictions(seed, n=400, num_classes=5):
    prob = np.random.default_rng(seed).dirichlet(np.full(num_classes, 0.5), n)
    return predictions_of(prob)


@pytest.fixture
def student():
    return random_predictions(0)


@pytest.fixture
def teacher():
    return random_predictions(1)


@pytest.fixture
def labels():
    return np.random.default_rng(2).integers(5, size=400)


def test_proper_scores_equal_those_of_scikit_learn(student, labels):
    prob = np.exp(student.log_prob_NC)
    prob /= prob.sum(axis=1, keepdims=True)
    expected = {
        "accuracy": accuracy_score(labels, prob.argmax(axis=1)),
        "nll": log_loss(labels, prob, labels=range(5)),
        "brier": brier_score_loss(labels, prob, labels=range(5), scale_by_half=False),
    }
    values = {name: METRICS[name].value(student, labels) for name in expected}
    assert values == pytest.approx(expected, rel=1e-12)


def test_ece_sums_the_gaps_of_its_bins():
    # Edges are k/15. Sums of confidence - correct:
    #   bin (8/15, 9/15]:   0.58 wrong, 0.55 right   1.13 - 1 = 0.13
    #   bin (9/15, 10/15]:  0.65 wrong               0.65
    #   bin (11/15, 12/15]: 0.78 right, 0.75 right   1.53 - 2 = -0.47
    # ECE = (0.13 + 0.65 + 0.47) / 5 = 0.25
    top = np.array([0.58, 0.55, 0.65, 0.78, 0.75])
    ece = METRICS["ece"].value(predictions_of(np.c_[top, 1 - top]), np.array([1, 0, 1, 0, 0]))
    assert ece == pytest.approx(0.25, abs=1e-12)


def test_ece_bins_are_right_closed():
    # 0.6 = 9/15 is right and 0.65 wrong. Right-closed they are apart: (|0.6 - 1| + |0.65 - 0|) / 2
    # = 0.525; left-closed they would share [9/15, 10/15): |1.25 - 1| / 2 = 0.125.
    top = np.array([0.6, 0.65])
    ece = METRICS["ece"].value(predictions_of(np.c_[top, 1 - top]), np.array([0, 1]))
    assert ece == pytest.approx(0.525, abs=1e-12)


@pytest.mark.parametrize("k", range(8, 16))
def test_every_edge_belongs_to_the_bin_below_it(k):
    top = np.array([k / 15, k / 15 - 1e-4])
    rows = reliability(predictions_of(np.c_[top, 1 - top]), np.zeros(2, int))
    assert [row["count"] for row in rows] == [2]


def test_certain_predictions_fall_into_the_last_bin():
    rows = reliability(predictions_of([[1.0, 0.0], [0.0, 1.0], [0.97, 0.03]]), np.array([0, 0, 0]))
    assert rows == [
        {"confidence": pytest.approx(2.97 / 3), "accuracy": pytest.approx(2 / 3), "count": 3}
    ]


def test_the_reliability_diagram_gives_back_the_ece(student, labels):
    rows = reliability(student, labels)
    assert sum(row["count"] for row in rows) == 400
    assert all(row["count"] > 0 for row in rows)
    total = sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in rows)
    assert total / 400 == pytest.approx(METRICS["ece"].value(student, labels), rel=1e-12)


def test_a_reliability_diagram_has_at_least_one_bin(student, labels):
    assert len(reliability(student, labels, bins=1)) == 1
    with pytest.raises(ConfigError, match="found 0 bins"):
        reliability(student, labels, bins=0)


def test_nll_above_teacher_is_the_paired_difference(student, teacher, labels):
    gap = METRICS["nll_above_teacher"].value(student, labels, teacher)
    nll = METRICS["nll"]
    assert gap == pytest.approx(nll.value(student, labels) - nll.value(teacher, labels))
    resamples = draw_resamples(len(labels), root=0, part="validation")
    measured = evaluate(student, labels, teacher, resamples=resamples)
    paired = paired_difference("nll", student, teacher, labels, resamples=resamples)
    assert measured[Key("nll_above_teacher")].interval == pytest.approx(paired.interval)


def test_kl_by_hand():
    # KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 log 2 + 1/2 log(2/3) = 1/2 log(4/3)
    kl = kl_divergence(np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]]))
    assert kl == pytest.approx([0.5 * np.log(4 / 3)], rel=1e-12)


def test_kl_to_teacher_by_cross_entropy(student, teacher, labels):
    p = np.exp(teacher.log_prob_NC)
    cross_entropy = -(p * student.log_prob_NC).sum(axis=1)
    expected = (cross_entropy - entropy(teacher.log_prob_NC)).mean()
    kl = METRICS["kl_to_teacher"].value(student, labels, teacher)
    assert kl == pytest.approx(expected, rel=1e-9)
    assert METRICS["kl_to_teacher"].value(teacher, labels, teacher) == 0.0


def test_entropy_in_nats_with_zero_probabilities():
    with np.errstate(divide="ignore"):
        log_prob = np.log([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    assert entropy(log_prob) == pytest.approx([np.log(4), 0.0, np.log(2)], abs=1e-15)


def test_zero_probabilities_are_infinite_only_where_they_are_needed():
    certain = predictions_of([[1.0, 0.0]])
    fair = predictions_of([[0.5, 0.5]])
    labels = np.array([1])
    assert METRICS["nll"].value(certain, labels) == np.inf
    assert METRICS["brier"].value(certain, labels) == 2.0
    assert METRICS["kl_to_teacher"].value(certain, labels, fair) == np.inf
    assert METRICS["kl_to_teacher"].value(fair, labels, certain) == pytest.approx(np.log(2))


def test_agreement_compares_the_most_probable_classes(labels):
    student = predictions_of([[0.6, 0.4], [0.4, 0.6], [0.9, 0.1], [0.5, 0.5]])
    teacher = predictions_of([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.7, 0.3]])
    assert METRICS["agreement"].value(student, np.array([1, 0, 0, 1]), teacher) == 0.75


def test_entropy_metrics_by_hand():
    # H[q] of the students: log 2 = 0.693 each; teacher's E[H] 0.1, 0.7, 0.6; student's E[H] 0.3,
    # 0.6, 0.6.
    student = predictions_of(np.full((3, 2), 0.5), np.array([0.3, 0.6, 0.6]))
    teacher = predictions_of(np.full((3, 2), 0.5), np.array([0.1, 0.7, 0.6]))
    labels = np.zeros(3, int)
    error = METRICS["entropy_error"].value(student, labels, teacher)
    assert error == pytest.approx((0.2 + 0.1) / 3)
    excess = METRICS["entropy_excess"].value(student, labels, teacher)
    assert excess == pytest.approx(1 / 3)


def test_the_error_of_mutual_information_by_hand():
    """MI = H[q] - E[H].

    The student has .693 - .3 and .325 - .2, the teacher .325 - .1 and .693 - .5.
    """
    student = predictions_of([[0.5, 0.5], [0.9, 0.1]], np.array([0.3, 0.2]))
    teacher = predictions_of([[0.1, 0.9], [0.5, 0.5]], np.array([0.1, 0.5]))
    error = METRICS["information_error"].value(student, np.zeros(2, int), teacher)
    assert error == pytest.approx((0.168064 + 0.068064) / 2, abs=1e-6)


def test_float32_rounding_is_no_entropy_excess(teacher, labels):
    rounded = teacher.log_prob_NC.astype(np.float32)
    prob = np.exp(rounded)
    one_sample = Predictions(rounded, {"expected_entropy": -(prob * rounded).sum(axis=1)})
    assert METRICS["entropy_excess"].value(one_sample, labels, one_sample) == 0.0


READ_PREDICTIVE = sorted(
    name
    for name, metric in METRICS.items()
    # what is proven is no function of probabilities
    if "predictive" in metric.reads and metric.task != "certificate"
)


@pytest.mark.parametrize("name", READ_PREDICTIVE)
def test_a_nan_prediction_makes_every_metric_that_reads_it_nan(name, student, teacher, labels):
    log_prob = student.log_prob_NC.copy()
    log_prob[3] = np.nan
    targets = {
        "expected_entropy": entropy(log_prob),
        "utility": np.exp(log_prob),
        "logit_variance": log_prob,
    }
    broken = Predictions(log_prob, targets)
    log_prob = teacher.log_prob_NC
    judge = Predictions(
        log_prob, {"expected_entropy": entropy(log_prob), "logit_variance": -log_prob}
    )
    assert np.isnan(METRICS[name].value(broken, labels, judge))
