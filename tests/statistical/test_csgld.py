"""Cyclical SGLD against the exact recursion of its mean and variance over cycles, at temperature 1.

With potential a theta^2 / 2 step k multiplies theta by r_k = 1 - eta_k a / 2 and adds N(0, eta_k
T_k), T_k being 0 while exploring: the mean follows r_k m and the variance r_k^2 v + eta_k T_k,
which is iterated here in float64. The problem has fifty examples (that say nothing), so that a
temperature of 1 / N would be fifty times too small. Each of 320,000 parameters is a chain of its
own: four standard errors see 1 % in the variance, and no less.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from gped_nas import rng
from gped_nas.posterior.csgld import CyclicConfig, csgld
from gped_nas.posterior.schedule import CosineCycles
from tests.scenarios import gaussian
from tests.statistical.test_sgld import NUM_CHAINS, STANDARD_ERRORS, misfit

A, INITIAL, LENGTH, THINNING, START = 4.0, 0.4, 40, 5, 2.0


def law(steps: int, *, explored: int, temperature: float = 1.0) -> tuple[float, float]:
    """Mean and variance after ``steps`` steps, written out."""
    mean, variance = START, 0.0
    for k in range(steps):
        position = k % LENGTH
        eta = INITIAL / 2 * (math.cos(math.pi * position / LENGTH) + 1)
        r = 1 - eta * A / 2
        mean *= r
        variance *= r * r
        if position >= explored:
            variance += eta * temperature
    return mean, variance


def run(*, exploration: float, temperature: float = 1.0) -> dict[int, torch.Tensor]:
    """Samples of the first three cycles by the step they were taken after."""
    cfg = CyclicConfig(
        name="csgld",
        step_size=CosineCycles(initial=INITIAL, length=LENGTH),
        batch_size=1,
        burn_in_cycles=1,
        samples_per_cycle=3,
        thinning=THINNING,
        exploration=exploration,
        temperature=temperature,
    )

    problem = replace(
        gaussian(NUM_CHAINS, precision=A, start=START),
        x=torch.zeros(50, 1),
        y=torch.zeros(50, dtype=torch.int64),
    )
    chain = csgld(problem, cfg, generator=rng.generator(1, "law", str(exploration)))
    steps = itertools.islice(chain, 3 * LENGTH // THINNING)
    return {int(s.state["step"]): s.sample.theta_W.double() for s in steps if s.sample is not None}


@pytest.mark.parametrize(("exploration", "explored"), [(0.0, 0), (0.5, 20), (0.625, 25)])
def test_samples_have_the_mean_and_variance_of_the_recursion(exploration, explored):
    samples = run(exploration=exploration)
    assert sorted(samples) == [70, 75, 80, 110, 115, 120]
    for step, theta in samples.items():
        of_mean, of_variance = misfit(theta, *law(step, explored=explored))
        assert of_mean < STANDARD_ERRORS
        assert of_variance < STANDARD_ERRORS


def test_the_law_is_the_posterior_only_when_the_cycle_gives_it_time():
    # At temperature 1, not 1 / 50: close to 1 / a, above it from the large steps, below it after a
    # long exploration.
    variance = [law(3 * LENGTH, explored=e)[1] * A for e in (0, 25, 35)]
    assert variance[0] == pytest.approx(1, abs=0.08)
    assert variance[1] < variance[0]
    assert variance[2] < 0.5


def test_the_check_sees_five_percent_in_the_noise():
    for step, theta in run(exploration=0.5, temperature=1.05).items():
        assert misfit(theta, *law(step, explored=20))[1] > 2 * STANDARD_ERRORS
