"""Priors over teacher parameters, by name.

Every prior is a product over parameters, so its average under independent normal distributions is
known in closed form; variational methods use that instead of a draw.
"""

import math
from abc import abstractmethod
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.config import Config
from gped_nas.models.base import Params, Shapes
from gped_nas.registry import Registry


class Prior(Config):
    """Independent distributions of mean zero, one a parameter, biases included.

    Called with parameters it gives their log-density.
    """

    name: str

    def __call__(self, params: Params) -> Tensor:
        return self.log_density(params)

    @abstractmethod
    def log_density(self, params: Params) -> Tensor:
        """Log-density up to a constant: a scalar, nats."""

    @abstractmethod
    def expected_log_density(self, mean: Params, variance: Params) -> Tensor:
        """``log_density`` averaged over independent normal parameters: a scalar, nats, the same
        constant left out.
        """

    def score(self, params: Params) -> Params:
        """Gradient of ``log_density``: what chains need at every step, without a graph where it is
        known.
        """
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        return dict(
            zip(
                leaves,
                torch.autograd.grad(self.log_density(leaves), list(leaves.values())),
                strict=True,
            )
        )

    @abstractmethod
    def sample(self, shapes: Shapes, *, generator: Generator) -> Params:
        """Parameters drawn from the prior, float32 on the CPU."""

    def to_json(self) -> dict[str, Any]:
        """Settings as plain data: what the key of a stream covers."""
        return self.model_dump(mode="json")


PRIORS: Registry[type[Prior]] = Registry("prior", "gped_nas.posterior")


class GaussianPrior(Prior):
    """Independent zero-mean normal distributions of one precision on every parameter, biases
    included.
    """

    name: Literal["gaussian"] = "gaussian"
    precision: float = Field(default=10.0, gt=0, description="1 / variance of each parameter")

    def log_density(self, params: Params) -> Tensor:
        """See ``Prior.log_density``."""
        total: Tensor = sum(
            (p.square().sum() for p in params.values()),
            start=next(iter(params.values())).new_zeros(()),
        )
        return -0.5 * self.precision * total

    def expected_log_density(self, mean: Params, variance: Params) -> Tensor:
        """See ``Prior.expected_log_density``: E[theta^2] = mean^2 + variance."""
        return self.log_density(mean) - 0.5 * self.precision * _sum(
            [v.sum() for v in variance.values()]
        )

    def score(self, params: Params) -> Params:
        """See ``Prior.score``: -precision theta."""
        return {name: p.detach() * -self.precision for name, p in params.items()}

    def sample(self, shapes: Shapes, *, generator: Generator) -> Params:
        """See ``Prior.sample``."""
        std = self.precision**-0.5
        return {
            name: torch.randn(shape, generator=generator) * std for name, shape in shapes.items()
        }

    def to_json(self) -> dict[str, Any]:
        """See ``Prior.to_json``: without the name, which is the default, as keys had it before
        priors had names.
        """
        return self.model_dump(mode="json", exclude={"name"})


class FanInGaussianPrior(Prior):
    """Independent zero-mean normal distributions whose variance is ``scale`` over the fan-in of
    their layer.

    Outputs of a layer then keep their size whatever its width (Neal 1996). A bias counts to the
    layer of its weight. A parameter without a weight beside it (gain and bias of a norm) has fan-in
    1: each gain multiplies one normalized number, whose size is kept. Its mean is zero like every
    other one's, since a negative gain does what a positive one does with the filter before the norm
    negated.
    """

    name: Literal["fan_in_gaussian"] = "fan_in_gaussian"
    scale: float = Field(
        default=1.0, gt=0, description="variance of a parameter times the fan-in of its layer"
    )

    def log_density(self, params: Params) -> Tensor:
        """See ``Prior.log_density``."""
        precision = self._precision({name: tuple(p.shape) for name, p in params.items()})
        return -0.5 * _sum([precision[name] * p.square().sum() for name, p in params.items()])

    def expected_log_density(self, mean: Params, variance: Params) -> Tensor:
        """See ``Prior.expected_log_density``: E[theta^2] = mean^2 + variance."""
        precision = self._precision({name: tuple(p.shape) for name, p in mean.items()})
        return self.log_density(mean) - 0.5 * _sum(
            [precision[name] * v.sum() for name, v in variance.items()]
        )

    def score(self, params: Params) -> Params:
        """See ``Prior.score``: -precision theta."""
        precision = self._precision({name: tuple(p.shape) for name, p in params.items()})
        return {name: p.detach() * -precision[name] for name, p in params.items()}

    def sample(self, shapes: Shapes, *, generator: Generator) -> Params:
        """See ``Prior.sample``."""
        precision = self._precision(shapes)
        return {
            name: torch.randn(shape, generator=generator) * precision[name] ** -0.5
            for name, shape in shapes.items()
        }

    def _precision(self, shapes: Shapes) -> dict[str, float]:
        return {name: fan_in(name, shapes) / self.scale for name in shapes}


class LaplacePrior(Prior):
    """Independent Laplace distributions, density exp(-|theta| / scale) / (2 scale): many parameters
    near zero.
    """

    name: Literal["laplace"] = "laplace"
    scale: float = Field(default=0.3, gt=0, description="mean absolute value of each parameter")

    def log_density(self, params: Params) -> Tensor:
        """See ``Prior.log_density``."""
        return -_sum([p.abs().sum() for p in params.values()]) / self.scale

    def expected_log_density(self, mean: Params, variance: Params) -> Tensor:
        """See ``Prior.expected_log_density``: the mean of a folded normal distribution (Leone et
        al. 1961).
        """
        absolute = []
        for name, mu in mean.items():
            std = variance[name].sqrt()
            ratio = mu / std
            absolute.append(
                (
                    std * math.sqrt(2 / math.pi) * (-0.5 * ratio.square()).exp()
                    + mu * torch.erf(ratio / math.sqrt(2))
                ).sum()
            )
        return -_sum(absolute) / self.scale

    def sample(self, shapes: Shapes, *, generator: Generator) -> Params:
        """See ``Prior.sample``: the difference of two exponential draws."""
        drawn = {}
        for name, shape in shapes.items():
            up, down = (torch.empty(shape).exponential_(generator=generator) for _ in range(2))
            drawn[name] = (up - down) * self.scale
        return drawn


def fan_in(name: str, shapes: Shapes) -> int:
    """How many inputs the layer of parameter ``name`` has."""
    shape = shapes[name]
    if len(shape) < 2:
        shape = shapes.get(f"{name.rpartition('.')[0]}.weight", ())
    return math.prod(shape[1:])


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum()


PRIORS.register("gaussian")(GaussianPrior)
PRIORS.register("fan_in_gaussian")(FanInGaussianPrior)
PRIORS.register("laplace")(LaplacePrior)
