"""How much of the reference box points cover, judged at fixed quasi-random places of it.

One matrix, which point covers which place, answers what would need very many hypervolumes
otherwise: the expectation over all orders of the points, and resampled differences. Results are
scaled so that the whole set has its exact hypervolume.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gped_nas import rng
from gped_nas.search.pareto import Floats, Mask, hypervolume

NUM_PLACES = 8192
NUM_RESAMPLES = 1000
_CHUNK = 125
"""Points, or resamples, that are looked at together."""
_ROWS = 16
Integers = NDArray[np.int64]


def random_order(box: ArrayLike) -> Floats:
    """Expected hypervolume after 1, 2, ... N of the points in uniformly random order, shape (N,).

    After k points a place that m of the N points cover is still bare with probability C(N - m, k) /
    C(N, k). The last value is the hypervolume of all points, as it is in any order.

    Args:
        box: (N, M) losses in [0, 1], see ``pareto.to_box``; a row with a NaN covers nothing and
            still takes its turn.
    """
    points = np.asarray(box, np.float64)
    total = len(points)
    if not total:
        return np.zeros(0)

    # How many of the places are covered by m = 0, 1, ... N points; many m have none.
    times = np.bincount(_num_covering(points), minlength=total + 1)
    some_m = np.flatnonzero(times)

    # Memory is linear in N: a few m at a time, over all k.
    num_drawn = np.arange(1, total + 1)
    share: Floats = np.zeros(total)
    for start in range(0, len(some_m), _ROWS):
        rows = some_m[start : start + _ROWS]
        share += times[rows] @ (1 - _bare(total, rows[:, None], num_drawn[None]))

    share /= NUM_PLACES
    return _scale(share, share[-1], points)


def _bare(total: int, num_covering: Integers, num_drawn: Integers) -> Floats:
    """Probability that ``num_drawn`` of ``total`` points leave a place bare: C(N - m, k) / C(N, k).

    The binomials are quotients of factorials, taken as logarithms.
    """
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    num_others = total - num_covering
    num_remaining = np.maximum(num_others - num_drawn, 0)
    log_ways = log_factorial[num_others] - log_factorial[num_remaining]
    log_bare = np.where(num_drawn <= num_others, log_ways, -np.inf)
    bare: Floats = np.exp(log_bare - log_factorial[total] + log_factorial[total - num_drawn])
    return bare


def _num_covering(points: Floats) -> Integers:
    """How many of the points cover each place."""
    num: Integers = np.zeros(NUM_PLACES, np.int64)
    for start in range(0, len(points), _CHUNK):
        num += _covers(points[start : start + _CHUNK]).sum(axis=1)
    return num


def resampled_difference(first: ArrayLike, second: ArrayLike) -> tuple[float, tuple[float, float]]:
    """Hypervolume of the first set minus the second's, with its 95 % interval.

    The interval is 1.96 bootstrap standard errors to either side: each set is drawn anew from its
    own points, with replacement. Percentiles would not do, since a set that is drawn anew lacks a
    third of its points and is covered less. It tells how far the difference hangs on a few lucky
    trials; it does not tell how well the quality of a point is known.

    Args:
        first, second: (N, M) and (K, M) losses in [0, 1] of one box; rows with a NaN cover nothing.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 12.
    """
    values = []
    resampled = []
    for i, losses in enumerate((first, second)):
        points = np.asarray(losses, np.float64)
        values.append(_volume(points))
        resampled.append(_resample(points, f"set {i}"))

    difference = values[0] - values[1]
    half_width = 1.96 * float((resampled[0] - resampled[1]).std())
    return difference, (difference - half_width, difference + half_width)


def _resample(points: Floats, name: str) -> Floats:
    """Hypervolumes of ``NUM_RESAMPLES`` sets drawn with replacement from a set."""
    if not len(points):
        return np.zeros(NUM_RESAMPLES)

    generator = np.random.default_rng(rng.seed(0, "coverage", name))
    covers = _covers(points)
    weights = covers.astype(np.float32)
    equal = np.full(len(points), 1 / len(points))

    # A place is covered in a resample if one of the points that cover it was drawn.
    shares = []
    for _ in range(0, NUM_RESAMPLES, _CHUNK):
        counts = generator.multinomial(len(points), equal, size=_CHUNK)
        shares.append((weights @ counts.T.astype(np.float32) > 0).mean(axis=0))
    return _scale(np.concatenate(shares), float(covers.any(axis=1).mean()), points)


def _scale(share: Floats, whole: float, points: Floats) -> Floats:
    """Shares of places as hypervolumes: the share ``whole`` becomes the exact one of all points."""
    exact = _volume(points)
    return share * (exact / whole) if whole else np.zeros(len(share))


def _volume(points: Floats) -> float:
    return hypervolume(points, np.ones(points.shape[1])) if len(points) else 0.0


def _covers(points: Floats) -> Mask:
    """Whether each place (rows) is covered by each point (columns); NaN covers nothing."""
    places = _places(points.shape[1])
    covers = np.ones((NUM_PLACES, len(points)), np.bool_)
    for axis in range(points.shape[1]):
        covers &= points[None, :, axis] <= places[:, axis, None]
    return covers


def _places(num_axes: int) -> Floats:
    """Points that fill the unit box evenly, (``NUM_PLACES``, M): an additive recurrence.

    Source: Roberts 2018, The unreasonable effectiveness of quasirandom sequences (its R_d).
    """
    ratio = 2.0
    for _ in range(60):  # the root of x ** (M + 1) = x + 1, by fixed-point iteration
        ratio = (1 + ratio) ** (1 / (num_axes + 1))
    steps = ratio ** -np.arange(1, num_axes + 1)
    places: Floats = (0.5 + np.arange(1, NUM_PLACES + 1)[:, None] * steps) % 1.0
    return places
