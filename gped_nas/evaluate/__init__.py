"""How good a predictor is: metrics with their sizes and intervals, and paired differences."""

from gped_nas.evaluate.base import (
    METRICS,
    Evaluation,
    Metric,
    Predictions,
    Resamples,
    draw_resamples,
    evaluate,
    paired_difference,
)
from gped_nas.evaluate.metrics import entropy, kl_divergence, reliability

__all__ = [
    "METRICS",
    "Evaluation",
    "Metric",
    "Predictions",
    "Resamples",
    "draw_resamples",
    "entropy",
    "evaluate",
    "kl_divergence",
    "paired_difference",
    "reliability",
]
