"""The bias of SGLD from its minibatches, against theory, on the mean of Gaussian observations.

N observations x_i ~ N(theta, 1 / tau) of each coordinate and a prior precision a0: a = a0 + N tau
is the posterior precision and m = tau sum x_i / a its mean. The minibatch gradient of B examples
drawn with replacement is a0 theta + (N / B) tau sum_B (theta - x_i) = a theta - (N tau / B) sum_B
x_i: the exact gradient a (theta - m) plus noise that does not depend on theta, of variance V = N^2
tau^2 s^2 / B with s^2 the variance of the N observations (divided by N). One step with r = 1 - eta
a / 2 is then theta - m <- r (theta - m) + N(0, eta T) + (eta / 2) noise, and

    stationary variance = (eta T + eta^2 V / 4) / (1 - r^2) = (T + eta V / 4) / (a (1 - eta a / 4)).

Every coordinate has observations of its own but shares the minibatch with the others, so that
coordinates at one time are weakly dependent; states far apart in time are not. The standard error
is that of the means over time: about 0.5 %, four of them see 2 %. Minibatches double the variance
here.
"""

import itertools
import math

import pytest
import torch

from gped_nas import rng
from gped_nas.posterior.base import Problem
from gped_nas.posterior.schedule import StepSize
from gped_nas.posterior.sgld import SgldConfig, sgld

N, NUM, A0, TAU, BATCH, ETA = 400, 400, 2.0, 0.02, 80, 0.1
NUM_STATES, APART = 300, 12
PRECISION = A0 + N * TAU


def observations() -> Problem:
    x = torch.empty(N, NUM).normal_(generator=rng.generator(0, "observations")) / math.sqrt(TAU) + 1
    return Problem(
        shapes={"mean": (NUM,)},
        log_likelihood=lambda params, x, y: -0.5 * TAU * (x - params["mean"]).square().sum(1),
        log_prior=lambda params: -0.5 * A0 * params["mean"].square().sum(),
        initialize=lambda generator: {"mean": torch.zeros(NUM)},
        x=x,
        y=torch.zeros(N, dtype=torch.int64),
    )


def scaled_squares(temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distance from the posterior mean over its variance in theory, at each time.

    Averaged over coordinates. Beside it the share of that variance which minibatches add, by
    coordinate.
    """
    problem = observations()
    cfg = SgldConfig(
        name="sgld",
        step_size=StepSize(initial=ETA),
        batch_size=BATCH,
        burn_in=10 * APART,
        thinning=APART,
        temperature=temperature,
    )
    chain = sgld(problem, cfg, generator=rng.generator(0, "minibatch"))
    steps = itertools.islice(chain, NUM_STATES + 10)
    theta = torch.stack([s.sample.theta_W for s in steps if s.sample is not None]).double()

    x = problem.x.double()
    mean = TAU * x.sum(0) / PRECISION
    added = ETA * N**2 * TAU**2 * x.var(0, correction=0) / BATCH / 4
    law = (1 + added) / (PRECISION * (1 - ETA * PRECISION / 4))
    squares = ((theta - mean).square() / law).mean(1)
    return squares, added / (1 + added)


def misfit(squares: torch.Tensor) -> float:
    return abs(float(squares.mean()) - 1) / float(squares.std() / math.sqrt(len(squares)))


def test_the_minibatch_adds_the_variance_that_theory_gives():
    assert abs(1 - ETA * PRECISION / 2) ** APART < 1e-3  # states are independent
    squares, share = scaled_squares()
    assert float(squares.std()) / math.sqrt(NUM_STATES) < 0.0055
    assert misfit(squares) < 4

    # without the term eta V / 4 the same check is far off
    assert 0.4 < float(share.mean()) < 0.6
    assert misfit(squares / (1 - share.mean())) > 40


@pytest.mark.parametrize("temperature", [1.2])
def test_the_check_sees_the_noise_of_the_chain_too(temperature):
    assert misfit(scaled_squares(temperature)[0]) > 8
