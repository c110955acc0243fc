"""Columns of a table as the numbers that networks take, the same for training and for questions.

* A column of numbers stays one number.
* A column of text is a category: one number for each of its texts, 1 for the one that stands there
  and 0 for the others. Missing text is a category of its own where training examples lack some.
* Truth values are the numbers 0 and 1.

What a column becomes is fixed by the training file. It is covered by the dataset's digest and lies
in the ``spec.json`` of every student, so that a student is asked with files like the one it was
made from.
"""

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gped_nas.config import Config
from gped_nas.errors import DataError, DataWarning
from gped_nas.io import Array

Table = Mapping[str, NDArray[Any]]
"""Columns by name, (N,): numbers, truth values, or objects that are text or None."""

MISSING = "(missing)"
"""The category of text that is not there."""
_MOST_CATEGORIES = 100
_FEW_ROWS = 20
"""Rows below which numbers without a gap are no sign of an identifier."""


class CsvFormat(Config):
    """How a CSV file is written."""

    separator: str = Field(",", min_length=1, max_length=1, description="between two values")
    decimal: str = Field(".", min_length=1, max_length=1, description="the mark in 3.5")
    encoding: str = Field("utf-8", min_length=1, description="of the text, latin-1 for example")


class Column(Config):
    """One column of a table.

    ``categories`` are the texts of a category, in order; None of a column of numbers.
    """

    name: str
    categories: Annotated[tuple[str, ...] | None, Field(strict=False)] = None

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each number that it becomes: ``age``, or ``color=red`` and ``color=blue``."""
        if self.categories is None:
            return (self.name,)
        return tuple(f"{self.name}={category}" for category in self.categories)


class TableColumns(Config):
    """The columns that networks take, in order, and how the training file was written."""

    kind: Literal["table"] = "table"
    format: CsvFormat = CsvFormat()
    columns: Annotated[tuple[Column, ...], Field(strict=False, min_length=1)]

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each of the D numbers of an input."""
        return tuple(label for column in self.columns for label in column.labels)

    def key(self) -> list[dict[str, Any]]:
        """Plain data that fixes what inputs mean, for the dataset's digest."""
        return [column.model_dump(mode="json") for column in self.columns]

    def numbers(self, table: Table, where: str) -> Array:
        """The table's rows as inputs (N, D), float64; a missing number is NaN.

        A text that no training example had is none of the categories: a warning says so.

        Raises:
            DataError: a column is not there, or holds text in place of numbers.
        """
        parts = []
        for column in self.columns:
            if column.name not in table:
                raise DataError(
                    f"{where}: found no column '{column.name}', expected the columns of the "
                    f"training file; it has {_listed(table)}"
                )
            values = table[column.name]
            if column.categories is None:
                parts.append(as_numbers(values, f"{where}: column '{column.name}'")[:, None])
            else:
                parts.append(_one_hot(as_text(values), column, where))
        return np.concatenate(parts, axis=1)


def choose_columns(table: Table, *, categories: tuple[str, ...], where: str) -> tuple[Column, ...]:
    """What each column of a training table becomes.

    Args:
        table: the columns that are inputs.
        categories: columns of numbers that are categories too, a postal code for example.
        where: the file, for messages.

    Raises:
        DataError: a column holds nothing, dates, or too many different texts.
    """
    columns = []
    for name, values in table.items():
        label = f"{where}: column '{name}'"
        text = as_text(values)
        present = text[text != np.array(None)]
        if not len(present):
            raise DataError(f"{label}: found no value in {len(values)} rows; {_drop(name)}")

        if is_numeric(values) and name not in categories:
            columns.append(Column(name=name))
            continue

        distinct = sorted(set(present.tolist()))
        _check_categories(distinct, len(present), name, label)
        if len(present) < len(text):
            distinct.append(MISSING)
        columns.append(Column(name=name, categories=tuple(distinct)))
    return tuple(columns)


def describe_identifiers(table: Table, columns: TableColumns) -> tuple[str, ...]:
    """One sentence for each column of numbers that seems to number the rows of a training table."""
    sentences = []
    for column in columns.columns:
        values = table[column.name]
        if column.categories is None and _counts_rows(values):
            sentences.append(
                f"Column '{column.name}' holds a whole number of its own in each row: if it is an "
                f"identifier, {_drop(column.name)}."
            )
    return tuple(sentences)


