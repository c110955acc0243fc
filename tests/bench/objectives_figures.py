"""The table and the pictures of searches for a goal, of ``reports/reference/objectives.json``.

python -m tests.bench.objectives_figures     write them into the documentation
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gped_nas.report.svg import drawing, element, text
from tests.bench.kept_figures import digits_of
from tests.figures import REPORTS, ROOT, Tables, table, write

PAGES = (ROOT / "docs/kept.md",)
PICTURES = ROOT / "docs/pictures"
WIDTH, HEIGHT, MARGIN = 640, 340, 48
LEGEND = 380
FIRST, LAST = 2, 5
"""The powers of ten of FLOPs that a picture shows."""
MISSED = ("students that the search for NLL missed", "and that the search for it missed")
SEARCHES = {"nll": ("search for NLL", "none", "#9a5b00"), "goal": ("", "#1f6fb4", "#1f6fb4")}
"""By search, its name (the goal's is that of its objective), and how its students are drawn."""


def objectives(report: Mapping[str, Any]) -> str:
    """A row a goal: what both searches found."""
    rows = []
    for goal in report["goals"].values():
        rows.append(
            [
                f"`{goal['objective']}`",
                *(interval(goal[f"best of {name}"]) for name in SEARCHES),
                interval(goal["best of goal minus nll"]),
                interval(goal["area of goal minus nll"]),
                share(goal["missed by nll"]),
                share(goal["missed by goal"]),
            ]
        )
    head = ["objective beside FLOPs", "best, search for NLL", "best, search for it"]
    return table([*head, "difference", "difference of areas", *MISSED], rows)


def share(counts: Sequence[Sequence[int]]) -> str:
    """``39 of 50``, of all seeds."""
    return " of ".join(str(sum(column)) for column in zip(*counts, strict=True))


def interval(figure: Mapping[str, Any]) -> str:
    """``.638 [.601, .675]``."""
    bounds = [digits_of(figure[end]) for end in ("low", "high")]
    return f"{digits_of(figure['mean'])} [{', '.join(bounds)}]"


def picture(goal: Mapping[str, Any]) -> str:
    """The students of both searches of all seeds: FLOPs across, the goal up."""
    label = f"Students of {len(goal['seeds'])} seeds: FLOPs across, {goal['objective']} up"
    parts = [*_axes(goal["objective"])]
    for name in SEARCHES:
        for searches in goal["searches"]:
            parts += [_mark(point, name) for point in searches[name]]
    parts += _legend(goal["objective"])
    white = element("rect", width=WIDTH, height=HEIGHT, fill="white")
    svg = str(drawing(WIDTH, HEIGHT, label, [white, *parts]))
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" font-size="12" ', 1) + "\n"


def _x(flops: float) -> float:
    share = (math.log10(flops) - FIRST) / (LAST - FIRST)
    return MARGIN + share * (WIDTH - 2 * MARGIN)


def _y(goal: float) -> float:
    return HEIGHT - MARGIN - goal * (HEIGHT - 2 * MARGIN)


def _axes(name: str) -> list[str]:
    """Lines and numbers of both axes."""
    parts = []
    for power in range(FIRST, LAST + 1):
        x = _x(10**power)
        parts.append(element("line", x1=x, x2=x, y1=_y(0), y2=_y(1), stroke="#ddd"))
        parts.append(text(x, _y(0) + 18, f"{10**power:,}", text_anchor="middle"))
    for fifth in range(6):
        y = _y(fifth / 5)
        parts.append(element("line", x1=MARGIN, x2=WIDTH - MARGIN, y1=y, y2=y, stroke="#ddd"))
        parts.append(text(MARGIN - 8, y + 4, f"{fifth / 5:.1f}", text_anchor="end"))

    parts.append(text(WIDTH / 2, HEIGHT - 10, "FLOPs", text_anchor="middle"))
    parts.append(text(MARGIN, MARGIN - 14, name))
    return parts


def _mark(point: Mapping[str, float], search: str) -> str:
    _, fill, stroke = SEARCHES[search]
    x, y = round(_x(point["flops"]), 1), round(_y(point["goal"]), 1)
    return element("circle", cx=x, cy=y, r=4, fill=fill, stroke=stroke, fill_opacity=0.7)


def _legend(objective: str) -> list[str]:
    parts = []
    for row, (label, fill, stroke) in enumerate(SEARCHES.values()):
        y = HEIGHT - MARGIN - 32 + 18 * row
        parts.append(element("circle", cx=LEGEND, cy=y, r=4, fill=fill, stroke=stroke))
        parts.append(text(LEGEND + 10, y + 4, label or f"search for {objective}"))
    return parts


def draw(report: Mapping[str, Any]) -> dict[str, str]:
    """Every goal's picture by its file name."""
    return {f"objective-{name}.svg": picture(goal) for name, goal in report["goals"].items()}


def read(name: str = "objectives.json") -> Mapping[str, Any]:
    """The report."""
    report: Mapping[str, Any] = json.loads((REPORTS / name).read_text())
    return report


TABLES: Tables = {"objectives": ("objectives.json", objectives)}


def write_pictures(pictures: Mapping[str, str]) -> Sequence[str]:
    """Write pictures; their names."""
    PICTURES.mkdir(exist_ok=True)
    for name, svg in pictures.items():
        (PICTURES / name).write_text(svg)
    return list(pictures)


if __name__ == "__main__":
    write(PAGES, TABLES)
    write_pictures(draw(read()))
