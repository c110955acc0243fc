"""The front over any two of a study's metrics and costs.

``explorer.js`` redraws it over other axes: it fills each trace anew from the records of the trace's
``meta.group``.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import plotly.graph_objects as go

from gped_nas.report import words
from gped_nas.report.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Chart,
    blank,
)
from gped_nas.report.records import Data

_REFERENCES = {
    "teacher": ("star", VERMILLION, 15, "★"),
    "single_sample": ("triangle-up", GREEN, 12, "▲"),
    "map": ("triangle-down", ORANGE, 12, "▼"),
    "unpruned": ("cross", INK, 10, "✚"),
}
_OTHER_REFERENCE = ("hexagram", GREY, 12, "✶")
_STATES = {
    "infeasible": (
        "infeasible",
        {"symbol": "square-open", "color": ORANGE, "size": 8, "line": {"width": 2}},
    ),
    "pruned": (
        "pruned",
        {"symbol": "x-thin-open", "color": PURPLE, "size": 7, "line": {"width": 2}},
    ),
    "complete": ("dominated", {"symbol": "diamond", "color": SKY, "size": 7}),
}
_FRONT = {"symbol": "circle", "color": BLUE, "size": 9}
_CHOSEN = {"symbol": "circle-open", "color": INK, "size": 19, "line": {"width": 2}}
_KNEE = {"symbol": "diamond-open", "color": GREEN, "size": 18, "line": {"width": 2}}
_WITHIN = {"symbol": "square-open", "color": VERMILLION, "size": 18, "line": {"width": 2.5}}


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
    x_interval: tuple[float, float] | None
    y_interval: tuple[float, float] | None
    text: str


def first_pair(data: Data) -> tuple[Data, Data] | None:
    """The axes that the front is first drawn over, across and up: the first cost and the first
    quality.
    """
    objectives = data["objectives"]
    if len(objectives) < 2:
        return None
    first = objectives[0]
    costs = [o for o in objectives[1:] if o["kind"] == "cost"]
    second = costs[0] if first["kind"] == "metric" and costs else objectives[1]
    upright = first["kind"] == "cost" or second["kind"] == "metric"
    return (first, second) if upright else (second, first)


def front_chart(data: Data, across: Data, up: Data) -> Chart:
    """The front over two axes: what is recorded of trials and references in both.

    Args:
        data: what ``data_of`` gave.
        across, up: of ``data["axes"]``.
    """
    groups: dict[str, list[Data]] = {group: [] for group in ("front", *_STATES)}
    for record in data["records"]:
        group = "front" if record["on_front"] else record["state"]
        if group in groups:
            groups[group].append(record)
    points = {name: _points(rows, across, up) for name, rows in groups.items()}
    figure = blank(across["label"], up["label"])
    for state, (name, marker) in _STATES.items():
        if groups[state]:
            _add_points(figure, points[state], name, marker, state)
    add_step(figure, [(p.x, p.y) for p in points["front"] + points["complete"]], across, up)
    _add_points(figure, points["front"], "front", _FRONT, "front", bars=True)
    for i, reference in enumerate(data["references"]):
        symbol, color, size, _ = _REFERENCES.get(reference["name"], _OTHER_REFERENCE)
        marker = {"symbol": symbol, "color": color, "size": size}
        drawn = _points([reference], across, up)
        _add_points(figure, drawn, reference["label"], marker, f"reference-{i}", bars=True)
    for name, ring in (("knee", _KNEE), ("chosen", _CHOSEN)):
        marked = [record for record in groups["front"] if record["trial"] == data[name]]
        _add_points(figure, _points(marked, across, up), name, ring, name)
    log_axes(figure, across, up)
    figure.update_layout(showlegend=False)
    title = f"{up['label']} against {across['label']}"
    return Chart("chart-front", "front", title, _front_text(points, data), figure)


def legend(data: Data) -> list[dict[str, str]]:
    """What the marks of the fronts mean: ``mark, color, text``."""
    rows = [
        ("●", BLUE, "front"),
        ("◯", INK, "chosen"),
        ("◇", GREEN, "knee"),
        ("◻", VERMILLION, "best within your budget"),
    ]
    rows.append(("◆", SKY, "dominated"))
    rows += [
        (m, c, state)
        for m, c, state in (("□", ORANGE, "infeasible"), ("✕", PURPLE, "pruned"))
        if state in data["states"]
    ]
    for reference in data["references"]:
        _, color, _, mark = _REFERENCES.get(reference["name"], _OTHER_REFERENCE)
        rows.append((mark, color, words.cut(reference["label"], 60)))
    return [{"mark": mark, "color": color, "text": text} for mark, color, text in rows]


def within_marker() -> Data:
    """The mark of the best student within a budget, which only the page's reader can set."""
    return dict(_WITHIN)