def _counts_rows(values: NDArray[Any]) -> bool:
    """Whether whole numbers follow each other without a gap, in any order."""
    if len(values) < _FEW_ROWS or not np.isfinite(values.astype(np.float64)).all():
        return False
    ordered = np.sort(values.astype(np.float64))
    return bool((np.diff(ordered) == 1).all() and ordered[0] == np.rint(ordered[0]))


def is_numeric(values: NDArray[Any]) -> bool:
    """Whether a column holds numbers or truth values."""
    return values.dtype.kind in "biuf"


def as_numbers(values: NDArray[Any], where: str) -> Array:
    """A column as float64 (N,).

    Raises:
        DataError: it holds text.
    """
    if is_numeric(values):
        return values.astype(np.float64)

    is_there = values != np.array(None)
    if not is_there.any():
        return np.full(len(values), np.nan)
    row = int(is_there.argmax())
    raise DataError(
        f"{where}: found text, {str(values[row])!r:.60} for example, expected numbers as in the "
        "training file"
    )


def as_text(values: NDArray[Any]) -> NDArray[Any]:
    """A column as objects (N,), text or None; whole numbers have no decimal point."""
    if not is_numeric(values):
        return values

    text = np.empty(len(values), dtype=object)
    for index, value in enumerate(values.tolist()):
        if value != value:  # NaN
            continue
        is_whole = isinstance(value, float) and value.is_integer()
        text[index] = str(int(value)) if is_whole else str(value)
    return text


def _one_hot(text: NDArray[Any], column: Column, where: str) -> Array:
    """Numbers (N, categories)."""
    assert column.categories is not None
    place_of = {category: place for place, category in enumerate(column.categories)}
    numbers = np.zeros((len(text), len(column.categories)))
    unknown: dict[str, int] = {}

    for row, value in enumerate(text.tolist()):
        category = MISSING if value is None else value
        if category in place_of:
            numbers[row, place_of[category]] = 1
        else:
            unknown[category] = unknown.get(category, 0) + 1

    if unknown:
        example, _ = max(unknown.items(), key=lambda item: item[1])
        warnings.warn(
            f"{where}: column '{column.name}': {sum(unknown.values())} of {len(text)} rows have a "
            f"text that no training example has, {example!r:.60} for example: they are taken as "
            "none of the categories",
            DataWarning,
            stacklevel=2,
        )
    return numbers


def _check_categories(distinct: list[str], num_rows: int, name: str, label: str) -> None:
    """Refuse text that is no category.

    Raises:
        DataError: numbers with decimal commas, dates, or too many different texts.
    """
    example = repr(distinct[0])[:60]
    if all(_has_decimal_comma(text) for text in distinct):
        raise DataError(
            f"{label}: found text like {example}, expected numbers with a decimal point; set "
            'dataset.decimal: ","'
        )
    if all(_is_date(text) for text in distinct):
        raise DataError(
            f"{label}: found dates like {example}, expected numbers or categories; turn them into "
            f"numbers (days since the first, month, weekday), or {_drop(name)}"
        )
    if len(distinct) > _MOST_CATEGORIES:
        what = "an identifier or free text" if 2 * len(distinct) > num_rows else "many categories"
        raise DataError(
            f"{label}: found {len(distinct)} different texts in {num_rows} rows, which looks like "
            f"{what}, expected at most {_MOST_CATEGORIES}; {_drop(name)}, or join rare ones"
        )


def _has_decimal_comma(text: str) -> bool:
    whole, comma, digits = text.strip().lstrip("+-").partition(",")
    return bool(comma) and whole.isdigit() and digits.isdigit()


def _is_date(text: str) -> bool:
    """Whether a text is three numbers as dates have them, with or without a time of day."""
    words = text.replace("T", " ").split()
    if not words:
        return False
    for mark in "-/.":
        fields = words[0].split(mark)
        if len(fields) == 3:
            return all(field.isdigit() and len(field) in (1, 2, 4) for field in fields)
    return False


def _drop(name: str) -> str:
    return f"leave it out with dataset.drop: [{name}]"


def _listed(names: Mapping[str, Any]) -> str:
    listed = ", ".join(list(names)[:10])
    return listed + (", ..." if len(names) > 10 else "")
