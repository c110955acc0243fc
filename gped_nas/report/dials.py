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
    drawings = []
    for dial in _AXES:
        if any(point["dial"] == dial for point in data["points"]):
            drawings += _charts(data, dial)
    return render("dials.html.j2", drawings, data=data, axes=_AXES)


def _points(data: dict[str, Any], dial: str) -> list[tuple[int, dict[str, Any]]]:
    """The settings of a dial with the data as they are among them, by growing value."""
    across = "num_labels" if dial == "subsample" else "value"
    pairs = [(point[across], point) for point in data["points"] if point["dial"] in (dial, None)]
    return sorted(pairs, key=lambda pair: pair[0])


def _student_names(data: dict[str, Any]) -> list[str]:
    names = []
    for point in data["points"]:
        names += [student["name"] for student in point["students"]]
    return list(dict.fromkeys(names))


def _charts(data: dict[str, Any], dial: str) -> list[Chart]:
    """Of one dial: the gap in NLL, the divergence from the teacher, and the NLL itself."""
    dial_name = "mask" if dial == "mask" else "number of labels"
    num_examples = data["points"][0]["n"]
    text = f"Bars are 95 % intervals over n = {num_examples} examples."

    gap = _student_lines(data, dial, "nll_above_teacher", "NLL above the teacher's (nats)")
    gap.add_hline(y=0, line={"color": VERMILLION, "width": 1, "dash": "dash"})
    gap_title = f"Teacher-student gap in NLL against the {dial_name}"
    gap_text = f"On the same examples: below 0 the student is better. {text}"

    divergence = _student_lines(data, dial, "kl_to_teacher", "KL(teacher || student) (nats)")
    divergence_title = f"Teacher-student gap in KL against the {dial_name}"

    level = _student_lines(data, dial, "nll", "NLL (nats)")
    teacher_rows = [(x, point["teacher"]) for x, point in _points(data, dial)]
    _add_line(level, teacher_rows, "nll", name="teacher", color=VERMILLION, symbol="star")
    level_title = f"NLL against the {dial_name}"

    return [
        Chart(f"chart-gap-{dial}", dial, gap_title, gap_text, gap),
        Chart(f"chart-kl-{dial}", dial, divergence_title, text, divergence),
        Chart(f"chart-nll-{dial}", dial, level_title, text, level),
    ]


def _student_lines(data: dict[str, Any], dial: str, metric: str, label: str) -> Any:
    """One line a student: a metric against a dial."""
    figure = blank(_AXES[dial], f"{data['part']} {label}")
    for name, color, symbol in zip(_student_names(data), SERIES, _MARKERS, strict=False):
        rows = []
        for x, point in _points(data, dial):
            rows += [(x, student) for student in point["students"] if student["name"] == name]
        _add_line(figure, rows, metric, name=f"{name} student", color=color, symbol=symbol)
    if dial == "subsample":
        figure.update_xaxes(type="log", tickformat="~s", nticks=6)
    return figure


def _add_line(
    figure: Any,
    rows: list[tuple[int, dict[str, Any]]],
    metric: str,
    *,
    name: str,
    color: str,
    symbol: str,
) -> None:
    """A predictor's line with its intervals; ``rows`` are places on the dial and measures there."""
    values = []
    above = []
    below = []
    for _, measures in rows:
        value = measures["metrics"][metric]
        # a mark without an interval has a bar of no length, and what is not finite no mark
        low, high = measures["intervals"].get(metric) or (value, value)
        values.append(value)
        above.append(None if value is None else high - value)
        below.append(None if value is None else value - low)

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
            "array": above,
            "arrayminus": below,
            "thickness": 1,
            "width": 3,
            "color": color,
        },
    )
