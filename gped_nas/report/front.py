"""The front over any two of a study's metrics and costs.

``explorer.js`` redraws it over other axes: it fills each trace anew from the records of the trace's
``meta.group``.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import plotly.graph_objects as go

from gped_nas.models.labels import COUNTED_COSTS
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
from gped_nas.report.records import Data, place_of

_REFERENCES = {
    "teacher": ("star", VERMILLION, 15, "★"),
    "single_sample": ("triangle-up", GREEN, 12, "▲"),
    "map": ("triangle-down", ORANGE, 12, "▼"),
    "unpruned": ("cross", INK, 10, "✚"),
    "guess": ("asterisk-open", GREY, 10, "✳"),
}
_OTHER_REFERENCE = ("hexagram", GREY, 12, "✶")
_INFEASIBLE = {"symbol": "square-open", "color": ORANGE, "size": 8, "line": {"width": 2}}
_PRUNED = {"symbol": "x-thin-open", "color": PURPLE, "size": 7, "line": {"width": 2}}
_DOMINATED = {"symbol": "diamond", "color": SKY, "size": 7}
_OUTSIDE = {"symbol": "circle-open", "color": GREY, "size": 5, "line": {"width": 1}}
_STATES: dict[str, tuple[str, Data]] = {
    "outside": ("outside", _OUTSIDE),
    "infeasible": ("infeasible", _INFEASIBLE),
    "pruned": ("pruned", _PRUNED),
    "complete": ("dominated", _DOMINATED),
}
"""Name and marker of the trials off the front, by their state; those outside are apart."""
_FRONT = {"symbol": "circle", "color": BLUE, "size": 9}
_CHOSEN = {"symbol": "circle-open", "color": INK, "size": 19, "line": {"width": 2}}
_KNEE = {"symbol": "diamond-open", "color": GREEN, "size": 18, "line": {"width": 2}}
_WITHIN = {"symbol": "square-open", "color": VERMILLION, "size": 18, "line": {"width": 2.5}}


@dataclass(frozen=True)
class _Point:
    """One mark: its place, the 95 % intervals around it, and what is said of it."""

    x: float
    y: float
    x_interval: tuple[float, float] | None
    y_interval: tuple[float, float] | None
    text: str


def first_pair(data: Data) -> tuple[Data, Data] | None:
    """The axes that the front is first drawn over: the first cost across, the first quality up.

    None where there is one objective only.
    """
    objectives = data["objectives"]
    if len(objectives) < 2:
        return None

    first = objectives[0]
    costs = [objective for objective in objectives[1:] if objective["kind"] == "cost"]
    second = costs[0] if first["kind"] == "metric" and costs else objectives[1]
    return orient(first, second)


def orient(first: Data, second: Data) -> tuple[Data, Data]:
    """Two axes as across and up: a cost goes across where the other is a quality."""
    if first["kind"] == "metric" and second["kind"] == "cost":
        return second, first
    return first, second


def front_chart(data: Data, across: Data, up: Data) -> Chart:
    """The front over two axes: what is recorded of trials and references in both.

    Args:
        data: what ``data_of`` gave.
        across, up: of ``data["axes"]``.
    """
    groups: dict[str, list[Data]] = {group: [] for group in ("front", *_STATES)}
    for record in data["records"]:
        group = group_of(record)
        if group in groups:
            groups[group].append(record)
    points = {group: _points(records, across, up) for group, records in groups.items()}

    # the order of the traces is that of the drawing: what matters most lies on top
    figure = blank(across["label"], up["label"])
    for state, (name, marker) in _STATES.items():
        if groups[state]:
            label = data["region"]["apart"] if state == "outside" else name
            _add_points(figure, points[state], label, marker, state)

    candidates = points["front"] + points["complete"]
    add_step(figure, [(point.x, point.y) for point in candidates], across, up)
    _add_points(figure, points["front"], "front", _FRONT, "front", bars=True)

    for i, reference in enumerate(data["references"]):
        symbol, color, size, _ = _REFERENCES.get(reference["name"], _OTHER_REFERENCE)
        marker = {"symbol": symbol, "color": color, "size": size}
        place = _points([reference], across, up)
        _add_points(figure, place, reference["label"], marker, f"reference-{i}", bars=True)

    for name, ring in (("knee", _KNEE), ("chosen", _CHOSEN)):
        marked = [record for record in groups["front"] if record["trial"] == data[name]]
        _add_points(figure, _points(marked, across, up), name, ring, name)

    log_axes(figure, across, up)
    figure.update_layout(showlegend=False, shapes=_ends_of_region(across, up))
    title = f"{up['label']} against {across['label']}"
    return Chart("chart-front", "front", title, _front_text(points, data), figure)


def group_of(record: Data) -> str:
    """With which marks a record is drawn: ``front``, ``outside``, or its state."""
    if record["on_front"]:
        return "front"
    return "outside" if record["outside"] else str(record["state"])


def _ends_of_region(across: Data, up: Data) -> list[Data]:
    """A dotted line where the region ends, on each of two axes."""
    shapes = []
    for letter, axis in (("x", across), ("y", up)):
        if "bound" in axis:
            other = "y" if letter == "x" else "x"
            ends = {f"{letter}{i}": axis["bound"] for i in (0, 1)}
            whole = {f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
            line = {"color": GREY, "width": 1, "dash": "dot"}
            shapes.append({"type": "line", "layer": "below", **ends, **whole, "line": line})
    return shapes


def legend(data: Data) -> list[dict[str, str]]:
    """What the marks of the fronts mean: ``mark, color, text``."""
    rows = [
        ("●", BLUE, "front"),
        ("◯", INK, "chosen"),
        ("◇", GREEN, "knee"),
        ("◻", VERMILLION, "best within your budget"),
        ("◆", SKY, "dominated"),
    ]
    if data["outside"]:
        rows.append(("○", GREY, data["region"]["apart"]))
    for row in (("□", ORANGE, "infeasible"), ("✕", PURPLE, "pruned")):
        if row[2] in data["states"]:
            rows.append(row)
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
        "outside": data["region"]["apart"],
    }
    counts = [f"{len(points[group])} {name}" for group, name in names.items() if points[group]]
    sentences = [f"{', '.join(counts) or 'No student'}."]

    num_missing = len(data["records"]) - sum(map(len, points.values()))
    if num_missing:
        sentences.append(
            f"{num_missing} without both numbers, or repeats of another trial, are not drawn."
        )
    if data["chosen"] is not None:
        sentences.append("The ring marks the chosen student.")
    if points["outside"] and data["region"]["bounds"]:
        sentences.append("Those outside lie just beyond the dotted end of the region.")
    return " ".join(sentences)


def _points(rows: Iterable[Data], across: Data, up: Data) -> list[_Point]:
    points = []
    for row in rows:
        x = place_of(row, across)
        y = place_of(row, up)
        if x is not None and y is not None:
            points.append(
                _Point(
                    x=float(x),
                    y=float(y),
                    x_interval=_interval(row, across["name"]),
                    y_interval=_interval(row, up["name"]),
                    text=_hover_text(row, across, up),
                )
            )
    return points


def _interval(row: Data, name: str) -> tuple[float, float] | None:
    low, high = row["intervals"].get(name) or (None, None)
    return None if low is None or high is None else (low, high)


def _hover_text(row: Data, across: Data, up: Data) -> str:
    title = row["label"] if "label" in row else f"trial {row['trial']}"
    lines = [f"<b>{words.drawn(title)}</b>"]
    if "genotype" in row:
        lines.append(words.drawn(row["genotype"], 120))
    lines += [_hover_value(row, up), _hover_value(row, across)]
    return "<br>".join(lines)


def _hover_value(row: Data, axis: Data) -> str:
    name = axis["name"]
    label = words.drawn(axis["label"])
    if axis["kind"] == "cost":
        return f"{label}: {words.count(row['costs'][name])}"
    interval = words.interval(row["intervals"].get(name), name)
    return f"{label}: {words.metric(row['metrics'][name], name)} {interval}".rstrip()


def _add_points(
    figure: go.Figure,
    points: list[_Point],
    name: str,
    marker: Data,
    group: str,
    *,
    bars: bool = False,
) -> None:
    """Add one trace of marks.

    Args:
        figure: what is drawn on.
        points: the marks.
        name: of the trace, for people; untrusted.
        marker: symbol, color and size.
        group: what ``explorer.js`` knows the trace by.
        bars: whether intervals are drawn.
    """
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
        above = []
        below = []
        has_interval = False
        for point in points:
            value = getattr(point, axis)
            interval = getattr(point, f"{axis}_interval")
            # a mark without an interval has a bar of no length
            low, high = interval or (value, value)
            above.append(max(0.0, high - value))
            below.append(max(0.0, value - low))
            has_interval = has_interval or interval is not None

        bars[f"error_{axis}"] = {
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "visible": has_interval,
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
    """Join in steps the points (x, y) that nothing beats in two axes.

    There is no line where nobody says what is better.

    Args:
        figure: what is drawn on.
        points: all points, beaten ones too.
        across, up: the axes.
        color: of the line.
    """
    steps = _staircase(points, across, up) if across["direction"] and up["direction"] else []
    shape = "hv" if across["direction"] == "minimize" else "vh"
    figure.add_scatter(
        x=[x for x, _ in steps],
        y=[y for _, y in steps],
        mode="lines",
        line={"shape": shape, "color": color, "width": 1.5},
        hoverinfo="skip",
        showlegend=False,
        meta={"group": "step"},
    )


def _staircase(
    points: Iterable[tuple[float, float]], across: Data, up: Data
) -> list[tuple[float, float]]:
    """The points that nothing beats in these two axes, from left to right."""
    sign_x = 1 if across["direction"] == "minimize" else -1
    sign_y = 1 if up["direction"] == "minimize" else -1
    steps: list[tuple[float, float]] = []
    # from the best across on, a point is unbeaten if it is better up than all before it
    for x, y in sorted(points, key=lambda point: (sign_x * point[0], sign_y * point[1])):
        if not steps or sign_y * y < sign_y * steps[-1][1]:
            steps.append((x, y))
    return sorted(steps)


def log_axes(figure: go.Figure, across: Data, up: Data) -> None:
    """Make those axes logarithmic that are better seen so and hold positive numbers alone."""
    for letter, axis in (("x", across), ("y", up)):
        values: list[float] = []
        for trace in figure.data:
            values += trace[letter]
        if not axis["log"] or not values or min(values) <= 0:
            continue

        spans_decades = math.log10(max(values) / min(values)) > 2
        figure.layout[f"{letter}axis"].update(
            type="log",
            tickformat="~s" if axis["name"] in COUNTED_COSTS else "~g",
            dtick=1 if spans_decades else "D2",
            minor={"ticks": "outside"},
        )
