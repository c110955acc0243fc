"""Which 95 % interval is honest for a number, and the intervals themselves.

| number                         | interval                                  | where it holds   |
|--------------------------------|-------------------------------------------|------------------|
| share of examples              | Wilson's score interval                   | any n            |
| difference of two such, paired | Tango's score interval, and the exact     | any n            |
|                                | conditional test                          |                  |
| mean of the shares of classes  | MOVER of the classes' Wilson intervals,   | any n            |
|                                | of differences of their Tango intervals   |                  |
| function of sums over examples | the wider of bootstrap-t and t on each    | ``MIN_EXAMPLES`` |
|                                | side, of its jackknife pseudo-values      | that differ      |
| calibration error              | by ``gped_nas.evaluate.calibration``      | any n            |
| area under a curve of two      | t on the scale of its logit, with its     | 10 examples of   |
| kinds of examples              | jackknife variance or DeLong's            | each kind        |

Everything else carries no interval and says why. How often each holds the truth was simulated:
``tests/bench/bench_intervals.py`` and ``reports/reference/coverage-of-intervals.json``.

Bootstrap-t follows the skew of losses that are rare and large. Where losses of both signs are rare
it follows a skew that is luck, and ends too early on one side; there Student's t holds. So each end
is the farther one of the two.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 12.5 (bootstrap-t); Tukey
1958 (pseudo-values); Wilson 1927, J. Am. Stat. Assoc. 22; Tango 1998, Statistics in Medicine 17,
section 4 (score interval); McNemar 1947, Psychometrika 12 (test); Zou & Donner 2008, Statistics in
Medicine 27 (MOVER: ends of a sum of independent numbers from theirs); Qin & Hotilovac 2008,
Statistical Methods in Medical Research 17 (logit of an area).
"""

import math
from dataclasses import dataclass

import numpy as np

from gped_nas.evaluate.predictions import Floats
from gped_nas.evaluate.resamples import Resamples
from gped_nas.evaluate.shares import Z95 as _Z
from gped_nas.evaluate.shares import Counts as Counts
from gped_nas.evaluate.shares import wilson as wilson
from gped_nas.posterior.diagnostics import t_quantile

MIN_EXAMPLES = 30
"""Examples below which a mean has no interval."""
MIN_OF_A_CLASS = 10
"""Examples of a class below which a mean over classes, other than of shares, has no interval."""
TAIL = 0.025
"""The share of intervals that may lie above the truth, and below it."""


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


def tango(num_first: Counts, num_second: Counts, n: int | Counts) -> tuple[Floats, Floats]:
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

    rank = max(1, int((len(resamples) + 1) * TAIL))
    least_Q, greatest_Q = resamples.t_ends(centered_NQ, variance_Q, rank)
    plain = t_quantile(n - 1) * math.sqrt(n / (n - 1))
    with np.errstate(invalid="ignore"):
        below_Q = error_Q * np.maximum(greatest_Q, plain)
        above_Q = error_Q * np.maximum(-least_Q, plain)
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


def of_area(value: float, variance: float, degrees: float) -> Bounds:
    """The interval of an area between 0 and 1, by Student's t on the scale of its logit.

    Near its ends an area has a skewed spread; its logit has not. There is no interval where the
    area is 0 or 1, or does not vary.

    Args:
        value: the area.
        variance: of it.
        degrees: of freedom of the variance.
    """
    if not 0 < value < 1 or variance <= 1e-24:
        return Bounds(why="all examples give the same: their spread is not known")

    slope = value * (1 - value)
    reach = t_quantile(max(1, int(degrees))) * math.sqrt(variance) / slope
    middle = math.log(value / (1 - value))
    return Bounds(_logistic(middle - reach), _logistic(middle + reach))


def _logistic(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


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


def of_mean_of_shares(terms_NT: Floats) -> Bounds:
    """The interval of the mean of the shares of classes.

    The classes' sizes are taken as given. Their shares are of different examples, so the distance
    of an end is the root of the sum of their squared distances.

    Args:
        terms_NT: of each example and class whether it is a hit, then whether it is of the class.
    """
    hits_C, sizes_C = np.split(terms_NT.sum(axis=0), 2)
    is_there_C = sizes_C > 0
    hits_C, sizes_C = hits_C[is_there_C], sizes_C[is_there_C]

    return _mover(hits_C / sizes_C, *wilson(hits_C, sizes_C))


def of_paired_means_of_shares(first_NT: Floats, second_NT: Floats) -> Bounds:
    """The interval of the difference of two means of shares on the same examples.

    Args:
        first_NT, second_NT: as of ``of_mean_of_shares``.
    """
    (first_NC, is_of_NC), (second_NC, _) = (np.split(x, 2, axis=1) for x in (first_NT, second_NT))
    sizes_C = is_of_NC.sum(axis=0)
    is_there_C = sizes_C > 0
    num_first_C = (first_NC > second_NC).sum(axis=0)[is_there_C]
    num_second_C = (second_NC > first_NC).sum(axis=0)[is_there_C]
    sizes_C = sizes_C[is_there_C]

    difference_C = (num_first_C - num_second_C) / sizes_C
    return _mover(difference_C, *tango(num_first_C, num_second_C, sizes_C))


def _mover(value_C: Floats, low_C: Floats, high_C: Floats) -> Bounds:
    """The interval of the mean of independent numbers that have intervals."""
    below = float(np.sqrt(np.square(value_C - low_C).sum()) / len(value_C))
    above = float(np.sqrt(np.square(high_C - value_C).sum()) / len(value_C))
    mean = float(value_C.mean())
    return Bounds(mean - below, mean + above)
