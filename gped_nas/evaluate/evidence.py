"""What a card shows of one student beyond its numbers: where it errs, and how sure it is.

Plain data of one part of a dataset, small enough to be kept with each student of a front.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from gped_nas.evaluate.predictions import (
    AnyPredictions,
    Floats,
    Labels,
    NormalPredictions,
    Predictions,
    entropy,
)

NUM_PAIRS = 150
NUM_UNCERTAIN, NUM_FAR = 4, 2
NUM_CLASSES_SHOWN = 4


def evidence(student: AnyPredictions, teacher: AnyPredictions, labels_N: Labels) -> dict[str, Any]:
    """A student beside its teacher on the same examples.

    Returns:
        ``spread`` (``quantity``, and how unsure the ``student`` and the ``teacher`` are of up to
        150 evenly chosen examples) and, of classes, ``confusion`` (rows ``[label, found, count]``,
        counts above 0) and ``examples``: those where the student is least sure, then those farthest
        from the teacher by KL(teacher || student). An example has its ``index``, ``why``, ``label``
        and ``classes``: rows ``[class, teacher's probability, student's]``.
    """
    if isinstance(student, NormalPredictions):
        quantity = "predictive std (labels' unit)"
    else:
        quantity = "predictive entropy (nats)"

    evenly_spaced = np.linspace(0, len(labels_N) - 1, NUM_PAIRS).round().astype(int)
    chosen = np.unique(evenly_spaced)
    spread = {
        "quantity": quantity,
        "student": _round(_spread(student)[chosen]),
        "teacher": _round(_spread(teacher)[chosen]),
    }

    card: dict[str, Any] = {"spread": spread}
    if isinstance(student, Predictions) and isinstance(teacher, Predictions):
        card["confusion"] = _confusion(student, labels_N)
        card["examples"] = _examples(student, teacher, labels_N)
    return card


def _spread(predictions: AnyPredictions) -> Floats:
    """How unsure each prediction is, shape (N,)."""
    if isinstance(predictions, NormalPredictions):
        std_N: Floats = np.sqrt(predictions.variance_N)
        return std_N
    return entropy(predictions.log_prob_NC)


def _confusion(student: Predictions, labels_N: Labels) -> list[list[int]]:
    pairs = np.stack([labels_N, student.log_prob_NC.argmax(axis=1)], axis=1)
    rows, counts = np.unique(pairs, axis=0, return_counts=True)
    table: list[list[int]] = np.column_stack([rows, counts]).astype(int).tolist()
    return table


def _examples(student: Predictions, teacher: Predictions, labels_N: Labels) -> list[dict[str, Any]]:
    unsure = np.argsort(-_spread(student), kind="stable")[:NUM_UNCERTAIN]
    by_distance = np.argsort(-teacher.kl_to(student), kind="stable")
    far = by_distance[~np.isin(by_distance, unsure)][:NUM_FAR]

    teacher_prob_NC = np.exp(teacher.log_prob_NC)
    student_prob_NC = np.exp(student.log_prob_NC)
    examples = []
    for why, indices in (("uncertain", unsure), ("far", far)):
        for i in indices.tolist():
            example = {
                "index": i,
                "why": why,
                "label": int(labels_N[i]),
                "classes": _classes(teacher_prob_NC[i], student_prob_NC[i]),
            }
            examples.append(example)
    return examples


def _classes(teacher_C: Floats, student_C: Floats) -> list[list[float]]:
    """The classes that either finds most probable, most probable first."""
    top = np.argsort(-np.maximum(teacher_C, student_C), kind="stable")[:NUM_CLASSES_SHOWN]
    return [[c, *_round([teacher_C[c], student_C[c]])] for c in top.tolist()]


def _round(values: Iterable[float]) -> list[float]:
    return [round(float(value), 4) for value in values]
