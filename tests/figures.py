"""Tables of the documentation that are made of ``reports/reference``.

A table stands between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``. Whoever measures
has a function for each of his tables, and calls ``write``.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / "reports/reference"
_TABLE = re.compile(r"(<!-- figures: ([\w ]+) -->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)

Tables = Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]]
"""By name, the report that a table is made of, and the function that makes it."""


def number(value: float) -> str:
    """Three digits, without a zero before the point."""
    digits = f"{value:.3f}" if abs(value) < 1 else f"{value:#.3g}"
    sign = "-" if digits.startswith("-") else ""
    return sign + digits.removeprefix("-").removeprefix("0").removesuffix(".")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def with_figures(text: str, tables: Tables, reports: Path = REPORTS) -> str:
    """A page with those of its tables that are among these, as the reports have them."""

    def fill(match: re.Match[str]) -> str:
        if match[2] not in tables:
            return match[0]
        report, make = tables[match[2]]
        return match[1] + make(json.loads((reports / report).read_text())) + match[4]

    return _TABLE.sub(fill, text)


def write(pages: Sequence[Path], tables: Tables) -> None:
    """Write the tables of pages anew."""
    for page in pages:
        page.write_text(with_figures(page.read_text(), tables))
