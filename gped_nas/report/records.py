"""Records as the report shows them: plain, rounded, and as one table with a column a number."""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gped_nas.evaluate.measured import TEST, VALIDATION, Key, parse_name, public_name, to_public
from gped_nas.models.base import genotype_text, value_text
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import Reference, StudySnapshot

Data = dict[str, Any]
LOW, HIGH = "_low", "_high"


def plain(value: Any) -> Any:
    """A value as JSON-able data: floats to six digits, not finite to None, keys sorted, the rest as
    text.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(f"{float(value):.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {
            str(key): plain(item)
            for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))
        }
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def find(data: Data, trial: int) -> Data:
    """The record of a trial number.

    Raises:
        KeyError: there is no such trial.
    """
    for record in data["records"]:
        if record["trial"] == trial:
            return dict(record)
    raise KeyError(trial)


def record_data(record: TrialRecord, snapshot: StudySnapshot) -> Data:
    """One trial as plain data."""
    values = plain(record.genotype)
    return measured(record) | {
        "trial": record.trial,
        "state": record.state,
        "reason": record.reason,
        "genotype": genotype_text(values),
        "settings": values,
        "seconds": plain(record.seconds),
        "on_front": record.trial in snapshot.front,
        "chosen": record.trial == snapshot.chosen,
    }


def reference_data(reference: Reference) -> Data:
    """One reference as plain data."""
    return measured(reference) | {
        "name": reference.name,
        "label": reference.label,
        "note": reference.note,
    }


def measured(source: TrialRecord | Reference) -> Data:
    """Metrics, intervals, sizes and costs as plain data."""
    public = to_public(source.measures) | {"costs": source.costs}
    return {name: plain(values) for name, values in public.items()}


def table(records: Sequence[Data], metrics: Sequence[str], costs: Sequence[str]) -> Data:
    """All records as ``columns`` and ``rows``: what the page's script reads and its downloads are
        made from.

    ``settings`` are the columns of genotypes.

    Args:
        records: of ``record_data``.
        metrics, costs: names in the order of their columns; test metrics follow as ``test_...``.
    """
    settings = list(dict.fromkeys(key for record in records for key in record["settings"]))
    settings = [
        name
        for name in settings
        if name not in {*metrics, *costs, "trial", "state", "reason", "seconds"}
    ]
    known = {name for record in records for name in record["metrics"]}
    tested = [public_name(parse_name(name)._replace(part=TEST)) for name in metrics]
    shown = [name for name in (*metrics, *tested) if name in known]
    bounded = {name for record in records for name in record["intervals"]}
    columns = ["trial", "state", "reason", "seconds", *settings, *costs]
    for name in shown:
        columns += [name, name + LOW, name + HIGH] if name in bounded else [name]
    parts = [part for part in (VALIDATION, TEST) if any(_size(row, part) for row in records)]
    sizes = [public_name(Key("n", part=part)) for part in parts]
    rows = []
    for record in records:
        row: list[Any] = [record[name] for name in ("trial", "state", "reason", "seconds")]
        row += [_cell(record["settings"].get(name)) for name in settings]
        row += [record["costs"].get(name) for name in costs]
        for name in shown:
            row.append(record["metrics"].get(name))
            if name in bounded:
                row += record["intervals"].get(name) or (None, None)
        rows.append(row + [_size(record, part) for part in parts])
    return {"columns": columns + sizes, "rows": rows, "settings": settings}


def _cell(value: Any) -> Any:
    return (
        value if value is None or isinstance(value, bool | int | float | str) else value_text(value)
    )


def _size(record: Data, part: str) -> int | None:
    """Number of examples behind a record's metrics of one part."""
    sizes = [n for name, n in record["n"].items() if parse_name(name).part == part]
    return max(sizes, default=None)
