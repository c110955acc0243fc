"""Metrics of unequal classes beside scikit-learn's, and their intervals at simple numbers."""

import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.intervals import (
    of_mean_of_shares,
    of_paired_means_of_shares,
    of_paired_shares,
    wilson,
)
from gped_nas.evaluate.judging import evaluate, paired_difference
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.predictions import Predictions


def saying(answers: Any, num_classes: int) -> Predictions:
    """Predictions whose most probable classes are these."""
    log_prob = np.full((len(answers), num_classes), math.log(0.01))
    log_prob[np.arange(len(answers)), answers] = math.log(0.9)
    return Predictions(log_prob)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:y_pred contains classes:UserWarning")
def test_values_are_scikit_learns(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.choice(5, 80, p=[0.5, 0.3, 0.12, 0.08, 0.0])  # one without an example
    answers = np.where(generator.random(80) < 0.6, labels, generator.integers(0, 5, 80))
    predictions = saying(answers, 5)

    def value(name: str) -> float:
        return METRICS[name].value(predictions, labels)

    expected = balanced_accuracy_score(labels, answers)
    assert value("balanced_accuracy") == pytest.approx(expected)
    assert value("macro_f1") == pytest.approx(f1_score(labels, answers, average="macro"))
    recalls = recall_score(labels, answers, average=None, labels=np.unique(labels))
    assert value("worst_recall") == pytest.approx(recalls.min())


def test_a_predictor_of_the_largest_class_has_no_merit() -> None:
    labels = np.repeat([0, 1, 2], [90, 6, 4])
    measures = evaluate(
        saying(np.zeros(100, int), 3), labels, resamples=draw_resamples(100, root=0, part="test")
    )
    assert measures[Key("accuracy")].value == pytest.approx(0.9)
    assert measures[Key("balanced_accuracy")].value == pytest.approx(1 / 3)
    worst = measures[Key("worst_recall")]
    assert worst.value == 0.0 and worst.interval is None and "interval of its own" in worst.why
    assert "a class has only 4 examples" in measures[Key("macro_f1")].why


def test_the_interval_is_that_of_independent_shares() -> None:
    """9 of 10 and 20 of 40: distances of Wilson's ends, their squares added, over two classes."""
    hits = np.zeros((50, 2))
    hits[:9, 0] = hits[10:30, 1] = 1
    is_of = np.repeat([[1.0, 0.0], [0.0, 1.0]], [10, 40], axis=0)
    bounds = of_mean_of_shares(np.hstack([hits, is_of]))

    (low_a, high_a), (low_b, high_b) = wilson(np.array(9), 10), wilson(np.array(20), 40)
    assert bounds.low == pytest.approx(0.7 - math.hypot(0.9 - low_a, 0.5 - low_b) / 2)
    assert bounds.high == pytest.approx(0.7 + math.hypot(high_a - 0.9, high_b - 0.5) / 2)

    # a class without an example changes nothing
    empty = np.zeros((50, 1))
    wider = of_mean_of_shares(np.hstack([hits, empty, is_of, empty]))
    assert wider == bounds


def test_the_paired_interval_of_one_class_is_that_of_a_share() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.random((60, 1)) < 0.7, generator.random((60, 1)) < 0.5)
    ones = np.ones((60, 1))
    paired = of_paired_means_of_shares(np.hstack([first, ones]), np.hstack([second, ones]))
    alone = of_paired_shares(first[:, 0].astype(float), second[:, 0].astype(float))
    assert (paired.low, paired.high) == pytest.approx((alone.low, alone.high))


def test_a_paired_difference_has_an_interval_and_its_sign() -> None:
    labels = np.repeat([0, 1], [80, 20])
    better, worse = labels.copy(), labels.copy()
    worse[80:95] = 0  # of the small class 5 of 20 are found
    paired = paired_difference(
        "balanced_accuracy",
        saying(better, 2),
        saying(worse, 2),
        labels,
        resamples=draw_resamples(100, root=0, part="test"),
    )
    assert paired.value == pytest.approx((1.0 - 0.25) / 2)
    assert paired.low is not None and paired.high is not None
    assert 0 < paired.low < paired.value < paired.high
