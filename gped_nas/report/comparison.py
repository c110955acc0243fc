"""The page that sets studies side by side: fronts over each other, hypervolumes, what was
configured differently.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from gped_nas import io
from gped_nas.report import words
from gped_nas.report.data import data_of
from gped_nas.report.figures import INK, SERIES, Chart, blank
from gped_nas.report.front import add_step, log_axes
from gped_nas.report.page import render
from gped_nas.report.records import Data, find, plain
from gped_nas.search.comparison import compare_fronts
from gped_nas.search.snapshot import StudySnapshot

_MARKERS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
_MARKS = ("●", "◆", "■", "▲", "✚", "★")


def comparison_data(snapshots: Sequence[StudySnapshot]) -> Data:
    """What the page shows of several studies. Raises as ``compare_fronts``."""
    found = compare_fronts(snapshots)
    studies = [data_of(snapshot) for snapshot in snapshots]
    names = [study["name"] for study in studies]
    differences = [
        plain(vars(d))
        | {"first": names[d.first], "second": names[d.second], "reading": _reading(d, names)}
        for d in found.differences
    ]
    return {
        "names": names,
        "objectives": studies[0]["objectives"],
        "studies": [_study(s, v) for s, v in zip(studies, found.hypervolumes, strict=True)],
        "box": plain({"best": found.best, "worst": found.worst}),
        "differences": differences,
        "headline": _headline(differences),
        "notes": _notes(snapshots),
        "settings": _settings(snapshots),
    }


def comparison_page(data: Data) -> str:
    """The comparison as one self-contained HTML text."""
    drawings = [
        _chart(data, *pair, i)
        for i, pair in enumerate(itertools.combinations(data["objectives"], 2))
    ]
    marks = [
        {"mark": m, "color": c, "text": n}
        for m, c, n in zip(_MARKS, SERIES, data["names"], strict=False)
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


def _reading(difference: Any, names: Sequence[str]) -> str:
    low, high = difference.interval
    if low <= 0 <= high:
        return "not told apart: the interval holds 0"
    return f"larger: {names[difference.first if low > 0 else difference.second]}"


def _headline(differences: Sequence[Data]) -> str:
    clear = [d for d in differences if d["reading"].startswith("larger")]
    if not clear:
        return "These studies' fronts cannot be told apart by their hypervolume."
    largest = max(clear, key=lambda d: abs(d["difference"]))
    winner, loser = (
        largest[side]
        for side in (("first", "second") if largest["difference"] > 0 else ("second", "first"))
    )
    share = f"{100 * abs(largest['difference']):.2f} %"
    return f"The front of {words.cut(winner, 60)} covers {share} more of the box than that of {words.cut(loser, 60)}."


def _notes(snapshots: Sequence[StudySnapshot]) -> list[str]:
    notes = []
    if (
        len(
            {
                io.canonical_json(plain([s.config.get("dataset"), s.config.get("data")]))
                for s in snapshots
            }
        )
        > 1
    ):
        notes.append(
            "The studies are of different data: their qualities are not measured on the same "
            "examples."
        )
    elif len({str(s.teacher.get("digest")) for s in snapshots}) > 1:
        notes.append("The studies have different teachers.")
    if len({io.canonical_json(plain(s.reference_point)) for s in snapshots}) > 1:
        notes.append(
            "The studies' own boxes differ; the hypervolumes here are shares of the box that holds "
            "them all."
        )
    if len({len(s.records) for s in snapshots}) > 1:
        notes.append("The studies have different numbers of trials, and more trials find more.")
    return notes


def _settings(snapshots: Sequence[StudySnapshot]) -> list[Data]:
    """Settings that are not the same in all studies, ``name`` and the ``values`` of each."""
    flat = [dict(_flat("", plain(snapshot.config))) for snapshot in snapshots]
    names = dict.fromkeys(name for one in flat for name in one)
    rows = [{"name": name, "values": [one.get(name, words.NONE) for one in flat]} for name in names]
    return [row for row in rows if len(set(row["values"])) > 1]


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [
            row for key, item in value.items() for row in _flat(f"{prefix}.{key}".lstrip("."), item)
        ]
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [row for i, item in enumerate(value) for row in _flat(f"{prefix}[{i}]", item)]
    return [(prefix, words.compact(value))]


def _chart(data: Data, first: Data, second: Data, index: int) -> Chart:
    upright = first["kind"] == "cost" or second["kind"] == "metric"
    across, up = (first, second) if upright else (second, first)
    figure = blank(across["label"], up["label"])
    for i, (study, color, symbol) in enumerate(
        zip(data["studies"], SERIES, _MARKERS, strict=False)
    ):
        rows = [
            {**r["costs"], **r["metrics"], "trial": r["trial"], "chosen": r["chosen"]}
            for r in study["front"]
        ]
        points = [(r[across["name"]], r[up["name"]]) for r in rows]
        name = words.drawn(study["name"], 40)
        add_step(figure, points, across, up, color)
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="markers",
            name=name,
            marker={"symbol": symbol, "color": color, "size": 14 - 2 * i},
            hovertext=[f"<b>{name}</b><br>trial {r['trial']}" for r in rows],
            hoverinfo="text+x+y",
        )
        chosen = [p for r, p in zip(rows, points, strict=True) if r["chosen"]]
        ring = {"symbol": "circle-open", "color": INK, "size": 18, "line": {"width": 2}}
        figure.add_scatter(
            x=[x for x, _ in chosen],
            y=[y for _, y in chosen],
            mode="markers",
            marker=ring,
            hoverinfo="skip",
        )
    log_axes(figure, across, up)
    figure.update_layout(showlegend=False)
    title = f"{up['label']} against {across['label']}"
    text = "Fronts of all studies, on validation; rings mark the chosen students."
    return Chart(f"chart-front-{index}", "front", title, text, figure)
