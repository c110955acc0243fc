"""Everything the report shows, as plain JSON-able data: a pure function of a study's snapshot.

Floats are rounded to six significant digits, numbers that are not finite become null, mappings are sorted by
key. Counts and bytes stay exact.
"""

import math
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from gped_nas.report import words
from gped_nas.search.record import State, TrialRecord
from gped_nas.search.snapshot import Comparison, Reference, StudySnapshot

Data = dict[str, Any]
TEST = "test_"


def data_of(snapshot: StudySnapshot) -> Data:
    """What the page shows of a study.

    Args:
        snapshot: the study at one instant; its texts are untrusted and kept as they are.

    Returns:
        Plain dictionaries, lists, texts and numbers; equal snapshots give equal data.
    """
    data: Data = {
        "name": str(snapshot.name),
        "objectives": [plain(vars(objective)) for objective in snapshot.objectives],
        "metrics": _names(snapshot, "metrics", words.METRIC_ORDER),
        "costs": _names(snapshot, "costs", words.COST_ORDER),
        "states": _states(snapshot.records),
        "records": [_record(record, snapshot) for record in snapshot.records],
        "front": list(snapshot.front),
        "chosen": snapshot.chosen,
        "rule": snapshot.rule,
        "references": [_reference(reference) for reference in snapshot.references],
        "comparisons": [_comparison(comparison, snapshot) for comparison in snapshot.comparisons],
        "hypervolume": [
            [record.trial, plain(value)] for record, value in zip(snapshot.records, snapshot.hypervolume, strict=False)
        ],
        "reference_point": plain(snapshot.reference_point),
        "importances": _importances(snapshot),
        "teacher": plain(snapshot.teacher),
        "provenance": plain(snapshot.provenance),
        "as_of": _as_of(snapshot.records),
        "num_test_evaluations": snapshot.num_test_evaluations,
        "split_text": snapshot.split_text,
        "notes": list(snapshot.notes),
        "config": plain(snapshot.config),
    }
    return data | {"answer": _answer(data)}


