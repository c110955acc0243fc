"""Metrics of predictions for real labels: error, calibration of intervals, agreement of moments."""

from typing import Any

import numpy as np
import torch

from gped_nas import rng
from gped_nas.evaluate.base import LabelFacts, add_metric
from gped_nas.evaluate.intervals import TAIL
from gped_nas.evaluate.predictions import Floats, Labels, NormalPredictions

LEVELS = np.arange(1, 10) / 10
"""Nominal coverages of the central intervals whose true coverage is measured."""
_REGRESSION = ("regression",)
_MAIN = ("predictive_normal",)


def _root_mean(sums_RT: Floats, n: int) -> Floats:
    root_R: Floats = np.sqrt(sums_RT[:, 0] / n)
    return root_R


def _mean_gap(sums_RT: Floats, n: int) -> Floats:
    gap_R: Floats = np.abs(sums_RT / n - LEVELS).mean(axis=1)
    return gap_R


def _noise_of_coverage(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions | None
) -> str:
    """Where the errors of calibrated models lie: their shares have multinomial noise alone."""
    n = len(labels_N)
    generator = np.random.default_rng(rng.seed(0, "coverage of calibrated"))
    shares = np.full(len(LEVELS) + 1, 1 / (len(LEVELS) + 1))
    inside_RL = generator.multinomial(n, shares, size=1000).cumsum(axis=1)[:, :-1]
    low, high = np.quantile(_mean_gap(inside_RL, n), (TAIL, 1 - TAIL)).tolist()
    return (
        "noise adds to it whatever its sign: calibrated models have "
        f"{low:.4f} to {high:.4f} on {n} examples"
    )


def coverage(predictions: NormalPredictions, labels_N: Labels) -> list[dict[str, Any]]:
    """The reliability diagram of intervals: a row for each of ``LEVELS``.

    A row is ``{"confidence", "accuracy", "count"}``: ``confidence`` is the nominal coverage of a
    central interval, ``accuracy`` the share of labels inside it.

    Source: Kuleshov, Fenner & Ermon 2018, arXiv:1807.00263, section 3.
    """
    shares = _inside(predictions, labels_N).mean(axis=0)
    return [
        {"confidence": float(level), "accuracy": float(share), "count": len(labels_N)}
        for level, share in zip(LEVELS, shares, strict=True)
    ]


def _inside(predictions: NormalPredictions, labels_N: Labels) -> Floats:
    """1 where the label lies in the central interval of each level, shape (N, levels)."""
    distance = np.abs(labels_N - predictions.mean_N) / np.sqrt(predictions.variance_N)
    covered: Floats = 2 * torch.special.ndtr(torch.from_numpy(distance)).numpy() - 1
    is_inside = covered[:, None] <= LEVELS
    return np.where(np.isnan(covered)[:, None], np.nan, is_inside)


def _spread_of_labels(facts: LabelFacts) -> float:
    assert facts.std is not None, "labels are real"
    return facts.std


@add_metric(
    "rmse",
    "minimize",
    "RMSE (labels' unit)",
    tasks=_REGRESSION,
    reads=_MAIN,
    combine=_root_mean,
    unit="labels' unit",
    worst=_spread_of_labels,
    best=0.0,
    bounds={"regression": 0.0},
)
def _rmse(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions | None
) -> Floats:
    """Root of the mean squared error of the mean, in the labels' own unit."""
    terms_N1: Floats = np.square(predictions.mean_N - labels_N)[:, None]
    return terms_N1


@add_metric(
    "coverage_error",
    "minimize",
    "coverage error (share)",
    tasks=_REGRESSION,
    reads=_MAIN,
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"regression": 0.0},
    combine=_mean_gap,
    doubt=_noise_of_coverage,
)
def _coverage_error(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions | None
) -> Floats:
    """Mean over the levels .1 to .9 of |share of labels inside the central interval - level|.

    Source: Kuleshov, Fenner & Ermon 2018, arXiv:1807.00263, equation 9, with the absolute in place
        of the squared gap.
    """
    return _inside(predictions, labels_N)


@add_metric(
    "mean_error",
    "minimize",
    "error of the mean (teacher's std)",
    tasks=_REGRESSION,
    reads=_MAIN,
    unit="teacher's std",
    worst=1.0,
    best=0.0,
    bounds={"regression": 0.0},
    needs_teacher=True,
)
def _mean_error(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions
) -> Floats:
    """Mean absolute difference of the two means, in the teacher's predictive std."""
    difference_N = np.abs(predictions.mean_N - teacher.mean_N)
    terms_N: Floats = difference_N / np.sqrt(teacher.variance_N)
    return terms_N[:, None]


@add_metric(
    "variance_error",
    "minimize",
    "error of the variance (share of it)",
    tasks=_REGRESSION,
    reads=_MAIN,
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"regression": 0.0},
    needs_teacher=True,
)
def _variance_error(
    predictions: NormalPredictions, labels_N: Labels, teacher: NormalPredictions
) -> Floats:
    """Mean absolute difference of the two predictive variances, as a share of the teacher's."""
    terms_N1: Floats = np.abs(predictions.variance_N / teacher.variance_N - 1)[:, None]
    return terms_N1
