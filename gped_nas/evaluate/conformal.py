"""Sets of classes, and intervals of real labels, that hold the label as often as they say.

A score says how badly a label fits what is predicted. A threshold is taken from the scores of n
examples whose labels are known: the k-th smallest, k = ceil((n + 1) (1 - alpha)). The set of an
input has all labels whose score is not above it. Where these n and the new example come in any
order alike (which chose nothing), the set holds the label with a probability of at least 1 - alpha,
over the draw of all of them; of given n it is a little more or less.

* ``split``, of classes: the score is 1 - p_y. Sets are small, and may be empty.
* ``aps``, of classes: the score is the probability of all classes that are at least as likely as
  y. Sets adapt to how hard an input is, and are larger; there is none that is empty but where the
  threshold is below every largest probability.
* ``split``, of real labels: the score is ``|y - mean| / std``, so that intervals are as wide as the
  prediction says, all of them stretched by one factor.

Source: Vovk, Gammerman & Shafer 2005 (split, here as Sadinle, Lei & Wasserman 2019,
arXiv:1609.00451, score classes); Romano, Sesia & Candes 2020, arXiv:2006.02544 (APS, here without
its random part, so that an answer is the same every time: coverage is then above what is asked
for); Lei et al. 2018, arXiv:1604.04173, section 5.2 (normalized by the predictive deviation).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gped_nas.evaluate.base import Metric
from gped_nas.evaluate.predictions import AnyPredictions, Floats, Labels, Predictions

_ROUNDING = 1e-9
"""Of (n + 1) (1 - alpha), which may be a whole number."""


def _split_scores(predictions: Predictions) -> Floats:
    scores_NC: Floats = 1 - np.exp(predictions.log_prob_NC)
    return scores_NC


def _aps_scores(predictions: Predictions) -> Floats:
    """The probability of all classes that are at least as likely as each, (N, C)."""
    prob_NC = np.exp(predictions.log_prob_NC)
    order_NC = np.argsort(-prob_NC, axis=1, kind="stable")
    sorted_NC = np.take_along_axis(prob_NC, order_NC, axis=1)
    sums_NC = sorted_NC.cumsum(axis=1)

    # classes that are equally likely share the sum of the last one of them
    last = sorted_NC.shape[1] - 1
    ends_NC = np.full(sorted_NC.shape, last)
    ends_NC[:, :-1] = np.where(sorted_NC[:, :-1] != sorted_NC[:, 1:], np.arange(last), last)
    ends_NC = np.minimum.accumulate(ends_NC[:, ::-1], axis=1)[:, ::-1]
    shared_NC = np.take_along_axis(sums_NC, ends_NC, axis=1)

    scores_NC = np.empty_like(shared_NC)
    np.put_along_axis(scores_NC, order_NC, shared_NC, axis=1)
    return scores_NC


CLASS_RULES: Mapping[str, Callable[[Predictions], Floats]] = {
    "split": _split_scores,
    "aps": _aps_scores,
}
"""By name the scores of all classes, (N, C)."""


def rules_for(predictions: AnyPredictions) -> tuple[str, ...]:
    """The rules that there are for such predictions."""
    return tuple(CLASS_RULES) if isinstance(predictions, Predictions) else ("split",)


def scores_of_labels(rule: str, predictions: AnyPredictions, labels_N: Labels) -> Floats:
    """How badly each label fits, (N,)."""
    if isinstance(predictions, Predictions):
        return CLASS_RULES[rule](predictions)[np.arange(len(labels_N)), labels_N]
    distance_N: Floats = np.abs(labels_N - predictions.mean_N)
    return distance_N / np.sqrt(predictions.variance_N)


def threshold(scores_N: Floats, alpha: float) -> float:
    """The largest score of a label in the set; infinite where too few scores are known.

    Args:
        scores_N: of held-out labels, in any order.
        alpha: the share of labels that sets may miss.
    """
    rank = ceil((len(scores_N) + 1) * (1 - alpha) - _ROUNDING)
    if rank > len(scores_N):
        return float("inf")
    return float(np.sort(scores_N)[rank - 1])


def sets(rule: str, predictions: Predictions, threshold_N: Floats | float) -> NDArray[np.bool_]:
    """Which classes are in the set of each example, (N, C)."""
    limit = np.reshape(threshold_N, (-1, 1))
    is_in_NC: NDArray[np.bool_] = CLASS_RULES[rule](predictions) <= limit
    return is_in_NC


def bounds(predictions: AnyPredictions, threshold_N: Floats | float) -> tuple[Floats, Floats]:
    """The ends of the interval of each example, (N,) twice, in the labels' own unit."""
    assert not isinstance(predictions, Predictions), "classes have sets"
    half_N = threshold_N * np.sqrt(predictions.variance_N)
    return predictions.mean_N - half_N, predictions.mean_N + half_N


@dataclass(frozen=True, eq=False)
class Conformal:
    """A rule with its threshold for each of N examples.

    Attributes:
        rule: ``split`` or ``aps``.
        threshold_N: the same for all, unless each half was fitted on the other one.
        few: why thresholds are infinite; empty where they are not.
    """

    rule: str
    threshold_N: Floats
    few: str = ""

    def metrics(self, *, is_regression: bool) -> tuple[Metric, Metric]:
        """How often the label is inside, and how large the sets are. Nobody registered them."""
        tasks: Any = ("regression",) if is_regression else ("classification",)
        coverage = Metric(
            f"{self.rule}_coverage",
            "maximize",
            f"coverage of conformal {'intervals' if is_regression else 'sets'} ({self.rule})",
            self._covers,
            tasks=tasks,
            always=False,
            interval="share",
            unit="share",
        )
        size = Metric(
            f"{self.rule}_{'width' if is_regression else 'set_size'}",
            "minimize",
            "width of conformal intervals" if is_regression else "classes in a conformal set",
            self._sizes,
            tasks=tasks,
            always=False,
            unit="" if is_regression else "classes",
            undefined=self.few,
        )
        return coverage, size

    def _covers(self, predictions: AnyPredictions, labels_N: Labels, teacher: Any) -> Floats:
        scores_N = scores_of_labels(self.rule, predictions, labels_N)
        is_inside_N = scores_N <= self.threshold_N
        return np.where(np.isnan(scores_N), np.nan, is_inside_N)[:, None]

    def _sizes(self, predictions: AnyPredictions, labels_N: Labels, teacher: Any) -> Floats:
        if isinstance(predictions, Predictions):
            num_N = sets(self.rule, predictions, self.threshold_N).sum(axis=1)
            return np.where(predictions.is_nan_N, np.nan, num_N)[:, None]
        low_N, high_N = bounds(predictions, self.threshold_N)
        widths_N1: Floats = (high_N - low_N)[:, None]
        return widths_N1
