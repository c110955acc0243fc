"""The page of the uncertainty dials: the gap between students and teacher against each dial."""

from typing import Any

from gped_nas.report.figures import SERIES, VERMILLION, Chart, blank
from gped_nas.report.page import render

_AXES = {
    "mask": "side of the zeroed patch, pixels",
    "subsample": "training labels",
}
_MARKERS = ("circle", "square")


def dials_page(data: dict[str, Any]) -> str:
    """What ``dials.json`` holds, as one self-contained HTML text."""
    found = [dial for dial in _AXES if any(point["dial"] == dial for point in data["points"])]
    drawings = [chart for dial in found for chart in _charts(data, dial)]
    return render("dials.html.j2", drawings, data=data, axes=_AXES)


def _points(data: dict[str, Any], dial: str) -> list[tuple[int, dict[str, Any]]]:
    """The settings of a dial with the data as they are among them, by growing value."""
    chosen = [p for p in data["points"] if p["dial"] in (dial, None)]
    across = "num_labels" if dial == "subsample" else "value"
    return sorted(((point[across], point) for point in chosen), key=lambda pair: pair[0])


def _names(data: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(s["name"] for point in data["points"] for s in point["students"]))


def _charts(data: dict[str, Any], dial: str) -> list[Chart]:
    what, bars = "mask" if dial == "mask" else "number of labels", "95 % bootstrap intervals"
    text = f"Bars are {bars} over n = {data['points'][0]['n']} examples."
    gap = _lines(data, dial, "nll_above_teacher", "NLL above the teacher's (nats)")
    gap.add_hline(y=0, line={"color": VERMILLION, "width": 1, "dash": "dash"})
    far = _lines(data, dial, "kl_to_teacher", "KL(teacher || student) (nats)")
    level = _lines(data, dial, "nll", "NLL (nats)")
    _add_line(
        level,
        [(x, point["teacher"]) for x, point in _points(data, dial)],
        "nll",
        "teacher",
        VERMILLION,
        "star",
    )
    paired = f"On the same examples: below 0 the student is better. {text}"
    return [
        Chart(
            f"chart-gap-{dial}", dial, f"Teacher-student gap in NLL against the {what}", paired, gap
        ),
        Chart(f"chart-kl-{dial}", dial, f"Teacher-student gap in KL against the {what}", text, far),
        Chart(f"chart-nll-{dial}", dial, f"NLL against the {what}", text, level),
    ]


def _lines(data: dict[str, Any], dial: str, metric: str, label: str) -> Any:
    """One line a student: a metric against a dial."""
    figure = blank(_AXES[dial], f"{data['part']} {label}")
    for name, color, symbol in zip(_names(data), SERIES, _MARKERS, strict=False):
        rows = [
            (x, s)
            for x, point in _points(data, dial)
            for s in point["students"]
            if s["name"] == name
        ]
        _add_line(figure, rows, metric, f"{name} student", color, symbol)
    if dial == "subsample":
        figure.update_xaxes(type="log", tickformat="~s", nticks=6)
    return figure


def _add_line(
    figure: Any,
    rows: list[tuple[int, dict[str, Any]]],
    metric: str,
    name: str,
    color: str,
    symbol: str,
) -> None:
    values = [row["metrics"][metric] for _, row in rows]
    bounds = [row["intervals"][metric] for _, row in rows]
    figure.add_scatter(
        x=[x for x, _ in rows],
        y=values,
        mode="lines+markers",
        name=name,
        line={"color": color, "width": 2},
        marker={"size": 8, "symbol": symbol},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - value for value, (_, high) in zip(values, bounds, strict=True)],
            "arrayminus": [value - low for value, (low, _) in zip(values, bounds, strict=True)],
            "thickness": 1,
            "width": 3,
            "color": color,
        },
    )
