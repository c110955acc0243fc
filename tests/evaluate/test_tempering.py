"""A temperature of answers: found where it is known, and applied as its formula says."""

import numpy as np
import pytest

from gped_nas.evaluate.predictions import NormalPredictions, Predictions
from gped_nas.evaluate.tempering import at_temperature, fitted_temperature


def test_answers_that_are_twice_too_sharp_ask_for_two() -> None:
    """Labels are drawn from p, and p^2 is said: T = 2 makes p of it again."""
    draw = np.random.default_rng(0)
    prob_NC = draw.dirichlet(np.ones(4), 20_000)
    labels = (prob_NC.cumsum(axis=1) < draw.random((20_000, 1))).sum(axis=1)
    sharp = at_temperature(Predictions(np.log(prob_NC)), 0.5)
    assert isinstance(sharp, Predictions)
    expected = prob_NC**2 / (prob_NC**2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(sharp.log_prob_NC), expected, atol=1e-12)
    assert fitted_temperature(sharp, labels) == pytest.approx(2, abs=0.06)


def test_normals_that_are_too_narrow_ask_for_their_ratio() -> None:
    """Of normals the best T is the mean squared error in units of the variance."""
    draw = np.random.default_rng(1)
    mean, variance = draw.normal(1e6, 5, 500), draw.uniform(0.5, 2, 500)
    labels = mean + 1.7 * np.sqrt(variance) * draw.normal(size=500)
    predictions = NormalPredictions(mean, variance)
    expected = np.mean((labels - mean) ** 2 / variance)
    fitted = fitted_temperature(predictions, labels)
    assert fitted == pytest.approx(expected, rel=1e-3)
    scaled = at_temperature(predictions, fitted)
    assert isinstance(scaled, NormalPredictions)
    assert np.array_equal(scaled.variance_N, variance * fitted)


def test_each_example_may_have_its_own_temperature() -> None:
    predictions = Predictions(np.log([[0.8, 0.2], [0.8, 0.2]]))
    scaled = at_temperature(predictions, np.array([1.0, 2.0]))
    assert isinstance(scaled, Predictions)
    # sqrt(.8) : sqrt(.2) is 2 : 1
    np.testing.assert_allclose(np.exp(scaled.log_prob_NC), [[0.8, 0.2], [2 / 3, 1 / 3]])


def test_a_class_that_cannot_be_stays_so() -> None:
    with np.errstate(divide="ignore"):
        predictions = Predictions(np.log([[1.0, 0.0]]))
    scaled = at_temperature(predictions, 3.0)
    assert isinstance(scaled, Predictions)
    assert scaled.log_prob_NC.tolist() == [[0.0, -np.inf]]