def _front_text(points: dict[str, list[_Point]], data: Data) -> str:
    names = {
        "front": "on the front",
        "complete": "dominated",
        "infeasible": "infeasible",
        "pruned": "pruned",
    }
    drawn = [f"{len(points[key])} {name}" for key, name in names.items() if points[key]]
    left = len(data["records"]) - sum(map(len, points.values()))
    rest = (
        f" {left} without both numbers, or repeats of another trial, are not drawn." if left else ""
    )
    ring = " The ring marks the chosen student." if data["chosen"] is not None else ""
    return f"{_sentence(', '.join(drawn) or 'no student')}.{rest}{ring}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _points(rows: Iterable[Data], across: Data, up: Data) -> list[_Point]:
    points = []
    for row in rows:
        x, y = (_value(row, axis) for axis in (across, up))
        if x is not None and y is not None:
            x_bounds, y_bounds = (_bounds(row, axis["name"]) for axis in (across, up))
            points.append(_Point(x, y, x_bounds, y_bounds, _hover(row, across, up)))
    return points


def _value(row: Data, axis: Data) -> float | None:
    value = {**row["costs"], **row["metrics"]}.get(axis["name"])
    drawable = value is not None and (axis["kind"] == "metric" or value > 0)
    return float(value) if drawable and value is not None else None


def _bounds(row: Data, name: str) -> tuple[float, float] | None:
    low, high = row["intervals"].get(name) or (None, None)
    return None if low is None or high is None else (low, high)


def _hover(row: Data, across: Data, up: Data) -> str:
    title = row["label"] if "label" in row else f"trial {row['trial']}"
    lines = [f"<b>{words.drawn(title)}</b>"]
    if "genotype" in row:
        lines.append(words.drawn(row["genotype"], 120))
    lines.extend(_hover_value(row, axis) for axis in (up, across))
    return "<br>".join(lines)


def _hover_value(row: Data, axis: Data) -> str:
    name, text = axis["name"], words.drawn(axis["label"])
    if axis["kind"] == "cost":
        return f"{text}: {words.count(row['costs'][name])}"
    bounds = words.interval(row["intervals"].get(name), name)
    return f"{text}: {words.metric(row['metrics'][name], name)} {bounds}".rstrip()


def _add_points(
    figure: go.Figure,
    points: list[_Point],
    name: str,
    marker: Data,
    group: str,
    *,
    bars: bool = False,
) -> None:
    figure.add_scatter(
        x=[point.x for point in points],
        y=[point.y for point in points],
        mode="markers",
        name=words.drawn(name),
        marker=marker,
        hovertext=[point.text for point in points],
        hoverinfo="text",
        meta={"group": group},
        **(_error_bars(points, marker["color"]) if bars else {}),
    )


def _error_bars(points: list[_Point], color: str) -> Data:
    bars = {}
    for axis in ("x", "y"):
        pairs = [(getattr(point, axis), getattr(point, f"{axis}_interval")) for point in points]
        bars[f"error_{axis}"] = {
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, bounds[1] - value) if bounds else 0.0 for value, bounds in pairs],
            "arrayminus": [
                max(0.0, value - bounds[0]) if bounds else 0.0 for value, bounds in pairs
            ],
            "visible": any(bounds for _, bounds in pairs),
            "color": color,
            "thickness": 1,
            "width": 3,
        }
    return bars


def add_step(
    figure: go.Figure,
    points: Iterable[tuple[float, float]],
    across: Data,
    up: Data,
    color: str = BLUE,
) -> None:
    """Join in steps the points (x, y) that nothing beats in two axes; none where nobody says what
    is better.
    """
    steps = _staircase(points, across, up) if across["direction"] and up["direction"] else []
    figure.add_scatter(
        x=[x for x, _ in steps],
        y=[y for _, y in steps],
        mode="lines",
        line={
            "shape": "hv" if across["direction"] == "minimize" else "vh",
            "color": color,
            "width": 1.5,
        },
        hoverinfo="skip",
        showlegend=False,
        meta={"group": "step"},
    )


def _staircase(
    points: Iterable[tuple[float, float]], across: Data, up: Data
) -> list[tuple[float, float]]:
    """The points that nothing beats in these two axes, from left to right."""
    sign_x, sign_y = (1 if axis["direction"] == "minimize" else -1 for axis in (across, up))
    steps: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (sign_x * p[0], sign_y * p[1])):
        if not steps or sign_y * y < sign_y * steps[-1][1]:
            steps.append((x, y))
    return sorted(steps)


def log_axes(figure: go.Figure, across: Data, up: Data) -> None:
    """Make those axes logarithmic that are better seen so and hold positive numbers alone."""
    for letter, axis, update in (
        ("x", across, figure.update_xaxes),
        ("y", up, figure.update_yaxes),
    ):
        values = [value for trace in figure.data for value in trace[letter]]
        if axis["log"] and values and min(values) > 0:
            wide = math.log10(max(values) / min(values)) > 2
            form = "~s" if axis["kind"] == "cost" else "~g"
            update(
                type="log", tickformat=form, dtick=1 if wide else "D2", minor={"ticks": "outside"}
            )
