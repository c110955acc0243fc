"""Laplace approximation of the last layer, full covariance, around a MAP network.

Everything below the last layer stays at its MAP value, which fixes the features phi(x). The outputs
are linear in the last layer's m = C (H + 1) parameters w, so its Hessian of U is the generalized
Gauss-Newton matrix, with no term left out, for softmax, Gaussian and any other likelihood that is
concave in the outputs:

    A = sum_n Lambda_n (x) phi_n phi_n^T - Hess log p(w),   Lambda_n = -Hess log p(y_n | outputs_n)

After Adam, Newton steps on the full data bring w to the mode that the expansion assumes. Samples
are N(w, A^-1) for the last layer and the MAP values for the rest.

Choose it as the cheapest posterior with a sound local law: exact for a linear model with a Gaussian
likelihood. It costs a MAP network, about N C m H / 2 multiply-adds for each of the few Newton
steps, and m^2 float64 numbers of memory; then m^2 / 2 multiply-adds a sample. Its bias: features
carry no uncertainty, and a softmax's posterior is not Gaussian: with many outputs and a weak prior
single samples predict much worse than the mode, and so does their average. Look at the
samples-to-NLL curve, and raise the prior's precision if it starts high.

Source: MacKay 1992, Neural Computation 4(3); last layer: Kristiadi et al. 2020, arXiv:2002.10118;
Daxberger et al. 2021, arXiv:2106.14806, section 3.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.adam import TrainingConfig, train, without_samples
from gped_nas.posterior.base import (
    METHODS,
    ChainConfig,
    Method,
    Network,
    PosteriorSample,
    Problem,
    State,
    Step,
    unflatten,
)
from gped_nas.posterior.tunable import Tuned, training_settings

_BATCH = 4096
_NEWTON_STEPS = 50
_DECREMENT = 1e-10


class LaplaceConfig(TrainingConfig, ChainConfig):
    """Settings of ``laplace``."""


@dataclass(frozen=True, eq=False)
class LastLayer:
    """U as a function of the last layer's parameters w (m,), float64.

    They are ordered output by output, bias last.

    Attributes:
        problem, network: whose last layer it is.
        theta: all parameters, flat, float32 on the CPU.
        index: where w is in them.
        features_NF: what the layer reads, with a column of ones for its bias.
    """

    problem: Problem
    network: Network
    theta: Tensor
    index: Tensor
    features_NF: Tensor

    @property
    def start(self) -> Tensor:
        """w as it is in ``theta``."""
        return self.theta[self.index].to(self.features_NF)

    def replaced(self, w: Tensor) -> Tensor:
        """A copy of ``theta`` with this last layer."""
        theta = self.theta.clone()
        theta[self.index] = w.to("cpu", theta.dtype)
        return theta

    def outputs(self, w: Tensor) -> Tensor:
        """Outputs (N, C) at the training inputs."""
        return self.features_NF @ w.view(-1, self.features_NF.shape[1]).mT

    def potential(self, w: Tensor) -> Tensor:
        """U over the full data: a scalar, nats."""
        log_likelihood = self.network.log_likelihood(self.outputs(w), self.problem.y).sum()
        return -log_likelihood - self.log_prior(w)

    def log_prior(self, w: Tensor) -> Tensor:
        """The log-prior of all parameters, nats."""
        flat = self.theta.to(w).index_put((self.index.to(w.device),), w)
        return self.problem.log_prior(unflatten(flat, self.problem.shapes))

    def gradient(self, w: Tensor) -> Tensor:
        """The gradient (m,) of U."""
        leaf = w.clone().requires_grad_()
        gradient: Tensor = torch.autograd.grad(self.potential(leaf), leaf)[0]
        return gradient

    def hessian(self, w: Tensor) -> Tensor:
        """The Hessian (m, m) of U: exact.

        Raises:
            ConfigError: the prior adds no curvature, so that some directions of a softmax have
                none.
        """
        of_prior: Tensor = -torch.func.jacrev(torch.func.jacrev(self.log_prior))(w)
        if bool((of_prior.diagonal() <= 0).any()):
            raise ConfigError(
                "teacher.prior.name: laplace needs a prior with curvature everywhere; use gaussian "
                "or fan_in_gaussian"
            )

        num_features = self.features_NF.shape[1]
        num_outputs = len(w) // num_features
        total = w.new_zeros(num_outputs, num_features, num_outputs, num_features)
        batches = zip(
            torch.split(self.features_NF, _BATCH),
            torch.split(self.outputs(w), _BATCH),
            torch.split(self.problem.y, _BATCH),
            strict=True,
        )
        for phi_BF, outputs_BC, y_B in batches:
            curvature_BCC = self._curvature(outputs_BC, y_B)
            for c in range(num_outputs):
                for d in range(c + 1):
                    block = (phi_BF * curvature_BCC[:, c, d, None]).mT @ phi_BF
                    total[c, :, d] += block
                    if c != d:
                        total[d, :, c] += block

        return total.view(len(w), len(w)) + of_prior

    def _curvature(self, outputs_BC: Tensor, y_B: Tensor) -> Tensor:
        """Minus the Hessian (B, C, C) of each example's log-likelihood in its outputs."""
        leaf = outputs_BC.detach().clone().requires_grad_()
        total = self.network.log_likelihood(leaf, y_B).sum()
        slope = torch.autograd.grad(total, leaf, create_graph=True)[0]
        rows = [
            torch.autograd.grad(slope[:, c].sum(), leaf, retain_graph=True)[0]
            for c in range(leaf.shape[1])
        ]
        return -torch.stack(rows, 1)


