"""Likelihoods: what a teacher's outputs say about a label, and what one posterior sample predicts.

``categorical`` reads outputs (B, C) as unnormalized log-probabilities of classes. The others read
the first output as the mean of a real label with normal noise, all in units of the labels' own
standard deviation. They differ in what is known of the noise:

* ``gaussian``: its standard deviation is given.
* ``gaussian_learned``: it is one more parameter that is sampled, the same at all inputs.
* ``heteroscedastic``: the network has a second output that says it at each input.
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
    is_concave: ClassVar[bool] = True
    """Whether ``log_density`` is concave in the outputs, as a Laplace approximation needs it."""

    def num_network_outputs(self, num_outputs: int) -> int:
        """Raw outputs that the network has for a dataset's C."""
        return num_outputs

    @property
    def noise_spread(self) -> float | None:
        """Standard deviation under the prior of a sampled log noise; None where none is sampled."""
        return None

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


class _LearnedNoise(Likelihood):
    """A real label with normal noise whose size is learned.

    Outputs (..., 2) are the mean, and the logarithm of the noise's variance over that of
    ``noise_std``.
    """

    task: ClassVar[Task] = "regression"
    prediction: ClassVar[Prediction] = "normal"
    # In the mean and the log-variance together a normal density is not.
    is_concave: ClassVar[bool] = False

    @abstractmethod
    def variance(self, log_ratio: Tensor) -> Tensor:
        """The noise's variance, of the second output."""

    def log_density(self, outputs: Tensor, y: Tensor) -> Tensor:
        """See ``Likelihood.log_density``."""
        mean, variance = self.predict(outputs).unbind(-1)
        squared = (y - mean).square() / variance
        return -0.5 * squared - 0.5 * variance.log() - 0.5 * log(2 * pi)

    def predict(self, outputs: Tensor) -> Tensor:
        """See ``Likelihood.predict``."""
        mean, log_ratio = outputs.unbind(-1)
        return torch.stack([mean, self.variance(log_ratio)], -1)

    def answer(self, outputs: Tensor) -> Tensor:
        """See ``Likelihood.answer``."""
        return outputs[..., :1]

    def num_predicted(self, num_outputs: int) -> int:
        """See ``Likelihood.num_predicted``."""
        return 2


class LearnedGaussianLikelihood(_LearnedNoise):
    """A real label with normal noise of one size, which is sampled with the network's parameters.

    Its prior is log-normal: log noise has the mean log ``noise_std``.
    """

    name: Literal["gaussian_learned"]
    noise_std: float = Field(
        default=0.5,
        gt=0,
        description="median of the noise under its prior, in units of the labels' own deviation",
    )
    spread: float = Field(
        default=1.0,
        gt=0,
        description="standard deviation of the noise's logarithm under its prior; 1 is a factor "
        "of e to each side",
    )

    @property
    def noise_spread(self) -> float | None:
        """See ``Likelihood.noise_spread``."""
        return self.spread

    def variance(self, log_ratio: Tensor) -> Tensor:
        """See ``_LearnedNoise.variance``."""
        return self.noise_std**2 * log_ratio.exp()


class HeteroscedasticLikelihood(_LearnedNoise):
    """A real label with normal noise of a size that depends on the input.

    The noise follows the network, and its prior is that of the network's parameters. Without a
    bound from below, a network that meets one label exactly would have an infinite likelihood.

    Source: Nix & Weigend 1994, Estimating the mean and variance of the target probability
        distribution; the bound is ours.
    """

    name: Literal["heteroscedastic"]
    noise_std: float = Field(
        default=0.5,
        gt=0,
        description="noise where the second output is 0, in units of the labels' own deviation",
    )
    least_std: float = Field(
        default=0.01,
        gt=0,
        description="the noise is larger than this, in units of the labels' own deviation",
    )

    def num_network_outputs(self, num_outputs: int) -> int:
        """See ``Likelihood.num_network_outputs``: each mean has a log-variance beside it."""
        return 2 * num_outputs

    def variance(self, log_ratio: Tensor) -> Tensor:
        """See ``_LearnedNoise.variance``."""
        return self.least_std**2 + self.noise_std**2 * log_ratio.exp()


LIKELIHOODS.register("categorical")(CategoricalLikelihood)
LIKELIHOODS.register("gaussian")(GaussianLikelihood)
LIKELIHOODS.register("gaussian_learned")(LearnedGaussianLikelihood)
LIKELIHOODS.register("heteroscedastic")(HeteroscedasticLikelihood)
