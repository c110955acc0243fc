"""Rows of a grid's cells brought together: means over seeds, and methods ranked over blocks.

A row is what ``evaluate.measured.rows`` makes, with the names of its cell. A *subject* is who was
measured: ``teacher``, ``single_sample``, or a student by the name that the grid has for it:
``own student``, ``chosen student``, and ``front trial 3`` where it has no other name.

The 95 % interval of a mean over seeds is Student's t with two variances, that over examples, as the
seeds' own intervals say it, and that over seeds, on Satterthwaite's degrees of freedom. Examples
are the same for all seeds, so that their share does not shrink with the number of seeds. Of one
seed it is the seed's own interval.

Source: Satterthwaite 1946, Biometrics Bulletin 2.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.shares import Z95
from gped_nas.io import SCHEMA_VERSION
from gped_nas.posterior.diagnostics import t_quantile
from gped_nas.suite.cells import Outcome
from gped_nas.suite.ranks import rank

Row = dict[str, Any]


class Place(NamedTuple):
    """What a mean over seeds is of."""

    task: str
    teacher: str
    method: str
    subject: str
    metric: str
    condition: str
    part: str
    detail: str


class Question(NamedTuple):
    """What treatments are compared by; ``fixed`` is the one subject, or the one method."""

    task: str
    metric: str
    condition: str
    part: str
    detail: str
    compared: str
    fixed: str


_MEASURE = frozenset(("value", "low", "high", "n", "why", "note", "curve", "schema_version"))
"""Keys of a row that do not say what it is of."""
_TRIAL = re.compile(r" trial \d+$")
"""A subject that has no name but its trial's number."""


def rows_of(outcomes: Iterable[Outcome]) -> list[Row]:
    """The rows of all measured cells, each with the names of its cell and of its subject.

    Where a task has several rows of one metric and subject, ``detail`` tells them apart, by what
    they say beside it: ``samples 4``.
    """
    table = []
    for outcome in outcomes:
        if outcome.record is None:
            continue
        names = outcome.planned.cell.names
        measured = outcome.record["rows"]
        subjects = {row["predictor"]: _subject(row, names["student"]) for row in measured}
        details = _details(measured, subjects)
        for row, detail in zip(measured, details, strict=True):
            subject = subjects[row["predictor"]]
            more = {"subject": subject, "detail": detail, "schema_version": SCHEMA_VERSION}
            table.append({**row, **names, **more})
    return table


def _details(rows: Sequence[Row], subjects: Mapping[str, str]) -> list[str]:
    """What tells each row of a cell from others of its metric and subject; empty where none is."""
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        alike.setdefault(_key(row), []).append(row)

    details = []
    for row in rows:
        group = alike[_key(row)]
        parts = []
        for name, value in row.items():
            is_telling = name not in _MEASURE and not isinstance(value, list | dict)
            if is_telling and any(other.get(name) != value for other in group):
                # a student is called as the grid does
                parts.append(f"{name} {subjects.get(value, value)}")
        details.append(", ".join(parts))
    return details


def _key(row: Row) -> tuple[Any, ...]:
    return row["predictor"], row["metric"], row["condition"], row["part"]


def _subject(row: Mapping[str, Any], student: str) -> str:
    """Who was measured; a student is called as the grid does."""
    predictor = str(row["predictor"])
    if "role" in row:
        return f"{row['role']} student"
    if predictor == "student":
        return f"{student} student"
    if predictor.startswith("trial "):
        return f"{student} {predictor}"
    return predictor


def summarize(rows: Sequence[Row], metrics: Sequence[str] = ()) -> list[Row]:
    """The mean over seeds of everything that was measured with each of them, a row each.

    Students that one seed alone has are left out: other trials are on the front of another seed.

    Args:
        rows: see ``rows_of``.
        metrics: those that are wanted; empty for all.
    """
    by_place: dict[Place, dict[int, Row]] = {}
    for row in rows:
        if metrics and row["metric"] not in metrics:
            continue
        place = Place(*[row[name] for name in Place._fields])
        by_place.setdefault(place, {}).setdefault(row["seed"], row)

    summaries = []
    for place, by_seed in by_place.items():
        if _TRIAL.search(place.subject):
            continue
        summaries.append({**place._asdict(), **_mean(list(by_seed.values()))})
    return summaries


def _mean(rows: Sequence[Row]) -> Row:
    """Value, interval, sizes and reason of one place."""
    values = [row["value"] for row in rows]
    sizes = {"n": rows[0]["n"], "seeds": len(rows)}
    missing = [row for row in rows if row["value"] is None]
    if missing:
        why = missing[0].get("why") or "it has no value with one of the seeds"
        return {"value": None, "low": None, "high": None, "why": why, **sizes}
    if len(rows) == 1:
        first = rows[0]
        kept = {name: first[name] for name in ("value", "low", "high")}
        return {**kept, "why": first.get("why", ""), **sizes}

    value = float(np.mean(values))
    half, why = _half_width(rows)
    if half is None:
        return {"value": value, "low": None, "high": None, "why": why, **sizes}
    low, high = _possible(rows[0]["metric"], value - half, value + half)
    return {"value": value, "low": low, "high": high, "why": why, **sizes}


