"""A study's front and references as a table for a paper, a README or a notebook.

A number stands with its 95 % interval in brackets. Costs are exact, and whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from gped_nas.errors import ConfigError, nearest
from gped_nas.evaluate.measured import Measured
from gped_nas.models.labels import COSTS, short_genotype

if TYPE_CHECKING:
    from gped_nas.api.study import Study
    from gped_nas.search.record import TrialRecord
    from gped_nas.search.snapshot import Reference

_QUALITY = ("test_nll", "test_accuracy", "test_rmse")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    **{character: f"\\{character}" for character in "&%$#_"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\u2026": r"\dots{}",
}


@dataclass(frozen=True)
class Table:
    """Texts in rows.

    Attributes:
        head: a name a column; the first one is of texts, the others of numbers.
        rows: cells by row.
        chosen: index of the row of the chosen student; None where there is none.
        num_students: how many rows are students; references follow.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    chosen: int | None
    num_students: int


def table_of(study: "Study", metrics: Sequence[str] | None, costs: Sequence[str]) -> Table:
    """The front of a study, best by the first objective first, then what it is compared with.

    Args:
        study: whose it is.
        metrics: public names of the columns; by default NLL, accuracy and RMSE on test, as far as
            they are there, or the first objective where nothing was tested.
        costs: names of the columns after them.

    Raises:
        ConfigError: nobody has a number of that name.
    """
    students, references = study.front_records(), study.references()
    known = {name for student in students for name in student.metrics}
    known |= {name for reference in references for name in reference.metrics}
    if metrics is None:
        metrics = [name for name in _QUALITY if name in known] or [study.objectives[0].name]
    for name in metrics:
        if name not in known:
            raise ConfigError(f"metrics: nobody has '{name}'{nearest(name, known)}")
    for name in costs:
        if name not in COSTS:
            raise ConfigError(f"costs: found '{name}'{nearest(name, COSTS)}")

    rows = []
    for student in students:
        rows.append(_row(short_genotype(student.genotype, most=60), student, metrics, costs))
    for reference in references:
        rows.append(_row(reference.label, reference, metrics, costs))

    chosen = study.chosen()
    trials = [student.trial for student in students]
    index = None if chosen is None else trials.index(chosen.trial)
    return Table(("model", *metrics, *costs), rows, index, len(students))


def _row(
    name: str,
    each: "TrialRecord | Reference",
    metrics: Sequence[str],
    costs: Sequence[str],
) -> list[str]:
    cells = [name]
    cells += [_number(each.measured(metric)) for metric in metrics]
    cells += [f"{each.costs[cost]:,}" if cost in each.costs else "" for cost in costs]
    return cells


def _number(measured: Measured | None) -> str:
    """``0.0720 [0.0480, 0.1037]``, or without an interval where none is honest."""
    if measured is None or measured.value is None:
        return ""
    text = f"{measured.value:.4f}"
    if measured.interval is None:
        return text
    low, high = measured.interval
    return f"{text} [{low:.4f}, {high:.4f}]"


def as_markdown(table: Table) -> str:
    """A table of GitHub's Markdown; the chosen student is bold."""
    lines = [
        f"| {' | '.join(name.replace('_', ' ') for name in table.head)} |",
        f"| --- |{' ---: |' * (len(table.head) - 1)}",
    ]
    for i, row in enumerate(table.rows):
        name, *numbers = (cell.replace("|", r"\|") for cell in row)
        first = f"**{name}**" if i == table.chosen else name
        lines.append(f"| {' | '.join([first, *numbers])} |")
    return "\n".join(lines) + "\n"


def as_latex(table: Table) -> str:
    """A tabular in the style of booktabs; the chosen student is bold."""
    head = " & ".join(_latex(name.replace("_", " ")) for name in table.head)
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}", r"\toprule", rf"{head} \\"]
    for i, row in enumerate(table.rows):
        if i in (0, table.num_students):
            lines.append(r"\midrule")
        name, *numbers = map(_latex, row)
        first = rf"\textbf{{{name}}}" if i == table.chosen else name
        lines.append(rf"{' & '.join([first, *numbers])} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def as_html(table: Table) -> str:
    """A table of HTML; the chosen student is bold."""
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in table.head)
    lines = ["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for i, row in enumerate(table.rows):
        name, *numbers = map(escape, row)
        first = f"<b>{name}</b>" if i == table.chosen else name
        cells = "".join(f'<td style="text-align:right">{number}</td>' for number in numbers)
        lines.append(f'<tr><td style="text-align:left">{first}</td>{cells}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>"]) + "\n"


def as_text(table: Table) -> str:
    """Columns of plain text; the chosen student is marked."""
    rows = [[*table.head, ""], *([*row, ""] for row in table.rows)]
    if table.chosen is not None:
        rows[table.chosen + 1][-1] = "<- chosen"
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    lines = []
    for name, *numbers, mark in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells, mark]).rstrip())
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": as_markdown,
    "latex": as_latex,
    "html": as_html,
    "text": as_text,
}


def written(table: Table, format: str) -> str:
    """A table as text.

    Raises:
        ConfigError: there is no such format.
    """
    if format not in FORMATS:
        raise ConfigError(f"format: found '{format}'{nearest(format, FORMATS)}")
    return FORMATS[format](table)
