"""Metrics of what is said of a real label beyond its mean and its variance."""

from math import sqrt
from statistics import NormalDist

import numpy as np

from gped_nas.evaluate.base import LabelFacts, add_metric
from gped_nas.evaluate.predictions import Floats, Labels, NormalPredictions, target_of
from gped_nas.targets.base import Target
from gped_nas.targets.label import ExceedanceSettings, LabelQuantileSettings

_REGRESSION = ("regression",)


def _off_by(
    predictions: NormalPredictions, teacher: NormalPredictions, name: str, unit_N: Floats
) -> Floats:
    """Mean absolute difference of what is said of a target, in a unit for each example, (N, 1)."""
    difference_NG = np.abs(predictions.expectations[name] - teacher.expectations[name])
    terms_N1: Floats = difference_NG.mean(axis=1, keepdims=True) / unit_N[:, None]
    return terms_N1


@add_metric(
    "model_variance_error",
    "minimize",
    "error of the model's variance (share of the teacher's variance)",
    tasks=_REGRESSION,
    reads=("model_variance",),
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"regression": 0.0},
    needs_teacher=True,
)
def _model_variance_error(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions
) -> Floats:
    """Mean absolute difference of the variances of the mean over the posterior.

    It is a share of the teacher's whole variance: that of the mean alone may be almost zero.
    """
    return _off_by(predictions, teacher, "model_variance", teacher.variance_N)


@add_metric(
    "noise_variance_error",
    "minimize",
    "error of the noise's variance (share of the teacher's variance)",
    tasks=_REGRESSION,
    reads=("noise_variance",),
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"regression": 0.0},
    needs_teacher=True,
)
def _noise_variance_error(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions
) -> Floats:
    """Mean absolute difference of the expected variances of the noise."""
    return _off_by(predictions, teacher, "noise_variance", teacher.variance_N)


# ----------------------------------------------------------------------------------- quantiles


def _levels(target: Target) -> tuple[float, ...]:
    assert isinstance(target.settings, LabelQuantileSettings)
    return target.settings.levels


def _pinball_of_ignorance(facts: LabelFacts) -> float:
    """What quantiles of the labels' mean and std can pay at most, whatever their distribution.

    With z standard deviations between mean and quantile, E max(quantile - label, 0) is at most
    std (sqrt(1 + z^2) + z) / 2. Source: Scarf 1958, A min-max solution of an inventory problem.
    """
    assert facts.std is not None, "labels are real"
    total = 0.0
    for level in _levels(facts.targets["label_quantile"]):
        z = NormalDist().inv_cdf(level)
        total += (sqrt(1 + z * z) + z) / 2 - level * z
    return facts.std * total


@add_metric(
    "label_quantile_loss",
    "minimize",
    "pinball loss of the label's quantiles (labels' unit, sum over levels)",
    tasks=_REGRESSION,
    reads=("label_quantile",),
    unit="labels' unit",
    worst=_pinball_of_ignorance,
    best=0.0,
    bounds={"regression": 0.0},
)
def _label_quantile_loss(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions | None
) -> Floats:
    """Mean pinball loss of the quantiles at the labels, summed over levels.

    Source: Koenker & Bassett 1978, Econometrica 46, equation 3.
    """
    level_L = np.array(_levels(target_of(predictions, "label_quantile")))
    above_NL = labels_N[:, None] - predictions.expectations["label_quantile"]
    terms_N1: Floats = np.maximum(level_L * above_NL, (level_L - 1) * above_NL).sum(
        axis=1, keepdims=True
    )
    return terms_N1


@add_metric(
    "label_quantile_error",
    "minimize",
    "error of the label's quantiles (teacher's std)",
    tasks=_REGRESSION,
    reads=("label_quantile",),
    unit="teacher's std",
    worst=1.0,
    best=0.0,
    bounds={"regression": 0.0},
    needs_teacher=True,
)
def _label_quantile_error(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions
) -> Floats:
    """Mean absolute difference of the quantiles, in the teacher's predictive std."""
    return _off_by(predictions, teacher, "label_quantile", np.sqrt(teacher.variance_N))


def _mean_gap(sums_RT: Floats, n: int) -> Floats:
    gap_R: Floats = np.abs(sums_RT / n).mean(axis=1)
    return gap_R


@add_metric(
    "label_quantile_coverage_error",
    "minimize",
    "coverage error of the label's quantiles (share)",
    tasks=_REGRESSION,
    reads=("label_quantile",),
    combine=_mean_gap,
    doubt="noise adds to it whatever its sign",
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"regression": 0.0},
)
def _label_quantile_coverage_error(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions | None
) -> Floats:
    """Mean over levels of |share of labels below the quantile - level|."""
    level_L = np.array(_levels(target_of(predictions, "label_quantile")))
    quantile_NL = predictions.expectations["label_quantile"]
    is_below = (labels_N[:, None] < quantile_NL) - level_L
    # Comparisons turn NaN into False: what is not a number stays so.
    terms_NL: Floats = np.where(np.isnan(quantile_NL), np.nan, is_below)
    return terms_NL


# ---------------------------------------------------------------------------------- exceedance


@add_metric(
    "exceedance_error",
    "minimize",
    "error of the exceedance probability (share)",
    tasks=_REGRESSION,
    reads=("exceedance",),
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"regression": 0.0},
    needs_teacher=True,
)
def _exceedance_error(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions
) -> Floats:
    """Mean absolute difference of the probabilities, over examples and thresholds."""
    return _off_by(predictions, teacher, "exceedance", np.ones(len(labels_N)))


@add_metric(
    "exceedance_brier",
    "minimize",
    "Brier score of exceedance (mean over thresholds)",
    tasks=_REGRESSION,
    reads=("exceedance",),
    worst=0.25,
    best=0.0,
    bounds={"regression": 0.0},
)
def _exceedance_brier(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions | None
) -> Floats:
    """Mean squared difference of the probability and whether the label exceeds the threshold.

    Saying one half has .25. Source: Brier 1950, Monthly Weather Review 78.
    """
    target = target_of(predictions, "exceedance")
    assert isinstance(target.settings, ExceedanceSettings)
    is_above = labels_N[:, None] > np.array(target.settings.thresholds)
    squared_NT = np.square(predictions.expectations["exceedance"] - is_above)
    terms_N1: Floats = squared_NT.mean(axis=1, keepdims=True)
    return terms_N1
