"""The report's Plotly figures, built from ``data_of``'s data alone.

Colours are Okabe & Ito's; every group also has its own marker. Pure black stands for "ink": the page turns it
light on a dark background. Texts from the study are escaped, since Plotly reads a little HTML.
"""

import html
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import plotly.graph_objects as go

from gped_nas.report import words
from gped_nas.report.data import Data, find

INK = "#000000"
BLUE, SKY, GREEN, ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
VERMILLION, PURPLE, GREY = "#D55E00", "#CC79A7", "#888888"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)
_REFERENCES = {
    "teacher": ("star", VERMILLION, 15, "★"),
    "single_sample": ("triangle-up", GREEN, 12, "▲"),
    "map": ("triangle-down", ORANGE, 12, "▼"),
    "unpruned": ("cross", INK, 10, "✚"),
}
_OTHER_REFERENCE = ("hexagram", GREY, 12, "✶")
_STATES = {
    "complete": ("dominated", {"symbol": "diamond", "color": SKY, "size": 7}),
    "infeasible": ("infeasible", {"symbol": "square-open", "color": ORANGE, "size": 8, "line": {"width": 2}}),
    "pruned": ("pruned", {"symbol": "x-thin-open", "color": PURPLE, "size": 7, "line": {"width": 2}}),
}


@dataclass(frozen=True)
class Chart:
    """One drawing of the page.

    Attributes:
        id: of its element; never made from the study's texts.
        section: ``front``, ``hypervolume``, ``importances``, ``teacher`` or ``reliability-<trial>``.
        title: a plain text heading.
        text: what it shows, in words, for those who do not see it.
        figure: the drawing.
    """

    id: str
    section: str
    title: str
    text: str
    figure: go.Figure


@dataclass(frozen=True)
class _Point:
    x: float
    y: float
    x_interval: tuple[float, float] | None
    y_interval: tuple[float, float] | None
    text: str


def charts(data: Data) -> list[Chart]:
    """Every drawing that the data allows, in the order of the page."""
    drawings = [_front(data, a, b, i) for i, (a, b) in enumerate(_pairs(data["objectives"]))]
    if data["hypervolume"]:
        drawings.append(_hypervolume(data))
    if data["importances"]:
        drawings.append(_importances(data))
    if data["teacher"].get("samples_to_nll"):
        drawings.append(_samples_to_nll(data))
    front = (find(data, trial) for trial in data["front"])
    return drawings + [_reliability(data, record) for record in front if record["reliability"]]


def legend(data: Data) -> list[dict[str, str]]:
    """What the marks of the fronts mean: ``mark, color, text``, one legend for all of them."""
    rows = [("●", BLUE, "front"), ("◯", INK, "chosen"), ("◆", SKY, "dominated")]
    rows += [("□", ORANGE, "infeasible"), ("✕", PURPLE, "pruned")]
    for reference in data["references"]:
        _, color, _, mark = _REFERENCES.get(reference["name"], _OTHER_REFERENCE)
        rows.append((mark, color, reference["label"]))
    return [{"mark": mark, "color": color, "text": text} for mark, color, text in rows]


def _pairs(objectives: list[Data]) -> Iterable[tuple[Data, Data]]:
    for first, second in itertools.combinations(objectives, 2):
        upright = first["kind"] == "cost" or second["kind"] == "metric"
        yield (first, second) if upright else (second, first)


# ---------------------------------------------------------------------------------------------------- fronts


def _front(data: Data, across: Data, up: Data, index: int) -> Chart:
    groups: dict[str, list[Data]] = {group: [] for group in ("front", *_STATES)}
    for record in data["records"]:
        group = "front" if record["on_front"] else record["state"]
        if group in groups:
            groups[group].append(record)
    points = {name: _points(rows, across, up) for name, rows in groups.items()}
    figure = blank(across["label"], up["label"])
    for state, (name, marker) in _STATES.items():
        _add_points(figure, points[state], name, marker)
    _add_step(figure, points["front"], across, up)
    _add_points(figure, points["front"], "front", {"symbol": "circle", "color": BLUE, "size": 9}, bars=True)
    _add_references(figure, data, across, up)
    chosen = [record for record in groups["front"] if record["chosen"]]
    ring = {"symbol": "circle-open", "color": INK, "size": 19, "line": {"width": 2}}
    _add_points(figure, _points(chosen, across, up), "chosen", ring)
    _log_axes(figure, across, up)
    figure.update_layout(showlegend=False)
    return Chart(f"chart-front-{index}", "front", _front_title(across, up), _front_text(points, data), figure)


def _front_title(across: Data, up: Data) -> str:
    return f"{up['label']} against {across['label']}"


