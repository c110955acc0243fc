"""Scores of the normal predicted for a real label: CRPS, interval score, coverage at levels."""

from math import pi, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from gped_nas.data.base import Task
from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS, LabelFacts, Metric, add_metric
from gped_nas.evaluate.intervals import MIN_OF_A_CLASS
from gped_nas.evaluate.predictions import Floats, Labels, NormalPredictions

_REGRESSION: tuple[Task, ...] = ("regression",)
_MAIN = ("predictive_normal",)
LEVEL = 0.95
"""The share of labels that the interval of ``interval_score`` should hold."""
LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Levels of the registered coverages."""


def _crps_of_ignorance(facts: LabelFacts) -> float:
    """What the normal of the labels' mean and std can pay at most, whatever their distribution.

    E|X - y| is at most the root of E(X - y)^2, which is twice the variance.
    """
    assert facts.std is not None, "labels are real"
    return facts.std * (sqrt(2) - 1 / sqrt(pi))


@add_metric(
    "crps",
    "minimize",
    "CRPS (labels' unit)",
    always=False,
    tasks=_REGRESSION,
    reads=_MAIN,
    unit="labels' unit",
    worst=_crps_of_ignorance,
    best=0.0,
    bounds={"regression": 0.0},
)
def _crps(predictions: NormalPredictions, labels_N: Labels, teacher: Any) -> Floats:
    """Mean continuous ranked probability score of the predicted normal, in the labels' own unit.

    Source: Gneiting, Raftery, Westveld & Goldman 2005, Monthly Weather Review 133, equation 5.
    """
    std_N = np.sqrt(predictions.variance_N)
    z_N = (labels_N - predictions.mean_N) / std_N
    below_N = torch.special.ndtr(torch.from_numpy(z_N)).numpy()
    density_N = np.exp(-np.square(z_N) / 2) / sqrt(2 * pi)
    crps_N: Floats = std_N * (z_N * (2 * below_N - 1) + 2 * density_N - 1 / sqrt(pi))
    return crps_N[:, None]


def _interval_score_of_ignorance(facts: LabelFacts) -> float:
    """What the normal of the labels' mean and std can pay at most, whatever their distribution.

    With d standard deviations between mean and label, the excess over z is at most d^2 / (4 z).
    """
    assert facts.std is not None, "labels are real"
    z = _half_width(LEVEL)
    return facts.std * (2 * z + 2 / (1 - LEVEL) / (4 * z))


def _few_outside(predictions: NormalPredictions, labels_N: Labels, teacher: Any) -> str:
    """Doubts in a mean that a few labels outside make."""
    num = int((_outside(predictions, labels_N) > 0).sum())
    if num >= MIN_OF_A_CLASS:
        return ""
    return (
        f"only {num} of {len(labels_N)} labels are outside: how far such ones lie away is not known"
    )


def _outside(predictions: NormalPredictions, labels_N: Labels) -> Floats:
    """How far each label is outside its 95 % interval, (N,); 0 inside."""
    half_N = _half_width(LEVEL) * np.sqrt(predictions.variance_N)
    outside_N: Floats = np.maximum(np.abs(labels_N - predictions.mean_N) - half_N, 0.0)
    return outside_N


def _half_width(level: float) -> float:
    """Half the central interval of a level, in standard deviations."""
    return NormalDist().inv_cdf((1 + level) / 2)


@add_metric(
    "interval_score",
    "minimize",
    "interval score at 95 % (labels' unit)",
    always=False,
    tasks=_REGRESSION,
    reads=_MAIN,
    unit="labels' unit",
    worst=_interval_score_of_ignorance,
    best=0.0,
    bounds={"regression": 0.0},
    doubt=_few_outside,
)
def _interval_score(predictions: NormalPredictions, labels_N: Labels, teacher: Any) -> Floats:
    """Mean of the width of the central 95 % interval, and 40 times how far a label is outside.

    Source: Gneiting & Raftery 2007, J. Am. Stat. Assoc. 102, equation 43.
    """
    width_N = 2 * _half_width(LEVEL) * np.sqrt(predictions.variance_N)
    score_N: Floats = width_N + 2 / (1 - LEVEL) * _outside(predictions, labels_N)
    return score_N[:, None]


def coverage_metric(level: float) -> Metric:
    """``coverage_95``: the share of labels inside the central interval of a level.

    It should be the level, so it has no worst and no best value; as a constraint it is a lower
    bound. Ends belong to the interval.

    Raises:
        ConfigError: the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ConfigError(f"coverage: found level {level}, expected more than 0 and less than 1")

    def terms(predictions: NormalPredictions, labels_N: Labels, teacher: Any) -> Floats:
        half_N = _half_width(level) * np.sqrt(predictions.variance_N)
        outside_N = np.abs(labels_N - predictions.mean_N) - half_N
        return np.where(np.isnan(outside_N), np.nan, outside_N <= 0)[:, None]

    return Metric(
        f"coverage_{100 * level:g}",
        "maximize",
        f"coverage of the {100 * level:g} % interval (share)",
        terms,
        always=False,
        tasks=_REGRESSION,
        reads=_MAIN,
        interval="share",
        unit="share",
        bounds={"regression": 1.0},
    )


for _level in LEVELS:
    METRICS.add(coverage_metric(_level))
