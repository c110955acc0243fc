"""The public step of each stochastic gradient method, by hand, on one or two numbers."""

import math

import pytest
import torch

from gped_nas.posterior import adam, hmc, psgld, sghmc, sgld
from gped_nas.posterior.base import FlatParams


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_sgld_moves_against_half_the_gradient_and_by_the_noise():
    # 3 - 0.05 * 12 + sqrt(0.1 * 0.25) * 2
    theta = numbers(3.0)
    sgld.step(theta, numbers(12.0), numbers(2.0), step_size=0.1, temperature=0.25)
    assert float(theta) == pytest.approx(2.4 + 2 * math.sqrt(0.025))


def test_sgld_without_noise_is_gradient_descent():
    theta = numbers(3.0)
    sgld.step(theta, numbers(12.0), None, step_size=0.1, temperature=0.25)
    assert float(theta) == pytest.approx(2.4)


def test_psgld_scales_gradient_and_noise_by_its_metric():
    # D = 1 / 4: 3 - 0.05 * 12 / 4 + sqrt(0.1 * 0.25 / 4) * 2
    theta = numbers(3.0)
    psgld.step(
        theta,
        numbers(12.0),
        numbers(2.0),
        metric_W=numbers(0.25),
        step_size=0.1,
        temperature=0.25,
    )
    assert float(theta) == pytest.approx(2.85 + 2 * math.sqrt(0.00625))


def test_psgld_adapts_to_the_gradient_of_u_over_n():
    # 0.75 * 2 + 0.25 * (12 / 6)^2
    square = numbers(2.0)
    psgld.adapt(square, numbers(12.0), num_examples=6, decay=0.75)
    assert float(square) == pytest.approx(2.5)


def test_sghmc_kicks_drifts_forgets_and_drifts():
    # h = 0.1, m = 2, c = 1/2, T = 0.25, p = 1, g = 12:
    #   B p = -0.2, A theta = 3 - 0.005, O p = -0.1 + sqrt(0.75 * 0.5) * 2, A theta + 0.025 p
    theta, momentum = numbers(3.0), numbers(1.0)
    sghmc.step(
        theta,
        momentum,
        numbers(12.0),
        numbers(2.0),
        step_size=0.1,
        friction=math.log(2) / 0.1,
        mass=2.0,
        temperature=0.25,
    )
    expected = -0.1 + 2 * math.sqrt(0.375)
    assert float(momentum) == pytest.approx(expected)
    assert float(theta) == pytest.approx(2.995 + 0.025 * expected)


def test_a_fresh_momentum_has_the_variance_of_mass_times_temperature():
    momentum = numbers(7.0)
    sghmc.redraw(momentum, numbers(2.0), mass=2.0, temperature=0.125)
    assert float(momentum) == pytest.approx(1.0)


def test_leapfrog_turns_a_harmonic_oscillator():
    # U = theta^2 / 2, three steps of e = 0.2
    step_size, theta, momentum = 0.2, 1.0, 0.5
    for _ in range(3):
        half = momentum - step_size / 2 * theta
        theta = theta + step_size * half
        momentum = half - step_size / 2 * theta

    flat, moved = FlatParams({"theta": (1,)}, numbers(1.0)), numbers(0.5)
    flat.grad_W.copy_(flat.theta_W)
    energy = hmc.leapfrog(
        flat,
        moved,
        lambda params: params["theta"].square().sum() / 2,
        step_size=step_size,
        num_steps=3,
    )
    assert float(flat.theta_W) == pytest.approx(theta)
    assert float(moved) == pytest.approx(momentum)
    assert float(energy) == pytest.approx(theta**2 / 2)


def test_adams_first_step_has_the_size_of_lr():
    # m / (1 - beta_1) = g and v / (1 - beta_2) = g^2, so that theta moves by lr g / (|g| + 1e-8)
    theta, first, second = numbers(3.0, 3.0), numbers(0.0, 0.0), numbers(0.0, 0.0)
    adam.step(theta, first, second, numbers(5.0, -0.5), lr=0.1, number=1)
    torch.testing.assert_close(theta, numbers(2.9, 3.1), rtol=0, atol=1e-8)
    torch.testing.assert_close(first, numbers(0.5, -0.05))
    torch.testing.assert_close(second, numbers(0.025, 0.00025))
