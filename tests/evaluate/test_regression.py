"""Metrics of normal predictions: by hand and against torch's distributions."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from gped_nas.errors import DataError
from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.judging import evaluate
from gped_nas.evaluate.metrics import reliability
from gped_nas.evaluate.predictions import NormalPredictions, Predictions
from gped_nas.evaluate.regression import LEVELS


def draw(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=n), 0.2 + generator.random(n)


def normal(predictions: NormalPredictions) -> Normal:
    return Normal(
        torch.from_numpy(predictions.mean_N), torch.from_numpy(predictions.variance_N).sqrt()
    )


def test_scores_are_those_of_a_normal_distribution() -> None:
    student = NormalPredictions(*draw(0))
    teacher = NormalPredictions(*draw(1))
    labels = draw(2)[0]
    nll = -normal(student).log_prob(torch.from_numpy(labels)).mean().item()
    assert METRICS["nll"].value(student, labels) == pytest.approx(nll)
    kl = kl_divergence(normal(teacher), normal(student)).mean().item()
    assert METRICS["kl_to_teacher"].value(student, labels, teacher) == pytest.approx(kl)


def test_errors_by_hand() -> None:
    student = NormalPredictions(np.array([1.0, 2.0]), np.array([1.1, 3.0]))
    teacher = NormalPredictions(np.array([1.5, 2.0]), np.array([1.0, 4.0]))
    labels = np.array([4.0, 6.0])
    # sqrt((3^2 + 4^2) / 2); (0.5 / 1 + 0 / 2) / 2; (0.1 + 0.25) / 2
    assert METRICS["rmse"].value(student, labels) == pytest.approx(12.5**0.5)
    assert METRICS["mean_error"].value(student, labels, teacher) == pytest.approx(0.25)
    assert METRICS["variance_error"].value(student, labels, teacher) == pytest.approx(0.175)


def test_coverage_by_hand() -> None:
    # The central 50 % of N(0, 1) ends at 0.67449, so 0.6745 is inside from .6 on; an exact hit is
    # always inside.
    student = NormalPredictions(np.zeros(2), np.ones(2))
    rows = reliability(student, np.array([0.0, 0.6745]))
    assert [row["accuracy"] for row in rows] == [0.5] * 5 + [1.0] * 4
    assert [row["confidence"] for row in rows] == pytest.approx(LEVELS)


def test_calibrated_predictions_cover_as_they_say() -> None:
    labels = np.random.default_rng(0).normal(size=40_000)
    right = NormalPredictions(np.zeros(40_000), np.ones(40_000))
    wide = NormalPredictions(np.zeros(40_000), np.full(40_000, 4.0))
    coverage_error = METRICS["coverage_error"]
    four_standard_errors = 4 * 0.5 / 200
    assert coverage_error.value(right, labels) < four_standard_errors
    assert coverage_error.value(wide, labels) > 0.15


def test_what_does_not_fit_is_refused() -> None:
    student = NormalPredictions(*draw(0))
    labels = draw(2)[0]
    resamples = draw_resamples(40, root=0, part="test", num_resamples=10)
    classes = Predictions(np.log(np.full((40, 2), 0.5)))
    refused: tuple[tuple[Any, str], ...] = (
        ((student, labels.astype(int)), "expected 40 floats"),
        ((student, labels, classes), "expected means of shape"),
        ((classes, labels.astype(int) * 0, student), "expected probabilities of shape"),
        ((student, labels, NormalPredictions(*draw(1, 39))), r"found means of shape \(39,\)"),
    )
    for arguments, message in refused:
        with pytest.raises(DataError, match=message):
            evaluate(*arguments, resamples=resamples)
    with pytest.raises(DataError, match="expected"):
        NormalPredictions(np.zeros(3), np.zeros(2))
