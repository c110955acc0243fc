"""What ``teacher info --prior`` prints."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gped_nas.cli.output import Format, print_json, print_pairs, print_rows

if TYPE_CHECKING:
    from gped_nas.api.prior_draws import Line, PriorDescription

_NUM_COLUMNS = 4
"""Draws that a table of functions has a column for."""


def print_prior(prior: "PriorDescription", facts: dict[str, Any], format: Format) -> None:
    """A description of a prior as tables, JSON or CSV.

    Args:
        prior: what is described.
        facts: what is said of the teacher before it.
        format: how to print it.
    """
    if format is Format.json:
        print_json({**facts, **prior.to_json()})
        return

    counts = {"draws": prior.num_draws, "validation inputs": prior.num_inputs}
    line = {"functions along": prior.line.along, "turns of a draw": prior.line.turns}
    pairs = {**facts, **counts, **_in_words(prior.numbers), **line}
    if format is Format.csv:
        print_pairs(pairs, format)
        return

    print_pairs(pairs, format)
    if prior.classes:
        rows = [asdict(described) for described in prior.classes]
        print_rows(rows, format, title="classes: share is that of a draw's inputs, labels of train")
    print_rows(_places(prior.line), format, title=f"{prior.line.of}, at deviations from the mean")


def _in_words(numbers: dict[str, float]) -> dict[str, str]:
    """Each number by its name, with its ends where it has some."""
    pairs = {}
    for name, value in numbers.items():
        if name.endswith(("_low", "_high")):
            continue
        text = f"{value:.4g}"
        if f"{name}_low" in numbers:
            low, high = numbers[f"{name}_low"], numbers[f"{name}_high"]
            text += f", of 90 % from {low:.4g} to {high:.4g}"
        pairs[name.replace("_", " ")] = text
    return pairs


def _places(line: "Line") -> list[dict[str, Any]]:
    """A row for every other place of the line: all draws together, and some of them."""
    columns = {"low": line.low, "median": line.median, "high": line.high}
    for number, values in enumerate(line.draws[:_NUM_COLUMNS], 1):
        columns[f"draw {number}"] = values

    rows = []
    for i in range(0, len(line.places), 2):
        # to four places: of tiny probabilities it is enough to know that they are
        values_there = {name: round(values[i], 4) for name, values in columns.items()}
        rows.append({"place": line.places[i], **values_there})
    return rows
