"""Metrics of detection: a score, what it detects, and how well it does.

``misclassification_auroc_total``, ``misclassification_aupr_model``: examples that are predicted
wrong. ``ood_auroc_total``, ``ood_aupr_energy``, ``ood_fpr95_model``: inputs from outside, of
predictions of N inputs from inside and M from outside, one after the other, with labels 0 and 1.

Source: Hendrycks & Gimpel 2017, arXiv:1610.02136.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from gped_nas.evaluate.base import METRICS, Metric
from gped_nas.evaluate.detection import (
    Bools,
    average_precision,
    average_precision_interval,
    average_precision_pseudo,
    delong_interval,
    false_positive_rate,
    roc_area,
    roc_area_pseudo,
)
from gped_nas.evaluate.intervals import MIN_OF_A_CLASS, Bounds
from gped_nas.evaluate.measured import Direction
from gped_nas.evaluate.metrics import correct
from gped_nas.evaluate.predictions import Floats, Labels
from gped_nas.evaluate.scores import SCORES, Score

Out = TypeVar("Out")
Detection = Literal["misclassification", "ood"]
"""What is positive: an example that is predicted wrong, or an input from outside."""
Area = Literal["auroc", "aupr", "fpr95"]
AREAS: tuple[Area, ...] = get_args(Area)


@dataclass(frozen=True)
class _Area:
    """How one measure of detection becomes a metric."""

    label: str
    direction: Direction
    worst: float
    best: float
    whole: Callable[[Floats, Bools], float]
    pseudo: Callable[[Floats, Bools], Floats] | None = None
    interval: Callable[[Floats, Bools], Bounds] | None = None


_AREAS: Mapping[Area, _Area] = {
    "auroc": _Area("AUROC", "maximize", 0.5, 1.0, roc_area, roc_area_pseudo, delong_interval),
    "aupr": _Area(
        "AUPR",
        "maximize",
        0.0,
        1.0,
        average_precision,
        average_precision_pseudo,
        average_precision_interval,
    ),
    "fpr95": _Area("FPR at 95 % detected", "minimize", 1.0, 0.0, false_positive_rate),
}
_WORDS: Mapping[Detection, str] = {
    "misclassification": "of wrong examples",
    "ood": "of inputs from outside",
}
_UNDEFINED: Mapping[Detection, str] = {
    "misclassification": "no example is wrong, or all are: there is nothing to tell apart",
    "ood": "all inputs are of one kind: there is nothing to tell apart",
}
_THRESHOLD = (
    "its threshold is drawn by the same examples, and how densely they lie there is unknown"
)


def detection_metric(detection: Detection, area: Area, score: Score) -> Metric:
    """The metric of a score that detects: ``misclassification_auroc_total``, ``ood_fpr95_energy``.

    Args:
        detection: what is positive.
        area: ``auroc``, ``aupr`` or ``fpr95``.
        score: what detects.
    """
    row = _AREAS[area]

    def terms(predictions: Any, labels_N: Labels, teacher: Any) -> Floats:
        if detection == "ood":
            positive_N = labels_N.astype(np.float64)
        else:
            positive_N = 1 - correct(predictions, labels_N)
        return np.stack([score.of(predictions), positive_N], axis=1)

    return Metric(
        f"{detection}_{area}_{score.name}",
        row.direction,
        f"{row.label} {_WORDS[detection]} by {score.label}",
        terms,
        whole=_of_terms(row.whole),
        pseudo=_of_terms(row.pseudo) if row.pseudo else None,
        undefined=_UNDEFINED[detection],
        task="ood" if detection == "ood" else "prediction",
        interval=_of_terms(row.interval) if row.interval else "bootstrap_t",
        doubt=_few_of_a_kind(detection) if row.interval else _THRESHOLD,
        unit="share",
        worst=row.worst,
        best=row.best,
        bounds=dict.fromkeys(score.tasks, row.best),
        **score.of_metrics,
    )


def _of_terms(function: Callable[[Floats, Bools], Out]) -> Callable[[Floats], Out]:
    """A function of scores and whether they are positive as one of the terms (N, 2)."""

    def of_terms(terms_N2: Floats) -> Out:
        return function(terms_N2[:, 0], terms_N2[:, 1] > 0)

    return of_terms


def _few_of_a_kind(detection: Detection) -> Callable[[Any, Labels, Any], str]:
    """Doubts in an area where there are hardly any examples of one kind."""

    def doubt(predictions: Any, labels_N: Labels, teacher: Any) -> str:
        is_ood = detection == "ood"
        is_positive_N = labels_N > 0 if is_ood else predictions.answer_N != labels_N
        num_positive = int(is_positive_N.sum())
        num = min(num_positive, len(labels_N) - num_positive)
        if num >= MIN_OF_A_CLASS:
            return ""
        return (
            f"only {num} of {len(labels_N)} examples are of one kind: how their scores spread is "
            "not known"
        )

    return doubt


def _register() -> None:
    """A metric of every score, and of every way to say how well it detects."""
    for score in SCORES.values():
        metrics = [detection_metric("ood", area, score) for area in AREAS]
        if score.tasks == ("classification",):
            areas: tuple[Area, ...] = ("auroc", "aupr")
            metrics += [detection_metric("misclassification", area, score) for area in areas]
        for metric in metrics:
            METRICS.add(metric)


_register()
