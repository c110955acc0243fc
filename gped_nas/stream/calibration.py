"""How posterior samples are read that were calibrated after the fact; the stream stays as it is.

A stream never changes, so a calibration lies outside it: it says what to make of each sample's
predictions, and how much each sample counts.

* A temperature T raises what every single sample predicts to the power 1 / T and normalizes it
  again: probabilities p become p^(1/T) / sum p^(1/T), and the variance of a normal is multiplied by
  T. Samples are tempered, not their average, because expected entropies, second moments and
  quantiles are of samples: all of them then belong to one posterior predictive.
* Stacking gives groups of samples other weights. There are K of them, and sample s is of group
  s % K, as samples of K chains lie in a stream; with as many groups as samples each is its own.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gped_nas.posterior.likelihoods import Prediction

CalibrationKind = Literal["none", "temperature", "stacking"]
TEMPERATURES = 0.1, 10.0
"""The least and the largest temperature that is tried."""


@dataclass(frozen=True)
class Calibration:
    """What is made of a stream's samples when they are read.

    Attributes:
        temperature: T of every sample's predictions; 1 leaves them as they are.
        weights: of the groups of samples, summing to 1; empty where samples keep their weights.
    """

    temperature: float = 1.0
    weights: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"temperature": self.temperature, "weights": list(self.weights)}

    def temper(self, predictions: Tensor, prediction: Prediction) -> Tensor:
        """What samples predict (..., G) at this temperature, in the same dtype.

        Args:
            predictions: see ``likelihoods.Prediction``.
            prediction: which kind they are of.
        """
        if self.temperature == 1:
            return predictions
        if prediction == "log_prob":
            scaled = predictions.double() / self.temperature
            return scaled.log_softmax(-1).to(predictions.dtype)
        mean, variance = predictions.unbind(-1)
        return torch.stack([mean, variance * self.temperature], -1)

    def weigh(self, weight_S: Tensor) -> Tensor:
        """Weights of the samples (S,), summing to 1: within a group they share as before."""
        if not self.weights:
            return weight_S
        stacked_S = torch.zeros_like(weight_S)
        for group, weight in enumerate(self.weights):
            of_group = weight_S[group :: len(self.weights)]
            stacked_S[group :: len(self.weights)] = weight * of_group / of_group.sum()
        return stacked_S


RAW = Calibration()
"""A stream as it was sampled."""
