"""Intervals hold the truth as often as they say.

A row of 2,000 data sets knows a coverage of 95 % to .005, as a standard error: ``make soak``. The
suite draws 200, and then four standard errors of the least allowed coverage are .092.
"""

import math
import os

import numpy as np

from tests.statistical.coverage import SIZES, SLOW, Case, cases, summarize

SOAK = bool(os.environ.get("GPED_SOAK"))
REPEATS = 2000 if SOAK else 200
SLOW_REPEATS = 500 if SOAK else 40
LEAST, HIGHEST_AVERAGE, LOWEST_AVERAGE = 0.88, 0.98, 0.92
# tests and intervals that cannot hold the truth too rarely, whatever the data
EXACT = {"exact test of equal accuracies"}


def slack(repeats: int) -> float:
    return 4 * math.sqrt(LEAST * (1 - LEAST) / repeats)


def test_the_intervals_of_every_quantity_hold_the_truth() -> None:
    rows = []
    for case in cases():
        repeats = SLOW_REPEATS if case.quantity in SLOW else REPEATS
        rows += [case.measure(n, repeats) for n in SIZES]

    for row in rows:
        if row["coverage"] is not None:
            assert row["coverage"] >= LEAST - slack(row["repeats"]), row
        # what is seldom printed may seldom be wrong
        assert row["too_low"] + row["too_high"] <= 1 - LEAST + slack(row["repeats"]), row

    for row in summarize(rows):
        assert row["average"] >= LOWEST_AVERAGE, row

    coverages = [
        row["coverage"] for row in rows if row["coverage"] and row["quantity"] not in EXACT
    ]
    assert LOWEST_AVERAGE <= np.mean(coverages) <= HIGHEST_AVERAGE


def test_an_interval_that_is_too_narrow_is_seen() -> None:
    """That of accuracy by its standard error, which is zero where nothing is wrong."""

    def by_standard_error(generator, n, repeats):
        share = generator.binomial(n, 0.98, repeats) / n
        half = 1.96 * np.sqrt(share * (1 - share) / n)
        return share - half, share + half, 0.98

    row = Case("accuracy", "error rate 0.02", by_standard_error).measure(100, 2000)
    assert row["coverage"] < LEAST
    assert row["too_high"] > 0.1
