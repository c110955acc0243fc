"""What ``gped-search evaluate`` measured of a study: tables, axes of the front, curves of cards."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gped_nas.evaluate.measured import VALIDATION, Key, Measures
from gped_nas.models.labels import TIMED_COSTS
from gped_nas.report.records import Data, plain
from gped_nas.search.snapshot import StudySnapshot
from gped_nas.search.task_rows import TEACHER, Row, beside_teacher, label_of, name_of, trial_of

STUDENT = "student"
Pair = tuple[Row, Row | None]
"""A student's row, and the teacher's of the same question and examples."""
_DRAWN = ("confidence", "total", "model", "variance")
"""Scores whose curves are drawn; those of all are in the rows."""
CERTIFIED, BROKEN = "certified", "broken"
_SHARES = (CERTIFIED, BROKEN)
_CERTIFY = "certify:"
_WEAKEST = "ibp"
_ATTACK = re.compile(r"attack:(?P<name>[a-z_]+)-(?P<radius>[0-9.e-]+)")


def tables(rows: Sequence[Row], snapshot: StudySnapshot) -> list[Data]:
    """A table a task and part: ``task``, ``part``, ``n``, ``predictors``, ``rows``, ``notes``.

    What a task was asked with (a set, a radius) stands in the names of its rows. ``n`` is the
    number of examples of most cells.
    """
    made = []
    for task, part in dict.fromkeys((_bare(row), row["part"]) for row in rows):
        of_task = [row for row in rows if (_bare(row), row["part"]) == (task, part)]
        predictors = sorted({row["predictor"] for row in of_task}, key=_order)
        cells = {(name_of(row), row["predictor"]): cell_of(row) for row in of_task}

        lines = []
        for name, row in {name_of(row): row for row in of_task}.items():
            values = [cells.get((name, predictor)) for predictor in predictors]
            lines.append({"name": name, "label": label_of(row, snapshot), "cells": values})
        notes = dict.fromkeys(str(row["note"]) for row in of_task if row.get("note"))
        table = {"task": task, "part": part, "predictors": predictors, "rows": lines}
        ((usual_n, _),) = Counter(row["n"] for row in of_task).most_common(1)
        made.append(table | {"n": usual_n, "notes": list(notes)})
    return made


def _bare(row: Row) -> str:
    """The name of a row's task."""
    return str(row["task"]).partition(":")[0]


def _order(predictor: str) -> tuple[int, int, str]:
    """The teacher first, then what it is compared with, then students by trial."""
    trial = trial_of({"predictor": predictor})
    rank = 0 if predictor == TEACHER else 1 if trial is None else 2
    return rank, trial or 0, predictor


def cell_of(row: Row) -> Data:
    """A value with its interval and number of examples."""
    interval = None if row["low"] is None else [row["low"], row["high"]]
    cell: Data = plain({"value": row["value"], "interval": interval, "n": row["n"]})
    return cell | {"why": str(row.get("why", "")), "metric": str(row["metric"])}


def add_to_axes(data: Data, rows: Sequence[Row], snapshot: StudySnapshot) -> None:
    """Make measures of students axes of the front, in place: of their records and of references.

    Args:
        data: with ``axes``, ``records`` and ``references``.
        rows: of ``shown_rows``.
        snapshot: the study.
    """
    known = {axis["name"] for axis in data["axes"]}
    names = {name_of(row): row for row in rows if trial_of(row) is not None}
    new = {name: row for name, row in names.items() if name not in known}
    for name, row in new.items():
        data["axes"].append(_axis(name, row, snapshot))

    by_trial = {record["trial"]: record for record in data["records"]}
    by_name = {reference["name"]: reference for reference in data["references"]}
    for row in rows:
        name, trial = name_of(row), trial_of(row)
        holder = by_name.get(row["predictor"]) if trial is None else by_trial.get(trial)
        is_new = name in new and holder is not None and name not in holder["metrics"]
        if holder is None or not is_new or row["value"] is None:
            continue
        holder["metrics"][name] = plain(row["value"])
        if row["low"] is not None:
            holder["intervals"][name] = plain([row["low"], row["high"]])


