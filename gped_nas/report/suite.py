"""The page of a grid: a table a task with intervals, ranks and critical differences."""

from typing import Any

from markupsafe import Markup

from gped_nas.report import svg, words
from gped_nas.report.page import render_still
from gped_nas.suite.tables import Column, column_name, column_of, columns_of, ordered, p_text

Data = dict[str, Any]

MAX_DIAGRAMS = 24
"""Rankings of a task that are drawn; all of them are in the table."""
_WIDTH, _MARGIN, _STEP = 640, 150, 17
"""Of a diagram: pixels, beside the axis, from one name to the next."""


def suite_page(data: Data) -> str:
    """What ``suite.json`` holds, as one self-contained HTML text without scripts."""
    tables = []
    for task in data["axes"]["tasks"]:
        columns = columns_of(data["means"], task)
        if columns:
            tables.append(_table(data, task, columns))
    return render_still("suite.html.j2", data=data, tables=tables)


def _table(data: Data, task: str, columns: list[Column]) -> Data:
    """Rows of means, rows of ranks, and the drawings of a task."""
    rankings = [ranking for ranking in data["rankings"] if ranking["task"] == task]
    drawn = [ranking for ranking in rankings if ranking["critical_distance"] is not None]
    return {
        "task": task,
        "columns": [column_name(column) for column in columns],
        "rows": _mean_rows(data, task, columns),
        "ranks": _rank_rows(rankings, columns),
        "tests": _test_rows(rankings, columns),
        "diagrams": [diagram(ranking) for ranking in drawn[:MAX_DIAGRAMS]],
        "num_drawn": len(drawn),
        "left_out": max((ranking["left_out"] for ranking in rankings), default=0),
        "blocks": sorted({ranking["blocks"] for ranking in rankings}),
    }


def _mean_rows(data: Data, task: str, columns: list[Column]) -> list[Data]:
    names = ("teacher", "method", "subject")
    by_treatment: dict[tuple[str, ...], dict[Column, Data]] = {}
    for mean in data["means"]:
        if mean["task"] == task:
            treatment = tuple(mean[name] for name in names)
            by_treatment.setdefault(treatment, {})[column_of(mean)] = mean

    rows = []
    for treatment, means in by_treatment.items():
        cells = [_mean_cell(means.get(column), column[0]) for column in columns]
        sizes = sorted({mean["n"] for mean in means.values() if mean["n"] is not None})
        seeds = max(mean["seeds"] for mean in means.values())
        rows.append({"names": treatment, "cells": cells, "n": sizes, "seeds": seeds})
    return rows


def _mean_cell(mean: Data | None, metric: str) -> Data:
    if mean is None:
        return {"text": words.NONE, "interval": "", "why": "not measured"}
    return {
        "text": words.metric(mean["value"], metric),
        "interval": words.interval([mean["low"], mean["high"]], metric),
        "why": mean["why"],
    }


def _rank_rows(rankings: list[Data], columns: list[Column]) -> list[Data]:
    """Average ranks, a row a treatment; the best, and what cannot be told from it, is marked."""
    by_treatment: dict[tuple[str, str], dict[Column, Data]] = {}
    for ranking in rankings:
        column = column_of(ranking)
        best = ranking["mean_ranks"][0]
        distance = ranking["critical_distance"]
        for name, mean_rank in zip(ranking["names"], ranking["mean_ranks"], strict=True):
            is_best = mean_rank == best
            if distance is not None and ranking["is_different"]:
                is_best = mean_rank - best < distance
            cell = {"text": f"{mean_rank:.2f}", "is_best": is_best}
            by_treatment.setdefault(ordered(ranking, name), {})[column] = cell
    return [
        {"names": treatment, "cells": [cells.get(column) for column in columns]}
        for treatment, cells in by_treatment.items()
    ]


def _test_rows(rankings: list[Data], columns: list[Column]) -> list[Data]:
    """The critical distance and p-value of each ranking, a row for whom treatments are ranked."""
    by_fixed: dict[str, dict[Column, Data]] = {}
    for ranking in rankings:
        column = column_of(ranking)
        shown = {"why": ranking["why"], "distance": None}
        if ranking["critical_distance"] is not None:
            shown["distance"] = f"{ranking['critical_distance']:.2f}"
            shown["p"] = p_text(ranking["p_value"])
        by_fixed.setdefault(ranking["fixed"], {})[column] = shown
    return [
        {"fixed": fixed, "cells": [cells.get(column) for column in columns]}
        for fixed, cells in by_fixed.items()
    ]


def diagram(ranking: Data) -> Markup:
    """A critical-difference diagram: average ranks on an axis, bars over what is not told apart."""
    num = len(ranking["names"])
    bars = ranking["groups"] if ranking["is_different"] else [ranking["names"]]
    axis_y = 44
    names_y = axis_y + 12 + 8 * len(bars)
    scale = (_WIDTH - 2 * _MARGIN) / (num - 1)

    def x(mean_rank: float) -> float:
        return _MARGIN + (mean_rank - 1) * scale

    parts = [_line(x(1), axis_y, x(num), axis_y)]
    for tick in range(1, num + 1):
        parts.append(_line(x(tick), axis_y - 4, x(tick), axis_y))
        parts.append(svg.text(x(tick), axis_y - 8, str(tick), text_anchor="middle"))

    distance = ranking["critical_distance"]
    parts.append(_line(x(1), 14, x(1) + min(distance, num - 1) * scale, 14))
    parts.append(svg.text(x(1), 10, f"CD {distance:.2f}"))

    ranks = dict(zip(ranking["names"], ranking["mean_ranks"], strict=True))
    for number, group in enumerate(bars):
        y = axis_y + 8 + 8 * number
        ends = x(ranks[group[0]]) - 3, x(ranks[group[-1]]) + 3
        parts.append(_line(ends[0], y, ends[1], y, stroke_width=4))

    # the better half is named on the left, the other on the right, so that no lines cross
    half = (num + 1) // 2
    for place, name in enumerate(ranking["names"]):
        is_left = place < half
        row = place if is_left else num - 1 - place
        y = names_y + _STEP * (row + 1)
        edge = _MARGIN - 8 if is_left else _WIDTH - _MARGIN + 8
        parts.append(_line(x(ranks[name]), axis_y, x(ranks[name]), y))
        parts.append(_line(x(ranks[name]), y, edge, y))
        anchor = "end" if is_left else "start"
        label = f"{name} {ranks[name]:.2f}"
        parts.append(svg.text(edge - 4 if is_left else edge + 4, y + 4, label, text_anchor=anchor))

    title = f"{column_name(column_of(ranking))}, {ranking['fixed']}"
    return svg.drawing(_WIDTH, names_y + _STEP * (half + 1), f"Average ranks of {title}", parts)


def _line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> str:
    path = f"M{x1:.5g} {y1:.5g}L{x2:.5g} {y2:.5g}"
    return svg.element("path", d=path, stroke="currentColor", fill="none", **attributes)
