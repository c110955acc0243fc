"""Cyclical SGHMC against the exact recursion of its covariance over cycles, at temperature 1.

With potential a theta^2 / 2 every part of a step is linear in (theta, p), so that mean and
covariance follow a recursion that is iterated here in float64: kick, drift, friction with its
noise, drift, and a fresh momentum where the noise of a cycle begins. Fifty examples (that say
nothing) would make a temperature of 1 / N fifty times too small. Each of 320,000 parameters is a
chain of its own: four standard errors see 1 % in the variance, and no less.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gped_nas import rng
from gped_nas.posterior.csghmc import CsghmcConfig, csghmc
from gped_nas.posterior.schedule import CosineCycles
from tests.scenarios import gaussian
from tests.statistical.test_sgld import NUM_CHAINS, STANDARD_ERRORS, misfit

A, INITIAL, LENGTH, THINNING, START, FRICTION, MASS = 4.0, 0.5, 40, 5, 2.0, 1.5, 2.0


def law(steps: int, *, explored: int) -> tuple[float, float]:
    """Mean and variance of theta after ``steps`` steps, written out."""
    mean, covariance = np.array([START, 0.0]), np.zeros((2, 2))
    for k in range(steps):
        position = k % LENGTH
        # A fresh momentum of variance ``mass`` where the noise begins.
        if position == explored:
            mean[1] = 0.0
            covariance[1, :] = 0.0
            covariance[:, 1] = 0.0
            covariance[1, 1] = MASS

        h = INITIAL / 2 * (math.cos(math.pi * position / LENGTH) + 1)
        c = math.exp(-FRICTION * h)
        kick = np.array([[1.0, 0.0], [-h * A, 1.0]])
        drift = np.array([[1.0, h / (2 * MASS)], [0.0, 1.0]])
        until_noise = np.diag([1.0, c]) @ drift @ kick
        heat = np.diag([0.0, (1 - c * c) * MASS if position >= explored else 0.0])

        mean = drift @ until_noise @ mean
        covariance = drift @ (until_noise @ covariance @ until_noise.T + heat) @ drift.T
    return float(mean[0]), float(covariance[0, 0])


def run(*, exploration: float, temperature: float = 1.0) -> dict[int, torch.Tensor]:
    """Samples of the first three cycles by the step they were taken after."""
    cfg = CsghmcConfig(
        name="csghmc",
        step_size=CosineCycles(initial=INITIAL, length=LENGTH),
        friction=FRICTION,
        mass=MASS,
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
    chain = csghmc(problem, cfg, generator=rng.generator(1, "law", str(exploration)))
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


def test_the_law_is_close_to_the_posterior_without_exploration():
    assert law(10 * LENGTH, explored=0)[1] * A == pytest.approx(1, abs=0.08)


def test_the_check_sees_five_percent_in_the_noise():
    for step, theta in run(exploration=0.5, temperature=1.05).items():
        assert misfit(theta, *law(step, explored=20))[1] > 1.5 * STANDARD_ERRORS