def _front_text(points: dict[str, list[_Point]], data: Data) -> str:
    names = {"front": "on the front", "complete": "dominated", "infeasible": "infeasible", "pruned": "pruned"}
    drawn = [f"{len(points[key])} {name}" for key, name in names.items() if points[key]]
    left = len(data["records"]) - sum(map(len, points.values()))
    rest = f" {left} without both numbers, or repeats of another trial, are not drawn." if left else ""
    ring = " The ring marks the chosen student." if data["chosen"] is not None else ""
    return f"{_sentence(', '.join(drawn) or 'no student')}.{rest}{ring}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _points(rows: list[Data], across: Data, up: Data) -> list[_Point]:
    points = []
    for row in rows:
        x, y = (_value(row, objective) for objective in (across, up))
        if x is not None and y is not None:
            x_bounds, y_bounds = (_bounds(row, objective["name"]) for objective in (across, up))
            points.append(_Point(x, y, x_bounds, y_bounds, _hover(row, across, up)))
    return points


def _value(row: Data, objective: Data) -> float | None:
    value = {**row["costs"], **row["metrics"]}.get(objective["name"])
    drawable = value is not None and (objective["kind"] == "metric" or value > 0)
    return float(value) if drawable and value is not None else None


def _bounds(row: Data, name: str) -> tuple[float, float] | None:
    low, high = row["intervals"].get(name) or (None, None)
    return None if low is None or high is None else (low, high)


def _hover(row: Data, across: Data, up: Data) -> str:
    title = row["label"] if "label" in row else f"trial {row['trial']}"
    lines = [f"<b>{html.escape(title)}</b>"]
    if "genotype" in row:
        lines.append(html.escape(row["genotype"][:120]))
    lines.extend(_hover_value(row, objective) for objective in (up, across))
    return "<br>".join(lines)


def _hover_value(row: Data, objective: Data) -> str:
    name, text = objective["name"], html.escape(objective["label"])
    if objective["kind"] == "cost":
        return f"{text}: {words.count(row['costs'][name])}"
    bounds = words.interval(row["intervals"].get(name), name)
    return f"{text}: {words.metric(row['metrics'][name], name)} {bounds}".rstrip()


def _add_points(figure: go.Figure, points: list[_Point], name: str, marker: Data, *, bars: bool = False) -> None:
    if not points:
        return
    figure.add_scatter(
        x=[point.x for point in points],
        y=[point.y for point in points],
        mode="markers",
        name=html.escape(name),
        marker=marker,
        hovertext=[point.text for point in points],
        hoverinfo="text",
        **(_error_bars(points, marker["color"]) if bars else {}),
    )


def _error_bars(points: list[_Point], color: str) -> Data:
    bars = {}
    for axis in ("x", "y"):
        pairs = [(getattr(point, axis), getattr(point, f"{axis}_interval")) for point in points]
        if any(bounds for _, bounds in pairs):
            bars[f"error_{axis}"] = {
                "type": "data",
                "symmetric": False,
                "array": [max(0.0, bounds[1] - value) if bounds else 0.0 for value, bounds in pairs],
                "arrayminus": [max(0.0, value - bounds[0]) if bounds else 0.0 for value, bounds in pairs],
                "color": color,
                "thickness": 1,
                "width": 3,
            }
    return bars


def _add_step(figure: go.Figure, points: list[_Point], across: Data, up: Data) -> None:
    steps = _staircase(points, across, up)
    if not steps:
        return
    shape = "hv" if across["direction"] == "minimize" else "vh"
    figure.add_scatter(
        x=[point.x for point in steps],
        y=[point.y for point in steps],
        mode="lines",
        line={"shape": shape, "color": BLUE, "width": 1.5},
        hoverinfo="skip",
        showlegend=False,
    )


def _staircase(points: list[_Point], across: Data, up: Data) -> list[_Point]:
    """The points that nothing beats in these two objectives, from left to right."""
    sign_x, sign_y = (1 if objective["direction"] == "minimize" else -1 for objective in (across, up))
    steps: list[_Point] = []
    for point in sorted(points, key=lambda p: (sign_x * p.x, sign_y * p.y)):
        if not steps or sign_y * point.y < sign_y * steps[-1].y:
            steps.append(point)
    return sorted(steps, key=lambda p: p.x)


def _add_references(figure: go.Figure, data: Data, across: Data, up: Data) -> None:
    for reference in data["references"]:
        symbol, color, size, _ = _REFERENCES.get(reference["name"], _OTHER_REFERENCE)
        marker = {"symbol": symbol, "color": color, "size": size}
        _add_points(figure, _points([reference], across, up), reference["label"], marker, bars=True)


def _log_axes(figure: go.Figure, across: Data, up: Data) -> None:
    for letter, objective, update in (("x", across, figure.update_xaxes), ("y", up, figure.update_yaxes)):
        if objective["kind"] == "cost":
            values = [value for trace in figure.data for value in trace[letter]]
            wide = bool(values) and max(values) > 100 * min(values)
            update(type="log", tickformat="~s", dtick=1 if wide else None, minor={"ticks": "outside"})


