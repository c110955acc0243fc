"""Where a tuning starts: MAP networks on a grid that moves, then settings known to be good.

A start is known by its label. Which one is next hangs on the candidates before it alone, so that a
tuning which was killed goes on as it would have gone on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gped_nas.api.tuning_record import Record, Tried

LOWEST_PRECISION, HIGHEST_PRECISION = 1e-4, 1e4
"""Of any candidate."""
SHIPPED = "shipped"
"""The label of the space's own teacher."""
_GRID = "map at precision "
_MAX_MOVES = 4
"""Precisions that a grid may be moved on by."""


@dataclass(frozen=True)
class Start:
    """Settings to begin with.

    Attributes:
        label: its name.
        method: a posterior method; ``shipped`` is the space's own teacher as it is.
        drawn: values by the names that ``Method.tuned`` draws, and ``precision``; others are usual.
    """

    label: str
    method: str
    drawn: Mapping[str, Any]


def map_start(record: Record, precisions: Sequence[float]) -> Start | None:
    """The next MAP candidate; None when they are all there.

    First the precisions of the baseline's grid, then further ones while the best one is at an edge,
    then other step sizes, a longer training, and precisions beside the best one.
    """
    labels = {tried.label for tried in record.tried}
    grid = sorted(precisions)
    for precision in grid:
        start = _at(precision)
        if start.label not in labels:
            return start

    best = record.best(is_map=True)
    if best is None:
        return None
    tried_precisions = [t.prior["precision"] for t in record.tried if t.label.startswith(_GRID)]
    moved = _moved(best[1], grid, tried_precisions)
    if moved is not None:
        return moved

    if record.evidence is not None and "map by evidence" not in labels:
        drawn = {"precision": record.evidence}
        return Start("map by evidence", "map", drawn)
    for start in _changes(best[1]):
        if start.label not in labels:
            return start
    return None


def needs_evidence(record: Record, start: Start | None) -> bool:
    """Whether the proposal of the evidence is wanted before this start: the grid is done."""
    is_on_grid = start is not None and start.label.startswith(_GRID)
    return not is_on_grid and record.evidence is None and record.best(is_map=True) is not None


def _at(precision: float) -> Start:
    precision = float(f"{precision:.3g}")
    return Start(f"{_GRID}{precision:g}", "map", {"precision": precision})


def _moved(best: Tried, grid: Sequence[float], tried_precisions: Sequence[float]) -> Start | None:
    """One precision beyond the grid; None where the best one is inside, or it moved enough."""
    if len(grid) == 1 or len(tried_precisions) - len(grid) >= _MAX_MOVES:
        return None
    low, high = min(tried_precisions), max(tried_precisions)
    if best.prior["precision"] == low and low > LOWEST_PRECISION:
        return _at(max(low * grid[0] / grid[1], LOWEST_PRECISION))
    if best.prior["precision"] == high and high < HIGHEST_PRECISION:
        return _at(min(high * grid[-1] / grid[-2], HIGHEST_PRECISION))
    return None


def _changes(best: Tried) -> Iterator[Start]:
    """The best one with one thing changed each."""
    drawn = {"precision": best.prior["precision"], **(best.drawn or {})}
    precision = float(drawn["precision"])
    yield Start("map, step size 0.003", "map", {**drawn, "lr": 3e-3})
    yield Start("map, step size 0.01", "map", {**drawn, "lr": 1e-2})
    yield Start("map, twice as long", "map", {**drawn, "length": 2.0})
    yield Start("map, weaker prior", "map", {**drawn, "precision": precision / 3})
    yield Start("map, stronger prior", "map", {**drawn, "precision": precision * 3})


def teacher_start(record: Record, methods: Sequence[str]) -> Start | None:
    """The next starting point among teachers; None when they are all there."""
    labels = {tried.label for tried in record.tried}
    best = record.best(is_map=True)
    evidence = record.evidence or 1.0
    of_map: Mapping[str, Any] = {"precision": 1.0}
    if best is not None:
        of_map = {"precision": best[1].prior["precision"], **(best[1].drawn or {})}

    for label, method, is_trained, drawn in _STARTS:
        if label not in labels and method in (*methods, SHIPPED):
            precision = float(of_map["precision"])
            of_networks = of_map if is_trained else {}
            return Start(label, method, {**of_networks, **drawn(precision, evidence)})
    return None


_Drawn = Callable[[float, float], Mapping[str, Any]]
_STARTS: tuple[tuple[str, str, bool, _Drawn], ...] = (
    ("networks by MAP", "deep_ensemble", True, lambda p, e: {}),
    (
        "cold chains",
        "sghmc",
        False,
        lambda p, e: {"precision": 1.0, "temperature": 0.01, "step": 0.6},
    ),
    (SHIPPED, SHIPPED, False, lambda p, e: {}),
    ("networks, weaker prior", "deep_ensemble", True, lambda p, e: {"precision": p / 10}),
    (
        "cold chains, prior of MAP",
        "sghmc",
        False,
        lambda p, e: {"precision": p, "temperature": 0.03},
    ),
    ("cold Langevin", "sgld", False, lambda p, e: {"precision": 1.0, "temperature": 0.01}),
    ("multi-SWAG", "swag", True, lambda p, e: {}),
    ("cycles", "csghmc", False, lambda p, e: {"precision": 1.0, "temperature": 0.01}),
    ("networks by evidence", "deep_ensemble", True, lambda p, e: {"precision": e}),
    ("posterior", "sgld", False, lambda p, e: {"precision": e, "temperature": 1.0, "draws": 50}),
    (
        "cold chains from MAP",
        "sghmc",
        False,
        lambda p, e: {"precision": 1.0, "temperature": 0.01, "step": 0.2, "start": "map"},
    ),
    ("Laplace, last layer", "laplace", True, lambda p, e: {"precision": max(10 * p, 1.0)}),
)
"""Label, method, whether its networks are trained as the best MAP ones are, and what is drawn.

What is drawn may hang on the best precision of MAP, and on that of the largest evidence. Known to
be good on digits and Fashion-MNIST: deep ensembles of such networks or with a weaker prior, and
chains at a temperature of 0.01 to 0.03.
"""
