"""How well a score tells positive examples from the others: AUROC, AUPR and FPR95.

Positive examples should score higher. Equal scores count half in AUROC, and are one threshold in
AUPR and FPR95. Without examples of both kinds there is no value. scikit-learn has the first two
without intervals; to import it takes longer than they do.

Source: DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44 (variance of AUROC); Davis & Goadrich
2006, ICML (AUPR as average precision, not by trapezoids); Liang, Li & Srikant 2018,
arXiv:1706.02690 (FPR95).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gped_nas.evaluate.intervals import Bounds, of_area
from gped_nas.evaluate.predictions import Floats
from gped_nas.evaluate.uncertainty import auroc

Bools = NDArray[np.bool_]
SHARE_DETECTED = 0.95
"""Share of positive examples that a detector must find in FPR95."""


def roc_area(scores_N: Floats, is_positive_N: Bools) -> float:
    """The AUROC: how often a positive example scores higher than another one.

    NaN without examples of both kinds.
    """
    if is_positive_N.all() or not is_positive_N.any():
        return math.nan
    return auroc(scores_N[~is_positive_N], scores_N[is_positive_N])


def delong_components(scores_N: Floats, is_positive_N: Bools) -> Floats:
    """Of each example the share of the others' kind that it is ranked right with, (N,).

    A tie counts half. The mean over the positive examples is the AUROC, and so is that over the
    negative ones.

    Source: DeLong et al. 1988, equations 4 and 5.
    """
    negative, positive = np.sort(scores_N[~is_positive_N]), np.sort(scores_N[is_positive_N])
    shares_N = np.empty(len(scores_N))
    shares_N[is_positive_N] = _share_below(negative, scores_N[is_positive_N])
    shares_N[~is_positive_N] = 1 - _share_below(positive, scores_N[~is_positive_N])
    return shares_N


def _share_below(ordered: Floats, values: Floats) -> Floats:
    """Share of ordered numbers below each value; those that equal it count half."""
    num_below = np.searchsorted(ordered, values, side="left")
    num_at_most = np.searchsorted(ordered, values, side="right")
    share: Floats = (num_below + num_at_most) / (2 * len(ordered))
    return share


def delong_interval(scores_N: Floats, is_positive_N: Bools) -> Bounds:
    """The 95 % interval of the AUROC: DeLong's variance, on the scale of its logit.

    The quantile is Student's t with Satterthwaite's degrees of freedom, since the fewer examples of
    the two kinds carry most of the variance. There is none where every example is ranked right, or
    every one wrong: their spread is not known.
    """
    shares_N = delong_components(scores_N, is_positive_N)
    value = float(shares_N[is_positive_N].mean())

    parts, inverse_degrees = [], 0.0
    for shares in (shares_N[is_positive_N], shares_N[~is_positive_N]):
        part = float(shares.var(ddof=1)) / len(shares)
        parts.append(part)
        inverse_degrees += part**2 / (len(shares) - 1)
    degrees = sum(parts) ** 2 / inverse_degrees if inverse_degrees else 1.0
    return of_area(value, sum(parts), degrees)


def roc_area_pseudo(scores_N: Floats, is_positive_N: Bools) -> Floats:
    """Jackknife pseudo-values, (N,): a closed form of DeLong's components.

    An example adds the distance of its component from the mean, (n - 1) / (examples of its kind -
    1) times.
    """
    shares_N = delong_components(scores_N, is_positive_N)
    value = shares_N[is_positive_N].mean()
    num_positive = is_positive_N.sum()
    num_N = np.where(is_positive_N, num_positive, len(shares_N) - num_positive)
    pseudo_N: Floats = value + (len(shares_N) - 1) / (num_N - 1) * (shares_N - value)
    return pseudo_N


def average_precision(scores_N: Floats, is_positive_N: Bools) -> float:
    """The area under the curve of precision over recall, in steps: AUPR.

    Each threshold adds its precision times what it adds to recall. NaN without a positive example.
    """
    num_found, num_above = _counts_at_thresholds(scores_N, is_positive_N)
    if num_found[-1] == 0:
        return math.nan
    added = np.diff(num_found, prepend=0)
    return float((added * num_found / num_above).sum() / num_found[-1])


def average_precision_pseudo(scores_N: Floats, is_positive_N: Bools) -> Floats:
    """Jackknife pseudo-values of the average precision, (N,), of two positive examples or more.

    Thresholds above an example keep their precision without it; at its own and below there is one
    found less, or one other less.
    """
    num_found, num_above = _counts_at_thresholds(scores_N, is_positive_N)
    added = np.diff(num_found, prepend=0)
    num_positive, n = num_found[-1], len(scores_N)

    parts = added * num_found / num_above
    one_less = np.maximum(num_above - 1, 1)
    above = np.cumsum(parts) - parts
    from_here = _sums_from_here(added * num_found / one_less)
    below_found = added * (num_found - 1) / one_less
    own = (added - 1) * (num_found - 1) / one_less
    without_negative = (above + from_here) / num_positive
    without_positive = (above + own + _sums_from_here(below_found) - below_found) / (
        num_positive - 1
    )

    levels = np.unique(-scores_N, return_inverse=True)[1]
    without_N = np.where(is_positive_N, without_positive[levels], without_negative[levels])
    pseudo_N: Floats = n * parts.sum() / num_positive - (n - 1) * without_N
    return pseudo_N


def average_precision_interval(scores_N: Floats, is_positive_N: Bools) -> Bounds:
    """The 95 % interval of the average precision: its jackknife variance, as of ``of_area``.

    Student's t has as many degrees of freedom as the rarer kind of examples lets it.
    """
    pseudo_N = average_precision_pseudo(scores_N, is_positive_N)
    num_positive = int(is_positive_N.sum())
    fewer = min(num_positive, len(scores_N) - num_positive)
    value = average_precision(scores_N, is_positive_N)
    return of_area(value, float(pseudo_N.var(ddof=1)) / len(pseudo_N), fewer - 1)


def false_positive_rate(
    scores_N: Floats, is_positive_N: Bools, share_detected: float = SHARE_DETECTED
) -> float:
    """The share of negative examples at or above the highest threshold that finds enough: FPR95.

    It is the threshold at or above which at least ``share_detected`` of the positive examples are.
    NaN without examples of both kinds.
    """
    num_found, num_above = _counts_at_thresholds(scores_N, is_positive_N)
    num_positive, num_negative = num_found[-1], num_above[-1] - num_found[-1]
    if num_positive == 0 or num_negative == 0:
        return math.nan

    # 95 of 100 are enough: rounding must not ask for the 96th
    first = int(np.argmax(num_found >= share_detected * num_positive - 1e-9))
    return float((num_above[first] - num_found[first]) / num_negative)


def _sums_from_here(values: Floats) -> Floats:
    sums: Floats = np.cumsum(values[::-1])[::-1]
    return sums


def _counts_at_thresholds(scores_N: Floats, is_positive_N: Bools) -> tuple[Any, Any]:
    """Positive examples, and all, that score at least each distinct score, from the highest one."""
    order = np.argsort(-scores_N, kind="stable")
    ordered = scores_N[order]
    last_of_ties = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    num_found = np.cumsum(is_positive_N[order])[last_of_ties]
    return num_found, last_of_ties + 1
