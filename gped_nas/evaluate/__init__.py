"""How good a predictor is: metrics with their sizes and intervals, and paired differences."""

from gped_nas.evaluate.base import (
    METRICS,
    Metric,
    Resamples,
    draw_resamples,
    evaluate,
    evaluate_or_explain,
    paired_difference,
    resampled,
)
from gped_nas.evaluate.measured import Key, Measured
from gped_nas.evaluate.metrics import reliability
from gped_nas.evaluate.predictions import (
    AnyPredictions,
    NormalPredictions,
    Predictions,
    entropy,
    kl_divergence,
)

__all__ = [
    "METRICS",
    "AnyPredictions",
    "Key",
    "Measured",
    "Metric",
    "NormalPredictions",
    "Predictions",
    "Resamples",
    "draw_resamples",
    "entropy",
    "evaluate",
    "evaluate_or_explain",
    "kl_divergence",
    "paired_difference",
    "reliability",
    "resampled",
]