def _axis(name: str, row: Row, snapshot: StudySnapshot) -> Data:
    """A measure as an axis: of a ``task``, below whose name it can be chosen."""
    metric = row["metric"]
    words = snapshot.metrics.get(metric)
    part = "" if row["part"] == VALIDATION else f", {row['part']}"
    direction = "minimize" if metric in TIMED_COSTS else words.direction if words else None
    return {
        "name": name,
        "label": label_of(row, snapshot) + part,
        "kind": "metric",
        "direction": direction,
        "log": metric in TIMED_COSTS,
        "task": _bare(row),
    }


# --- curves -----------------------------------------------------------------------------------


def curves(rows: Sequence[Row], snapshot: StudySnapshot, trial: int) -> list[Data]:
    """What a card draws of a student beside its teacher.

    Returns:
        Each has a ``title``, the names of its axes (``across``, ``up``) and ``lines`` of points by
        whose they are.
    """
    pairs = beside_teacher(rows, trial)
    made = _attacks(pairs, snapshot, trial)
    made += _certificates(pairs, snapshot, trial)
    made += _rejections(pairs)
    made += _scores(row for row, _ in pairs)
    return made


def _attacks(pairs: Sequence[Pair], snapshot: StudySnapshot, trial: int) -> list[Data]:
    """Accuracy against the radius of each attack that was made with several on some examples."""
    by_attack: dict[tuple[str, ...], list[Pair]] = {}
    for row, of_teacher in pairs:
        attack = _attack_of(row)
        if attack is not None:
            examples = [str(row.get(name)) for name in ("part", "n", "seed")]
            by_attack.setdefault((attack, *examples), []).append((row, of_teacher))

    clean = _clean(snapshot, trial)
    made = []
    for (attack, part, n, _), of_attack in by_attack.items():
        student = [row for row, _ in of_attack]
        teacher = [row for _, row in of_attack if row is not None]
        lines = {
            who: _by_radius(rows, clean.get(who, {}))
            for who, rows in ((STUDENT, student), (TEACHER, teacher))
        }
        if len(student) > 1:
            title = f"Accuracy under {attack}, on {part}, n {n}"
            made.append(_curve(title, "radius", "accuracy", lines))
    return made


def _clean(snapshot: StudySnapshot, trial: int) -> dict[str, Measures]:
    """What the study recorded of a student and of the references, on inputs as they are."""
    clean = {STUDENT: snapshot.record(trial).measures}
    return clean | {reference.name: reference.measures for reference in snapshot.references}


def _by_radius(rows: Sequence[Row], clean: Measures) -> list[list[float]]:
    """The points of a line, from that without an attack where it is of the same examples."""
    points = [[_radius_of(row), row["value"]] for row in rows if row["value"] is not None]
    unattacked = clean.get(Key("accuracy", part=rows[0]["part"])) if rows else None
    if unattacked is not None and unattacked.value is not None and unattacked.n == rows[0]["n"]:
        points.append([0.0, unattacked.value])
    return sorted(points)


def _attack_of(row: Row) -> str | None:
    """The attack whose accuracy a row is; None of any other row."""
    match = _ATTACK.fullmatch(str(row["task"]))
    return match["name"] if match and row["metric"] == "accuracy" else None


def _radius_of(row: Row) -> float:
    if "epsilon" in row:
        return float(row["epsilon"])
    match = _ATTACK.fullmatch(str(row["task"]))
    assert match is not None, "it is an attack's row"
    return float(match["radius"])


