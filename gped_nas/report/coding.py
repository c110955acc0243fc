"""The page of codecs: bytes against what is lost of a posterior, and a table of every measure."""

import math
from typing import Any

from gped_nas.report import words
from gped_nas.report.figures import SERIES, VERMILLION, Chart, blank
from gped_nas.report.page import render

Data = dict[str, Any]

STREAM, STUDENT = "stream", "student"
"""Who stands beside codecs."""
_DRAWN = {
    "energy": (
        "Energy distance to the held-out chain (nats)",
        "How far the law of the networks is from that of a chain that no codec has read.",
    ),
    "average_kl": (
        "KL of the averages (nats)",
        "How far the average is from that of the held-out chain.",
    ),
    "information_ratio": (
        "Mutual information beside the held-out chain's (ratio)",
        "How much of the disagreement between networks is kept: 1 is all of it.",
    ),
    "draw_nll_difference": (
        "NLL of single draws above the chain's networks (nats)",
        "Whether a draw is a good network by itself: 0 is as good as the chain's.",
    ),
}
"""Measures that are drawn: label and words."""
LABELS = {
    "energy": "energy distance",
    "energy_p": "its p",
    "mmd": "MMD²",
    "mmd_p": "its p",
    "energy_to_read": "energy distance to what was read",
    "average_kl": "KL of averages",
    "average_kl_to_read": "KL to what was read",
    "average_tv": "total variation",
    "average_nll": "NLL",
    "average_nll_difference": "NLL above the chain's",
    "entropy_ratio": "E[H] ratio",
    "information_ratio": "MI ratio",
    "information_spearman": "Spearman of MI",
    "ood_auroc_model": "OOD AUROC by MI",
    "draw_nll": "NLL of a draw",
    "draw_nll_difference": "above the chain's",
    "nearest_ratio": "nearest sample",
    "copied_share": "copies",
    "runs_p": "runs test, p",
}
"""Columns of the table."""
_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
_FEW_POWERS = 100
"""An axis that ends at so many times where it begins has room for ticks between powers of ten."""


def codec_page(data: Data) -> str:
    """What ``codec.json`` holds, as one self-contained HTML text."""
    drawings = [_chart(data, metric) for metric in _DRAWN]
    return render(
        "coding.html.j2",
        drawings,
        data=data,
        labels=LABELS,
        table=_table(data),
        fronts=_fronts(data),
    )


def _table(data: Data) -> list[Data]:
    """A row a code: its bytes, and a cell a measure."""
    rows: dict[str, Data] = {}
    for mean in data["means"]:
        name = mean["predictor"]
        row = rows.setdefault(name, {"name": name, "bytes": mean["bytes"], "cells": {}})
        row["seconds"] = mean["seconds"]
        row["cells"][mean["metric"]] = {
            "text": words.metric(mean["value"], mean["metric"]),
            "interval": words.interval([mean["low"], mean["high"]], mean["metric"]),
            "why": mean.get("why", ""),
        }
    return sorted(rows.values(), key=lambda row: row["bytes"])


def _fronts(data: Data) -> list[tuple[str, str]]:
    """The codes that none beats in bytes and one measure, in words."""
    return [(LABELS[metric], ", ".join(names)) for metric, names in data["fronts"].items()]


def _chart(data: Data, metric: str) -> Chart:
    """One measure against bytes, a line a codec; the real chains are the floor."""
    label, text = _DRAWN[metric]
    means = [row for row in data["means"] if row["metric"] == metric and row["value"] is not None]
    figure = blank("bytes of the file", label)
    figure.update_xaxes(type="log", tickformat="~s", dtick=_log_step(means))

    for stream in [row for row in means if row["codec"] == STREAM]:
        figure.add_hline(y=stream["value"], line={"color": VERMILLION, "width": 1, "dash": "dash"})
        _add_points(figure, [stream], "the samples as they are", VERMILLION, "star")

    names = [row["codec"] for row in means if row["codec"] not in (STREAM, STUDENT)]
    for number, name in enumerate(dict.fromkeys(names)):
        rows = [row for row in means if row["codec"] == name]
        color = SERIES[number % len(SERIES)]
        _add_points(figure, rows, name, color, _MARKERS[number % len(_MARKERS)])
    students = [row for row in means if row["codec"] == STUDENT]
    if students:
        _add_points(figure, students, "student", VERMILLION, "hexagon")

    seeds = words.things(len(data["seeds"]), "seed")
    whole = (
        f"{text} The dashed line is the distance of the real chains that codecs read from it; "
        f"means over {seeds}, bars are 95 % intervals."
    )
    return Chart(f"chart-{metric.replace('_', '-')}", metric, label, whole, figure)


def _log_step(means: list[Data]) -> str | int:
    """Ticks that do not run into each other: 1, 2, 5 of a power of ten, or the powers alone."""
    sizes = [row["bytes"] for row in means]
    is_short = not sizes or max(sizes) < _FEW_POWERS * min(sizes)
    return "D2" if is_short else 1


def _add_points(figure: Any, rows: list[Data], name: str, color: str, symbol: str) -> None:
    """A codec's points by bytes, with their intervals where there are some."""
    rows = sorted(rows, key=lambda row: row["bytes"])
    values = [row["value"] for row in rows]
    above = [_reach(row, "high") for row in rows]
    below = [_reach(row, "low") for row in rows]
    figure.add_scatter(
        x=[row["bytes"] for row in rows],
        y=values,
        mode="lines+markers",
        name=name,
        hovertext=[words.drawn(row["predictor"]) for row in rows],
        line={"color": color, "width": 2},
        marker={"size": 9, "symbol": symbol},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "thickness": 1,
            "width": 3,
            "color": color,
        },
    )


def _reach(row: Data, end: str) -> float:
    """How far an interval reaches from its value; nothing where there is none."""
    return 0.0 if row[end] is None else math.fabs(row[end] - row["value"])