def plain(value: Any) -> Any:
    """A value as JSON-able data: floats to six digits, not finite to None, keys sorted, the rest as text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(f"{float(value):.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
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


def _names(snapshot: StudySnapshot, kind: Literal["metrics", "costs"], order: tuple[str, ...]) -> list[dict[str, str]]:
    sources = (*snapshot.records, *snapshot.references)
    found = {name.removeprefix(TEST) for source in sources for name in getattr(source, kind)}
    ordered = [name for name in order if name in found] + sorted(found.difference(order))
    given = {objective.name: objective.label for objective in snapshot.objectives}
    return [{"name": name, "label": given.get(name) or words.label(name)} for name in ordered]


def _importances(snapshot: StudySnapshot) -> dict[str, Any]:
    shares = ((objective.name, snapshot.importances.get(objective.name)) for objective in snapshot.objectives)
    return {name: plain(share) for name, share in shares if share}


def _states(records: tuple[TrialRecord, ...]) -> dict[str, int]:
    counts = Counter(record.state for record in records)
    return {state: counts[state] for state in get_args(State) if counts[state]}


def _as_of(records: tuple[TrialRecord, ...]) -> str:
    latest = max((record.created for record in records), default=0.0)
    return datetime.fromtimestamp(latest, UTC).strftime("%Y-%m-%d %H:%M UTC") if latest > 0 else ""


def _record(record: TrialRecord, snapshot: StudySnapshot) -> Data:
    values = plain(record.genotype)
    data = _measured(record) | {
        "trial": record.trial,
        "state": record.state,
        "reason": record.reason,
        "genotype": words.genotype(values),
        "seconds": plain(record.seconds),
        "on_front": record.trial in snapshot.front,
        "chosen": record.trial == snapshot.chosen,
    }
    if data["on_front"]:
        data |= {
            "layers": _layers(record),
            "macs_by_operator": plain(record.extra.get("macs_by_operator", {})),
            "reliability": _bins(record.extra.get("reliability", [])),
            "dead_units": plain(record.extra.get("dead_units")),
            "seed": plain(record.extra.get("seed")),
        }
    return data


def _measured(source: TrialRecord | Reference) -> Data:
    return {name: plain(getattr(source, name)) for name in ("metrics", "intervals", "n", "costs")}


def _reference(reference: Reference) -> Data:
    return _measured(reference) | {"name": reference.name, "label": reference.label, "note": reference.note}


def _layers(record: TrialRecord) -> list[Data]:
    left = {str(layer["layer"]): layer for layer in record.layers}
    drawn = {str(layer["layer"]): layer for layer in record.layers_drawn or record.layers}
    return [
        {
            "layer": name,
            "kind": str((drawn.get(name) or left[name])["kind"]),
            "before": _size(drawn.get(name)),
            "after": _size(left.get(name)),
        }
        for name in dict.fromkeys([*drawn, *left])
    ]


def _size(layer: Mapping[str, Any] | None) -> Data | None:
    return plain({key: layer[key] for key in ("inputs", "outputs", "params")}) if layer else None


def _bins(bins: Any) -> list[Data]:
    return sorted(
        (plain(row) for row in bins if row["count"] and row["confidence"] is not None),
        key=lambda row: float(row["confidence"]),
    )


def _comparison(comparison: Comparison, snapshot: StudySnapshot) -> Data:
    labels = {reference.name: reference.label for reference in snapshot.references}
    labels |= dict.fromkeys(("student", "chosen"), "chosen student")
    data: Data = plain(vars(comparison))
    for side in ("first", "second"):
        data[side] = labels.get(data[side], data[side])
    return data | {"reading": _reading(data, snapshot)}


def _reading(data: Data, snapshot: StudySnapshot) -> str:
    low, high = data["interval"]
    if low is None or high is None:
        return "not measured"
    if low <= 0 <= high:
        return "not told apart: the interval holds 0"
    bigger, smaller = (data["first"], data["second"]) if low > 0 else (data["second"], data["first"])
    better = _direction(data["metric"], snapshot)
    if better is None:
        return f"higher: {bigger}"
    return f"better: {bigger if better == 'maximize' else smaller}"


def _direction(metric: str, snapshot: StudySnapshot) -> str | None:
    name = metric.removeprefix(TEST)
    given = {objective.name: objective.direction for objective in snapshot.objectives}
    if name in given:
        return given[name]
    if name in words.HIGHER_IS_BETTER:
        return "maximize"
    return "minimize" if name in words.LOWER_IS_BETTER else None


def _answer(data: Data) -> Data:
    if data["chosen"] is None:
        return {"headline": _no_answer(data), "detail": "", "tiles": []}
    student = find(data, data["chosen"])
    teacher = next((dict(r) for r in data["references"] if r["name"] == "teacher"), None)
    part, prefix = _part(student, teacher)
    return {
        "headline": f"Trial {student['trial']} is the student to use: {_price(student, teacher)}.",
        "detail": _kept(student, teacher, part, prefix),
        "tiles": _tiles(student, teacher, part, prefix),
    }


def _no_answer(data: Data) -> str:
    complete = data["states"].get("complete", 0)
    total, front = len(data["records"]), len(data["front"])
    return f"No student was chosen: {complete} of {total} trials are complete, {front} on the front."


def _part(student: Data, teacher: Data | None) -> tuple[str, str]:
    sides = [side for side in (student, teacher) if side]
    tested = all(any(name.startswith(TEST) for name in side["metrics"]) for side in sides)
    return ("test", TEST) if tested else ("validation", "")


def _price(student: Data, teacher: Data | None) -> str:
    units = (("macs", "MACs", ""), ("storage_bytes", "", "B"))
    parts = []
    for name, noun, unit in units:
        cost, reference = student["costs"].get(name), (teacher or {"costs": {}})["costs"].get(name)
        if not cost:
            continue
        text = f"{words.short(cost, unit)} {noun}".strip()
        parts.append(f"{text} ({words.factor(cost, reference)} the teacher)" if reference else text)
    return "it costs " + " and ".join(parts) if parts else "its costs were not measured"


def _kept(student: Data, teacher: Data | None, part: str, prefix: str) -> str:
    accuracy, nll = (f"{prefix}{name}" for name in ("accuracy", "nll"))
    mine, theirs = student["metrics"], (teacher or {"metrics": {}})["metrics"]
    parts = []
    if mine.get(accuracy) is not None and theirs.get(accuracy):
        kept = 100 * mine[accuracy] / theirs[accuracy]
        values = (words.metric(side[accuracy], "accuracy") for side in (mine, theirs))
        parts.append(f"keeps {kept:.1f} % of the teacher's accuracy ({' against '.join(values)})")
    if mine.get(nll) is not None and theirs.get(nll) is not None:
        values = (words.metric(side[nll], "nll") for side in (mine, theirs))
        parts.append(f"has an NLL of {' against '.join(values)} nats")
    if not parts:
        return ""
    n = student["n"].get(accuracy) or student["n"].get(nll)
    size = f", n = {words.count(n)}" if n else ""
    return f"It {' and '.join(parts)}, measured on {part}{size}."


def _tiles(student: Data, teacher: Data | None, part: str, prefix: str) -> list[dict[str, str]]:
    other = teacher or {"metrics": {}, "costs": {}}
    tiles = []
    for name, title, unit in (("macs", "MACs", ""), ("storage_bytes", "storage", "B")):
        if student["costs"].get(name) is not None:
            reference = other["costs"].get(name)
            note = f"teacher {words.short(reference, unit)}" if reference else ""
            tiles.append({"title": title, "value": words.short(student["costs"][name], unit), "note": note})
    for name, title in (("accuracy", f"{part} accuracy"), ("nll", f"{part} NLL, nats"), ("rmse", f"{part} RMSE")):
        if student["metrics"].get(prefix + name) is not None:
            reference = other["metrics"].get(prefix + name)
            note = f"teacher {words.metric(reference, name)}" if reference is not None else ""
            tiles.append({"title": title, "value": words.metric(student["metrics"][prefix + name], name), "note": note})
    return tiles