def last_layer(problem: Problem, network: Network, theta: Tensor) -> LastLayer:
    """The last layer of a network with flat parameters ``theta``, and the features it reads."""
    assert network.last_layer is not None
    weight, bias = network.last_layer

    numbers = unflatten(torch.arange(len(theta)), problem.shapes)
    index = torch.cat([numbers[weight], numbers[bias][:, None]], 1).flatten()

    # With the identity as last layer the outputs are the features.
    params = dict(unflatten(theta.to(problem.x.device), problem.shapes))
    params[weight] = torch.eye(params[weight].shape[1]).to(params[weight])
    params[bias] = params[weight].new_zeros(len(params[weight]))
    batches = torch.split(problem.x, _BATCH)
    features = torch.cat([network.forward(params, x) for x in batches]).detach().double()
    features_NF = torch.cat([features, torch.ones_like(features[:, :1])], 1)
    return LastLayer(problem, network, theta, index, features_NF)


def law_of(problem: Problem, state: State) -> tuple[Tensor, Tensor]:
    """The Gaussian that ``laplace`` draws from, of a state with the mode.

    Returns:
        All parameters at the mode (W,), float32, and the factor (C, H + 1, m) of the last layer's
        covariance, float64: each output's parameters, bias last, are the mode and the factor times
        m independent standard normal numbers.
    """
    network = problem.network
    assert network is not None and "at_mode" in state, "the law is known"
    layer = last_layer(problem, network, state["theta"])
    triangle = _cholesky(layer.hessian(layer.start)).mT
    one = torch.eye(len(triangle)).to(triangle)
    factor = torch.linalg.solve_triangular(triangle, one, upper=True).cpu()
    num_features = layer.features_NF.shape[1]
    return state["theta"], factor.view(-1, num_features, factor.shape[1])


def newton(layer: LastLayer, w: Tensor) -> Tensor:
    """The mode of the last layer's parameters from ``w``, by Newton steps halved until U falls."""
    value = float(layer.potential(w))
    for _ in range(_NEWTON_STEPS):
        gradient = layer.gradient(w)
        direction = torch.cholesky_solve(gradient[:, None], _cholesky(layer.hessian(w)))[:, 0]
        decrement = float(gradient @ direction)

        scale = 1.0
        while scale > 1e-6:
            proposal = w - scale * direction
            proposed = float(layer.potential(proposal))
            if proposed <= value - 1e-4 * scale * decrement:
                break
            scale /= 2
        else:
            return w

        w = proposal
        value = proposed
        if decrement < _DECREMENT:
            return w
    return w


def _cholesky(hessian: Tensor) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if bool(failed) or not bool(factor.isfinite().all()):
        raise DivergenceError(
            "laplace: the Hessian of the last layer is not positive definite; raise the curvature "
            "of teacher.prior"
        )
    return factor


def laplace(
    problem: Problem, cfg: LaplaceConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every 100 updates while training, then one with a sample for ever.

    See the module docstring.

    Raises:
        ConfigError: the network does not end in a dense layer, the prior has no curvature there, or
            the likelihood is not concave.
        DivergenceError: the parameters left the finite numbers, or the Hessian is not positive
            definite.
    """
    network = problem.network
    if network is not None and not network.is_concave:
        raise ConfigError(
            "teacher.method.name: found laplace with a noise that is learned, expected a "
            "log-likelihood that is concave in the outputs: only then is the Hessian that it "
            "inverts one of a peak; give the noise (likelihood gaussian) or choose another method"
        )
    if network is None or network.last_layer is None:
        raise ConfigError(
            "teacher.method.name: found laplace, but the teacher does not end in a dense layer; "
            "choose another method"
        )

    if state is not None and "at_mode" in state:
        theta_W = state["theta"]
    else:
        states = train(problem, cfg, generator=generator, state=state)
        state = yield from without_samples(states, state)
        layer = last_layer(problem, network, state["theta"])
        theta_W = layer.replaced(newton(layer, layer.start))

    generator.set_state(state["rng"])
    layer = last_layer(problem, network, theta_W)
    mode = layer.start
    factor = _cholesky(layer.hessian(mode)).mT
    while True:
        noise = torch.randn(len(mode), 1, dtype=torch.float64, generator=generator)
        # A = L L^T, so that L^-T z has covariance A^-1.
        offset = torch.linalg.solve_triangular(factor, noise.to(factor.device), upper=True)[:, 0]
        state = {"theta": theta_W, "at_mode": torch.tensor(1), "rng": generator.get_state()}
        yield Step(PosteriorSample(layer.replaced(mode + offset)), state)


METHODS.register("laplace")(
    Method(
        LaplaceConfig,
        laplace,
        origin="fitted",
        looks_inside=True,
        needs_concave=True,
        tuned=Tuned(
            lambda draw, effort: {
                "chains": (fits := draw.whole("fits", 1, 8, usual=1)),
                "num_samples": fits * draw.whole("draws", 3, 20, usual=5),
                **training_settings(draw, effort),
            }
        ),
        example={"steps": 300, "batch_size": 4},
    )
)
