"""Data on stdout as a table, JSON or CSV."""

import csv
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from gped_nas.export.text import spelled_out


class Format(StrEnum):
    """How a verb that reads prints its data."""

    table = "table"
    json = "json"
    csv = "csv"


def print_json(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """One JSON document on stdout; an object, or each element of a list, says its version."""
    versioned = _versioned(value) if isinstance(value, Mapping) else [_versioned(v) for v in value]
    json.dump(versioned, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def _versioned(value: Mapping[str, Any]) -> dict[str, Any]:
    from gped_nas.io import SCHEMA_VERSION

    return {"schema_version": SCHEMA_VERSION, **value}


def print_rows(rows: Sequence[Mapping[str, Any]], how: Format, *, title: str = "") -> None:
    """Rows as a table or CSV, with a column for every key that a row has; or as a JSON list."""
    if how is Format.json:
        print_json(rows)
        return

    columns = list(dict.fromkeys(key for row in rows for key in row))
    if how is Format.csv:
        writer = csv.DictWriter(sys.stdout, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _safe(value) for key, value in row.items()})
        return

    from gped_nas.cli.tables import Column, lay_out

    shown = []
    for name in columns:
        values = [row.get(name) for row in rows]
        is_numeric = all(isinstance(value, int | float | None) for value in values)
        shown.append(Column(spelled_out(name), [_shown(value) for value in values], is_numeric))

    # A file or a pipe has no width; no row of it should be wrapped.
    is_terminal = sys.stdout.isatty()
    lines = lay_out(shown, _width_of_terminal() if is_terminal else None)
    if title:
        print(title)
    for line in lines.head:
        print(_bold(line) if is_terminal else line)
    for line in lines.body:
        print(line)


def _bold(line: str) -> str:
    is_dumb = os.environ.get("TERM", "dumb") in ("", "dumb")
    return line if is_dumb else f"\x1b[1m{line}\x1b[0m"


def print_pairs(pairs: Mapping[str, Any], how: Format) -> None:
    """A mapping, one line a key, or as JSON or CSV."""
    if how is Format.json:
        print_json(dict(pairs))
    elif how is Format.csv:
        print_rows([{"key": key, "value": value} for key, value in pairs.items()], how)
    else:
        texts = {key: _shown(value) for key, value in pairs.items() if value != ""}
        indent = max((len(key) for key in texts), default=0) + 2
        for key, text in texts.items():
            for line in _fitting(f"{key:<{indent}}{text}", indent):
                print(line)


def print_text(text: str) -> None:
    """A sentence for people, no word broken by the terminal's edge."""
    for line in _fitting(text, 0):
        print(line)


def _fitting(line: str, indent: int) -> list[str]:
    """A line as several that fit into a terminal, no word broken; elsewhere as it is.

    Args:
        line: what is to be printed.
        indent: of its later lines; less where a long word, such as a path, would not fit there.
    """
    width = _width_of_terminal()
    if not sys.stdout.isatty() or len(line) <= width:
        return [line]
    if indent + max(map(len, line.split())) > width:
        indent = 2
    return textwrap.wrap(
        line,
        max(width, indent + 8),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _width_of_terminal() -> int:
    return shutil.get_terminal_size().columns


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value + 0.0:.4g}"  # the sum takes the sign off a zero
    return spelled_out(str(value))


def _safe(value: object) -> object:
    """Text that a spreadsheet would run as a formula is quoted."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value
