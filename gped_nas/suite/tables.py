"""Rows and means of a grid as JSON lines, CSV and LaTeX."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]

LEADING = (
    "teacher",
    "method",
    "student",
    "subject",
    "task",
    "seed",
    "metric",
    "condition",
    "detail",
    "part",
    "value",
    "low",
    "high",
    "n",
)
"""The first columns of a CSV file."""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
}


def to_json_lines(rows: Iterable[Row]) -> str:
    """One JSON object a line, keys in alphabetical order, no NaN."""
    lines = []
    for row in rows:
        lines.append(json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines)


def to_csv(rows: Sequence[Row]) -> str:
    """A table with a header; what is no single value is left to JSON."""
    columns = dict.fromkeys(LEADING)
    for row in rows:
        for name, value in row.items():
            if not isinstance(value, list | dict):
                columns[name] = None

    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _guarded(row.get(name)) for name in columns})
    return text.getvalue()


def _guarded(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@"))
    return f"'{value}" if is_formula else value


Column = tuple[str, str, str]
"""Metric, condition and detail."""


def column_of(row: Row) -> Column:
    """The column of a mean or a ranking."""
    return row["metric"], row["condition"], row["detail"]


def columns_of(means: Sequence[Row], task: str) -> list[Column]:
    """The columns that a task has means of, in the order in which they come."""
    columns: dict[Column, None] = {}
    for mean in means:
        if mean["task"] == task:
            columns[column_of(mean)] = None
    return list(columns)


def column_name(column: Column) -> str:
    """A column for people: ``nll``, ``nll@permuted``, ``nll (samples 4)``."""
    metric, condition, detail = column
    name = metric if condition == "clean" else f"{metric}@{condition}"
    return f"{name} ({detail})" if detail else name


def to_latex(data: dict[str, Any]) -> str:
    """A ``table`` for each task, with booktabs: means with their intervals, then average ranks."""
    parts = [
        "% Made by gped-search suite. Needs \\usepackage{booktabs}.\n"
        f"% Grid {_escaped(data['name'])}: 95 % intervals; ranks: 1 is the best.\n"
    ]
    for task in data["axes"]["tasks"]:
        columns = columns_of(data["means"], task)
        if columns:
            parts.append(_latex_table(data, task, columns))
    return "\n".join(parts)


def _latex_table(data: dict[str, Any], task: str, columns: list[Column]) -> str:
    """One task's table: a row a treatment, a column a metric."""
    means = [mean for mean in data["means"] if mean["task"] == task]
    names = ("teacher", "method", "subject")
    treatments = list(dict.fromkeys(tuple(mean[name] for name in names) for mean in means))
    values = {}
    for mean in means:
        treatment = tuple(mean[name] for name in names)
        values[treatment, column_of(mean)] = mean

    sizes = sorted({mean["n"] for mean in means if mean["n"] is not None})
    seeds = max(mean["seeds"] for mean in means)
    n = f"n {' / '.join(str(size) for size in sizes)}, seeds {seeds}"

    header = " & ".join(_escaped(column_name(column)) for column in columns)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escaped(data['name'])}: {_escaped(task)}, on {data['part']}, {n}}}",
        rf"\begin{{tabular}}{{lll{'r' * len(columns)}}}",
        r"\toprule",
        rf"teacher & method & subject & {header} \\",
        r"\midrule",
    ]
    for treatment in treatments:
        cells = [_escaped(name) for name in treatment]
        cells += [_latex_value(values.get((treatment, column))) for column in columns]
        lines.append(" & ".join(cells) + r" \\")

    lines += [*_latex_ranks(data, task, columns), r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _latex_ranks(data: dict[str, Any], task: str, columns: list[Column]) -> list[str]:
    """Average ranks of each treatment, with the critical difference below."""
    ranks: dict[tuple[str, str, str], dict[Column, str]] = {}
    for ranking in data["rankings"]:
        if ranking["task"] != task:
            continue
        column = column_of(ranking)
        for name, mean_rank in zip(ranking["names"], ranking["mean_ranks"], strict=True):
            treatment = ("average rank", *ordered(ranking, name))
            ranks.setdefault(treatment, {})[column] = f"{mean_rank:.2f}"
        if ranking["critical_distance"] is not None:
            distance = ("critical difference", *ordered(ranking, ""))
            text = f"{ranking['critical_distance']:.2f} (${p_text(ranking['p_value'])}$)"
            ranks.setdefault(distance, {})[column] = text

    lines = [r"\midrule"] if ranks else []
    for treatment, by_column in ranks.items():
        cells = [_escaped(name) for name in treatment]
        cells += [by_column.get(column, "--") for column in columns]
        lines.append(" & ".join(cells) + r" \\")
    return lines


def ordered(ranking: Row, name: str) -> tuple[str, str]:
    """Method and subject of a treatment of a ranking."""
    if ranking["compared"] == "method":
        return name, ranking["fixed"]
    return ranking["fixed"], name


def p_text(p_value: float) -> str:
    """A p-value for a table: ``p = 0.012``, ``p < 0.001``."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _latex_value(mean: Row | None) -> str:
    if mean is None or mean["value"] is None:
        return "--"
    text = f"{mean['value']:.4g}"
    if mean["low"] is not None:
        text += f" [{mean['low']:.4g}, {mean['high']:.4g}]"
    return f"${text}$"


def _escaped(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}]", lambda mark: _SPECIAL[mark[0]], text)
