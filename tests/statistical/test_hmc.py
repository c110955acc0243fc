"""HMC against its exact target: no discretization error is left after the Metropolis correction.

Two checks, since acceptance is one decision for all parameters of a chain. Six hundred short
independent chains on a correlated Gaussian, at a step size where leapfrog alone is far off: a
Kolmogorov-Smirnov test of that size sees 50 % in a standard deviation, and sees leapfrog without
the correction. And one chain in 320,000 independent dimensions that turns momenta into positions:
four standard errors see 1 % in the variance of the momenta, and no less.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import kstest

from gped_nas import rng
from gped_nas.models.base import Params
from gped_nas.posterior.base import Problem
from gped_nas.posterior.hmc import HmcConfig, hmc
from tests.scenarios import gaussian
from tests.statistical.test_sgld import NUM_CHAINS, STANDARD_ERRORS, misfit

COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
PRECISION = COVARIANCE.inverse()
STEP_SIZE, LEAPFROG, TRANSITIONS, SHORT_CHAINS = 0.7, 3, 12, 600


def correlated() -> Problem:
    return Problem(
        shapes={"theta": (2,)},
        log_likelihood=lambda params, x, y: torch.zeros(len(x)),
        log_prior=lambda params: -0.5 * params["theta"] @ PRECISION @ params["theta"],
        initialize=lambda generator: {"theta": torch.tensor([2.0, -1.0])},
        x=torch.zeros(1, 1),
        y=torch.zeros(1, dtype=torch.int64),
    )


def p_values(theta_S2: torch.Tensor) -> list[float]:
    """Kolmogorov-Smirnov on both coordinates and on the narrow direction, of variance 1 - 0.8."""
    x, y = theta_S2.double().unbind(1)
    narrow = (x - y) / math.sqrt(2 * 0.2)
    return [float(kstest(values.numpy(), "norm").pvalue) for values in (x, y, narrow)]


@pytest.fixture(scope="module")
def last_states():
    cfg = HmcConfig(
        name="hmc",
        step_size=STEP_SIZE,
        leapfrog_steps=LEAPFROG,
        burn_in=0,
        thinning=TRANSITIONS,
    )
    problem = correlated()

    steps = []
    for i in range(SHORT_CHAINS):
        chain = hmc(problem, cfg, generator=rng.generator(0, "short", i))
        steps.append(next(chain))

    accepted = sum(int(step.state["accepted"]) for step in steps)
    theta = torch.stack([step.sample.theta_W for step in steps])
    return theta, accepted / (SHORT_CHAINS * TRANSITIONS)


def leapfrog_alone() -> torch.Tensor:
    """The same chains with every proposal accepted, all at once."""
    generator = rng.generator(1, "uncorrected")
    theta = torch.tensor([2.0, -1.0], dtype=torch.float64).repeat(SHORT_CHAINS, 1)
    for _ in range(TRANSITIONS):
        momentum = torch.empty_like(theta).normal_(generator=generator)
        for _ in range(LEAPFROG):
            momentum = momentum - STEP_SIZE / 2 * theta @ PRECISION
            theta = theta + STEP_SIZE * momentum
            momentum = momentum - STEP_SIZE / 2 * theta @ PRECISION
    return theta


def test_last_states_of_independent_chains_are_draws_from_the_target(last_states):
    theta, acceptance = last_states
    assert 0.3 < acceptance < 0.95  # the correction has work to do
    assert min(p_values(theta)) > 1e-3

    # Fisher's transform has a standard error of 1 / sqrt(S - 3).
    correlation = float(torch.corrcoef(theta.T)[0, 1])
    bound = STANDARD_ERRORS / math.sqrt(SHORT_CHAINS - 3)
    assert abs(math.atanh(correlation) - math.atanh(0.8)) < bound


def test_the_check_sees_a_missing_correction_and_a_half_in_scale(last_states):
    assert min(p_values(leapfrog_alone())) < 1e-6
    assert min(p_values(1.5 * last_states[0])) < 1e-3


def quarter_turns(num: int) -> tuple[list[torch.Tensor], int]:
    """States after each of ``num`` transitions of a quarter of an orbit, from the target itself."""
    a = 4.0
    step_size = 0.025

    def draw(generator: torch.Generator) -> Params:
        return {"theta": torch.empty(NUM_CHAINS).normal_(generator=generator) / math.sqrt(a)}

    problem = replace(gaussian(NUM_CHAINS, precision=a), initialize=draw)
    cfg = HmcConfig(
        name="hmc",
        step_size=step_size,
        leapfrog_steps=round(math.pi / 2 / (step_size * math.sqrt(a))),
        burn_in=0,
        thinning=1,
        jitter=0.0,
    )
    chain = hmc(problem, cfg, generator=rng.generator(2, "quarter"))
    steps = list(itertools.islice(chain, num))
    return [step.state["theta"] for step in steps], int(steps[-1].state["accepted"])


def test_positions_come_from_momenta_of_unit_variance():
    states, accepted = quarter_turns(3)
    assert accepted == 3
    for theta in states:
        of_mean, of_variance = misfit(theta, 0.0, 1 / 4)
        assert of_mean < STANDARD_ERRORS
        assert of_variance < STANDARD_ERRORS
        assert misfit(theta, 0.0, 1.05 / 4)[1] > 2 * STANDARD_ERRORS

    # a quarter of an orbit: next to nothing of one position is left in the next one
    correlation = float((states[0] * states[1]).mean() * 4)
    assert abs(correlation) < 0.02 + STANDARD_ERRORS / math.sqrt(NUM_CHAINS)
