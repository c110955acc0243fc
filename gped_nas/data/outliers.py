"""Numbers of a table that stand so far from the others that they may mean something else.

A code for "missing", -999 or -1e9 for example, is the usual case: it sets the column's deviation,
and hides what the other numbers say.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from gped_nas.data.normalization import ImputingNormalization

_RANGE = (0.05, 0.95)
_FAR = 20.0
"""Widths of the range of nine tenths of a column, beyond which a number is far from it."""
_MOST_EXAMPLES = 20_000
_MOST_COLUMNS = 5


def describe_missing(x: Tensor, normalization: ImputingNormalization) -> tuple[str, ...]:
    """One sentence on the numbers of (N, D) that are missing; none where none is."""
    counts = x.isnan().sum(0)
    if not normalization.flagged:
        return ()
    most = int(counts.argmax())
    return (
        f"{len(normalization.flagged)} of {x.shape[1]} columns lack numbers, column {most} most of "
        f"all ({int(counts[most])} of {len(x)}): the column's median stands for them, and a "
        "further input says where they were missing.",
    )


def describe_outliers(x: Tensor, names: Sequence[str] = ()) -> tuple[str, ...]:
    """One sentence for each column of (N, D) with numbers that are far from the others.

    A column most of whose numbers are equal has no range, and is passed over.

    Args:
        x: raw inputs.
        names: of the columns, where they have some.
    """
    table = x[:_MOST_EXAMPLES].double().numpy()
    low, high = np.nanquantile(table, _RANGE, axis=0)
    width = high - low
    is_far = (table < low - _FAR * width) | (table > high + _FAR * width)
    counts = np.where(width > 0, is_far.sum(axis=0), 0)

    columns = np.flatnonzero(counts).tolist()
    sentences = []
    for column in columns[:_MOST_COLUMNS]:
        name = f"'{names[column]}'" if names else column
        first = table[is_far[:, column], column][0]
        sentences.append(
            f"Column {name} holds {counts[column]} of {len(table)} numbers that are far from the "
            f"others, {first:g} for example: if they stand for missing values, replace them."
        )
    if len(columns) > _MOST_COLUMNS:
        sentences.append(f"So do {len(columns) - _MOST_COLUMNS} more columns.")
    return tuple(sentences)
