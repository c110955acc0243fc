"""``linear_gaussian``: a regression problem whose posterior is known in closed form.

Inputs are standard normal vectors, labels ``y = w . x + b + noise`` with ``(w, b)`` drawn from a
standard normal distribution. A linear teacher with a Gaussian prior and a Gaussian likelihood then
has a Gaussian posterior, and ``exact_predictive`` gives its mean and variance at any input: what
samplers, streams and students are held against.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from gped_nas import rng
from gped_nas.config import Config, parse
from gped_nas.data.base import DATASETS, Dataset, Split, build


class LinearGaussianSettings(Config):
    """Settings of ``linear_gaussian``."""

    name: Literal["linear_gaussian"]
    num_examples: int = Field(
        60, ge=4, le=10_000_000, description="examples in all three parts together"
    )
    num_inputs: int = Field(2, ge=1, le=10_000, description="length of an input")
    noise_std: float = Field(
        0.5, gt=0, description="standard deviation of the labels' noise, in the labels' unit"
    )
    num_unlabeled: int = Field(
        0, ge=0, le=10_000_000, description="further inputs that students may be distilled on"
    )
    test: float = Field(
        0.2, gt=0, lt=1, description="fraction of all examples carved for the test part"
    )
    validation: float = Field(
        0.2, gt=0, lt=1, description="fraction of the rest carved for validation"
    )
    seed: int = Field(0, ge=0, description="seed of the examples and of the splits")


@DATASETS.register("linear_gaussian")
def load_linear_gaussian(settings: dict[str, object], where: str) -> Dataset:
    """The problem of the module docstring; inputs (D,) float32, labels float64.

    Raises:
        ConfigError: settings it does not take.
    """
    cfg = parse(LinearGaussianSettings, settings, where)
    generator = rng.generator(cfg.seed, "linear_gaussian")
    coefficients = torch.randn(cfg.num_inputs + 1, generator=generator, dtype=torch.float64)
    x = torch.randn(cfg.num_examples, cfg.num_inputs, generator=generator, dtype=torch.float64)
    noise = cfg.noise_std * torch.randn(cfg.num_examples, generator=generator, dtype=torch.float64)
    y = x @ coefficients[:-1] + coefficients[-1] + noise

    # drawn last, so that their number changes no example
    pool_shape = (cfg.num_unlabeled, cfg.num_inputs)
    unlabeled = torch.randn(pool_shape, generator=generator, dtype=torch.float64)

    return build(
        cfg.name,
        Split(x.float(), y),
        class_names=(),
        test=cfg.test,
        validation=cfg.validation,
        seed=cfg.seed,
        where=where,
        unlabeled=unlabeled.float(),
    )


@dataclass(frozen=True, eq=False)
class LinearPosterior:
    """The Gaussian posterior of ``y = w . x + b + N(0, noise_std^2)``.

    Attributes:
        mean: (D + 1,), the bias last.
        covariance: (D + 1, D + 1).
        noise_std: of the likelihood.
    """

    mean: Tensor
    covariance: Tensor
    noise_std: float

    def predictive(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N,) and variance (N,), noise included, of the label at inputs (N, D)."""
        features = _append_one(x)
        mean = features @ self.mean
        variance = (features @ self.covariance * features).sum(1) + self.noise_std**2
        return mean, variance


def exact_posterior(x: Tensor, y: Tensor, *, precision: float, noise_std: float) -> LinearPosterior:
    """The posterior of a linear model under independent N(0, 1 / precision) priors, bias included.

    Args:
        x: inputs (N, D), as the model sees them.
        y: labels (N,), as the model sees them.
        precision: of the prior, for every parameter.
        noise_std: of the likelihood.

    Returns:
        Mean and covariance in float64.

    Source: Bishop 2006, Pattern Recognition and Machine Learning, equations 3.53 and 3.54.
    """
    features = _append_one(x)
    prior = precision * torch.eye(features.shape[1], dtype=torch.float64)
    covariance = torch.linalg.inv(prior + features.mT @ features / noise_std**2)
    mean = covariance @ features.mT @ y.double() / noise_std**2
    return LinearPosterior(mean, covariance, noise_std)


def _append_one(x: Tensor) -> Tensor:
    features = x.double().flatten(1)
    return torch.cat([features, torch.ones_like(features[:, :1])], 1)
