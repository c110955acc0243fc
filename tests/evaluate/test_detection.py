"""AUROC, AUPR and FPR95 against scikit-learn and their slow definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.detection import (
    average_precision,
    average_precision_pseudo,
    delong_components,
    delong_interval,
    false_positive_rate,
    roc_area,
    roc_area_pseudo,
)
from gped_nas.evaluate.predictions import Predictions

INFINITE = {-9.0: -np.inf, 9.0: np.inf}
SCORES = st.sampled_from([-9.0, -1.5, 0.0, 0.25, 0.5, 7.0, 9.0]) | st.floats(-5, 5)


@st.composite
def scored(draw, least=1):
    """Scores with ties and infinities, and whether they are positive."""
    scores = draw(st.lists(SCORES, min_size=least, max_size=30))
    positive = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    infinite = [INFINITE.get(score, score) for score in scores]
    return np.array(infinite), np.array(positive)


def finite_ranks(scores):
    """What scikit-learn takes: the same order, of finite numbers."""
    return np.searchsorted(np.unique(scores), scores).astype(float)


@given(scored())
def test_the_areas_are_those_of_scikit_learn(case):
    scores, positive = case
    ranks = finite_ranks(scores)
    if positive.any():
        expected = average_precision_score(positive, ranks)
        assert average_precision(scores, positive) == pytest.approx(expected)
    else:
        assert math.isnan(average_precision(scores, positive))

    if positive.any() and not positive.all():
        assert roc_area(scores, positive) == pytest.approx(roc_auc_score(positive, ranks))
    else:
        assert math.isnan(roc_area(scores, positive))


@given(scored())
def test_the_false_positive_rate_is_that_of_the_first_point_of_the_curve(case):
    scores, positive = case
    if not positive.any() or positive.all():
        assert math.isnan(false_positive_rate(scores, positive))
        return
    false, true, _ = roc_curve(positive, finite_ranks(scores), drop_intermediate=False)
    assert false_positive_rate(scores, positive) == pytest.approx(false[true >= 0.95 - 1e-9][0])


@given(scored(least=4))
def test_components_and_pseudo_values_are_those_of_pairs_and_of_leaving_out(case):
    scores, positive = case
    if positive.sum() < 2 or (~positive).sum() < 2:
        return

    above, below = scores[positive][:, None], scores[~positive]
    wins = (above > below) + 0.5 * (above == below)
    components = delong_components(scores, positive)
    assert components[positive] == pytest.approx(wins.mean(axis=1))
    assert components[~positive] == pytest.approx(wins.mean(axis=0))

    n = len(scores)
    for value_of, pseudo_of in (
        (roc_area, roc_area_pseudo),
        (average_precision, average_precision_pseudo),
    ):
        for i in range(n):
            without = value_of(np.delete(scores, i), np.delete(positive, i))
            slow = n * value_of(scores, positive) - (n - 1) * without
            assert pseudo_of(scores, positive)[i] == pytest.approx(slow, abs=1e-9)


def test_the_variance_is_that_of_delong():
    """The interval on the scale of the logit, by DeLong's equations written out."""
    generator = np.random.default_rng(0)
    positive = np.arange(60) < 20
    scores = generator.integers(0, 12, 60) + 3.0 * positive

    wins = scores[positive][:, None] > scores[~positive]
    wins = wins + 0.5 * (scores[positive][:, None] == scores[~positive])
    value = wins.mean()
    variance = wins.mean(1).var(ddof=1) / 20 + wins.mean(0).var(ddof=1) / 40
    bounds = delong_interval(scores, positive)

    logit = np.log(bounds.high / (1 - bounds.high)) - np.log(value / (1 - value))
    reach = logit * value * (1 - value) / np.sqrt(variance)
    assert 1.97 < reach < 2.1  # Student's t of 19 to 58 degrees of freedom
    assert bounds.low < value < bounds.high < 1
    assert delong_interval(np.arange(60.0), np.arange(60) >= 40).why.startswith("all examples")


def test_wrong_examples_are_positive_and_so_are_inputs_from_outside():
    prob = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55]])
    predictions = Predictions(np.log(prob))
    labels = np.array([0, 0, 1, 1])  # the third is wrong; the fourth is the least sure
    assert METRICS["misclassification_auroc_total"].value(predictions, labels) == 2 / 3
    assert METRICS["misclassification_aupr_confidence"].value(predictions, labels) == 0.5

    outside = np.array([0, 0, 1, 1])
    assert METRICS["ood_auroc_total"].value(predictions, outside) == 1.0
    assert METRICS["ood_fpr95_total"].value(predictions, outside) == 0.0
    assert METRICS["ood_fpr95_total"].value(predictions, 1 - outside) == 1.0
