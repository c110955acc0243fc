"""What the card of a front student shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gped_nas.evaluate.shares import wilson
from gped_nas.models.labels import budget_text
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
    record = snapshot.record(data["trial"])
    evidence = snapshot.evidence.get(data["trial"], {})
    names = snapshot.class_names
    return data | {
        "layers": _layers(record),
        "macs_by_operator": plain(record.extra.get("macs_by_operator", {})),
        "reliability": bins(record.extra.get("reliability", [])),
        "dead_units": plain(record.extra.get("dead_units")),
        "budget": _budget(record),
        "seed": plain(record.extra.get("seed")),
        "weights": f"students/{record.trial}/weights.safetensors",
        "spread": plain(evidence.get("spread")),
        "confusion": _confusion(evidence.get("confusion", ()), names),
        "classes": classes(evidence.get("confusion", ()), names),
        "examples": [_example(example, names) for example in evidence.get("examples", ())],
    }


def _budget(record: TrialRecord) -> str | None:
    """How the student lies under its budget; None where it has none."""
    budget = record.extra.get("budget")
    return budget_text(budget, record.extra["dead_units"]) if budget else None


def bins(rows: Any) -> list[Data]:
    """The rows of a reliability diagram that hold examples, by rising confidence."""
    filled = [plain(row) for row in rows if row["count"] and row["confidence"] is not None]
    return sorted(filled, key=lambda row: float(row["confidence"]))


def _layers(record: TrialRecord) -> list[Data]:
    """Each layer before and after pruning; a side is None where the layer is not there."""
    after = {str(layer["layer"]): layer for layer in record.layers}
    before = {str(layer["layer"]): layer for layer in record.layers_drawn or record.layers}

    rows = []
    for name in dict.fromkeys([*before, *after]):
        layer = before.get(name) or after[name]
        rows.append(
            {
                "layer": name,
                "kind": str(layer["kind"]),
                "before": _layer_size(before.get(name)),
                "after": _layer_size(after.get(name)),
            }
        )
    return rows


def _layer_size(layer: Mapping[str, Any] | None) -> Data | None:
    if not layer:
        return None
    size: Data = plain({key: layer[key] for key in ("inputs", "outputs", "params")})
    return size


def _class_name(index: int, names: tuple[str, ...]) -> str:
    return words.cut(str(names[index]), 40) if 0 <= index < len(names) else str(index)


def _confusion(rows: Any, names: tuple[str, ...]) -> Data | None:
    """The matrix where classes are few, and the most frequent confusions.

    Args:
        rows: triples of label, predicted class and number of examples.
        names: of the classes.
    """
    counts = {(int(label), int(predicted)): int(count) for label, predicted, count in rows}
    if not counts:
        return None

    num_classes = max(len(names), 1 + max(map(max, counts)))
    # negative counts put the most frequent first and keep the order of classes among equals
    wrong = sorted((-count, pair) for pair, count in counts.items() if pair[0] != pair[1])
    most_frequent = [
        {
            "label": _class_name(label, names),
            "found": _class_name(predicted, names),
            "count": -negative,
        }
        for negative, (label, predicted) in wrong[:MAX_CONFUSIONS]
    ]
    is_small = num_classes <= MAX_CLASSES_IN_A_MATRIX
    return {
        "names": [_class_name(index, names) for index in range(num_classes)],
        "matrix": _matrix(counts, num_classes) if is_small else None,
        "n": sum(counts.values()),
        "num_wrong": -sum(negative for negative, _ in wrong),
        "wrong": most_frequent,
    }


def classes(rows: Any, names: tuple[str, ...]) -> list[Data]:
    """Recall with its 95 % interval, and precision, a row a class that is a label.

    Args:
        rows: triples of label, predicted class and number of examples.
        names: of the classes.
    """
    counts = {(int(label), int(predicted)): int(count) for label, predicted, count in rows}
    table = []
    for label in sorted({label for label, _ in counts}):
        n = sum(count for pair, count in counts.items() if pair[0] == label)
        answers = sum(count for pair, count in counts.items() if pair[1] == label)
        hits = counts.get((label, label), 0)
        low, high = wilson(np.array(hits), n)
        row = {
            "name": _class_name(label, names),
            "n": n,
            "recall": hits / n,
            "interval": [float(low), float(high)],
            "precision": hits / answers if answers else None,
        }
        table.append(plain(row))
    return table


def _matrix(counts: Mapping[tuple[int, int], int], num_classes: int) -> list[list[Data]]:
    """One line a label: of each predicted class the examples and their share of the label's."""
    matrix = []
    for label in range(num_classes):
        line = [counts.get((label, predicted), 0) for predicted in range(num_classes)]
        total = max(sum(line), 1)
        matrix.append([{"count": count, "share": round(count / total, 2)} for count in line])
    return matrix


def _example(example: Mapping[str, Any], names: tuple[str, ...]) -> Data:
    classes = []
    for index, teacher, student in example["classes"]:
        name = _class_name(int(index), names)
        classes.append({"name": name, "teacher": plain(teacher), "student": plain(student)})
    return {
        "index": int(example["index"]),
        "why": _WHY.get(example["why"], str(example["why"])),
        "label": _class_name(int(example["label"]), names),
        "picture": example.get("picture"),
        "classes": classes,
    }
