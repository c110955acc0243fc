"""Rows of what is said of inputs, as columns for tables."""

from typing import Any

_HEADS = {"probabilities": "p", "low": "low", "high": "high"}
"""What is said of each class, and how its columns are headed."""
_COLUMN = 32
"""Characters of a class name that head a column."""


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row with a column for each class in place of mappings by class."""
    from gped_nas.export.text import visible

    columns: dict[str, Any] = {}
    for key, value in row.items():
        if key == "set":
            columns[key] = ", ".join(visible(name) for name in value)
        elif not isinstance(value, dict):
            columns[key] = visible(value) if isinstance(value, str) else value

    for key, head in _HEADS.items():
        by_class = row.get(key)
        if isinstance(by_class, dict):
            for name, value in zip(_class_columns(by_class), by_class.values(), strict=True):
                columns[f"{head}({name})"] = value
    return columns


def with_likeliest_bounds(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the bounds of its likeliest class in place of those of every class."""
    narrow: dict[str, Any] = {}
    for key, value in row.items():
        is_by_class = key != "probabilities" and isinstance(value, dict)
        narrow[key] = value[row["class"]] if is_by_class else value
    return narrow


def _class_columns(by_class: dict[str, Any]) -> list[str]:
    """Names of classes that head columns; numbers where they are the same once they are cut."""
    from gped_nas.export.text import visible

    names = [visible(name)[:_COLUMN] for name in by_class]
    if len(set(names)) < len(names):
        return [str(number) for number in range(len(names))]
    return names
