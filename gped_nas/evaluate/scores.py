"""Uncertainty scores of predictions by name: one number an example, higher where it is less sure.

| score            | what it is                                           | unit                   |
|------------------|------------------------------------------------------|------------------------|
| `confidence`     | minus the largest class probability                  | share                  |
| `total`          | entropy of the prediction, H                         | nats                   |
| `expected`       | expected entropy, E[H]                               | nats                   |
| `model`          | mutual information of class and parameters, H - E[H] | nats                   |
| `energy`         | minus the log-sum-exp of the logits                  | nats                   |
| `logit_variance` | variance of a logit over the posterior, class mean   | nats squared           |
| `variance`       | variance of a real label, noise included             | labels' unit, squared  |

Logits are log-probabilities less their mean over classes: a softmax knows no others. Probabilities
below 1e-6 (``formulas.LEAST_PROBABILITY``) are taken as it, so that a zero has a logit. The
log-sum-exp of such logits is minus the mean log-probability, so the energy is that mean.

Source: Hendrycks & Gimpel 2017, arXiv:1610.02136 (confidence); Depeweg et al. 2018,
arXiv:1710.07283 (total, expected, model); Liu et al. 2020, arXiv:2010.03759, equation 4 (energy).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gped_nas.data.base import Task
from gped_nas.errors import DataError, nearest
from gped_nas.evaluate.base import MAIN_OF_TASK
from gped_nas.evaluate.predictions import AnyPredictions, Floats, Predictions
from gped_nas.targets.formulas import LEAST_PROBABILITY, centered_logits


@dataclass(frozen=True)
class Score:
    """An uncertainty score.

    Attributes:
        name: as in the names of metrics: ``total``.
        label: for people.
        of: predictions to scores (N,), float64; NaN where a prediction is no number.
        tasks: of which kinds of label.
        reads: targets that it reads beside the predictions themselves.
        samples_suffice: posterior samples of the predictions stand for these targets.
        needs_spread: means nothing of one network alone.
    """

    name: str
    label: str
    of: Callable[[Any], Floats]
    tasks: tuple[Task, ...] = ("classification",)
    reads: tuple[str, ...] = ()
    samples_suffice: bool = False
    needs_spread: bool = False

    @property
    def all_reads(self) -> tuple[str, ...]:
        """Targets that it reads, the prediction of its kinds of label among them."""
        return (*(MAIN_OF_TASK[task] for task in self.tasks), *self.reads)

    @property
    def of_metrics(self) -> dict[str, Any]:
        """What every ``Metric`` of this score says of itself: it is measured where asked for."""
        return {
            "always": False,
            "tasks": self.tasks,
            "reads": self.all_reads,
            "samples_suffice": self.samples_suffice,
            "needs_spread": self.needs_spread,
        }

    def applies(self, predictions: AnyPredictions) -> bool:
        """Whether it can be said of these predictions."""
        if predictions.task not in self.tasks:
            return False
        if self.needs_spread and predictions.is_point:
            return False
        has_samples = self.samples_suffice and predictions.samples is not None
        return has_samples or set(self.reads) <= predictions.expectations.keys()


def _confidence(predictions: Predictions) -> Floats:
    return np.where(predictions.is_nan_N, np.nan, -predictions.confidence_N)


def _logit_variance(predictions: Predictions) -> Floats:
    """The mean over classes of the expectation, or of the samples' own variances."""
    if "logit_variance" in predictions.expectations:
        expected_N: Floats = predictions.expectations["logit_variance"].mean(axis=1)
        return expected_N

    samples = predictions.samples
    assert samples is not None, "it is read of samples"
    pairs = list(zip(samples.weight_S, samples.predicted_SNG, strict=True))
    zero_NC = torch.zeros(len(predictions), pairs[0][1].shape[1], dtype=torch.float64)

    # one sample after the other, and their mean first: a difference of squares would be rounding
    mean_NC = zero_NC.clone()
    for weight, log_prob_NC in pairs:
        mean_NC += weight * centered_logits(log_prob_NC.double())
    variance_NC = zero_NC.clone()
    for weight, log_prob_NC in pairs:
        variance_NC += weight * (centered_logits(log_prob_NC.double()) - mean_NC).square()
    variance_N: Floats = variance_NC.mean(1).numpy()
    return variance_N


def _energy(predictions: Predictions) -> Floats:
    floored_NC = np.maximum(predictions.log_prob_NC, np.log(LEAST_PROBABILITY))
    energy_N: Floats = floored_NC.mean(axis=1)
    return energy_N


SCORES: Mapping[str, Score] = {
    score.name: score
    for score in (
        Score("confidence", "confidence", _confidence),
        Score("total", "total uncertainty", lambda predictions: predictions.entropy_N),
        Score(
            "expected",
            "expected entropy",
            lambda predictions: predictions.expected_entropy_N,
            reads=("expected_entropy",),
        ),
        Score(
            "model",
            "model uncertainty",
            lambda predictions: predictions.mutual_information_N,
            reads=("mutual_information",),
            needs_spread=True,
        ),
        Score("energy", "energy", _energy),
        Score(
            "logit_variance",
            "variance of logits",
            _logit_variance,
            reads=("logit_variance",),
            samples_suffice=True,
            needs_spread=True,
        ),
        Score(
            "variance",
            "variance",
            lambda predictions: predictions.variance_N,
            tasks=("regression",),
        ),
    )
}
"""Every score by name."""


def find_score(name: str) -> Score:
    """The score of this name.

    Raises:
        DataError: there is none; the message names the nearest one.
    """
    if name not in SCORES:
        raise DataError(f"unknown uncertainty score '{name}'{nearest(name, SCORES)}")
    return SCORES[name]
