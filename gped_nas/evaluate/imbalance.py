"""Metrics of classifiers on classes of very different sizes: each class counts the same.

Accuracy is the share of right examples, so that a predictor which never finds a class of 4 % of
them loses 4 points. The recall of a class is the share of its examples that are found.
"""

import numpy as np

from gped_nas.evaluate.base import LabelFacts, add_metric
from gped_nas.evaluate.intervals import MIN_OF_A_CLASS
from gped_nas.evaluate.predictions import Floats, Labels, Predictions


def _one_class(facts: LabelFacts) -> float:
    """The balanced accuracy of who says the same class of everything."""
    return 1.0 / facts.num_classes


def _hits_by_class(predictions: Predictions, labels_N: Labels) -> Floats:
    """Of each example and class, whether it was found, then whether it is the label: (N, 2C)."""
    is_label_NC = np.zeros(predictions.log_prob_NC.shape)
    is_label_NC[np.arange(len(labels_N)), labels_N] = 1.0

    is_found_N = (predictions.answer_N == labels_N).astype(np.float64)
    is_found_N[predictions.is_nan_N] = np.nan
    hits_NC = is_label_NC * is_found_N[:, None]
    return np.hstack([hits_NC, is_label_NC])


def _ratios(parts_RC: Floats, wholes_RC: Floats, absent: float) -> Floats:
    """A part of each whole, (R, C), and ``absent`` where there is nothing of a class."""
    ratios_RC = np.full(parts_RC.shape, absent)
    np.divide(parts_RC, wholes_RC, out=ratios_RC, where=wholes_RC > 0)
    # what is not a number stays so, whatever it belongs to
    ratios_RC[np.isnan(parts_RC)] = np.nan
    return ratios_RC


def _mean_ratio(sums_RT: Floats, n: int) -> Floats:
    """The mean over classes that are there of their ratios, (R,)."""
    parts_RC, wholes_RC = np.split(sums_RT, 2, axis=1)
    num_R = (wholes_RC > 0).sum(axis=1)
    values_R: Floats = _ratios(parts_RC, wholes_RC, 0.0).sum(axis=1) / num_R
    return values_R


def _least_ratio(sums_RT: Floats, n: int) -> Floats:
    parts_RC, wholes_RC = np.split(sums_RT, 2, axis=1)
    values_R: Floats = _ratios(parts_RC, wholes_RC, np.inf).min(axis=1)
    return values_R


@add_metric(
    "balanced_accuracy",
    "maximize",
    "balanced accuracy (share)",
    reads=("predictive",),
    combine=_mean_ratio,
    interval="mean_of_shares",
    unit="share",
    worst=_one_class,
    best=1.0,
    bounds={"classification": 1.0},
)
def _balanced_accuracy(
    predictions: Predictions, labels_N: Labels, teacher: Predictions | None
) -> Floats:
    """Mean of the recalls of all classes that have examples.

    Source: Brodersen, Ong, Stephan & Buhmann 2010, ICPR, section II.
    """
    return _hits_by_class(predictions, labels_N)


@add_metric(
    "worst_recall",
    "maximize",
    "recall of the worst class (share)",
    reads=("predictive",),
    combine=_least_ratio,
    doubt="the least of several shares is one that chance has made small; each class has an "
    "interval of its own on the student's card",
    unit="share",
    worst=0.0,
    best=1.0,
    bounds={"classification": 1.0},
)
def _worst_recall(
    predictions: Predictions, labels_N: Labels, teacher: Predictions | None
) -> Floats:
    """The least recall of a class that has examples: as a constraint, every class has as much."""
    return _hits_by_class(predictions, labels_N)


def _few_of_a_class(predictions: Predictions, labels_N: Labels, teacher: Predictions | None) -> str:
    """Doubts in a mean over classes where one has hardly any examples, or hardly any errors."""
    counts_C = np.bincount(labels_N, minlength=predictions.log_prob_NC.shape[1])
    found_C = np.bincount(predictions.answer_N, minlength=len(counts_C))
    least = int((counts_C + found_C)[counts_C + found_C > 0].min())
    if least >= 2 * MIN_OF_A_CLASS:
        return ""
    return (
        f"a class has only {least} examples among labels and answers together: how they spread is "
        "not known"
    )


@add_metric(
    "macro_f1",
    "maximize",
    "macro F1 (share)",
    reads=("predictive",),
    combine=_mean_ratio,
    doubt=_few_of_a_class,
    unit="share",
    worst=0.0,
    best=1.0,
    bounds={"classification": 1.0},
)
def _macro_f1(predictions: Predictions, labels_N: Labels, teacher: Predictions | None) -> Floats:
    """Mean over classes of the harmonic mean of precision and recall.

    It is twice the hits of a class over the examples of that label and those of that answer; a
    class that is neither label nor answer of any example is left out.

    Source: van Rijsbergen 1979, Information Retrieval, chapter 7; Opitz & Burst 2019,
        arXiv:1911.03347 (the mean of F1 scores, not the F1 of means).
    """
    hits = _hits_by_class(predictions, labels_N)
    hits_NC, is_label_NC = np.split(hits, 2, axis=1)
    is_answer_NC = np.zeros(is_label_NC.shape)
    is_answer_NC[np.arange(len(labels_N)), predictions.answer_N] = 1.0
    return np.hstack([2 * hits_NC, is_label_NC + is_answer_NC])
