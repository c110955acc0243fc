"""SGLD against the exact law of its own discretized chain.

With potential a theta^2 / 2 one step is theta <- (1 - eta a / 2) theta + N(0, eta T), so that with
r = 1 - eta a / 2, from theta_0 = m, after n steps

    mean      m r^n
    variance  v (1 - r^(2 n)),   v = eta T / (1 - r^2) = T / (a (1 - eta a / 4))
    covariance of theta_n and theta_(n + 1)   r variance

and every one of 320,000 parameters is a chain of its own. The variance estimate has a relative
standard error of sqrt(2 / 320000) = 0.25 %, so four of them see 1 %: a noise variance wrong by 5 %
moves it by 5 %, a drift wrong by 5 % by 3.1 % (eta a = 1) to 4.7 % (eta a = 0.1). An error below 1
% is not seen.
"""

import math

import pytest
import torch

from gped_nas import rng
from gped_nas.posterior.schedule import StepSize
from gped_nas.posterior.sgld import SgldConfig, sgld
from tests.scenarios import gaussian

NUM_CHAINS = 320_000
STANDARD_ERRORS = 4.0


def run(*, a: float, eta: float, temperature: float, steps: int, start: float, num_yields: int = 1):
    cfg = SgldConfig(
        name="sgld",
        step_size=StepSize(initial=eta),
        batch_size=1,
        burn_in=0,
        thinning=steps,
        temperature=temperature,
    )
    generator = rng.generator(1, "law", str(a), str(eta), str(temperature))
    chain = sgld(gaussian(NUM_CHAINS, precision=a, start=start), cfg, generator=generator)
    return [next(chain).sample.theta_W.double() for _ in range(num_yields)]


def stationary_variance(*, a: float, eta: float, temperature: float) -> float:
    return temperature / (a * (1 - eta * a / 4))


def misfit(theta: torch.Tensor, mean: float, variance: float) -> tuple[float, float]:
    """How far sample mean and variance are from the law, in standard errors."""
    n = len(theta)
    of_mean = (float(theta.mean()) - mean) / math.sqrt(variance / n)
    of_variance = (float(theta.var()) - variance) / (variance * math.sqrt(2 / (n - 1)))
    return abs(of_mean), abs(of_variance)


def test_the_stationary_law_by_hand():
    # eta a = 1: theta <- theta / 2 + N(0, eta), so v = v / 4 + eta, v = 4 eta / 3 = 4 / (3 a)
    assert stationary_variance(a=2.0, eta=0.5, temperature=1.0) == pytest.approx(4 / 6)
    # the one with a = 1, eta = 0.1: 1 / 0.975
    assert stationary_variance(a=1.0, eta=0.1, temperature=1.0) == pytest.approx(1.025641)


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize(
    ("a", "eta_a", "steps"), [(1.0, 0.1, 120), (10.0, 0.1, 120), (4.0, 1.0, 20)]
)
def test_stationary_variance_is_that_of_the_discretized_chain(a, eta_a, steps, temperature):
    eta = eta_a / a
    r = 1 - eta_a / 2
    # Mixed: what is left of the start is 1000 times below what the test sees.
    assert r ** (2 * steps) < 1e-5

    (theta,) = run(a=a, eta=eta, temperature=temperature, steps=steps, start=0.0)
    variance = stationary_variance(a=a, eta=eta, temperature=temperature)
    of_mean, of_variance = misfit(theta, 0.0, variance)
    assert of_mean < STANDARD_ERRORS
    assert of_variance < STANDARD_ERRORS


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_law_before_it_is_stationary(steps):
    a, eta, temperature, start = 2.0, 0.2, 0.25, 3.0
    r = 1 - eta * a / 2
    (theta,) = run(a=a, eta=eta, temperature=temperature, steps=steps, start=start)
    variance = stationary_variance(a=a, eta=eta, temperature=temperature) * (1 - r ** (2 * steps))
    of_mean, of_variance = misfit(theta, start * r**steps, variance)
    assert of_mean < STANDARD_ERRORS
    assert of_variance < STANDARD_ERRORS


def test_successive_states_have_the_covariance_of_fresh_noise():
    a, eta = 1.0, 0.5
    r = 1 - eta * a / 2
    before, after = run(a=a, eta=eta, temperature=1.0, steps=1, start=0.0, num_yields=2)

    # after = r before + noise: the noise has variance eta and nothing in common with before
    noise = after - r * before
    of_mean, of_variance = misfit(noise, 0.0, eta)
    correlation = float((noise * before).mean() / (noise.std() * before.std()))
    assert of_mean < STANDARD_ERRORS
    assert of_variance < STANDARD_ERRORS
    assert abs(correlation) < STANDARD_ERRORS / math.sqrt(NUM_CHAINS)


def test_temperature_zero_is_gradient_descent():
    (theta,) = run(a=1.0, eta=0.5, temperature=0.0, steps=3, start=8.0)
    torch.testing.assert_close(theta, torch.full_like(theta, 8 * 0.75**3))


def test_the_check_sees_five_percent_in_noise_and_in_drift():
    for eta_a, steps in ((0.1, 120), (1.0, 20)):
        law = stationary_variance(a=1.0, eta=eta_a, temperature=1.0)
        (noisy,) = run(a=1.0, eta=eta_a, temperature=1.05, steps=steps, start=0.0)
        assert misfit(noisy, 0.0, law)[1] > 2 * STANDARD_ERRORS
        (steep,) = run(a=1.05, eta=eta_a, temperature=1.0, steps=steps, start=0.0)
        assert misfit(steep, 0.0, law)[1] > 2 * STANDARD_ERRORS