def _possible(name: str, low: float, high: float) -> tuple[float, float]:
    """An interval without values that the metric cannot have, as far as it says which."""
    metric = METRICS.get(name)
    if metric is None:
        return low, high
    if metric.unit == "share":
        return max(low, 0.0), min(high, 1.0)
    if metric.bounds and metric.direction == "minimize":
        return max(low, min(metric.bounds.values())), high
    if metric.bounds:
        return low, min(high, max(metric.bounds.values()))
    return low, high


def _half_width(rows: Sequence[Row]) -> tuple[float | None, str]:
    """Half of the interval of a mean over seeds, and why there is none or what it is of."""
    num_seeds = len(rows)
    of_seeds = float(np.var([row["value"] for row in rows], ddof=1)) / num_seeds
    halves = []
    for row in rows:
        if row["low"] is not None and row["high"] is not None:
            halves.append((row["high"] - row["low"]) / 2)

    of_examples = 0.0
    why = "over seeds alone: no interval over examples is known"
    if len(halves) == num_seeds:
        of_examples = float(np.mean(np.square(halves))) / Z95**2
        why = ""
    total = of_examples + of_seeds
    if total == 0:
        return None, "all seeds give the same: their spread is not known"

    num_examples = rows[0]["n"] or 2
    shares = of_examples**2 / max(1, num_examples - 1) + of_seeds**2 / (num_seeds - 1)
    degrees = max(1, int(total**2 / shares))
    return t_quantile(degrees) * math.sqrt(total), why


def rank_all(rows: Sequence[Row], metrics: Sequence[str] = ()) -> list[Row]:
    """Treatments ranked over blocks of teacher and seed: a row a metric whose direction is known.

    Treatments are the methods, for each subject by itself; where the grid has one method, they are
    the subjects. A block counts where all treatments have a value there.

    Args:
        rows: see ``rows_of``.
        metrics: those that are wanted; empty for all.
    """
    has_methods = len({row["method"] for row in rows}) > 1
    compared, fixed = ("method", "subject") if has_methods else ("subject", "method")

    tables: dict[Question, dict[tuple[str, int], dict[str, float | None]]] = {}
    for row in rows:
        is_wanted = not metrics or row["metric"] in metrics
        if not is_wanted or not direction_of(row["metric"]) or _TRIAL.search(row["subject"]):
            continue
        names = {name: row[name] for name in Place._fields if name in Question._fields}
        question = Question(**names, compared=compared, fixed=row[fixed])
        block = tables.setdefault(question, {}).setdefault((row["teacher"], row["seed"]), {})
        block.setdefault(row[compared], row["value"])

    rankings = []
    for question, blocks in tables.items():
        ranking = _rank(question, blocks)
        if ranking is not None:
            rankings.append(ranking)
    return rankings


def direction_of(name: str) -> str:
    """What is better of a metric; empty where nobody knows.

    A task makes metrics that are not registered, of which a relative is: ``true_cost`` has a sum,
    and ``ndcg5_total`` is ``ndcg20_total`` with another number.
    """
    if name in METRICS:
        return METRICS[name].direction
    without_numbers = re.sub(r"\d+", "", name)
    for metric in METRICS.values():
        is_other_number = metric.name != without_numbers
        if is_other_number and re.sub(r"\d+", "", metric.name) == without_numbers:
            return metric.direction
        if metric.name == f"{name}_sum":
            return metric.direction
    return ""


def _rank(
    question: Question, blocks: Mapping[tuple[str, int], Mapping[str, float | None]]
) -> Row | None:
    """One ranking as plain data; None with fewer than two treatments."""
    names: dict[str, None] = {}
    for block in blocks.values():
        for name, value in block.items():
            if value is not None:
                names[name] = None
    if len(names) < 2:
        return None

    complete = []
    for block in blocks.values():
        values = [block.get(name) for name in names]
        if None not in values:
            complete.append(values)
    if not complete:
        return None

    is_higher = direction_of(question.metric) == "maximize"
    ranking = rank(list(names), np.array(complete, dtype=float), higher_is_better=is_higher)
    return {
        **question._asdict(),
        "names": list(ranking.names),
        "mean_ranks": list(ranking.mean_ranks),
        "blocks": ranking.num_blocks,
        "left_out": len(blocks) - len(complete),
        "chi2": ranking.chi2,
        "p_value": ranking.p_value,
        "critical_distance": ranking.distance,
        "is_different": ranking.is_different,
        "groups": [list(group) for group in ranking.groups],
        "why": ranking.why,
    }
