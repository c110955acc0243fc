"""Everything the report shows, as plain JSON-able data: a pure function of a study's snapshot.

Floats are rounded to six significant digits, numbers that are not finite become null, mappings are
sorted by key. Counts and bytes stay exact.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np

from gped_nas.evaluate.measured import CLEAN, TEST, VALIDATION, Key, parse_name, public_name
from gped_nas.models.costs import COSTS
from gped_nas.report.answer import answer
from gped_nas.report.cards import card_data
from gped_nas.report.records import Data, find, plain, record_data, reference_data
from gped_nas.report.teacher import teacher_data
from gped_nas.search.objectives import label_under
from gped_nas.search.pareto import KNEE_RULE, pareto_front
from gped_nas.search.record import State, TrialRecord
from gped_nas.search.snapshot import PairedDifference, Reference, StudySnapshot

__all__ = ["Data", "data_of", "direction_of", "find", "plain"]

MAX_NEAR = 40
"""Trials of the layer behind the front that are drawn beside it."""
MAX_CURVES = 100


def data_of(snapshot: StudySnapshot) -> Data:
    """What the page shows of a study.

    Args:
        snapshot: the study at one instant; its texts are untrusted and kept as they are.

    Returns:
        Plain dictionaries, lists, texts and numbers; equal snapshots give equal data.
    """
    records = [record_data(record, snapshot) for record in snapshot.records]
    metrics, costs = _metrics(snapshot), _costs(snapshot)
    axes = _axes(snapshot, metrics, costs)
    data: Data = {
        "name": str(snapshot.name),
        "objectives": axes[: len(snapshot.objectives)],
        "metrics": metrics,
        "costs": costs,
        "axes": axes,
        "states": _states(snapshot.records),
        "records": records,
        "front": list(snapshot.front),
        "near": _near(snapshot),
        "chosen": snapshot.chosen,
        "rule": snapshot.rule,
        "knee": snapshot.knee,
        "knee_rule": KNEE_RULE,
        "references": [reference_data(reference) for reference in snapshot.references],
        "comparisons": [
            _paired_difference(paired, snapshot) for paired in snapshot.paired_differences
        ],
        "hypervolume": _hypervolume(snapshot),
        "reference_point": plain(snapshot.reference_point),
        "importances": _importances(snapshot),
        "curves": _curves(snapshot),
        "savings": _savings(snapshot),
        "failures": _failures(snapshot.records),
        "teacher": teacher_data(snapshot.teacher, lambda name: label_of(name, snapshot)),
        "provenance": plain(snapshot.provenance),
        "as_of": _as_of(snapshot.records),
        "num_test_evaluations": snapshot.num_test_evaluations,
        "split_text": snapshot.split_text,
        "class_names": [str(name) for name in snapshot.class_names],
        "notes": list(snapshot.notes),
        "config": plain(snapshot.config),
    }
    data["cards"] = [card_data(snapshot, find(data, trial)) for trial in snapshot.front]
    return data | {"answer": answer(data)}


def direction_of(name: str, snapshot: StudySnapshot) -> str | None:
    """What is better of a metric or cost; None where nobody says."""
    key = parse_name(name)
    on_validation = public_name(key._replace(part=VALIDATION))
    for objective in snapshot.objectives:
        if objective.name == on_validation:
            return objective.direction
    if name in COSTS:
        return "minimize"

    words_of_metric = snapshot.metrics.get(key.metric)
    return words_of_metric.direction if words_of_metric else None


def label_of(name: str, snapshot: StudySnapshot) -> str:
    """A metric or cost for axes and tables, with its unit; its name where nobody says more."""
    for objective in snapshot.objectives:
        if objective.name == name:
            return objective.label
    if name in COSTS:
        return COSTS[name]

    key = parse_name(name)
    words_of_metric = snapshot.metrics.get(key.metric)
    label = words_of_metric.label if words_of_metric else key.metric.replace("_", " ")
    return label_under(label, key.condition)


def _measured(snapshot: StudySnapshot) -> list[TrialRecord | Reference]:
    return [*snapshot.records, *snapshot.references]


def _metrics(snapshot: StudySnapshot) -> list[dict[str, str]]:
    """The metrics of both parts as ``name``, ``test`` (its name on the test part) and ``label``.

    Objectives come first, then the others by name, clean ones before those under conditions.
    """
    keys: set[Key] = set()
    for source in _measured(snapshot):
        keys |= {key._replace(part=VALIDATION) for key in source.measures}

    first = [objective.name for objective in snapshot.objectives]

    def place(key: Key) -> tuple[int, bool, str]:
        name = public_name(key)
        rank = first.index(name) if name in first else len(first)
        return rank, key.condition != CLEAN, name

    return [
        {
            "name": public_name(key),
            "test": public_name(key._replace(part=TEST)),
            "label": label_of(public_name(key), snapshot),
        }
        for key in sorted(keys, key=place)
    ]


def _costs(snapshot: StudySnapshot) -> list[dict[str, str]]:
    recorded = {name for source in _measured(snapshot) for name in source.costs}
    ordered = [name for name in COSTS if name in recorded] + sorted(recorded - set(COSTS))
    return [{"name": name, "label": label_of(name, snapshot)} for name in ordered]


def _axes(
    snapshot: StudySnapshot, metrics: list[dict[str, str]], costs: list[dict[str, str]]
) -> list[Data]:
    """What the front can be drawn over: the objectives first, then every other metric and cost.

    ``log`` says whether it is better seen on a logarithmic scale: costs, and metrics that differ
    much over the front.
    """
    given = [plain(vars(objective)) for objective in snapshot.objectives]
    taken = {axis["name"] for axis in given}
    others = [
        (entry, kind)
        for kind, entries in (("metric", metrics), ("cost", costs))
        for entry in entries
    ]
    axes = given + [
        {
            "name": entry["name"],
            "label": entry["label"],
            "kind": kind,
            "direction": direction_of(entry["name"], snapshot),
        }
        for entry, kind in others
        if entry["name"] not in taken
    ]
    return [
        {**axis, "log": axis["kind"] == "cost" or _is_wide(axis["name"], snapshot)} for axis in axes
    ]


def _is_wide(metric: str, snapshot: StudySnapshot) -> bool:
    values = [
        r.metrics[metric]
        for r in snapshot.records
        if r.trial in snapshot.front and metric in r.metrics
    ]
    return bool(values) and min(values) > 0 and max(values) > 10 * min(values)


def _near(snapshot: StudySnapshot) -> list[int]:
    """The front that is left when the front is taken away, by trial number."""
    left = [r for r in snapshot.records if r.state == "complete" and r.trial not in snapshot.front]
    names = [objective.name for objective in snapshot.objectives]
    left = [r for r in left if all(name in r.values for name in names)]
    if not left or not names:
        return []
    points = np.array([[r.value(name) for name in names] for r in left])
    mask = pareto_front(points, [objective.direction for objective in snapshot.objectives])
    return [r.trial for r, near in zip(left, mask, strict=True) if near][:MAX_NEAR]


def _hypervolume(snapshot: StudySnapshot) -> list[list[float | None]]:
    """Rows ``[trial, seconds so far, hypervolume, the same trials in random order]``."""
    seconds = itertools.accumulate(record.seconds for record in snapshot.records)
    rows = itertools.zip_longest(
        snapshot.records, seconds, snapshot.hypervolume, snapshot.random_order
    )
    return [
        [r.trial, *plain((s, value, chance))]
        for r, s, value, chance in rows
        if r and value is not None
    ]


def _importances(snapshot: StudySnapshot) -> dict[str, Any]:
    shares = (
        (objective.name, snapshot.importances.get(objective.name))
        for objective in snapshot.objectives
    )
    return {name: plain(share) for name, share in shares if share}


def _curves(snapshot: StudySnapshot) -> list[Data]:
    """Training curves of the front, and of evenly many others, up to ``MAX_CURVES``."""
    with_curve = [
        r for r in snapshot.records if r.state == "complete" and len(r.extra.get("loss", ())) > 1
    ]
    front = [r for r in with_curve if r.trial in snapshot.front][:MAX_CURVES]
    others = [r for r in with_curve if r.trial not in snapshot.front]
    room = MAX_CURVES - len(front)
    if len(others) > room:
        others = [others[i * len(others) // room] for i in range(room)]
    kept = sorted([*front, *others], key=lambda r: r.trial)
    return [
        {
            "trial": r.trial,
            "on_front": r.trial in snapshot.front,
            "points": [[int(step), float(f"{value:.4g}")] for step, value in r.extra["loss"]],
        }
        for r in kept
    ]


def _savings(snapshot: StudySnapshot) -> Data | None:
    """What sampling the teacher once saved, against sampling it anew for each student that was
    trained.
    """
    once = snapshot.teacher.get("seconds")
    trained = [r for r in snapshot.records if r.seconds > 0 and r.measures]
    if not once or not trained:
        return None
    students = sum(r.seconds for r in trained)
    anew = once * len(trained) + students
    numbers = {"teacher": once, "students": students, "num": len(trained), "anew": anew}
    saved = anew - once - students
    share = 1 - (once + students) / anew
    cost: dict[str, Any] = plain({**numbers, "saved": saved, "share": share})
    return cost


def _states(records: tuple[TrialRecord, ...]) -> dict[str, int]:
    counts = Counter(record.state for record in records)
    return {state: counts[state] for state in get_args(State) if counts[state]}


def _failures(records: Sequence[TrialRecord]) -> list[Data]:
    """Why trials are not complete, the most frequent reason first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for record in records:
        if record.state not in ("complete", "running", "duplicate"):
            groups.setdefault((record.state, record.reason), []).append(record.trial)
    rows = [
        {"state": s, "reason": r, "trials": trials, "num": len(trials)}
        for (s, r), trials in groups.items()
    ]
    return sorted(rows, key=lambda row: -len(row["trials"]))


def _as_of(records: tuple[TrialRecord, ...]) -> str:
    latest = max((record.created for record in records), default=0.0)
    return datetime.fromtimestamp(latest, UTC).strftime("%Y-%m-%d %H:%M UTC") if latest > 0 else ""


def _paired_difference(paired: PairedDifference, snapshot: StudySnapshot) -> Data:
    labels = {reference.name: reference.label for reference in snapshot.references}
    labels |= dict.fromkeys(("student", "chosen"), "chosen student")
    data: Data = plain(vars(paired))
    for side in ("first", "second"):
        data[side] = labels.get(data[side], data[side])
    label = label_of(data["metric"], snapshot)
    return data | {"label": label, "reading": _reading(data, snapshot)}


def _reading(data: Mapping[str, Any], snapshot: StudySnapshot) -> str:
    low, high = data["interval"]
    if low is None or high is None:
        return "not measured"
    if low <= 0 <= high:
        return "not told apart: the interval holds 0"
    bigger, smaller = (
        (data["first"], data["second"]) if low > 0 else (data["second"], data["first"])
    )
    better = direction_of(data["metric"], snapshot)
    if better is None:
        return f"higher: {bigger}"
    return f"better: {bigger if better == 'maximize' else smaller}"
