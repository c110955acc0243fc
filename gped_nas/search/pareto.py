"""Fronts, hypervolumes and knees of points in objective space. Numpy only."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gped_nas.errors import ConfigError, nearest

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Scale = Literal["linear", "log10"]

KNEE_RULE = (
    "Each objective is rescaled to run from 0 to 1 over the front; with two objectives the knee is "
    "the student furthest below the straight line between the two ends of the front, otherwise the "
    "student whose worst rescaled objective is smallest; the earliest one wins a tie."
)
_AUGMENTATION = 1e-3
_DIRECTIONS = ("minimize", "maximize")


def pareto_front(points: ArrayLike, directions: Sequence[str]) -> Mask:
    """Mask (N,) of the points that no other point dominates.

    One point dominates another if it is nowhere worse and somewhere better, so all copies of a
    point on the front are on it. A row with a NaN or an infinity is never on the front and
    dominates nothing.

    Costs O(N log N + F N M) for a front of F distinct points.

    Args:
        points: (N, M), one column an objective; N may be 0.
        directions: ``"minimize"`` or ``"maximize"`` for each objective.

    Raises:
        ConfigError: wrong shape, no objective or an unknown direction.
    """
    values = _matrix(points, len(directions))
    for direction in directions:
        if direction not in _DIRECTIONS:
            raise ConfigError(f"directions: unknown '{direction}'{nearest(direction, _DIRECTIONS)}")

    losses = values * np.where(np.asarray(directions) == "maximize", -1.0, 1.0)
    mask: Mask = np.asarray(np.isfinite(losses).all(axis=1))
    distinct, inverse = np.unique(losses[mask], axis=0, return_inverse=True)
    mask[mask] = _front_of_sorted(distinct)[inverse.reshape(-1)]
    return mask


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Volume that the points dominate within the reference point; exact for any M.

    All objectives are minimized. Costs O(N log N + F N M) to find the front's F points, then at
    worst O(F^(M-1) log F).

    Args:
        points: (N, M); a point not strictly better than the reference in every objective adds
            nothing, nor does a row with a NaN or an infinity.
        reference: (M,), finite.

    Raises:
        ConfigError: wrong shapes, or a reference that is not finite.

    Source: While, Bradstreet & Barone 2012, IEEE Trans. Evol. Comput. 16(1), section III (exclusive
    hypervolume by limit sets).
    """
    corner = _reference(reference)
    values = _matrix(points, len(corner))
    return _volume(_reduce(values[_counts(values, corner)]), corner)


def hypervolume_history(points: ArrayLike, reference: ArrayLike) -> Floats:
    """``hypervolume`` of the first 1, 2, ... N points, shape (N,); never falls.

    Costs at worst O(N F^(M-1) log F) with a front of F; a dominated point costs O(F M).

    Raises:
        ConfigError: as ``hypervolume``.
    """
    corner = _reference(reference)
    values = _matrix(points, len(corner))
    counts = _counts(values, corner)
    front = np.empty((0, len(corner)))
    gains = np.zeros(len(values))

    for index in np.flatnonzero(counts):
        point = values[index]
        is_covered = (front <= point).all(axis=1).any()
        if not is_covered:
            gains[index] = _exclusive(point, front, corner)
            is_dominated = (front >= point).all(axis=1)
            front = np.vstack([front[~is_dominated], point])

    return np.cumsum(gains)


def to_box(
    values: ArrayLike, best: ArrayLike, worst: ArrayLike, *, scales: Sequence[Scale] | None = None
) -> Floats:
    """Objectives as losses in [0, 1], shape (N, M): 0 at ``best``, 1 at ``worst``.

    Values beyond an end are clipped to it. In the box every objective is minimized and the
    reference point is all ones, so whatever is worse than ``worst`` in one objective adds no
    hypervolume. Rows keep a NaN wherever the value is not finite. Costs O(N M).

    Args:
        values: (N, M) in their own units.
        best: (M,); of a maximized objective it is the larger end.
        worst: (M,), the reference point.
        scales: for each objective ``linear`` (default) or ``log10``; quality is linear, costs are
            log10.

    Raises:
        ConfigError: wrong shapes, ends that are equal or not finite, or not positive on a log10
            scale.
    """
    start, end = _reference(best), _reference(worst)
    raw = _matrix(values, len(start))
    is_log = np.array([scale == "log10" for scale in scales or ["linear"] * len(start)])
    if not len(start) == len(end) == len(is_log):
        raise ConfigError(
            f"to_box: found {len(start)} best, {len(end)} worst ends and {len(is_log)} scales"
        )

    low = np.minimum(start, end)
    high = np.maximum(start, end)
    if (low == high).any() or (low[is_log] <= 0).any():
        raise ConfigError(
            f"to_box: found ends {start} and {end}; they must differ, and be positive where log10"
        )

    clipped = np.clip(np.where(np.isfinite(raw), raw, np.nan), low, high)
    for ends in (start, end):
        ends[is_log] = np.log10(ends[is_log])
    clipped[:, is_log] = np.log10(clipped[:, is_log])
    return (clipped - start) / (end - start)


