"""Likelihoods: what a teacher's outputs say about a label, and what one posterior sample predicts.

``categorical`` reads outputs (B, C) as unnormalized log-probabilities of classes. ``gaussian``
reads its only output as the mean of a real label with noise of a fixed standard deviation, in units
of the labels' own standard deviation.
"""

from abc import abstractmethod
from math import log, pi
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gped_nas.config import Config
from gped_nas.data.base import Task
from gped_nas.registry import Registry

Prediction = Literal["log_prob", "normal"]
"""What one posterior sample says about an input: log-probabilities of classes (C,), nats; or the
mean and the variance (2,) of a real label, in its normalized unit and that squared."""


class Likelihood(Config):
    """The distribution of a label given a network's outputs."""

    name: str
    task: ClassVar[Task]
    prediction: ClassVar[Prediction]

    @abstractmethod
    def log_density(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Outputs (B, C) and labels (B,) to log-likelihoods (B,), nats."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Outputs (..., C) to what is predicted, (..., G): see ``Prediction``."""

    @abstractmethod
    def answer(self, outputs: Tensor) -> Tensor:
        """Outputs (..., C) to what posterior samples can disagree about, (..., C).

        That is probabilities, or the mean.
        """

    @abstractmethod
    def num_predicted(self, num_outputs: int) -> int:
        """G for C outputs."""

    def to_json(self) -> dict[str, Any]:
        """Settings as plain data: what the key of a stream covers."""
        return self.model_dump(mode="json")


LIKELIHOODS: Registry[type[Likelihood]] = Registry("likelihood", "gped_nas.posterior")


class CategoricalLikelihood(Likelihood):
    """One of C classes."""

    name: Literal["categorical"] = "categorical"
    task: ClassVar[Task] = "classification"
    prediction: ClassVar[Prediction] = "log_prob"

    def log_density(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See ``Likelihood.log_density``."""
        return -F.cross_entropy(outputs, y, reduction="none")

    def predict(self, outputs: Tensor) -> Tensor:
        """See ``Likelihood.predict``."""
        return F.log_softmax(outputs, -1)

    def answer(self, outputs: Tensor) -> Tensor:
        """See ``Likelihood.answer``."""
        return outputs.softmax(-1)

    def num_predicted(self, num_outputs: int) -> int:
        """See ``Likelihood.num_predicted``."""
        return num_outputs


class GaussianLikelihood(Likelihood):
    """A real label with normal noise of one known size."""

    name: Literal["gaussian"]
    noise_std: float = Field(
        default=0.5,
        gt=0,
        description="standard deviation of the noise, in units of the labels' own",
    )
    task: ClassVar[Task] = "regression"
    prediction: ClassVar[Prediction] = "normal"

    def log_density(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See ``Likelihood.log_density``."""
        standardized = (y - outputs.squeeze(-1)) / self.noise_std
        return -0.5 * standardized.square() - log(self.noise_std) - 0.5 * log(2 * pi)

    def predict(self, outputs: Tensor) -> Tensor:
        """See ``Likelihood.predict``."""
        return torch.cat([outputs, torch.full_like(outputs, self.noise_std**2)], -1)

    def answer(self, outputs: Tensor) -> Tensor:
        """See ``Likelihood.answer``."""
        return outputs

    def num_predicted(self, num_outputs: int) -> int:
        """See ``Likelihood.num_predicted``."""
        return 2


LIKELIHOODS.register("categorical")(CategoricalLikelihood)
LIKELIHOODS.register("gaussian")(GaussianLikelihood)
