"""The calibration error without its noise, and the band of calibrated models."""

import numpy as np
import pytest

from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.calibration import band_of_calibrated, debias
from gped_nas.evaluate.judging import evaluate
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.metrics import ECE_BINS
from gped_nas.evaluate.predictions import Predictions


def predicted(n, seed, overconfidence=1.0):
    """Two classes; the logit of the top one is true for an overconfidence of 1."""
    generator = np.random.default_rng(seed)
    logit = np.abs(generator.normal(1, 1.5, n))
    labels = (generator.random(n) > 1 / (1 + np.exp(-logit))).astype(np.int64)
    top = 1 / (1 + np.exp(-overconfidence * logit))
    return Predictions(np.log(np.c_[top, 1 - top])), labels


def measured(*arguments):
    predictions, labels = predicted(*arguments)
    resamples = draw_resamples(len(labels), root=0, part="validation", num_resamples=100)
    return evaluate(predictions, labels, resamples=resamples)


def test_the_plain_error_says_what_calibrated_models_would_have():
    ece = measured(400, 0)[Key("ece")]
    assert ece.interval is None
    assert ece.why == (
        "noise adds to it whatever its sign: calibrated models with these confidences have "
        "0.0213 to 0.0699; see ece_debiased"
    )


def test_the_band_is_that_of_drawn_labels():
    predictions, _ = predicted(400, 0)
    confidence = np.exp(predictions.log_prob_NC.max(axis=1))
    bins = np.ceil(confidence * ECE_BINS).astype(int) - 1
    band = band_of_calibrated(np.bincount(bins), np.bincount(bins, confidence))

    # 2,000 label sets; their 2.5 % quantiles are known to about .001.
    generator = np.random.default_rng(1)
    drawn = []
    for _ in range(2000):
        labels = (generator.random(400) > confidence).astype(np.int64)
        top_class = predictions.log_prob_NC.argmax(axis=1)
        drawn.append(METRICS["ece"].value(predictions, np.abs(top_class - labels)))
    assert band == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.003)


def test_of_a_calibrated_model_little_is_left():
    # Half of all estimates are zero: the plain error is below its median half of the time.
    plain, debiased = [], []
    for seed in range(100):
        measures = measured(400, seed)
        plain.append(measures[Key("ece")].value)
        debiased.append(measures[Key("ece_debiased")].value)
        assert measures[Key("ece_debiased")].low <= measures[Key("ece_debiased")].value
    assert 0.35 < np.mean(np.array(debiased) == 0) < 0.65
    assert np.mean(debiased) < 0.45 * np.mean(plain)


def test_of_an_overconfident_model_the_error_is_left():
    # Of 200,000 examples the plain error is the true one, .0966 for this model.
    truth = METRICS["ece"].value(*predicted(200_000, 9, 2.0))
    values = [measured(400, seed, 2.0)[Key("ece_debiased")].value for seed in range(30)]
    # the mean of 30 has a standard error of about .004
    assert np.mean(values) == pytest.approx(truth, abs=0.014)


def test_an_empty_error_is_not_sure():
    # Of 50 at confidence .6 thirty are right, of 50 at .8 forty: the gaps are zero by luck.
    top = np.repeat([0.6, 0.8], 50)
    labels = np.repeat([0, 1, 0, 1], [30, 20, 40, 10])
    resamples = draw_resamples(100, root=0, part="validation")
    predictions = Predictions(np.log(np.c_[top, 1 - top]))
    error = evaluate(predictions, labels, resamples=resamples)[Key("ece_debiased")]
    assert (error.value, error.low) == (0.0, 0.0)
    assert 0.03 < error.high < 0.15


def test_what_is_not_a_number_stays_so():
    assert np.isnan(debias(np.array([np.nan]), np.ones(1), np.ones(1)).value)
