"""The region of interest as the report shows it: in words, and as a shelf beside the front.

Who is outside is drawn on a shelf, a row just beyond where the region ends. At its own place it
would take the figure's space from the front: most are far away, and how far is of no interest.
"""

from collections.abc import Sequence

from gped_nas.report.records import Data, drawable_value, plain
from gped_nas.search.region import Region
from gped_nas.search.region_words import describe_region

_SHELF = 0.08
"""How far beyond the end of the region the shelf is, as a share of the axis up to there."""


def region_data(region: Region | None) -> Data:
    """What is told of a region: ``text``, ``keep``, ``bounds`` by name, and who is ``apart``."""
    return {
        "apart": "no better than a guess" if region is None else "outside the region of interest",
        "text": describe_region(region),
        "keep": None if region is None else region.keep,
        "bounds": plain({b.name: b.value for b in region.bounds}) if region else {},
    }


def add_shelves(axes: Sequence[Data], records: Sequence[Data], region: Region | None) -> None:
    """Give each axis on which the region ends a ``bound``, and a ``shelf`` beyond it.

    Args:
        axes: which become longer by these two.
        records: every trial.
        region: of the study.
    """
    for axis in axes:
        bound = None if region is None else region.bound(axis["name"])
        if bound is None:
            continue

        is_inside = [row for row in records if row["state"] == "complete" and not row["outside"]]
        values = [drawable_value(row, axis) for row in is_inside]
        known = [value for value in values if value is not None]
        largest = bound.direction == "maximize"
        best = (max if largest else min)(known) if known else None
        axis["bound"] = plain(bound.value)
        # of who is outside where nobody is inside, there is no scale to draw by
        if best is not None and best != bound.value:
            axis["shelf"] = plain(bound.value + _SHELF * (bound.value - best))
