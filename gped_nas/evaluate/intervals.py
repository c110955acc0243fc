"""Which 95 % interval is honest for a number, and the intervals themselves.

| number                         | interval                                  | where it holds   |
|--------------------------------|-------------------------------------------|------------------|
| share of examples              | Wilson's score interval                   | any n            |
| difference of two such, paired | Tango's score interval, and the exact     | any n            |
|                                | conditional test                          |                  |
| function of sums over examples | the wider of bootstrap-t and t on each    | ``MIN_EXAMPLES`` |
|                                | side, of its jackknife pseudo-values      | that differ      |
| calibration error              | by ``gped_nas.evaluate.calibration``      | any n            |

Everything else carries no interval and says why. How often each holds the truth was simulated:
``tests/bench/bench_intervals.py`` and ``reports/reference/coverage-of-intervals.json``.

Bootstrap-t follows the skew of losses that are rare and large. Where losses of both signs are rare
it follows a skew that is luck, and ends too early on one side; there Student's t holds. So each end
is the farther one of the two.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 12.5 (bootstrap-t); Tukey
1958 (pseudo-values); Wilson 1927, J. Am. Stat. Assoc. 22; Tango 1998, Statistics in Medicine 17,
section 4 (score interval); McNemar 1947, Psychometrika 12 (test).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gped_nas.evaluate.predictions import Floats
from gped_nas.evaluate.resamples import Resamples
from gped_nas.posterior.diagnostics import t_quantile

Counts = NDArray[Any]
"""Numbers of examples."""
MIN_EXAMPLES = 30
"""Examples below which a mean has no interval."""
TAIL = 0.025
"""The share of intervals that may lie above the truth, and below it."""
_Z = 1.959964


@dataclass(frozen=True)
class Bounds:
    """A 95 % interval, or why there is none.

    Attributes:
        low, high: its ends; None where no interval is honest.
        why: why there is none; empty where there is one.
        p_value: of the exact test that two shares are equal; None of anything else.
    """

    low: float | None = None
    high: float | None = None
    why: str = ""
    p_value: float | None = None


def wilson(num_hits: Counts, n: int) -> tuple[Floats, Floats]:
    """Both ends of Wilson's interval of a share of n examples, of the shape of ``num_hits``."""
    share = np.asarray(num_hits) / n
    center = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return np.maximum(center - half, 0.0), np.minimum(center + half, 1.0)


def tango(num_first: Counts, num_second: Counts, n: int) -> tuple[Floats, Floats]:
    """Both ends of the score interval of a paired difference of shares.

    Args:
        num_first: examples that are hits of the first predictor alone.
        num_second: examples that are hits of the second one alone, of the same shape.
        n: number of examples.

    Returns:
        The differences, first minus second, that lie 1.96 score deviations from the data.
    """
    first, second = np.asarray(num_first, np.float64), np.asarray(num_second, np.float64)
    value = (first - second) / n

    def deviation(difference: Floats) -> Floats:
        # Tango's equation: the likeliest share of the second alone, given the difference.
        half_b = -first - second + (2 * n - first + second) * difference
        c = -second * difference * (1 - difference)
        root = np.sqrt(np.maximum(half_b**2 - 8 * n * c, 0.0))
        likeliest = (root - half_b) / (4 * n)
        variance = n * (2 * likeliest + difference * (1 - difference))
        scores: Floats = (first - second - n * difference) / np.sqrt(np.maximum(variance, 1e-300))
        return scores

    # The deviation falls with the difference: bisect on each side of the value.
    ends = []
    for target, near, far in ((_Z, -np.ones_like(value), value), (-_Z, value, np.ones_like(value))):
        for _ in range(50):
            middle = (near + far) / 2
            is_above = deviation(middle) > target
            near, far = np.where(is_above, middle, near), np.where(is_above, far, middle)
        ends.append((near + far) / 2)
    return ends[0], ends[1]


