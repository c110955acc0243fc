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
from gped_nas.models.base import Params, Shapes, shapes_of
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
        """``log_density`` averaged over independent normal parameters: a scalar, nats.

        The same constant is left out.
        """

    def score(self, params: Params) -> Params:
        """Gradient of ``log_density``, which chains need at every step.

        Priors that know it need no graph.
        """
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        gradients = torch.autograd.grad(self.log_density(leaves), list(leaves.values()))
        return dict(zip(leaves, gradients, strict=True))

    @abstractmethod
    def sample(self, shapes: Shapes, *, generator: Generator) -> Params:
        """Parameters drawn from the prior, float32 on the CPU."""

    def to_json(self) -> dict[str, Any]:
        """Settings as plain data: what the key of a stream covers."""
        return self.model_dump(mode="json")


PRIORS: Registry[type[Prior]] = Registry("prior", "gped_nas.posterior")


class GaussianPrior(Prior):
    """Independent zero-mean normal distributions, one precision for all parameters."""

    name: Literal["gaussian"] = "gaussian"
    precision: float = Field(default=10.0, gt=0, description="1 / variance of each parameter")

    def log_density(self, params: Params) -> Tensor:
        """See ``Prior.log_density``."""
        # Summed one after another: the order of rounding is part of what chains draw.
        total = next(iter(params.values())).new_zeros(())
        for p in params.values():
            total = total + p.square().sum()
        return -0.5 * self.precision * total

    def expected_log_density(self, mean: Params, variance: Params) -> Tensor:
        """See ``Prior.expected_log_density``: E[theta^2] = mean^2 + variance."""
        total = _sum([v.sum() for v in variance.values()])
        return self.log_density(mean) - 0.5 * self.precision * total

    def score(self, params: Params) -> Params:
        """See ``Prior.score``: -precision theta."""
        return {name: p.detach() * -self.precision for name, p in params.items()}

    def sample(self, shapes: Shapes, *, generator: Generator) -> Params:
        """See ``Prior.sample``."""
        std = self.precision**-0.5
        params = {}
        for name, shape in shapes.items():
            params[name] = torch.randn(shape, generator=generator) * std
        return params

    def to_json(self) -> dict[str, Any]:
        """See ``Prior.to_json``: without the name, which is the default.

        Keys had none before priors had names.
        """
        return self.model_dump(mode="json", exclude={"name"})


class _UnequalGaussianPrior(Prior):
    """Independent zero-mean normal distributions whose precisions follow from names and shapes."""

    @abstractmethod
    def precision_by_name(self, shapes: Shapes) -> dict[str, float]:
        """1 / variance of each parameter."""

    def log_density(self, params: Params) -> Tensor:
        """See ``Prior.log_density``."""
        precision = self.precision_by_name(shapes_of(params))
        return -0.5 * _sum([precision[name] * p.square().sum() for name, p in params.items()])

    def expected_log_density(self, mean: Params, variance: Params) -> Tensor:
        """See ``Prior.expected_log_density``: E[theta^2] = mean^2 + variance."""
        precision = self.precision_by_name(shapes_of(mean))
        total = _sum([precision[name] * v.sum() for name, v in variance.items()])
        return self.log_density(mean) - 0.5 * total

    def score(self, params: Params) -> Params:
        """See ``Prior.score``: -precision theta."""
        precision = self.precision_by_name(shapes_of(params))
        return {name: p.detach() * -precision[name] for name, p in params.items()}

    def sample(self, shapes: Shapes, *, generator: Generator) -> Params:
        """See ``Prior.sample``."""
        precision = self.precision_by_name(shapes)
        params = {}
        for name, shape in shapes.items():
            params[name] = torch.randn(shape, generator=generator) * precision[name] ** -0.5
        return params


class FanInGaussianPrior(_UnequalGaussianPrior):
    """Independent zero-mean normal distributions of variance ``scale`` over the layer's fan-in.

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

    def precision_by_name(self, shapes: Shapes) -> dict[str, float]:
        """1 / variance of each parameter."""
        return {name: fan_in(name, shapes) / self.scale for name in shapes}


class LayeredGaussianPrior(_UnequalGaussianPrior):
    """Independent zero-mean normal distributions, one precision for each kind of layer.

    A bias counts to the layer of its weight. See ``layer_kind``.
    """

    name: Literal["layered_gaussian"] = "layered_gaussian"
    dense: float = Field(default=10.0, gt=0, description="1 / variance in dense layers")
    convolution: float = Field(default=10.0, gt=0, description="1 / variance in convolutions")
    norm: float = Field(default=10.0, gt=0, description="1 / variance of gains and biases of norms")

    def precision_by_name(self, shapes: Shapes) -> dict[str, float]:
        """1 / variance of each parameter."""
        return {name: getattr(self, layer_kind(name, shapes)) for name in shapes}


class LaplacePrior(Prior):
    """Independent Laplace distributions: many parameters near zero.

    The density is exp(-|theta| / scale) / (2 scale).
    """

    name: Literal["laplace"] = "laplace"
    scale: float = Field(default=0.3, gt=0, description="mean absolute value of each parameter")

    def log_density(self, params: Params) -> Tensor:
        """See ``Prior.log_density``."""
        return -_sum([p.abs().sum() for p in params.values()]) / self.scale

    def expected_log_density(self, mean: Params, variance: Params) -> Tensor:
        """See ``Prior.expected_log_density``: the mean of a folded normal distribution.

        Source: Leone, Nelson & Nottingham 1961, Technometrics 3.
        """
        absolute = []
        for name, mu in mean.items():
            std = variance[name].sqrt()
            ratio = mu / std
            spread = std * math.sqrt(2 / math.pi) * (-0.5 * ratio.square()).exp()
            absolute.append((spread + mu * torch.erf(ratio / math.sqrt(2))).sum())
        return -_sum(absolute) / self.scale

    def sample(self, shapes: Shapes, *, generator: Generator) -> Params:
        """See ``Prior.sample``: the difference of two exponential draws."""
        params = {}
        for name, shape in shapes.items():
            up = torch.empty(shape).exponential_(generator=generator)
            down = torch.empty(shape).exponential_(generator=generator)
            params[name] = (up - down) * self.scale
        return params


LayerKind = Literal["dense", "convolution", "norm"]


def layer_kind(name: str, shapes: Shapes) -> LayerKind:
    """The kind of layer that parameter ``name`` is of, by the axes of its weight."""
    num_axes = len(_weight_shape(name, shapes))
    if num_axes < 2:
        return "norm"
    return "dense" if num_axes == 2 else "convolution"


def fan_in(name: str, shapes: Shapes) -> int:
    """How many inputs the layer of parameter ``name`` has."""
    return math.prod(_weight_shape(name, shapes)[1:])


def _weight_shape(name: str, shapes: Shapes) -> tuple[int, ...]:
    """The shape of a parameter, or of the weight beside it; () where there is none."""
    shape = shapes[name]
    if len(shape) < 2:
        layer, dot, _ = name.rpartition(".")
        shape = shapes.get(f"{layer}{dot}weight", ())
    return shape


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum()


PRIORS.register("gaussian")(GaussianPrior)
PRIORS.register("fan_in_gaussian")(FanInGaussianPrior)
PRIORS.register("laplace")(LaplacePrior)
PRIORS.register("layered_gaussian")(LayeredGaussianPrior)
