"""Records as the report shows them: plain, rounded, and as one table with a column a number."""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gped_nas.evaluate.measured import TEST, VALIDATION, Key, parse_name, public_name, to_public
from gped_nas.models.labels import genotype_text, value_text
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import Reference, StudySnapshot

Data = dict[str, Any]
LOW, HIGH = "_low", "_high"


def plain(value: Any) -> Any:
    """A value as JSON-able data.

    Floats are rounded to six digits, what is not finite becomes None, keys are sorted, and what
    JSON does not know becomes text.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(f"{float(value):.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        items = sorted(value.items(), key=lambda item: str(item[0]))
        return {str(key): plain(item) for key, item in items}
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
        "reason": record.reason or record.origin,
        "genotype": genotype_text(values),
        "settings": values,
        "seconds": plain(record.seconds),
        "on_front": record.trial in snapshot.front,
        "outside": record.trial in snapshot.outside,
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
    public: dict[str, Any] = {"why": {}} | to_public(source.measures) | {"costs": source.costs}
    return {name: plain(values) for name, values in public.items()}


def drawable_value(record: Data, axis: Data) -> float | None:
    """A record's number on an axis; None where it has none, and for costs that a log hides."""
    value: float | None = {**record["costs"], **record["metrics"]}.get(axis["name"])
    if value is None or (axis["kind"] == "cost" and value <= 0):
        return None
    return value


def place_of(record: Data, axis: Data) -> float | None:
    """Where a row is drawn on an axis: its number; a trial beyond the region on the shelf."""
    value = drawable_value(record, axis)
    shelf: float | None = axis.get("shelf")
    if value is None or shelf is None or "trial" not in record:
        return value
    return max(value, shelf) if axis["direction"] == "maximize" else min(value, shelf)


_FACTS = ("trial", "state", "reason", "seconds")


def table(records: Sequence[Data], metrics: Sequence[str], costs: Sequence[str]) -> Data:
    """All records as ``columns`` and ``rows``: what scripts read and downloads are made from.

    ``settings`` are the columns of genotypes.

    Args:
        records: of ``record_data``.
        metrics, costs: names in the order of their columns; test metrics follow as ``test_...``.
    """
    # a setting of the name of a number would hide it
    settings = [
        name for name in _names(records, "settings") if name not in {*metrics, *costs, *_FACTS}
    ]
    recorded = _names(records, "metrics")
    with_interval = _names(records, "intervals")
    test_metrics = [public_name(parse_name(name)._replace(part=TEST)) for name in metrics]
    measured_names = [name for name in dict.fromkeys((*metrics, *test_metrics)) if name in recorded]
    parts = [part for part in (VALIDATION, TEST) if any(_size(row, part) for row in records)]

    columns = [*_FACTS, *settings, *costs]
    for name in measured_names:
        columns.append(name)
        if name in with_interval:
            columns += [name + LOW, name + HIGH]
    columns += [public_name(Key("n", part=part)) for part in parts]

    # the cells of a row follow the columns above, group by group
    rows = []
    for record in records:
        row: list[Any] = [record[name] for name in _FACTS]
        row += [_cell(record["settings"].get(name)) for name in settings]
        row += [record["costs"].get(name) for name in costs]
        for name in measured_names:
            row.append(record["metrics"].get(name))
            if name in with_interval:
                row += record["intervals"].get(name) or (None, None)
        row += [_size(record, part) for part in parts]
        rows.append(row)
    return {"columns": columns, "rows": rows, "settings": settings}


def _names(records: Sequence[Data], group: str) -> dict[str, None]:
    """Names that any record has in one of its mappings, in the order in which they first come."""
    names: dict[str, None] = {}
    for record in records:
        names |= dict.fromkeys(record[group])
    return names


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value_text(value)


def _size(record: Data, part: str) -> int | None:
    """Number of examples behind a record's metrics of one part."""
    sizes = [n for name, n in record["n"].items() if parse_name(name).part == part]
    return max(sizes, default=None)