# ---------------------------------------------------------------------------------------------- other figures


def _hypervolume(data: Data) -> Chart:
    trials, values = zip(*data["hypervolume"], strict=True)
    figure = blank("trial", "hypervolume, share of the reference box")
    figure.add_scatter(
        x=trials, y=values, mode="lines", line={"shape": "hv", "color": BLUE, "width": 2}, name="hypervolume"
    )
    figure.update_layout(showlegend=False)
    figure.update_yaxes(rangemode="tozero")
    text = f"After {len(values)} trials the front covers {100 * (values[-1] or 0):.2f} % of the reference box."
    return Chart("chart-hypervolume", "hypervolume", "Hypervolume after each trial", text, figure)


def _importances(data: Data) -> Chart:
    figure = blank("share of the importance", "")
    names = sorted({name for shares in data["importances"].values() for name in shares})
    total = {name: sum(shares.get(name) or 0 for shares in data["importances"].values()) for name in names}
    names.sort(key=lambda name: total[name])
    for color, (objective, shares) in zip(itertools.cycle(SERIES), data["importances"].items(), strict=False):
        figure.add_bar(
            x=[shares.get(name) or 0 for name in names],
            y=[html.escape(name) for name in names],
            orientation="h",
            name=html.escape(words.label(objective)),
            marker={"color": color},
        )
    figure.update_layout(barmode="group", bargap=0.35, bargroupgap=0.08)
    figure.update_yaxes(automargin=True, showgrid=False)
    text = f"Most important over all objectives: {names[-1]}." if names else ""
    return Chart("chart-importances", "importances", "Which settings matter", text, figure)


def _samples_to_nll(data: Data) -> Chart:
    counts, values = zip(*data["teacher"]["samples_to_nll"], strict=True)
    figure = blank("posterior samples averaged", "validation NLL (nats)")
    figure.add_scatter(
        x=counts,
        y=values,
        mode="lines+markers",
        name="teacher",
        line={"color": VERMILLION, "width": 2},
        marker={"size": 6},
    )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(type="log", tickformat="~s", nticks=6)
    text = f"Averaging {words.count(counts[-1])} samples gives {words.metric(values[-1], 'nll')} nats."
    return Chart("chart-teacher", "teacher", "How many posterior samples the teacher needs", text, figure)


def _reliability(data: Data, record: Data) -> Chart:
    figure = blank("confidence", "accuracy")
    diagonal = {"color": GREY, "width": 1, "dash": "dash"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="perfect", line=diagonal, hoverinfo="skip")
    teacher = [row for row in data["teacher"].get("reliability") or () if row["count"]]
    if teacher:
        _add_bins(figure, teacher, "teacher", VERMILLION, "diamond")
    _add_bins(figure, record["reliability"], "student", BLUE, "circle")
    figure.update_xaxes(range=[0, 1.03])
    figure.update_yaxes(range=[0, 1.03])
    figure.update_layout(margin={"l": 52, "r": 8, "t": 8, "b": 44})
    section = f"reliability-{record['trial']}"
    text = "Above the dashed line the student is too modest, below it too sure; larger marks, more examples."
    return Chart(f"chart-{section}", section, f"Reliability of trial {record['trial']}", text, figure)


def _add_bins(figure: go.Figure, bins: list[Data], name: str, color: str, symbol: str) -> None:
    largest = max(row["count"] for row in bins)
    figure.add_scatter(
        x=[row["confidence"] for row in bins],
        y=[row["accuracy"] for row in bins],
        mode="lines+markers",
        name=name,
        line={"color": color, "width": 1.5},
        marker={
            "symbol": symbol,
            "color": color,
            "opacity": 1,
            "line": {"width": 0},
            "size": [round(5 + 9 * math.sqrt(row["count"] / largest), 2) for row in bins],
        },
        hovertext=[f"{words.count(row['count'])} examples" for row in bins],
        hoverinfo="x+y+text",
    )


def blank(across: str, up: str) -> go.Figure:
    """A figure with nothing drawn yet, its axes named."""
    axis = {"gridcolor": "rgba(128,128,128,0.22)", "linecolor": GREY, "zeroline": False, "ticks": "outside"}
    axis |= {"tickcolor": GREY, "showline": True}
    return go.Figure(
        layout={
            "template": go.layout.Template(),
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": INK, "size": 12},
            "margin": {"l": 64, "r": 12, "t": 12, "b": 52},
            "hovermode": "closest",
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "xaxis": axis | {"title": _axis_title(across)},
            "yaxis": axis | {"title": _axis_title(up), "automargin": True},
        }
    )


def _axis_title(text: str) -> Data:
    return {"text": html.escape(text), "standoff": 8, "font": {"size": 13}}
