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


@dataclass(frozen=True)
class HypervolumeDifference:
    """``first - second``, both as indices of studies, with its bootstrap interval over trials."""

    first: int
    second: int
    difference: float
    interval: tuple[float, float]


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
    best, worst = {}, {}
    for axis in axes:
        sign = -1 if axis.direction == "maximize" else 1
        best[axis.name] = sign * min(sign * s.best_point[axis.name] for s in snapshots)
        worst[axis.name] = sign * max(sign * s.reference_point[axis.name] for s in snapshots)
    sets = [_in_box(snapshot, best, worst) for snapshot in snapshots]
    ones = np.ones(len(axes))
    return StudyComparison(
        best,
        worst,
        tuple(hypervolume(points, ones) for points in sets),
        tuple(
            HypervolumeDifference(i, j, *resampled_difference(sets[i], sets[j]))
            for i, j in itertools.combinations(range(len(sets)), 2)
        ),
    )


def _check(snapshots: Sequence[StudySnapshot]) -> None:
    names = [snapshot.name for snapshot in snapshots]
    if not 2 <= len(names) <= MAX_STUDIES:
        raise ConfigError(f"comparison: found {len(names)} studies, expected 2 to {MAX_STUDIES}")
    if len(set(names)) < len(names):
        raise ConfigError(
            f"comparison: a study is given twice among {', '.join(names)}; name different ones"
        )
    first = snapshots[0]
    wanted = [(o.name, o.direction) for o in first.objectives]
    for snapshot in snapshots[1:]:
        found = [(o.name, o.direction) for o in snapshot.objectives]
        if found != wanted:
            raise ConfigError(
                f"study '{snapshot.name}': its objectives are {_words(found)}, those of "
                f"'{first.name}' are "
                f"{_words(wanted)}; only studies of the same objectives can be compared: run one "
                "of them again with "
                "the other's, under another --study-name"
            )
    for snapshot in snapshots:
        if not (snapshot.best_point and snapshot.reference_point):
            raise ConfigError(
                f"study '{snapshot.name}': it has not begun; repeat its `gped-search run`"
            )


def _words(objectives: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({direction})" for name, direction in objectives) or "none"


def _in_box(snapshot: StudySnapshot, best: dict[str, float], worst: dict[str, float]) -> Floats:
    """The study's complete trials in the box; every other trial is a row of NaN."""
    axes = snapshot.objectives
    scales = [axis.scale for axis in axes]
    nothing = [np.nan] * len(axes)
    rows = [
        [r.value(a.name) for a in axes] if r.state == "complete" else nothing
        for r in snapshot.records
    ]
    values = np.array(rows, np.float64).reshape(len(rows), len(axes))
    points = np.full(values.shape, np.nan)
    known = np.isfinite(values).all(axis=1)
    if known.any():
        points[known] = to_box(
            values[known], list(best.values()), list(worst.values()), scales=scales
        )
    return points
