"""The records of a study as a pandas frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gped_nas.models.labels import genotype_text
from gped_nas.search.record import TrialRecord

if TYPE_CHECKING:
    import pandas as pd


def frame_of(records: Sequence[TrialRecord], leading: Sequence[str]) -> "pd.DataFrame":
    """Records as a pandas frame by trial number; the ends of intervals are its last columns.

    Args:
        records: in the order of the rows.
        leading: metrics and costs whose columns come first.
    """
    import pandas as pd

    # metrics come before costs; a dictionary keeps the order in which names were first met
    names = dict.fromkeys(leading)
    for record in records:
        names |= dict.fromkeys(record.metrics)
    for record in records:
        names |= dict.fromkeys(record.costs)

    columns: dict[str, list[Any]] = {"student": [name_student(record) for record in records]}
    values = [record.values for record in records]
    for name in names:
        columns[name] = [row.get(name) for row in values]
    for name in names:
        measured = [record.measured(name) for record in records]
        if any(each is not None and each.interval for each in measured):
            columns[f"{name}_low"] = [each and each.low for each in measured]
            columns[f"{name}_high"] = [each and each.high for each in measured]
    index = pd.Index([record.trial for record in records], name="trial", dtype="int64")
    return pd.DataFrame(columns, index=index)


def name_student(record: TrialRecord) -> str:
    """The genotype on one line; empty for a trial that never got as far as one."""
    return genotype_text(record.genotype) if "family" in record.genotype else ""
