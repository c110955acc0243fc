"""Calibration errors beside the ECE: of every class, and with bins of equally many examples.

Both add up absolute gaps between probabilities and shares, so that noise adds to them whatever its
sign: neither carries an interval. ``ece_debiased`` has one.
"""

from typing import Any

import numpy as np

from gped_nas.evaluate.base import LabelFacts, add_metric
from gped_nas.evaluate.metrics import ECE_BINS, bin_of, correct, sum_of_gaps
from gped_nas.evaluate.predictions import Floats, Labels, Predictions

_NOISE = "noise adds to it whatever its sign; see ece_debiased"


def _all_on_a_wrong_class(facts: LabelFacts) -> float:
    """Of each example, the class that is sure and the label are off by 1; the mean is over C."""
    return 2.0 / facts.num_classes


@add_metric(
    "classwise_ece",
    "minimize",
    "classwise ECE (15 bins, L1, mean over classes)",
    always=False,
    reads=("predictive",),
    combine=sum_of_gaps,
    doubt=_NOISE,
    doubt_cancels=True,
    unit="share",
    worst=_all_on_a_wrong_class,
    best=0.0,
    bounds={"classification": 0.0},
)
def _classwise_ece(predictions: Predictions, labels_N: Labels, teacher: Any) -> Floats:
    """Mean over classes of the mean gap between a class' probability and its share in a bin.

    The 15 bins of each class' probability have equal width over [0, 1] and are right-closed.

    Source: Kull et al. 2019, arXiv:1910.12656, equation 3.
    """
    prob_NC = predictions.expectations["predictive"]
    n, num_classes = prob_NC.shape
    gap_NC = prob_NC.copy()
    gap_NC[np.arange(n), labels_N] -= 1.0

    # One column a class and bin, so that the absolute value is taken of each sum.
    terms_NCB = np.zeros((n, num_classes, ECE_BINS))
    bin_NC = bin_of(prob_NC, ECE_BINS)
    np.put_along_axis(terms_NCB, bin_NC[..., None], gap_NC[..., None] / num_classes, axis=2)
    return terms_NCB.reshape(n, -1)


def adaptive_ece(terms_N2: Floats, bins: int = ECE_BINS) -> float:
    """The mean gap between confidence and accuracy in bins of equally many examples.

    Examples of equal confidence are in one bin, that of the middle one of them.

    Args:
        terms_N2: confidence, and whether the top class is the label.
        bins: how many; of fewer examples each has a bin of its own.
    """
    confidence_N, correct_N = terms_N2.T
    _, group_N, size_G = np.unique(confidence_N, return_inverse=True, return_counts=True)
    middle_G = np.cumsum(size_G) - size_G / 2
    bin_G = np.minimum((middle_G * bins / len(confidence_N)).astype(np.intp), bins - 1)
    gaps = np.bincount(bin_G[group_N], confidence_N - correct_N)
    return float(np.abs(gaps).sum() / len(confidence_N))


@add_metric(
    "adaptive_ece",
    "minimize",
    "adaptive ECE (15 bins of equal mass, L1)",
    always=False,
    reads=("predictive",),
    whole=adaptive_ece,
    doubt=_NOISE,
    doubt_cancels=True,
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"classification": 0.0},
)
def _adaptive_ece(predictions: Predictions, labels_N: Labels, teacher: Any) -> Floats:
    """See ``adaptive_ece``.

    Source: Nguyen & O'Connor 2015, arXiv:1508.05154, section 4 (bins of equal mass); Nixon et al.
        2019, arXiv:1904.01685, section 3.3, whose error is of all classes.
    """
    return np.stack([predictions.confidence_N, correct(predictions, labels_N)], axis=1)