def exact_test(num_first: int, num_second: int) -> float:
    """Two-sided p-value of equal shares, given the examples on which two predictors differ.

    Of these each is the first one's with probability 1/2: twice the smaller binomial tail.
    """
    num = num_first + num_second
    log_ways = math.lgamma(num + 1)
    tail = 0.0
    for hits in range(min(num_first, num_second) + 1):
        log_choose = log_ways - math.lgamma(hits + 1) - math.lgamma(num - hits + 1)
        tail += math.exp(log_choose - num * math.log(2))
    return min(1.0, 2 * tail)


def distances(values_NQ: Floats, resamples: Resamples) -> tuple[Floats, Floats]:
    """How far the interval of each mean reaches below it and above it, both (Q,).

    Infinite or NaN where too few values differ from the rest to know their spread.
    """
    n = len(values_NQ)
    centered_NQ = values_NQ - values_NQ.mean(axis=0)
    variance_Q = np.square(centered_NQ).mean(axis=0)
    error_Q = np.sqrt(variance_Q / n)

    # Mean and variance in all resamples of all values are one matrix product.
    sums = resamples.sums(np.hstack([centered_NQ, np.square(centered_NQ)])) / n
    mean_RQ, square_RQ = np.split(sums, 2, axis=1)
    variance_RQ = square_RQ - np.square(mean_RQ)

    # A resample without spread lies infinitely many of its own standard errors away.
    variance_RQ[variance_RQ <= 1e-12 * variance_Q] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t_RQ = mean_RQ / np.sqrt(variance_RQ / n)
    t_RQ[mean_RQ == 0] = 0.0

    num = len(resamples)
    rank = max(1, int((num + 1) * TAIL))
    ordered = np.partition(t_RQ, (rank - 1, num - rank), axis=0)
    plain = t_quantile(n - 1) * math.sqrt(n / (n - 1))
    with np.errstate(invalid="ignore"):
        below_Q = error_Q * np.maximum(ordered[num - rank], plain)
        above_Q = error_Q * np.maximum(-ordered[rank - 1], plain)
    return below_Q, above_Q


def around(center_Q: Floats, values_NQ: Floats, resamples: Resamples) -> list[Bounds]:
    """The interval around each number whose pseudo-values these are.

    Args:
        center_Q: the numbers.
        values_NQ: their pseudo-values; of a mean, its terms.
        resamples: of the same examples.
    """
    n = len(values_NQ)
    if n < MIN_EXAMPLES:
        why = f"{n} examples are too few to know their spread: it needs {MIN_EXAMPLES}"
        return [Bounds(why=why)] * len(center_Q)

    is_constant_Q = (values_NQ == values_NQ[0]).all(axis=0)
    below_Q, above_Q = distances(values_NQ, resamples)
    bounds = []
    for center, below, above, is_constant in zip(
        center_Q, below_Q, above_Q, is_constant_Q, strict=True
    ):
        if is_constant:
            bounds.append(Bounds(why=f"all {n} examples give the same: their spread is not known"))
        elif not np.isfinite(below + above):
            why = f"too few of {n} examples differ from the rest to know their spread"
            bounds.append(Bounds(why=why))
        else:
            bounds.append(Bounds(float(center - below), float(center + above)))
    return bounds


def of_share(hits_N: Floats) -> Bounds:
    """The interval of a share: of each example, 1 or 0."""
    low, high = wilson(hits_N.sum(), len(hits_N))
    return Bounds(float(low), float(high))


def of_paired_shares(first_N: Floats, second_N: Floats) -> Bounds:
    """The interval of the difference of two shares on the same examples, and the exact p-value."""
    num_first = int((first_N > second_N).sum())
    num_second = int((second_N > first_N).sum())
    low, high = tango(np.array(num_first), np.array(num_second), len(first_N))
    return Bounds(float(low), float(high), p_value=exact_test(num_first, num_second))
