"""What the card of a front student shows."""

from collections.abc import Mapping
from typing import Any

from gped_nas.report import words
from gped_nas.report.records import Data, plain
from gped_nas.search.record import TrialRecord
from gped_nas.search.snapshot import StudySnapshot

MAX_CLASSES_IN_A_MATRIX = 16
MAX_CONFUSIONS = 12
_WHY = {"uncertain": "least sure", "far": "farthest from the teacher"}


def card_data(snapshot: StudySnapshot, data: Data) -> Data:
    """A front student's record with its layers, diagrams and evidence.

    Args:
        snapshot: the study.
        data: the record, see ``records.record_data``.
    """
    record, found = snapshot.record(data["trial"]), snapshot.evidence.get(data["trial"], {})
    names = snapshot.class_names
    return data | {
        "layers": _layers(record),
        "macs_by_operator": plain(record.extra.get("macs_by_operator", {})),
        "reliability": bins(record.extra.get("reliability", [])),
        "dead_units": plain(record.extra.get("dead_units")),
        "seed": plain(record.extra.get("seed")),
        "weights": f"students/{record.trial}/weights.safetensors",
        "spread": plain(found.get("spread")),
        "confusion": _confusion(found.get("confusion", ()), names),
        "examples": [_example(one, names) for one in found.get("examples", ())],
    }


def bins(rows: Any) -> list[Data]:
    """The rows of a reliability diagram that hold examples, by rising confidence."""
    return sorted(
        (plain(row) for row in rows if row["count"] and row["confidence"] is not None),
        key=lambda row: float(row["confidence"]),
    )


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


def _class(index: int, names: tuple[str, ...]) -> str:
    return words.cut(str(names[index]), 40) if 0 <= index < len(names) else str(index)


def _confusion(rows: Any, names: tuple[str, ...]) -> Data | None:
    """The matrix where classes are few, and the most frequent confusions."""
    counts = {(int(label), int(found)): int(count) for label, found, count in rows}
    if not counts:
        return None
    num = max(len(names), 1 + max(map(max, counts)))
    wrong = sorted((-count, pair) for pair, count in counts.items() if pair[0] != pair[1])
    matrix = None
    if num <= MAX_CLASSES_IN_A_MATRIX:
        totals = [sum(counts.get((i, j), 0) for j in range(num)) for i in range(num)]
        matrix = [
            [
                {"count": c, "share": round(c / max(total, 1), 2)}
                for c in (counts.get((i, j), 0) for j in range(num))
            ]
            for i, total in enumerate(totals)
        ]
    return {
        "names": [_class(i, names) for i in range(num)],
        "matrix": matrix,
        "n": sum(counts.values()),
        "num_wrong": -sum(count for count, _ in wrong),
        "wrong": [
            {"label": _class(label, names), "found": _class(found, names), "count": -count}
            for count, (label, found) in wrong[:MAX_CONFUSIONS]
        ],
    }


def _example(one: Mapping[str, Any], names: tuple[str, ...]) -> Data:
    return {
        "index": int(one["index"]),
        "why": _WHY.get(one["why"], str(one["why"])),
        "label": _class(int(one["label"]), names),
        "picture": one.get("picture"),
        "classes": [
            {
                "name": _class(int(index), names),
                "teacher": plain(teacher),
                "student": plain(student),
            }
            for index, teacher, student in one["classes"]
        ],
    }
