"""Noise that is learned: what a likelihood adds to a network, as a family and a prior.

A network whose likelihood learns its noise has further outputs, or a parameter of its own beside
the network's. ``family_with_noise`` and ``prior_with_noise`` give both their place, so that
methods and streams see a network and a prior like any other.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import SerializeAsAny
from torch import Generator, Tensor

from gped_nas.models.base import Family, Group, Params, Shapes, Value
from gped_nas.posterior.likelihoods import Likelihood
from gped_nas.posterior.priors import Prior

NOISE = "noise.log_ratio"
"""The parameter (1,) that is the noise at all inputs: log of its variance over a given one."""


def family_with_noise(family: Family, likelihood: Likelihood) -> Family:
    """The family of a teacher's networks with all that its likelihood learns.

    Args:
        family: of the network alone.
        likelihood: of a label given its outputs; one that learns no noise leaves the family as it
            is.
    """
    has_parameter = likelihood.noise_spread is not None
    if not has_parameter and likelihood.num_network_outputs(1) == 1:
        return family
    return _FamilyWithNoise(family, likelihood)


def prior_with_noise(prior: Prior, likelihood: Likelihood) -> Prior:
    """The prior of a network's parameters and of its noise, where that is one of them."""
    if likelihood.noise_spread is None:
        return prior
    return NoisePrior(network=prior, log_std=likelihood.noise_spread)


def shapes_with_noise(shapes: Shapes, likelihood: Likelihood) -> Shapes:
    """The shapes of a network's parameters, and of its noise, where that is one of them."""
    return shapes if likelihood.noise_spread is None else {**shapes, NOISE: (1,)}


def without_noise(shapes: Shapes) -> Shapes:
    """The shapes of the network's own parameters."""
    return {name: shape for name, shape in shapes.items() if name != NOISE}


class NoisePrior(Prior):
    """The prior of a network beside a normal one of its log noise.

    The parameter is twice the logarithm of a standard deviation, over that of its median.
    """

    name: Literal["with_noise"] = "with_noise"
    network: SerializeAsAny[Prior]
    log_std: float

    def log_density(self, params: Params) -> Tensor:
        """See ``Prior.log_density``."""
        network, noise = _split(params)
        return self.network.log_density(network) - 0.5 * self._precision * noise.square().sum()

    def expected_log_density(self, mean: Params, variance: Params) -> Tensor:
        """See ``Prior.expected_log_density``: E[theta^2] = mean^2 + variance."""
        network, noise = _split(mean)
        of_network, of_noise = _split(variance)
        expected = self.network.expected_log_density(network, of_network)
        return expected - 0.5 * self._precision * (noise.square() + of_noise).sum()

    def score(self, params: Params) -> Params:
        """See ``Prior.score``."""
        network, noise = _split(params)
        return {**self.network.score(network), NOISE: noise.detach() * -self._precision}

    def sample(self, shapes: Shapes, *, generator: Generator) -> Params:
        """See ``Prior.sample``."""
        params = self.network.sample(without_noise(shapes), generator=generator)
        noise = torch.randn(shapes[NOISE], generator=generator) * self._precision**-0.5
        return {**params, NOISE: noise}

    @property
    def _precision(self) -> float:
        return (2 * self.log_std) ** -2


class _FamilyWithNoise(Family):
    """The networks of another family, with what a likelihood reads beside their means."""

    def __init__(self, family: Family, likelihood: Likelihood) -> None:
        self._family, self._likelihood = family, likelihood

    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """See ``Family.canonical``."""
        return self._family.canonical(values)

    def shapes(
        self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int
    ) -> Shapes:
        """See ``Family.shapes``; ``num_outputs`` are those of the dataset."""
        num_of_network = self._likelihood.num_network_outputs(num_outputs)
        shapes = self._family.shapes(values, input_shape, num_of_network)
        return shapes_with_noise(shapes, self._likelihood)

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """See ``Family.forward``: what the likelihood reads, (B, 2)."""
        if NOISE not in params:
            return self._family.forward(params, x)

        network, noise = _split(params)
        mean = self._family.forward(network, x)
        return torch.cat([mean, noise.to(mean).expand_as(mean)], -1)

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """See ``Family.macs``."""
        return self._family.macs(without_noise(shapes), input_shape)

    def has_own_start(self, values: Mapping[str, Any]) -> bool:
        """See ``Family.has_own_start``."""
        return self._family.has_own_start(values)

    def initialize(self, shapes: Shapes, *, generator: Generator) -> Params:
        """See ``Family.initialize``: the noise begins at its median."""
        params = self._family.initialize(without_noise(shapes), generator=generator)
        return {**params, NOISE: torch.zeros(1)} if NOISE in shapes else params

    def head(self, shapes: Shapes) -> tuple[str, str] | None:
        """See ``Family.head``: a noise beside the network's output comes from no layer."""
        return None if NOISE in shapes else self._family.head(shapes)

    def groups(self, shapes: Shapes) -> list[Group]:
        """See ``Family.groups``."""
        return self._family.groups(without_noise(shapes))

    def describe(self, shapes: Shapes) -> list[dict[str, Any]]:
        """See ``Family.describe``."""
        return self._family.describe(without_noise(shapes))


def _split(params: Params) -> tuple[Params, Tensor]:
    """The network's parameters, and the noise's."""
    network = {name: value for name, value in params.items() if name != NOISE}
    return network, params[NOISE]
