"""Mean-field variational inference: an independent normal distribution for each parameter (Bayes by
backprop).

With q(theta) = prod_i N(mu_i, sigma_i^2) it minimizes, by Adam over mu and log sigma,

    F = E_q[-log p(D | theta)] + KL(q, prior) = E_q[-log p(D | theta)] - E_q[log p(theta)] - sum_i
    log sigma_i + const

and then draws from q. The last two terms are exact, with no draw, for every prior that knows its
average under normal distributions (all built-in ones; for a Gaussian prior that is the closed-form
KL); for any other log-prior the same draw of theta estimates both. The likelihood term comes from a
minibatch: where the network is a chain of dense layers, by the local reparametrisation (each
example draws its own pre-activations a ~ N(mu h + mu_b, sigma^2 h^2 + sigma_b^2), the law that a
draw of the weights would give them, so the estimate is unbiased and much less noisy); elsewhere by
one draw theta = mu + sigma eps for the whole minibatch.

Choose it when a fast, independent supply of samples matters more than their spread: training costs
about twice a MAP network (local: two products a layer), a sample after that costs W normal numbers.
Its bias: q has no correlations, and on a Gaussian posterior of precision A its optimum is the exact
mean with variances 1 / A_ii, which are never larger than the true ones (A^-1)_ii; wide networks
also tend to fall back on the prior.

Source: Blundell et al. 2015, arXiv:1505.05424 (with log sigma where they have a softplus); Kingma,
Salimans & Welling 2015, arXiv:1506.02557, section 2.3.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.errors import DivergenceError
from gped_nas.models.activations import activate
from gped_nas.models.base import Params, Shapes, num_params
from gped_nas.posterior.adam import TrainingConfig, descend, without_samples
from gped_nas.posterior.base import (
    METHODS,
    ChainConfig,
    Method,
    Network,
    PosteriorSample,
    Problem,
    State,
    Step,
    flatten,
    unflatten,
)
from gped_nas.posterior.tunable import Tuned, training_settings


class ViConfig(TrainingConfig, ChainConfig):
    """Settings of ``vi``."""

    steps: int = Field(default=10_000, ge=1, description="optimizer steps")
    lr: float = Field(
        default=3e-3, gt=0, description="Adam step size, annealed to zero by a cosine"
    )
    initial_std: float = Field(
        default=0.05, gt=0, description="standard deviation of every parameter to start from"
    )


def free_energy(
    problem: Problem, mean_W: Tensor, log_std_W: Tensor, index_B: Tensor, *, generator: Generator
) -> Tensor:
    """Unbiased estimate of F from some examples and fresh draws: a scalar, nats, up to a constant.

    Args:
        problem: the posterior.
        mean_W, log_std_W: of q, for each parameter.
        index_B: which examples.
        generator: source of the draws.
    """
    std_W = log_std_W.exp()
    mean = unflatten(mean_W, problem.shapes)
    variance = unflatten(std_W.square(), problem.shapes)
    x, y = problem.x[index_B], problem.y[index_B]
    network, prior = problem.network, problem.prior

    # One draw of theta, for whatever is not averaged exactly or by local draws.
    draw: Params = {}
    if not (network and network.dense and prior):
        noise_W = torch.randn(mean_W.shape, generator=generator).to(mean_W)
        draw = unflatten(mean_W + std_W * noise_W, problem.shapes)

    if network and network.dense:
        outputs = local_outputs(network, mean, variance, x, generator=generator)
        log_likelihood = network.log_likelihood(outputs, y)
    else:
        log_likelihood = problem.log_likelihood(draw, x, y)

    log_prior = prior.expected_log_density(mean, variance) if prior else problem.log_prior(draw)
    scale = problem.num_examples / len(index_B)
    return -scale * log_likelihood.sum() - log_prior - log_std_W.sum()


def local_outputs(
    network: Network, mean: Params, variance: Params, x: Tensor, *, generator: Generator
) -> Tensor:
    """Outputs (B, C) of a chain of dense layers, every example with draws of its own."""
    hidden = x.flatten(1)
    layer_before = ""
    for weight, bias in network.dense:
        if layer_before:
            hidden = activate(layer_before, hidden)
        layer_before = weight

        # a ~ N(mu h + mu_b, sigma^2 h^2 + sigma_b^2), each example with a draw of its own
        center = F.linear(hidden, mean[weight], mean[bias])
        spread = F.linear(hidden.square(), variance[weight], variance[bias]).sqrt()
        hidden = center + spread * torch.randn(center.shape, generator=generator).to(center)
    return hidden


def vi(
    problem: Problem, cfg: ViConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every 100 updates while training, then one with a sample for ever.

    See the module docstring.

    Raises:
        DivergenceError: the parameters left the finite numbers.
    """
    size = num_params(problem.shapes)

    def start() -> Tensor:
        mean = flatten(problem.initialize(generator))
        return torch.cat([mean, torch.full_like(mean, math.log(cfg.initial_std))])

    def objective(params: Params, index_B: Tensor) -> Tensor:
        return free_energy(problem, params["mean"], params["log_std"], index_B, generator=generator)

    shapes: Shapes = {"mean": (size,), "log_std": (size,)}
    states = descend(
        shapes, objective, cfg, start=start, problem=problem, generator=generator, state=state
    )
    state = yield from without_samples(states, state)

    generator.set_state(state["rng"])
    trained = {"theta": state["theta"], "step": state["step"]}
    mean_W, std_W = trained["theta"][:size], trained["theta"][size:].exp()
    while True:
        sample_W = mean_W + std_W * torch.randn(size, generator=generator)
        if not bool(sample_W.isfinite().all()):
            raise DivergenceError("vi: a sample is not finite; lower teacher.method.lr")
        yield Step(PosteriorSample(sample_W), {**trained, "rng": generator.get_state()})


METHODS.register("vi")(
    Method(
        ViConfig,
        vi,
        origin="fitted",
        tuned=Tuned(
            lambda draw, effort: {
                "chains": (fits := draw.whole("fits", 1, 8, usual=2)),
                "num_samples": fits * draw.whole("draws", 5, 50, usual=20),
                **training_settings(draw, effort),
                "initial_std": draw.scale("initial_std", 1e-3, 0.2, usual=0.02),
            },
            is_tried=False,
        ),
        example={"steps": 300, "batch_size": 4},
    )
)
