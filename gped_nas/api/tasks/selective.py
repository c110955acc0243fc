"""The task ``selective``: how much better answers get where those that are unsure are not given."""

import numpy as np

from gped_nas.api.tasks.base import Row, add_task
from gped_nas.api.tasks.bench import Answers, Bench
from gped_nas.evaluate.base import Metric
from gped_nas.evaluate.scores import SCORES, Score
from gped_nas.evaluate.selective import risk_coverage
from gped_nas.evaluate.selective_metrics import (
    accuracy_rejecting_metric,
    augrc_metric,
    aurc_metric,
    losses,
)

REJECTED = (0.1, 0.2, 0.5)
"""Shares of the examples that are not answered."""
_POINTS = 101


@add_task(
    "selective",
    "answers of who rejects what it is unsure of",
    metrics=("aurc_", "augrc_", "accuracy_rejecting"),
)
def selective(bench: Bench, argument: str) -> list[Row]:
    """AURC, AUGRC and accuracies with rejection by each score, with the risk-coverage curve.

    The curve stands in the row of each AURC: ``{"coverage": [...], "risk": [...]}``.
    """
    table: list[Row] = []
    for subject in bench.subjects:
        answers = bench.answers(subject)
        for score in SCORES.values():
            if not score.applies(answers.predictions):
                continue
            rows = bench.rows(subject, bench.measures(answers, _metrics(score)))
            for row in rows:
                if row["metric"].startswith("aurc_"):
                    row["curve"] = _curve(bench, answers, score)
            table += rows
    return table


def _metrics(score: Score) -> list[Metric]:
    """What is measured by a score."""
    metrics = [aurc_metric(score), augrc_metric(score)]
    if "classification" in score.tasks:
        metrics += [accuracy_rejecting_metric(score, share) for share in REJECTED]
    return metrics


def _curve(bench: Bench, answers: Answers, score: Score) -> dict[str, list[float]]:
    """The risk at some hundred coverages at most, the last one among them."""
    coverage_N, risk_N = risk_coverage(
        score.of(answers.predictions), losses(answers.predictions, bench.labels)
    )
    places = np.unique(np.linspace(0, len(risk_N) - 1, _POINTS).round().astype(int))
    return {"coverage": coverage_N[places].tolist(), "risk": risk_N[places].tolist()}
