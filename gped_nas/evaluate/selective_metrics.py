"""Metrics of selective prediction: risks of who rejects the examples that a score is least sure of.

The loss of a class is 1 where it is predicted wrong, that of a real label the squared error of the
mean. See ``gped_nas.evaluate.selective`` for what is measured.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gped_nas.evaluate.base import METRICS, End, LabelFacts, Metric
from gped_nas.evaluate.intervals import Bounds
from gped_nas.evaluate.metrics import MIN_ERRORS, correct
from gped_nas.evaluate.predictions import Floats, Labels, NormalPredictions
from gped_nas.evaluate.scores import SCORES, Score
from gped_nas.evaluate.selective import (
    augrc,
    augrc_pseudo,
    aurc,
    aurc_pseudo,
    num_rejected,
    risk_rejecting,
)
from gped_nas.evaluate.shares import wilson

REJECTED = 0.2
"""Share of examples that is rejected in the registered metrics."""
RiskOf = Callable[[Floats, Floats], float]


def losses(predictions: Any, labels_N: Labels) -> Floats:
    """The loss of each example, (N,), see the module docstring; NaN where a prediction is."""
    if isinstance(predictions, NormalPredictions):
        squared_N: Floats = np.square(predictions.mean_N - labels_N)
        return squared_N
    is_wrong_N: Floats = 1 - correct(predictions, labels_N)
    return is_wrong_N


def aurc_metric(score: Score) -> Metric:
    """``aurc_<score>``: the mean of the risks at every coverage."""
    return _area_metric("aurc", "AURC", score, aurc, aurc_pseudo)


def augrc_metric(score: Score) -> Metric:
    """``augrc_<score>``: the area under the generalized risk and coverage."""
    return _area_metric("augrc", "AUGRC", score, augrc, augrc_pseudo)


def accuracy_rejecting_metric(score: Score, share: float = REJECTED) -> Metric:
    """``accuracy_rejecting20_<score>``: the accuracy of what is kept if a share is rejected.

    Its interval is Wilson's of the examples that are kept, whose threshold is taken as given.

    Raises:
        ConfigError: the share is not at least 0 and below 1.
    """
    num_rejected(1, share)

    def accuracy(terms_N2: Floats) -> float:
        return 1 - risk_rejecting(terms_N2[:, 0], terms_N2[:, 1], share)

    def interval(terms_N2: Floats) -> Bounds:
        num_kept = len(terms_N2) - num_rejected(len(terms_N2), share)
        low, high = wilson(np.array(accuracy(terms_N2) * num_kept), num_kept)
        return Bounds(float(low), float(high))

    return Metric(
        f"accuracy_rejecting{100 * share:g}_{score.name}",
        "maximize",
        f"accuracy, {100 * share:g} % rejected by {score.label} (share)",
        _terms_of(score),
        whole=accuracy,
        interval=interval,
        unit="share",
        worst=0.0,
        best=1.0,
        bounds={"classification": 1.0},
        **score.of_metrics,
    )


def _area_metric(
    name: str,
    label: str,
    score: Score,
    whole: RiskOf,
    pseudo: Callable[[Floats, Floats], Floats],
) -> Metric:
    is_real = score.tasks == ("regression",)
    unit = "labels' unit, squared" if is_real else "share"
    worst: End = _variance_of_labels if is_real else 1.0
    return Metric(
        f"{name}_{score.name}",
        "minimize",
        f"{label} by {score.label} ({unit})",
        _terms_of(score),
        whole=lambda terms_N2: whole(terms_N2[:, 0], terms_N2[:, 1]),
        pseudo=lambda terms_N2: pseudo(terms_N2[:, 0], terms_N2[:, 1]),
        doubt=None if is_real else _few_wrong,
        unit=unit,
        worst=worst,
        best=0.0,
        bounds=dict.fromkeys(score.tasks, 0.0),
        **score.of_metrics,
    )


def _terms_of(score: Score) -> Callable[[Any, Labels, Any], Floats]:
    def terms(predictions: Any, labels_N: Labels, teacher: Any) -> Floats:
        return np.stack([score.of(predictions), losses(predictions, labels_N)], axis=1)

    return terms


def _few_wrong(predictions: Any, labels_N: Labels, teacher: Any) -> str:
    num_wrong = int(losses(predictions, labels_N).sum())
    if num_wrong >= MIN_ERRORS:
        return ""
    return (
        f"only {num_wrong} of {len(labels_N)} examples are wrong: at which coverages such ones lie "
        "is not known"
    )


def _variance_of_labels(facts: LabelFacts) -> float:
    assert facts.std is not None, "labels are real"
    return facts.std**2


def _register() -> None:
    """The metrics of every score."""
    for score in SCORES.values():
        METRICS.add(aurc_metric(score))
        METRICS.add(augrc_metric(score))
        if score.tasks == ("classification",):
            METRICS.add(accuracy_rejecting_metric(score))


_register()
