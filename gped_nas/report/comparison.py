"""The page that sets studies side by side: their fronts, hypervolumes and differing settings."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from gped_nas import io
from gped_nas.report import words
from gped_nas.report.data import data_of
from gped_nas.report.figures import INK, SERIES, Chart, blank
from gped_nas.report.front import add_step, log_axes, orient
from gped_nas.report.page import render
from gped_nas.report.records import Data, find, plain
from gped_nas.report.tasks import cell_of
from gped_nas.search.comparison import compare_fronts
from gped_nas.search.snapshot import StudySnapshot
from gped_nas.search.task_rows import Row, label_of, name_of, shown_rows, trial_of

_MARKERS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
_MARKS = ("●", "◆", "■", "▲", "✚", "★")


def comparison_data(snapshots: Sequence[StudySnapshot]) -> Data:
    """What the page shows of several studies. Raises as ``compare_fronts``."""
    comparison = compare_fronts(snapshots)
    studies = [data_of(snapshot) for snapshot in snapshots]
    names = [study["name"] for study in studies]
    differences = [_difference(difference, names) for difference in comparison.differences]
    pairs = zip(studies, comparison.hypervolumes, strict=True)
    return {
        "names": names,
        "objectives": studies[0]["objectives"],
        "studies": [_study(study, hypervolume) for study, hypervolume in pairs],
        "box": plain({"best": comparison.best, "worst": comparison.worst}),
        "differences": differences,
        "headline": _headline(differences),
        "notes": _notes(snapshots),
        "settings": _settings(snapshots),
        "tasks": _tasks(snapshots),
    }


def comparison_page(data: Data) -> str:
    """The comparison as one self-contained HTML text."""
    pairs = itertools.combinations(data["objectives"], 2)
    drawings = [_chart(data, *pair, index) for index, pair in enumerate(pairs)]
    marks = [
        {"mark": mark, "color": color, "text": name}
        for mark, color, name in zip(_MARKS, SERIES, data["names"], strict=False)
    ]
    return render("comparison.html.j2", drawings, data=data, marks=marks)


def _study(study: Data, hypervolume: float) -> Data:
    chosen = study["chosen"]
    return {
        "name": study["name"],
        "num_trials": len(study["records"]),
        "states": study["states"],
        "front": [find(study, trial) for trial in study["front"]],
        "chosen": None if chosen is None else find(study, chosen),
        "hypervolume": plain(hypervolume),
    }


def _difference(difference: Any, names: Sequence[str]) -> Data:
    row: Data = plain(vars(difference))
    return row | {
        "first": names[difference.first],
        "second": names[difference.second],
        "reading": _reading(difference, names),
    }


def _reading(difference: Any, names: Sequence[str]) -> str:
    if difference.interval is None:
        return str(difference.why)
    low, high = difference.interval
    if low <= 0 <= high:
        return "not told apart: the interval holds 0"
    return f"larger: {names[difference.first if low > 0 else difference.second]}"


def _headline(differences: Sequence[Data]) -> str:
    clear = [row for row in differences if row["reading"].startswith("larger")]
    if not clear:
        if all(row["interval"] is None for row in differences):
            return "These studies have too few trials to tell their fronts apart by hypervolume."
        return "These studies' fronts cannot be told apart by their hypervolume."

    largest = max(clear, key=lambda row: abs(row["difference"]))
    winner, loser = largest["first"], largest["second"]
    if largest["difference"] <= 0:
        winner, loser = loser, winner
    share = f"{100 * abs(largest['difference']):.2f} %"
    return (
        f"The front of {words.cut(winner, 60)} covers {share} more of the box than that of "
        f"{words.cut(loser, 60)}."
    )


def _notes(snapshots: Sequence[StudySnapshot]) -> list[str]:
    """What makes the studies less comparable than they look."""
    datasets = {_dataset_text(snapshot) for snapshot in snapshots}
    teachers = {str(snapshot.teacher.get("digest")) for snapshot in snapshots}
    boxes = {io.canonical_json(plain(snapshot.reference_point)) for snapshot in snapshots}
    lengths = {len(snapshot.records) for snapshot in snapshots}

    notes = []
    if len(datasets) > 1:
        notes.append(
            "The studies are of different data: their qualities are not measured on the same "
            "examples."
        )
    elif len(teachers) > 1:  # of different data they differ in any case
        notes.append("The studies have different teachers.")
    if len(boxes) > 1:
        notes.append(
            "The studies' own boxes differ; the hypervolumes here are shares of the box that holds "
            "them all."
        )
    if len(lengths) > 1:
        notes.append("The studies have different numbers of trials, and more trials find more.")
    return notes


def _dataset_text(snapshot: StudySnapshot) -> str:
    return io.canonical_json(plain([snapshot.config.get("dataset"), snapshot.config.get("data")]))


def _tasks(snapshots: Sequence[StudySnapshot]) -> list[Data]:
    """What tasks measured of the chosen students, a cell a study; None where one was not asked."""
    by_study: list[dict[tuple[str, str], Row]] = []
    labels: dict[tuple[str, str], str] = {}
    for snapshot in snapshots:
        rows = [row for row in shown_rows(snapshot) if trial_of(row) == snapshot.chosen]
        keyed = {(str(row["task"]), name_of(row)): row for row in rows}
        for key, row in keyed.items():
            labels.setdefault(key, f"{label_of(row, snapshot)}, {row['part']}")
        by_study.append(keyed if snapshot.chosen is not None else {})

    table = []
    for key, label in labels.items():
        cells = [cell_of(rows[key]) if key in rows else None for rows in by_study]
        table.append({"task": key[0], "label": label, "cells": cells})
    return table


def _settings(snapshots: Sequence[StudySnapshot]) -> list[Data]:
    """Settings that are not the same in all studies, ``name`` and the ``values`` of each."""
    configs = [dict(_flatten("", plain(snapshot.config))) for snapshot in snapshots]
    rows = []
    for name in dict.fromkeys(itertools.chain.from_iterable(configs)):
        values = [config.get(name, words.NONE) for config in configs]
        if len(set(values)) > 1:
            rows.append({"name": name, "values": values})
    return rows


def _flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
    """Pairs of a setting's dotted name and its value as text."""
    if isinstance(value, Mapping) and value:
        parts = [(f"{prefix}.{key}".lstrip("."), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        parts = [(f"{prefix}[{index}]", item) for index, item in enumerate(value)]
    else:
        return [(prefix, words.compact(value))]

    rows = []
    for name, item in parts:
        rows += _flatten(name, item)
    return rows


def _chart(data: Data, first: Data, second: Data, index: int) -> Chart:
    """All studies' fronts over two objectives."""
    across, up = orient(first, second)
    figure = blank(across["label"], up["label"])
    for i, study in enumerate(data["studies"][: len(SERIES)]):
        # later studies are drawn smaller, so that equal points stay visible under each other
        marker = {"symbol": _MARKERS[i], "color": SERIES[i], "size": 14 - 2 * i}
        _add_front(figure, study, across, up, marker)
    log_axes(figure, across, up)
    figure.update_layout(showlegend=False)

    title = f"{up['label']} against {across['label']}"
    text = "Fronts of all studies, on validation; rings mark the chosen students."
    return Chart(f"chart-front-{index}", "front", title, text, figure)


def _add_front(figure: Any, study: Data, across: Data, up: Data, marker: Data) -> None:
    """One study's front: its step line, its marks, a ring around the chosen student."""
    name = words.drawn(study["name"], 40)
    points = []
    chosen = []
    texts = []
    for row in study["front"]:
        values = {**row["costs"], **row["metrics"]}
        point = (values[across["name"]], values[up["name"]])
        points.append(point)
        texts.append(f"<b>{name}</b><br>trial {row['trial']}")
        if row["chosen"]:
            chosen.append(point)

    add_step(figure, points, across, up, marker["color"])
    figure.add_scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="markers",
        name=name,
        marker=marker,
        hovertext=texts,
        hoverinfo="text+x+y",
    )
    figure.add_scatter(
        x=[x for x, _ in chosen],
        y=[y for _, y in chosen],
        mode="markers",
        marker={"symbol": "circle-open", "color": INK, "size": 18, "line": {"width": 2}},
        hoverinfo="skip",
    )
