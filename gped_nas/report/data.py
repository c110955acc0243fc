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
from gped_nas.models.labels import COSTS
from gped_nas.report import tasks
from gped_nas.report.answer import answer
from gped_nas.report.beside import MAX_P_VALUE, evidence_of
from gped_nas.report.cards import card_data
from gped_nas.report.finalists import finalists_data
from gped_nas.report.folding import describe_knee, folded_trials
from gped_nas.report.records import Data, find, plain, record_data, reference_data
from gped_nas.report.regions import add_shelves, region_data
from gped_nas.report.teacher import teacher_data
from gped_nas.report.twins import twins_data
from gped_nas.report.verdict import judge_study
from gped_nas.search.goals import label_under
from gped_nas.search.pareto import KNEE_RULE, pareto_front
from gped_nas.search.record import State, TrialRecord
from gped_nas.search.snapshot import Reference, StudySnapshot
from gped_nas.search.task_rows import shown_rows

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
    metrics = _metrics(snapshot)
    costs = _costs(snapshot)
    axes = _axes(snapshot, metrics, costs)
    data: Data = {
        "name": str(snapshot.name),
        "objectives": axes[: len(snapshot.objectives)],
        "metrics": metrics,
        "costs": costs,
        "axes": axes,
        "states": _states(snapshot.records),
        "records": [record_data(record, snapshot) for record in snapshot.records],
        "front": list(snapshot.front),
        "near": _near(snapshot),
        "outside": list(snapshot.outside),
        "region": region_data(snapshot.region),
        "chosen": snapshot.chosen,
        "rule": snapshot.rule,
        "knee": snapshot.knee,
        "knee_rule": KNEE_RULE,
        "references": [reference_data(reference) for reference in snapshot.references],
        "reasons": _reasons(snapshot),
        "comparisons": _paired_differences(snapshot),
        "twins": twins_data(snapshot, lambda name: label_of(name, snapshot)),
        "finalists": finalists_data(snapshot),
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

    rows = shown_rows(snapshot)
    data["tasks"] = tasks.tables(rows, snapshot)
    tasks.add_to_axes(data, rows, snapshot)
    add_shelves(axes, data["records"], snapshot.region)
    data["folded"], data["fold_metric"] = folded_trials(data)
    data["knee_text"], data["knee_is_weak"] = describe_knee(data)

    # cards and the answer are made from the records above
    data["cards"] = []
    for trial in snapshot.front:
        drawn = {"task_curves": tasks.curves(rows, snapshot, trial)}
        data["cards"].append(card_data(snapshot, find(data, trial)) | drawn)
    data["by_class"] = {str(card["trial"]): card["classes"] for card in data["cards"]}
    verdict = judge_study(evidence_of(snapshot))
    data["verdict"] = plain(verdict.to_json())
    return data | {"answer": answer(data, verdict)}


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

    objectives = [objective.name for objective in snapshot.objectives]

    def sorting_key(key: Key) -> tuple[int, bool, str]:
        name = public_name(key)
        rank = objectives.index(name) if name in objectives else len(objectives)
        return rank, key.condition != CLEAN, name

    metrics = []
    for key in sorted(keys, key=sorting_key):
        name = public_name(key)
        test_name = public_name(key._replace(part=TEST))
        metrics.append({"name": name, "test": test_name, "label": label_of(name, snapshot)})
    return metrics


def _costs(snapshot: StudySnapshot) -> list[dict[str, str]]:
    recorded: set[str] = set()
    for source in _measured(snapshot):
        recorded |= set(source.costs)

    # those that the package knows come in its order, others by name
    ordered = [name for name in COSTS if name in recorded]
    ordered += sorted(recorded - set(COSTS))
    return [{"name": name, "label": label_of(name, snapshot)} for name in ordered]


def _axes(
    snapshot: StudySnapshot, metrics: list[dict[str, str]], costs: list[dict[str, str]]
) -> list[Data]:
    """What the front can be drawn over: the objectives first, then every other metric and cost.

    ``log`` says whether it is better seen on a logarithmic scale: costs, and metrics that differ
    much over the front.
    """
    axes: list[Data] = [plain(vars(objective)) for objective in snapshot.objectives]
    objectives = {axis["name"] for axis in axes}
    for kind, entries in (("metric", metrics), ("cost", costs)):
        for entry in entries:
            name = entry["name"]
            if name not in objectives:
                direction = direction_of(name, snapshot)
                axes.append(
                    {"name": name, "label": entry["label"], "kind": kind, "direction": direction}
                )

    for axis in axes:
        axis["log"] = axis["kind"] == "cost" or _differs_much(axis["name"], snapshot)
    return axes


def _differs_much(metric: str, snapshot: StudySnapshot) -> bool:
    """Whether a metric is positive and spans more than a factor of ten over the front."""
    front = [record for record in snapshot.records if record.trial in snapshot.front]
    values = [record.metrics[metric] for record in front if metric in record.metrics]
    return bool(values) and min(values) > 0 and max(values) > 10 * min(values)


def _near(snapshot: StudySnapshot) -> list[int]:
    """The front of what remains when the front is taken away, by trial number."""
    names = [objective.name for objective in snapshot.objectives]
    apart = {*snapshot.front, *snapshot.outside}
    behind = []
    for record in snapshot.records:
        is_behind = record.state == "complete" and record.trial not in apart
        if is_behind and all(name in record.values for name in names):
            behind.append(record)
    if not behind or not names:
        return []

    points = np.array([[record.value(name) for name in names] for record in behind])
    mask = pareto_front(points, [objective.direction for objective in snapshot.objectives])
    near = [record.trial for record, is_near in zip(behind, mask, strict=True) if is_near]
    return near[:MAX_NEAR]


def _hypervolume(snapshot: StudySnapshot) -> list[list[float | None]]:
    """Rows ``[trial, seconds so far, hypervolume, the same trials in random order]``."""
    seconds = itertools.accumulate(record.seconds for record in snapshot.records)
    # the hypervolumes may be fewer than the records, and those of random order may be none
    rows = itertools.zip_longest(
        snapshot.records, seconds, snapshot.hypervolume, snapshot.random_order
    )
    growth = []
    for record, so_far, value, by_chance in rows:
        if record and value is not None:
            growth.append([record.trial, *plain((so_far, value, by_chance))])
    return growth


def _importances(snapshot: StudySnapshot) -> dict[str, Any]:
    importances = {}
    for objective in snapshot.objectives:
        shares = snapshot.importances.get(objective.name)
        if shares:
            importances[objective.name] = plain(shares)
    return importances


def _curves(snapshot: StudySnapshot) -> list[Data]:
    """Training curves of the front, and of evenly many others, up to ``MAX_CURVES``."""
    front: list[TrialRecord] = []
    others: list[TrialRecord] = []
    for record in snapshot.records:
        # a student stored in several types was trained once
        has_curve = record.variant_of is None or record.trial in snapshot.front
        if has_curve and record.state == "complete" and len(record.extra.get("loss", ())) > 1:
            group = front if record.trial in snapshot.front else others
            group.append(record)

    front = front[:MAX_CURVES]
    room = MAX_CURVES - len(front)
    if len(others) > room:
        others = [others[i * len(others) // room] for i in range(room)]

    curves = []
    for record in sorted([*front, *others], key=lambda record: record.trial):
        points = [[int(step), float(f"{loss:.4g}")] for step, loss in record.extra["loss"]]
        on_front = record.trial in snapshot.front
        curves.append({"trial": record.trial, "on_front": on_front, "points": points})
    return curves


def _savings(snapshot: StudySnapshot) -> Data | None:
    """What sampling the teacher once saved, against sampling it anew for each trained student."""
    once = snapshot.teacher.get("seconds")
    trained = [record for record in snapshot.records if record.seconds > 0 and record.measures]
    if not once or len(trained) < 2:  # one student takes one teacher either way
        return None

    students = sum(record.seconds for record in trained)
    anew = once * len(trained) + students
    savings: Data = plain(
        {
            "teacher": once,
            "students": students,
            "num": len(trained),
            "anew": anew,
            "saved": anew - once - students,
            "share": 1 - (once + students) / anew,
        }
    )
    return savings


def _states(records: tuple[TrialRecord, ...]) -> dict[str, int]:
    counts = Counter(record.state for record in records)
    return {state: counts[state] for state in get_args(State) if counts[state]}


def _failures(records: Sequence[TrialRecord]) -> list[Data]:
    """Why trials are not complete, the most frequent reason first."""
    groups: dict[tuple[str, str], list[int]] = {}
    for record in records:
        if record.state not in ("complete", "running", "duplicate"):
            groups.setdefault((record.state, record.reason), []).append(record.trial)

    rows: list[Data] = [
        {"state": state, "reason": reason, "trials": trials, "num": len(trials)}
        for (state, reason), trials in groups.items()
    ]
    return sorted(rows, key=lambda row: -len(row["trials"]))


def _as_of(records: tuple[TrialRecord, ...]) -> str:
    latest = max((record.created for record in records), default=0.0)
    if latest <= 0:
        return ""
    return datetime.fromtimestamp(latest, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _reasons(snapshot: StudySnapshot) -> dict[str, list[dict[str, str]]]:
    """By part, why numbers of the references and the chosen student have no interval."""
    sources: list[tuple[str, TrialRecord | Reference]] = [
        (reference.label, reference) for reference in snapshot.references
    ]
    for record in snapshot.records:
        if record.trial == snapshot.chosen:
            sources.append(("chosen student", record))

    reasons: dict[str, list[dict[str, str]]] = {VALIDATION: [], TEST: []}
    for predictor, source in sources:
        for key, measure in source.measures.items():
            if measure.why:
                label = label_of(public_name(key), snapshot)
                row = {"metric": label, "predictor": predictor, "why": measure.why}
                reasons[key.part].append(row)
    return reasons


def _paired_differences(snapshot: StudySnapshot) -> list[Data]:
    labels = {reference.name: reference.label for reference in snapshot.references}
    labels |= {"student": "chosen student", "chosen": "chosen student"}
    rows = []
    for paired in snapshot.paired_differences:
        row: Data = plain(vars(paired))
        for side in ("first", "second"):
            row[side] = labels.get(row[side], row[side])
        row["label"] = label_of(row["metric"], snapshot)
        row["reading"] = _reading(row, snapshot)
        rows.append(row)
    return rows


def _reading(data: Mapping[str, Any], snapshot: StudySnapshot) -> str:
    low, high = data["interval"] or (None, None)
    if low is None or high is None:
        return f"no interval: {data['why']}" if data["why"] else "not measured"

    # the exact test decides where there is one
    p_value = data["p_value"]
    if p_value is not None and p_value > MAX_P_VALUE:
        return f"not told apart: exact test, p = {p_value:.2g}"
    if low <= 0 <= high:
        return "not told apart: the interval holds 0"

    bigger, smaller = data["first"], data["second"]
    if low <= 0:
        bigger, smaller = smaller, bigger
    better = direction_of(data["metric"], snapshot)
    if better is None:
        return f"higher: {bigger}"
    return f"better: {bigger if better == 'maximize' else smaller}"