def _certificates(pairs: Sequence[Pair], snapshot: StudySnapshot, trial: int) -> list[Data]:
    """The certified share against the radius, and what an attack left right, by the bounds.

    Intervals alone certify next to nothing: they are drawn where nothing else was asked for.
    """
    by_bounds: dict[tuple[str, ...], list[Pair]] = {}
    for row, of_teacher in pairs:
        if str(row["task"]).startswith(_CERTIFY) and row["metric"] in _SHARES:
            examples = [str(row.get(name)) for name in ("bounds", "part", "n", "seed")]
            by_bounds.setdefault(tuple(examples), []).append((row, of_teacher))

    is_alone = {bounds for bounds, *_ in by_bounds} == {_WEAKEST}
    made = []
    for (bounds, part, n, _), of_bounds in by_bounds.items():
        radii = {_radius_of(row) for row, _ in of_bounds}
        if len(radii) > 1 and (bounds != _WEAKEST or is_alone):
            title = f"Certified by {bounds}, and attacked, on {part}, n {n}"
            lines = _certified_lines(of_bounds, snapshot, trial)
            made.append(_curve(title, "radius", "share right", lines))
    return made


def _certified_lines(pairs: Sequence[Pair], snapshot: StudySnapshot, trial: int) -> Data:
    """Two lines each of student and teacher: no input can change them, and an attack did not."""
    clean = _clean(snapshot, trial)
    by_predictor = {STUDENT: [row for row, _ in pairs]}
    by_predictor[TEACHER] = [row for _, row in pairs if row is not None]

    lines: Data = {}
    for who, rows in by_predictor.items():
        certified = [row for row in rows if row["metric"] == CERTIFIED]
        lines[who] = _by_radius(certified, clean.get(who, {}))
        unbroken = [{**row, "value": 1 - row["value"]} for row in rows if row["metric"] == BROKEN]
        lines[f"{who} attacked"] = _by_radius(unbroken, clean.get(who, {}))
    return lines


def _rejections(pairs: Iterable[Pair]) -> list[Data]:
    """The risk of what is answered against the share of it, by some scores."""
    made = []
    for row, of_teacher in pairs:
        lines = {STUDENT: _risks(row), TEACHER: _risks(of_teacher or {})}
        if not lines[STUDENT] or _score_of(row) not in _DRAWN:
            continue
        title = f"Risk against coverage, by {_score_of(row)}, on {row['part']}"
        made.append(_curve(title, "coverage", "risk", lines))
    return made


def _risks(row: Row) -> list[list[float]]:
    """The points of a row's risk-coverage curve; none of a row that carries no such curve."""
    curve = row.get("curve") or {}
    points = zip(curve.get("coverage", ()), curve.get("risk", ()), strict=False)
    return [list(point) for point in points]


def _scores(student: Iterable[Row]) -> list[Data]:
    """How many inputs inside and outside have which score, as shares of each."""
    made = []
    for row in student:
        curve = row.get("curve") or {}
        has_scores = {"edges", "inside", "outside"} <= curve.keys()
        if not has_scores or _score_of(row) not in _DRAWN:
            continue
        lines = {who: _steps(curve["edges"], curve[who]) for who in ("inside", "outside")}
        score = _score_of(row)
        _, _, outside = str(row["task"]).partition(":")
        title = f"Score {score.replace('_', ' ')} on {row['part']}: inside, and {outside}"
        made.append(_curve(title, score.replace("_", " "), "share", lines))
    return made


def _score_of(row: Row) -> str:
    """The uncertainty score that a row's metric is by."""
    metric = str(row["metric"])
    return metric.removeprefix("ood_auroc_").removeprefix("aurc_")


def _steps(edges: Sequence[float], counts: Sequence[float]) -> list[list[float]]:
    """The outline of a histogram."""
    total = sum(counts) or 1
    points = [[edges[0], 0.0]]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        points += [[low, count / total], [high, count / total]]
    return [*points, [edges[-1], 0.0]]


def _curve(title: str, across: str, up: str, lines: Mapping[str, Any]) -> Data:
    drawn = {who: plain(points) for who, points in lines.items() if points}
    return {"title": title, "across": across, "up": up, "lines": drawn}
