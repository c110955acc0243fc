"""Posteriors known exactly, for self-tests: linear regression with normal noise and prior."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas import rng
from gped_nas.data.synthetic import exact_posterior
from gped_nas.models.base import Group, Params, Shapes
from gped_nas.posterior.base import Network, Problem
from gped_nas.posterior.priors import GaussianPrior


@dataclass(frozen=True, eq=False)
class Known:
    """A problem whose posterior is N(mean, precision^-1).

    Attributes:
        problem: data, likelihood and prior.
        mean_W, precision_WW: of its posterior, float64, in the order of the flat parameters.
        scatter_NW: the gradient of each example's log-likelihood at the posterior mean, less their
            average; float64.
    """

    problem: Problem
    mean_W: Tensor
    precision_WW: Tensor
    scatter_NW: Tensor

    @property
    def covariance_WW(self) -> Tensor:
        """The posterior's covariance, float64."""
        covariance: Tensor = torch.linalg.inv(self.precision_WW)
        return covariance

    def minibatch_noise(self, batch_size: int) -> Tensor:
        """V (W, W), the covariance of a minibatch gradient of U at the posterior mean.

        The gradient is N / B times a sum over B examples, drawn with replacement.
        """
        num_examples = len(self.scatter_NW)
        return num_examples / batch_size * self.scatter_NW.mT @ self.scatter_NW


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
    precision_WW = torch.kron(torch.eye(2), block)[order][:, order]

    # Of one output an example's gradient is features * residual / noise_std^2.
    features_NF = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    gradients = []
    for column, output in zip(y.unbind(1), exact, strict=True):
        residual_N = column.double() - features_NF @ output.mean
        gradients.append(features_NF * residual_N[:, None] / noise_std**2)
    gradient_NW = torch.cat(gradients, 1)[:, order]

    return Known(problem, mean_W, precision_WW, gradient_NW - gradient_NW.mean(0))


def copies(posterior: Known, num: int) -> Problem:
    """``num`` independent copies of the same posterior as one problem.

    Its only parameter is ``theta`` of shape (num, W). What a method does to it, it does to ``num``
    chains at once.

    Every example has the average curvature, so that the noise of minibatches does not depend on
    ``theta`` and is ``posterior.minibatch_noise``. Each copy has the examples in an order of its
    own: copies that share a minibatch do not share its noise.
    """
    prior = posterior.problem.prior
    assert isinstance(prior, GaussianPrior), "regression's"
    num_examples, size = posterior.scatter_NW.shape

    # Of one example's log-likelihood alone: the problem adds the prior itself.
    curvature = (posterior.precision_WW - prior.precision * torch.eye(size)) / num_examples
    slope = posterior.precision_WW @ posterior.mean_W / num_examples

    generator = rng.generator(0, "scenario", "orders")
    order_NK = torch.rand(num_examples, num, generator=generator).argsort(0)

    def log_likelihood(params: Params, x: Tensor, y: Tensor) -> Tensor:
        theta = params["theta"]
        average = (theta * (slope.to(theta) - theta @ curvature.to(theta) / 2)).sum()
        return average + (x * theta).sum((1, 2))

    shapes: Shapes = {"theta": (num, size)}
    return Problem(
        shapes=shapes,
        log_likelihood=log_likelihood,
        log_prior=prior,
        initialize=lambda generator: {"theta": torch.zeros(num, size)},
        x=posterior.scatter_NW[order_NK].float(),
        y=torch.zeros(num_examples, dtype=torch.int64),
    )


def copies_with_units(posterior: Known, num: int) -> Problem:
    """``copies`` in which every parameter is what one hidden unit sends to the output.

    The parameter is called ``theta``, of shape (1, num * W); ``units`` has a number a unit, which
    says nothing. A unit that is dropped makes its parameter zero.
    """
    plain = copies(posterior, num)
    ((_, copy_shape),) = plain.shapes.items()
    total = num * len(posterior.mean_W)

    def log_likelihood_as_output(params: Params, x: Tensor) -> Tensor:
        theta = params["theta"].view(copy_shape)
        return plain.log_likelihood({"theta": theta}, x, plain.y)[:, None]

    network = Network(
        forward=log_likelihood_as_output,
        log_likelihood=lambda outputs, y: outputs[:, 0],
        last_layer=None,
        hidden=(Group("units", weights=("units",), readers=("theta",)),),
    )
    shapes: Shapes = {"theta": (1, total), "units": (total,)}
    return replace(
        plain,
        shapes=shapes,
        log_likelihood=network,
        initialize=lambda generator: {name: torch.zeros(shape) for name, shape in shapes.items()},
    )
