"""The figure of ``bench_search``: hypervolume by steps, multiply-adds and time, two datasets."""

from collections.abc import Mapping, Sequence
from typing import Any

from gped_nas.report.svg import drawing, element, text

UNITS = {"steps": "trainings", "macs": "multiply-adds, relative", "seconds": "time, relative"}
COLORS = (
    "#555555",
    "#9a5b00",
    "#7b4fa3",
    "#1f6fb4",
    "#2e8b57",
    "#c23b4b",
    "#008b8b",
    "#b8860b",
    "#d2691e",
    "#6b8e23",
)
WIDTH, HEIGHT, MARGIN, LEGEND = 300, 230, 42, 210


def figure(result: Mapping[str, Any]) -> str:
    """One picture as SVG text.

    Args:
        result: what ``bench_search`` writes.
    """
    datasets = {
        name: value
        for name, value in result.items()
        if isinstance(value, Mapping) and "policies" in value
    }
    width = len(UNITS) * WIDTH + LEGEND
    height = len(datasets) * HEIGHT
    parts = [element("rect", width=width, height=height, fill="white")]
    names: list[str] = []
    for row, (name, of_dataset) in enumerate(datasets.items()):
        names = list(of_dataset["policies"])
        for column, unit in enumerate(UNITS):
            title = f"{name}: {UNITS[unit]}"
            parts += _panel(of_dataset, unit, title, column * WIDTH, row * HEIGHT)

    for i, policy in enumerate(names):
        y = 30 + 20 * i
        x = len(UNITS) * WIDTH + 10
        color = COLORS[i % len(COLORS)]
        parts.append(element("line", x1=x, x2=x + 22, y1=y, y2=y, stroke=color, stroke_width=2))
        parts.append(text(x + 28, y + 4, policy))
    label = "Hypervolume inside the region against what was spent; bands are 95 % of the mean"
    svg = str(drawing(width, height, label, parts))
    start = '<svg xmlns="http://www.w3.org/2000/svg" font-size="11" '
    return svg.replace("<svg ", start, 1) + "\n"


def _panel(
    of_dataset: Mapping[str, Any], unit: str, title: str, left: float, top: float
) -> list[str]:
    """The curves of all policies against one unit."""
    lines = {name: row["curves"][unit] for name, row in of_dataset["policies"].items()}
    furthest = max(line["across"][-1] for line in lines.values()) or 1.0
    highest = max(max(line["high"]) for line in lines.values())
    highest = max(highest, float(of_dataset["target"])) * 1.03
    inner_width, inner_height = WIDTH - MARGIN - 12, HEIGHT - 2 * MARGIN

    def place(across: Sequence[float], up: Sequence[float]) -> str:
        points = []
        for x, y in zip(across, up, strict=True):
            at_x = left + MARGIN + inner_width * x / furthest
            at_y = top + MARGIN + inner_height * (1 - max(y, 0.0) / highest)
            points.append(f"{at_x:.1f},{at_y:.1f}")
        return " ".join(points)

    parts = [text(left + MARGIN, top + 20, title)]
    bottom = top + MARGIN + inner_height
    frame = {"fill": "none", "stroke": "#bbbbbb"}
    parts.append(
        element(
            "rect", x=left + MARGIN, y=top + MARGIN, width=inner_width, height=inner_height, **frame
        )
    )
    parts.append(text(left + MARGIN, bottom + 15, "0"))
    parts.append(text(left + MARGIN + inner_width - 30, bottom + 15, f"{furthest:.3g}"))
    parts.append(text(left + 4, top + MARGIN + 6, f"{highest:.2f}"))
    for i, line in enumerate(lines.values()):
        color = COLORS[i % len(COLORS)]
        band = place(line["across"], line["low"]) + " "
        band += place(line["across"][::-1], line["high"][::-1])
        parts.append(element("polygon", points=band, fill=color, opacity=0.12))
        points = place(line["across"], line["mean"])
        parts.append(element("polyline", points=points, fill="none", stroke=color, stroke_width=2))
    target = place([0.0, furthest], [float(of_dataset["target"])] * 2)
    parts.append(element("polyline", points=target, stroke="#888888", stroke_dasharray="4 3"))
    return parts
