"""How much of the reference box points cover, judged at fixed quasi-random places of it.

One matrix, which point covers which place, answers what would need very many hypervolumes
otherwise: the expectation over all orders of the points, and resampled differences. Results are
scaled so that the whole set has its exact hypervolume.
"""

import numpy as np
from numpy.typing import ArrayLike

from gped_nas import rng
from gped_nas.search.pareto import Floats, Mask, hypervolume

NUM_PLACES = 8192
NUM_RESAMPLES = 1000
_CHUNK = 125


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
    times = np.bincount(_covers(points).sum(axis=1), minlength=total + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])
    left, drawn = total - np.arange(total + 1)[:, None], np.arange(1, total + 1)[None]
    log_bare = np.where(drawn <= left, logs[left] - logs[np.maximum(left - drawn, 0)], -np.inf)
    bare = np.exp(log_bare - logs[total] + logs[total - drawn])
    share: Floats = times @ (1 - bare) / NUM_PLACES
    return _scaled(share, share[-1], points)


def resampled_difference(first: ArrayLike, second: ArrayLike) -> tuple[float, tuple[float, float]]:
    """Hypervolume of the first set minus the second's, with a 95 % percentile bootstrap interval
    over points.

    Each set is drawn anew from its own points, with replacement. That tells how far the difference
    hangs on a few lucky trials; it does not tell how well the quality of a point is known.

    Args:
        first, second: (N, M) and (K, M) losses in [0, 1] of one box; rows with a NaN cover nothing.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 13.
    """
    sets = [np.asarray(one, np.float64) for one in (first, second)]
    values = [_volume(points) for points in sets]
    resampled = [_resampled(points, f"set {i}") for i, points in enumerate(sets)]
    difference = values[0] - values[1]
    low, high = (float(q) for q in np.quantile(resampled[0] - resampled[1], (0.025, 0.975)))
    return difference, (min(low, difference), max(high, difference))


def _resampled(points: Floats, name: str) -> Floats:
    """Hypervolumes of ``NUM_RESAMPLES`` sets drawn with replacement from a set."""
    if not len(points):
        return np.zeros(NUM_RESAMPLES)
    generator = np.random.default_rng(rng.seed(0, "coverage", name))
    covers = _covers(points)
    weights = covers.astype(np.float32)
    shares = []
    for _ in range(0, NUM_RESAMPLES, _CHUNK):
        drawn = generator.multinomial(
            len(points), np.full(len(points), 1 / len(points)), size=_CHUNK
        )
        shares.append((weights @ drawn.T.astype(np.float32) > 0).mean(axis=0))
    return _scaled(np.concatenate(shares), float(covers.any(axis=1).mean()), points)


def _scaled(share: Floats, whole: float, points: Floats) -> Floats:
    """Shares of places as hypervolumes, so that the share ``whole`` becomes the exact one of all
    points.
    """
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
