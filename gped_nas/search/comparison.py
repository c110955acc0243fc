"""Two or more studies side by side: their hypervolumes in one box, and how far these differ."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gped_nas.errors import ConfigError
from gped_nas.search.coverage import resampled_difference
from gped_nas.search.pareto import Floats, hypervolume, to_box
from gped_nas.search.snapshot import StudySnapshot

MAX_STUDIES = 6
MIN_TRIALS = 32
"""With fewer trials intervals of hypervolumes hold the truth too seldom; see docs/science.md."""


@dataclass(frozen=True)
class HypervolumeDifference:
    """``first - second``, both as indices of studies.

    Attributes:
        interval: by bootstrap over trials; None where there are too few.
        why: why there is no interval; empty where there is one.
    """

    first: int
    second: int
    difference: float
    interval: tuple[float, float] | None
    why: str = ""


@dataclass(frozen=True)
class StudyComparison:
    """Studies in one box.

    Attributes:
        best, worst: ends of the box by objective: the widest of all studies' boxes.
        hypervolumes: of each study, as a share of the box.
        differences: of each pair of studies.
    """

    best: dict[str, float]
    worst: dict[str, float]
    hypervolumes: tuple[float, ...]
    differences: tuple[HypervolumeDifference, ...]


def compare_fronts(snapshots: Sequence[StudySnapshot]) -> StudyComparison:
    """What can be said of several studies together.

    Raises:
        ConfigError: there are fewer than two or too many, one is given twice, or their objectives
            differ.
    """
    _check(snapshots)
    axes = snapshots[0].objectives

    best: dict[str, float] = {}
    worst: dict[str, float] = {}
    for axis in axes:
        sign = -1 if axis.direction == "maximize" else 1
        best[axis.name] = sign * min(sign * s.best_point[axis.name] for s in snapshots)
        worst[axis.name] = sign * max(sign * s.reference_point[axis.name] for s in snapshots)

    sets = [_place_in_box(snapshot, best, worst) for snapshot in snapshots]
    ones = np.ones(len(axes))
    hypervolumes = tuple(hypervolume(points, ones) for points in sets)

    differences = []
    for i, j in itertools.combinations(range(len(sets)), 2):
        differences.append(_compare(i, j, sets))

    return StudyComparison(best, worst, hypervolumes, tuple(differences))


def _compare(first: int, second: int, sets: Sequence[Floats]) -> HypervolumeDifference:
    difference, interval = resampled_difference(sets[first], sets[second])
    num_trials = min(len(sets[first]), len(sets[second]))
    if num_trials < MIN_TRIALS:
        why = f"no interval: {num_trials} trials, expected at least {MIN_TRIALS}"
        return HypervolumeDifference(first, second, difference, None, why)
    return HypervolumeDifference(first, second, difference, interval)


def _check(snapshots: Sequence[StudySnapshot]) -> None:
    names = [snapshot.name for snapshot in snapshots]
    if not 2 <= len(names) <= MAX_STUDIES:
        raise ConfigError(f"comparison: found {len(names)} studies, expected 2 to {MAX_STUDIES}")
    if len(set(names)) < len(names):
        raise ConfigError(
            f"comparison: a study is given twice among {', '.join(names)}; name different ones"
        )

    expected = _directions(snapshots[0])
    for snapshot in snapshots[1:]:
        directions = _directions(snapshot)
        if directions != expected:
            raise ConfigError(
                f"study '{snapshot.name}': its objectives are {_describe(directions)}, those of "
                f"'{names[0]}' are {_describe(expected)}; only studies of the same objectives can "
                "be compared: run one of them again with the other's, under another --study-name"
            )

    for snapshot in snapshots:
        if not (snapshot.best_point and snapshot.reference_point):
            raise ConfigError(
                f"study '{snapshot.name}': it has not begun; repeat its `gped-search run`"
            )


def _directions(snapshot: StudySnapshot) -> list[tuple[str, str]]:
    """Name and direction of each objective."""
    return [(axis.name, axis.direction) for axis in snapshot.objectives]


def _describe(directions: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({direction})" for name, direction in directions) or "none"


def _place_in_box(
    snapshot: StudySnapshot, best: dict[str, float], worst: dict[str, float]
) -> Floats:
    """The study's complete trials in the box; every other one, or outside, is a row of NaN."""
    axes = snapshot.objectives
    values = np.full((len(snapshot.records), len(axes)), np.nan)
    for row, record in zip(values, snapshot.records, strict=True):
        if record.state == "complete" and record.trial not in snapshot.outside:
            row[:] = [record.value(axis.name) for axis in axes]

    points = np.full(values.shape, np.nan)
    is_finite = np.isfinite(values).all(axis=1)
    if is_finite.any():
        scales = [axis.scale for axis in axes]
        ends = list(best.values()), list(worst.values())
        points[is_finite] = to_box(values[is_finite], *ends, scales=scales)
    return points
