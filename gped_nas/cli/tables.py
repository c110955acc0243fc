"""Tables for people, as lines of text that fit into a terminal.

A pipe has no width: each row is one line. A terminal has one, and the first of these that fits is
taken:

* a row is a line;
* headings are broken at their underscores;
* so they are, and long texts stand below their row, the longest first, as few as are needed, or
  above it where they say what the row is about;
* a row is a paragraph of names and numbers, which fits any width.

A cell that is a number is never broken.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

_GAP = "  "
_LONG = 14
"""A column whose texts are longer may stand below its row."""


@dataclass(frozen=True)
class Column:
    """A column of texts.

    Attributes:
        name: its heading.
        cells: one a row.
        is_numeric: whether they are aligned at their right.
    """

    name: str
    cells: Sequence[str]
    is_numeric: bool

    @property
    def longest(self) -> int:
        """Width of its widest cell."""
        return max(map(_width, self.cells), default=0)


@dataclass(frozen=True)
class Lines:
    """A table as text: first its headings, then its rows."""

    head: list[str]
    body: list[str]


def lay_out(columns: Sequence[Column], width: int | None) -> Lines:
    """The table in the first layout that fits; None is a width in which everything fits."""
    if not columns:
        return Lines([], [])

    as_lines = _Grid(columns, [[column.name] for column in columns])
    if width is None or as_lines.width <= width:
        return Lines(as_lines.head(), as_lines.rows())

    texts = [column for column in columns if not column.is_numeric and column.longest > _LONG]
    texts.sort(key=lambda column: -column.longest)
    for num_below in range(len(texts) + 1):
        beside = [column for column in columns if column not in texts[:num_below]]
        apart = [column for column in columns if column in texts[:num_below]]
        if not beside:
            break
        grid = _Grid(beside, [_words(column.name) for column in beside])
        if grid.width <= width:
            above = [column for column in apart if column is columns[0]]
            below = [column for column in apart if column is not columns[0]]
            return Lines(grid.head(), list(_apart(grid.rows(), above, below, width)))
    return Lines([], list(_paragraphs(columns, width)))


class _Grid:
    """Columns beside each other.

    Args:
        columns: at least one.
        headings: the lines of each one's heading.
    """

    def __init__(self, columns: Sequence[Column], headings: Sequence[Sequence[str]]) -> None:
        self._columns = columns
        self._headings = headings
        self._widths = [
            max([column.longest, *map(_width, heading)])
            for column, heading in zip(columns, headings, strict=True)
        ]

    @property
    def width(self) -> int:
        """Of a line."""
        return sum(self._widths) + len(_GAP) * (len(self._widths) - 1)

    def head(self) -> list[str]:
        """The headings, all of which end on the last line."""
        height = max(map(len, self._headings))
        padded = [[""] * (height - len(heading)) + [*heading] for heading in self._headings]
        return [self._line(texts) for texts in zip(*padded, strict=True)]

    def rows(self) -> list[str]:
        """A line a row."""
        return [self._line(t) for t in zip(*(c.cells for c in self._columns), strict=True)]

    def _line(self, texts: Sequence[str]) -> str:
        parts = []
        for text, column, width in zip(texts, self._columns, self._widths, strict=True):
            room = " " * (width - _width(text))
            parts.append(room + text if column.is_numeric else text + room)
        return _GAP.join(parts).rstrip()


def _apart(
    lines: Sequence[str], above: Sequence[Column], below: Sequence[Column], width: int
) -> Iterator[str]:
    """Each row between its long texts."""
    for i, line in enumerate(lines):
        for column in above:
            yield from textwrap.wrap(column.cells[i], max(width, 8))
        yield line
        for column in below:
            yield from _wrapped(column.cells[i], width)


def _paragraphs(columns: Sequence[Column], width: int) -> Iterator[str]:
    """Each row as names and cells, its first one at the margin."""
    first, *others = columns
    for i, cell in enumerate(first.cells):
        yield from textwrap.wrap(f"{first.name} {cell}", width)

        texts = [(f"{column.name} {column.cells[i]}".strip(), column) for column in others]
        line = ""
        for text, column in texts:
            if not column.cells[i]:
                continue
            joined = f"{line}{_GAP}{text}" if line else text
            if line and _width(joined) + len(_GAP) > width:
                yield _GAP + line
                joined = text
            line = joined
            if _width(line) + len(_GAP) > width:
                yield from _wrapped(line, width)
                line = ""
        if line:
            yield _GAP + line


def _wrapped(text: str, width: int) -> list[str]:
    """A text on indented lines of its own."""
    lines = textwrap.wrap(
        text,
        max(width, 8),
        initial_indent=_GAP,
        subsequent_indent=2 * _GAP,
        break_long_words=False,  # a path in pieces cannot be copied
        break_on_hyphens=False,
    )
    return [line.rstrip() for line in lines]


def _words(name: str) -> list[str]:
    """A heading's lines: ``storage_``, ``bytes``."""
    *first, last = name.split("_")
    return [*(f"{word}_" for word in first), last]


def _width(text: str) -> int:
    """How many columns of a terminal it takes."""
    return len(text) if text.isascii() else cell_len(text)
