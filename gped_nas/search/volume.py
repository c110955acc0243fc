"""How much of its reference box a study covers: box, corner and history, for everybody who asks.

The box has one side an objective. It begins at the objective's best value and ends at its corner:
the region's bound, what a predictor that knows nothing is worth, or the worst value that the
objective declares, see ``Region.corner``. Only students inside the region cover anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gped_nas.search.document import Box
from gped_nas.search.goals import Objective
from gped_nas.search.pareto import Floats, hypervolume_history, to_box
from gped_nas.search.record import TrialRecord
from gped_nas.search.region import Region, outside


@dataclass(frozen=True, eq=False)
class Coverage:
    """How much of its box a study covers.

    Attributes:
        box: best value and corner of each objective.
        losses: of each record, its objectives as losses in [0, 1] of the box, (N, M); a row of NaN
            where it covers nothing: it is not complete, or outside.
        history: hypervolume after each record, as a share of the box, (N,).
    """

    box: Box
    losses: Floats
    history: Floats


def reference_box(objectives: Sequence[Objective], axes: Box, region: Region | None) -> Box:
    """The box that hypervolumes of a study are shares of.

    Args:
        objectives: in order.
        axes: the best and the worst value that each of them declares.
        region: of the study; None in one that was begun before there was one.
    """
    if region is None:
        return axes

    worst = []
    for goal, best, declared in zip(objectives, axes.best, axes.worst, strict=True):
        corner = region.corner(goal)
        worst.append(declared if corner is None else _end(goal, corner, best, declared))
    return Box(best=axes.best, worst=tuple(worst))


def _end(goal: Objective, corner: float, best: float, declared: float) -> float:
    """Where an axis ends whose region has a corner."""
    if goal.kind == "cost":
        return min(corner, declared)  # nothing that can be drawn costs more
    sign = -1 if goal.direction == "maximize" else 1
    # the best log-density of a real label is a convention, which a bound may be beyond
    return corner if sign * best < sign * corner else declared


def losses_in(box: Box, records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> Floats:
    """Objectives of records as losses in [0, 1] of a box, shape (N, M)."""
    if not records:
        return np.empty((0, len(objectives)))
    values = [[record.value(goal.name) for goal in objectives] for record in records]
    return to_box(values, box.best, box.worst, scales=[goal.scale for goal in objectives])


def coverage(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    axes: Box,
    region: Region | None,
) -> Coverage:
    """Box, corner and history of the hypervolume of a study.

    Args:
        records: every trial, in the order of the history.
        objectives, axes, region: as ``reference_box``.
    """
    box = reference_box(objectives, axes, region)
    # before there were regions, who only guesses was in the hypervolume and on no front
    apart = set() if region is None else set(outside(records, objectives, region))

    losses = np.full((len(records), len(objectives)), np.nan)
    rows = []
    for row, record in enumerate(records):
        if record.state == "complete" and record.trial not in apart:
            rows.append(row)
    if rows:
        losses[rows] = losses_in(box, [records[row] for row in rows], objectives)

    history = hypervolume_history(losses, np.ones(len(objectives)))
    return Coverage(box, losses, history)
