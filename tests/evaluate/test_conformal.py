"""Conformal sets: scores and thresholds by hand, and the law of their coverage."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gped_nas.evaluate.conformal import (
    CLASS_RULES,
    Conformal,
    bounds,
    rules_for,
    scores_of_labels,
    sets,
    threshold,
)
from gped_nas.evaluate.predictions import Floats, NormalPredictions, Predictions


def said(*rows: tuple[float, ...]) -> Predictions:
    with np.errstate(divide="ignore"):
        return Predictions(np.log(np.array(rows)))


def test_scores_by_hand() -> None:
    predictions = said((0.7, 0.2, 0.1), (0.4, 0.2, 0.4), (0.0, 1.0, 0.0))
    split = [[0.3, 0.8, 0.9], [0.6, 0.8, 0.6], [1.0, 0.0, 1.0]]
    # of the second row both likeliest classes share .4 + .4
    aps = [[0.7, 0.9, 1.0], [0.8, 1.0, 0.8], [1.0, 1.0, 1.0]]
    np.testing.assert_allclose(CLASS_RULES["split"](predictions), split, atol=1e-15)
    np.testing.assert_allclose(CLASS_RULES["aps"](predictions), aps, atol=1e-15)
    assert rules_for(predictions) == ("split", "aps")


@given(
    hnp.arrays(
        float,
        st.tuples(st.integers(1, 4), st.integers(1, 6)),
        elements=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]),
    )
)
@settings(max_examples=60, deadline=None)
def test_aps_is_the_sum_over_classes_that_are_as_likely(weights_NC: Floats) -> None:
    prob_NC = (weights_NC + 1e-3) / (weights_NC + 1e-3).sum(axis=1, keepdims=True)
    predictions = Predictions(np.log(prob_NC))
    prob_NC = np.exp(predictions.log_prob_NC)
    is_as_likely_NCC = prob_NC[:, None, :] >= prob_NC[:, :, None]
    expected = (is_as_likely_NCC * prob_NC[:, None, :]).sum(axis=2)
    np.testing.assert_allclose(CLASS_RULES["aps"](predictions), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "alpha", "rank"),
    [(9, 0.1, 9), (8, 0.1, None), (19, 0.1, 18), (10, 0.5, 6), (9, 0.3, 7), (99, 0.05, 95)],
)
def test_the_threshold_is_the_score_of_its_rank(n: int, alpha: float, rank: int | None) -> None:
    """(n + 1) (1 - alpha), rounded up: of 9 scores and alpha .1, the 9th."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert threshold(scores, alpha) == (np.inf if rank is None else rank)


@pytest.mark.parametrize("alpha", [0.1, 0.25])
def test_coverage_has_its_exact_mean(alpha: float) -> None:
    """Of scores without ties it is k / (n + 1), over calibration and test examples.

    20,000 pairs of 30 calibration examples and a test example: four standard errors see .009.
    """
    n, num = 30, 20_000
    draw = np.random.default_rng(1)
    mean_RN, std_RN = draw.normal(size=(num, n + 1)), draw.uniform(0.5, 2, (num, n + 1))
    labels_RN = mean_RN + std_RN * draw.standard_t(3, (num, n + 1))

    hits = 0.0
    for mean_N, std_N, label_N in zip(mean_RN, std_RN, labels_RN, strict=True):
        predictions = NormalPredictions(mean_N, std_N**2)
        scores_N = scores_of_labels("split", predictions, label_N)
        hits += scores_N[-1] <= threshold(scores_N[:-1], alpha)
    expected = ceil((n + 1) * (1 - alpha)) / (n + 1)
    assert hits / num == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / num))


@pytest.mark.parametrize("rule", CLASS_RULES)
def test_a_label_is_covered_where_it_is_in_the_set(rule: str) -> None:
    draw = np.random.default_rng(2)
    predictions = Predictions(np.log(draw.dirichlet(np.ones(5), 200)))
    labels = draw.integers(0, 5, 200)
    limit_N = np.where(np.arange(200) % 2, 0.6, 0.9)  # each half has a threshold of its own
    coverage, size = Conformal(rule, limit_N).metrics(is_regression=False)
    is_in_NC = sets(rule, predictions, limit_N)
    covered = coverage.checked_terms(predictions, labels, None)[:, 0]
    assert covered.tolist() == is_in_NC[np.arange(200), labels].tolist()
    assert size.value(predictions, labels) == is_in_NC.sum(axis=1).mean()
    assert (coverage.name, size.name) == (f"{rule}_coverage", f"{rule}_set_size")


def test_an_interval_is_as_wide_as_the_prediction_says() -> None:
    predictions = NormalPredictions(np.array([0.0, 10.0]), np.array([1.0, 4.0]))
    low, high = bounds(predictions, 1.5)
    assert (low.tolist(), high.tolist()) == ([-1.5, 7.0], [1.5, 13.0])
    labels = np.array([1.5, 13.1])
    coverage, width = Conformal("split", np.full(2, 1.5)).metrics(is_regression=True)
    assert coverage.checked_terms(predictions, labels, None).tolist() == [[1.0], [0.0]]
    assert width.value(predictions, labels) == 4.5
    assert rules_for(predictions) == ("split",)


def test_what_is_no_number_is_in_no_set_and_says_so() -> None:
    predictions = Predictions(np.array([[np.nan, 0.0], [-0.1, -2.3]]))
    for metric in Conformal("split", np.full(2, 0.5)).metrics(is_regression=False):
        terms = metric.checked_terms(predictions, np.array([0, 0]), None)[:, 0]
        assert np.isnan(terms[0]) and terms[1] == 1
