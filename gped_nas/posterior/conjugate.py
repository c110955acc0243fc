"""Posteriors known exactly, for self-tests: linear regression with normal noise and prior."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas import rng
from gped_nas.data.synthetic import exact_posterior
from gped_nas.models.base import Params, Shapes
from gped_nas.posterior.base import Network, Problem
from gped_nas.posterior.priors import GaussianPrior


@dataclass(frozen=True, eq=False)
class Known:
    """A problem whose posterior is N(mean, precision^-1).

    Attributes:
        problem: data, likelihood and prior.
        mean_W, precision_WW: of its posterior, float64, in the order of the flat parameters.
    """

    problem: Problem
    mean_W: Tensor
    precision_WW: Tensor

    @property
    def covariance_WW(self) -> Tensor:
        """The posterior's covariance, float64."""
        covariance: Tensor = torch.linalg.inv(self.precision_WW)
        return covariance


def regression(*, noise_std: float = 0.7, precision: float = 1.5) -> Known:
    """Linear regression: two outputs of three correlated inputs and a constant, 30 examples.

    W = 2 * 3 + 2, weights first, then biases. The posterior of each output's parameters is that of
    ``exact_posterior``; outputs are independent.

    Args:
        noise_std: of each output.
        precision: of the prior of each parameter.
    """
    generator = rng.generator(0, "scenario", "regression")
    x = torch.randn(30, 3, generator=generator)
    x = torch.stack([x[:, 0], 0.8 * x[:, 0] + 0.6 * x[:, 1], 0.5 + x[:, 2]], 1)
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.0, -1.0]])
    y = x @ weight.mT + noise_std * torch.randn(30, 2, generator=generator)

    shapes: Shapes = {"w": (2, 3), "b": (2,)}
    prior = GaussianPrior(precision=precision)

    def outputs(params: Params, x: Tensor) -> Tensor:
        return F.linear(x, params["w"], params["b"])

    def log_likelihood(outputs: Tensor, y: Tensor) -> Tensor:
        return -0.5 * (outputs - y).square().sum(1) / noise_std**2

    problem = Problem(
        shapes=shapes,
        log_likelihood=Network(outputs, log_likelihood, last_layer=("w", "b"), dense=(("w", "b"),)),
        log_prior=prior,
        initialize=lambda generator: {name: torch.zeros(shape) for name, shape in shapes.items()},
        x=x,
        y=y,
    )
    exact = [
        exact_posterior(x, column, precision=precision, noise_std=noise_std)
        for column in y.unbind(1)
    ]

    # From output by output, (w, b) each, to all weights, then all biases. The covariance does not
    # depend on the labels, so that both outputs have the same.
    order = torch.tensor([0, 1, 2, 4, 5, 6, 3, 7])
    mean_W = torch.cat([posterior.mean for posterior in exact])[order]
    block = torch.linalg.inv(exact[0].covariance).contiguous()
    precision_WW = torch.kron(torch.eye(2), block)
    return Known(problem, mean_W, precision_WW[order][:, order])


def copies(posterior: Known, num: int) -> Problem:
    """``num`` independent copies of the same posterior as one problem.

    Its only parameter is ``theta`` of shape (num, W).

    All examples count as one, so that a minibatch of one example gives the exact gradient. What a
    method does to ``theta`` it then does to ``num`` chains at once.
    """
    prior = posterior.problem.prior
    assert isinstance(prior, GaussianPrior), "regression's"
    size = len(posterior.mean_W)

    # Of the likelihood alone: the problem adds the prior itself.
    curvature = posterior.precision_WW - prior.precision * torch.eye(size)
    slope = posterior.precision_WW @ posterior.mean_W

    def log_likelihood(params: Params, x: Tensor, y: Tensor) -> Tensor:
        theta = params["theta"]
        value = (theta * (slope.to(theta) - theta @ curvature.to(theta) / 2)).sum()
        return value.expand(len(x))

    shapes: Shapes = {"theta": (num, size)}
    return Problem(
        shapes=shapes,
        log_likelihood=log_likelihood,
        log_prior=prior,
        initialize=lambda generator: {"theta": torch.zeros(num, size)},
        x=torch.zeros(1, 1),
        y=torch.zeros(1, dtype=torch.int64),
    )
