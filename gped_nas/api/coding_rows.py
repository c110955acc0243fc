"""What codecs measured, as rows of the house: of each seed, and their means over seeds."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gped_nas.data.base import Part
from gped_nas.evaluate.codecs.measure import MEASURES
from gped_nas.evaluate.measured import Key, Measured, rows
from gped_nas.posterior.diagnostics import t_quantile

Row = dict[str, Any]
TASK = "codec"
STREAM, STUDENT = "stream", "student"
"""Who stands on the front beside codecs: the samples that they read, as they are; a student."""
_RATIOS = ("entropy_ratio", "information_ratio", "information_spearman")


def code_rows(
    measures: dict[str, Measured], *, part: Part, outside: str, **about: Any
) -> list[Row]:
    """Measures of one code as rows of the house.

    Args:
        measures: see ``evaluate.codecs.measure``.
        part: where they were measured.
        outside: the set of inputs from outside.
        about: further keys of each row: ``predictor``, ``codec``, ``bytes``, ``seed``, ...
    """
    predictor = str(about.pop("predictor"))
    keyed = {}
    for name, measured in measures.items():
        condition = outside if name.startswith("ood_") else "clean"
        keyed[Key(name, condition, part)] = measured
    return [{**row, **about} for row in rows(keyed, predictor=predictor, task=TASK)]


def means_over_seeds(table: Sequence[Row]) -> list[Row]:
    """The mean over seeds of each measure of each code, a row each.

    The interval is Student's t over seeds, of which each has chains of its own; of one seed it is
    that of the row. Where a seed has no value there is no mean, and ``why`` says of which.
    """
    by_place: dict[tuple[str, str], list[Row]] = {}
    for row in table:
        by_place.setdefault((row["predictor"], row["metric"]), []).append(row)
    return [_mean(group) for group in by_place.values()]


def _mean(group: Sequence[Row]) -> Row:
    first = {key: value for key, value in group[0].items() if key not in ("seed", "seconds")}
    sizes = {
        "bytes": round(float(np.mean([row["bytes"] for row in group]))),
        "seconds": round(float(np.mean([row["seconds"] for row in group])), 2),
        "seeds": len(group),
    }
    if len(group) == 1:
        return {**first, **sizes}
    missing = next((row for row in group if row["value"] is None), None)
    if missing is not None:
        why = f"seed {missing['seed']} has none: {missing['why']}"
        return {**first, **sizes, "value": None, "low": None, "high": None, "why": why}

    values = [row["value"] for row in group]
    value = float(np.mean(values))
    half = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    mean = {**first, **sizes, "value": value, "low": value - half, "high": value + half}
    mean.pop("why", None)
    return mean


def front_of(means: Sequence[Row], metric: str) -> list[str]:
    """The codes that no other one beats in bytes and in a measure, from the smallest one.

    A ratio is the better the nearer it is to 1; every other measure that is asked here should be
    small. The samples as they are stand there, too; a student does not, since it was distilled from
    the held-out chain as well.
    """
    points = []
    for row in means:
        is_rival = row["metric"] == metric and row["codec"] != STUDENT
        if is_rival and row["value"] is not None:
            points.append((row["bytes"], loss_of(metric, row["value"]), row["predictor"]))

    names, least = [], math.inf
    for _, loss, name in sorted(points):
        if loss < least:
            names.append(name)
            least = loss
    return names


def loss_of(metric: str, value: float) -> float:
    """How much of a measure is lost: 0 where nothing is."""
    return abs(1 - value) if metric in _RATIOS else value


def in_columns(means: Sequence[Row], metrics: Sequence[str] = MEASURES) -> list[Row]:
    """A row a code, and a column a measure."""
    table: dict[str, Row] = {}
    for row in means:
        name = row["predictor"]
        line = table.setdefault(name, {"code": name, "bytes": row["bytes"]})
        if row["metric"] in metrics:
            line[row["metric"]] = row["value"]
    return list(table.values())