def knee(points: ArrayLike) -> int:
    """Index of the point that ``KNEE_RULE`` picks from the front of the points.

    All objectives are minimized. Costs as much as ``pareto_front``.

    Args:
        points: (N, M), for example from ``to_box``; dominated points and rows not finite are passed
            over.

    Raises:
        ConfigError: wrong shape, or no row is finite.

    Source: Das 1999, Structural Optimization 18, 107-115 (distance to the line between the ends);
    Steuer & Choo 1983, Mathematical Programming 26, 326-344 (worst objective plus a small multiple
    of the sum).
    """
    values = _matrix(points, np.shape(points)[1] if np.ndim(points) == 2 else 1)
    mask = pareto_front(values, ["minimize"] * values.shape[1])
    if not mask.any():
        raise ConfigError("knee: found no finite point, expected at least one")

    front = values[mask]
    span = np.ptp(front, axis=0)
    losses = (front - front.min(axis=0)) / np.where(span > 0, span, 1.0)
    total = losses.sum(axis=1)

    if losses.shape[1] == 2:
        # With ends (0, 1) and (1, 0) the distance below the line is (1 - total) / sqrt(2).
        score = total
    else:
        score = losses.max(axis=1) + _AUGMENTATION * total

    # Rounding makes a tie of what differs by the last bits alone.
    return int(np.flatnonzero(mask)[score.round(12).argmin()])


def _matrix(points: ArrayLike, num_objectives: int) -> Floats:
    values = np.asarray(points, np.float64)
    if num_objectives < 1:
        raise ConfigError("objectives: found none, expected at least one")
    if values.shape == (0,):
        values = values.reshape(0, num_objectives)
    if values.ndim != 2 or values.shape[1] != num_objectives:
        raise ConfigError(
            f"points: found shape {values.shape}, expected (points, {num_objectives})"
        )
    return values


def _reference(point: ArrayLike) -> Floats:
    values = np.array(point, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ConfigError(
            f"reference point: found {values.tolist()}, expected one finite number an objective"
        )
    return values


def _counts(values: Floats, corner: Floats) -> Mask:
    """Rows that are finite and strictly within the reference point; O(N M)."""
    return np.asarray((np.isfinite(values) & (values < corner)).all(axis=1))


def _front_of_sorted(losses: Floats) -> Mask:
    """Front of distinct rows in lexicographic order; O(F N M) for a front of F."""
    on_front = np.zeros(len(losses), np.bool_)
    remaining = np.arange(len(losses))
    while len(remaining):
        # No later row dominates an earlier one, so the first that remains is on the front.
        index = remaining[0]
        on_front[index] = True
        is_undominated = (losses[remaining] < losses[index]).any(axis=1)
        remaining = remaining[is_undominated]
    return on_front


def _reduce(losses: Floats) -> Floats:
    """The distinct points of the front, in lexicographic order; O(N log N + F N M)."""
    distinct = np.unique(losses, axis=0)
    return distinct[_front_of_sorted(distinct)]


def _volume(front: Floats, corner: Floats) -> float:
    """Hypervolume of points within ``corner``; at worst O(N^(M-1) log N).

    For more than two objectives they are in lexicographic order.
    """
    if not len(front):
        return 0.0
    if front.shape[1] == 1:
        return float(corner[0] - front.min())
    if front.shape[1] == 2:
        return _area(front, corner)

    # All earlier points are at least as good in the first objective: limited to the box of the
    # point they share its first coordinate, and what they cover of that box is a volume of one
    # dimension less.
    volumes = (
        (corner[0] - point[0]) * _exclusive(point[1:], front[:index, 1:], corner[1:])
        for index, point in enumerate(front)
    )
    return float(sum(volumes))


def _exclusive(point: Floats, others: Floats, corner: Floats) -> float:
    """Hypervolume of ``point`` that N ``others`` do not cover; as ``_volume``."""
    limited = np.maximum(others, point)
    if len(corner) > 2:
        limited = _reduce(limited)
    covered = _volume(limited, corner)
    return max(float(np.prod(corner - point)) - covered, 0.0)


def _area(points: Floats, corner: Floats) -> float:
    """Hypervolume of two objectives; O(N log N).

    It is made of strips between neighbors, each as high as the best point so far.
    """
    by_first = points[points[:, 0].argsort()]
    widths = np.diff(by_first[:, 0], append=corner[0])
    heights = corner[1] - np.minimum.accumulate(by_first[:, 1])
    return float(widths @ heights)
