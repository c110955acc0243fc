"""Where the particles of ``svgd`` come to rest, against what must hold there.

* Two particles of N(mu, s^2 I): the bandwidth makes k = 1/2 for the pair, and phi = 0 then says
  (1 - k) d / s^2 = k 4 d / h with distance 2 d, so h = 4 s^2 = (2 d)^2 / log 2: d = s sqrt(log 2).
* Any number of particles of N(mu, A^-1): the pushes apart cancel in the sum of phi over particles,
  so that sum_j kappa_j A (x_j - mu) = 0 with kappa_j = sum_i k(x_i, x_j): the mean weighted by
  kappa is mu, exactly.
* In one dimension many particles fill the law: 20 of them have its variance within 10 %.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.models.base import Params
from gped_nas.posterior.base import Problem
from gped_nas.posterior.svgd import SvgdConfig, direction, svgd
from tests.scenarios import gaussian

MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def normal(precision_WW: Tensor) -> Problem:
    """The posterior N(MEAN, precision^-1), in float64, with starts far away."""
    size = len(precision_WW)

    def log_prior(params: Params) -> Tensor:
        away = params["theta"] - MEAN[:size]
        return -0.5 * away @ precision_WW @ away

    def initialize(generator: torch.Generator) -> Params:
        return {"theta": 3 * torch.randn(size, generator=generator, dtype=torch.float64)}

    return replace(gaussian(size, precision=1.0), log_prior=log_prior, initialize=initialize)


def at_rest(problem: Problem, particles: int, *, lr: float = 0.1, steps: int = 1500) -> Tensor:
    """The particles (n, W), at the end of the training."""
    cfg = SvgdConfig(name="svgd", particles=particles, steps=steps, lr=lr, batch_size=1)
    drawn = list(svgd(problem, cfg, generator=rng.generator(0, "svgd")))
    samples = [step.sample.theta_W for step in drawn if step.sample is not None]
    assert len(samples) == particles
    particles_NW = drawn[-1].state["particles"]
    assert torch.equal(torch.stack(samples), particles_NW.float())
    return particles_NW


@pytest.mark.parametrize("size", [1, 3])
def test_two_particles_of_a_round_normal_end_where_they_must(size: int) -> None:
    first, second = at_rest(normal(4 * torch.eye(size, dtype=torch.float64)), 2)
    torch.testing.assert_close((first + second) / 2, MEAN[:size], atol=1e-4, rtol=0)
    # s = 1/2, so that the distance is sqrt(log 2) = .8326
    assert float((first - second).norm()) == pytest.approx(math.sqrt(math.log(2)), abs=1e-4)


def test_the_kernels_mean_of_many_particles_is_the_posteriors() -> None:
    precision = torch.tensor([[4.0, 1.0, 0.0], [1.0, 2.0, 0.3], [0.0, 0.3, 1.0]]).double()
    particles_NW = at_rest(normal(precision), 8)

    rest_NW = direction(particles_NW, (particles_NW - MEAN) @ precision)
    assert rest_NW.abs().max() < 1e-4

    square_NN = torch.cdist(particles_NW, particles_NW).square()
    bandwidth = square_NN[square_NN > 0].median() / math.log(8)
    kappa_N = (-square_NN / bandwidth).exp().sum(0)
    mean_W = kappa_N @ particles_NW / kappa_N.sum()
    torch.testing.assert_close(mean_W, MEAN, atol=2e-4, rtol=0)
    # what they are known for: they are closer together than draws
    assert (particles_NW.mT.cov().diagonal() < 0.8 * precision.inverse().diagonal()).all()


def test_in_one_dimension_many_particles_have_the_posteriors_variance() -> None:
    particles = at_rest(normal(torch.tensor([[4.0]]).double()), 20, lr=0.1, steps=800)
    assert float(particles.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(particles.var()) == pytest.approx(0.25, rel=0.1)


def test_the_direction_is_that_of_its_definition() -> None:
    """Pair by pair, with the kernel's gradient by autograd."""
    generator = torch.Generator().manual_seed(0)
    points, gradient = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    distances = [(points[i] - points[j]).norm() for i in range(5) for j in range(i)]
    bandwidth = torch.stack(distances).median() ** 2 / math.log(5)

    expected = torch.zeros_like(points)
    for i in range(5):
        for j in range(5):
            x = points[j].clone().requires_grad_()
            kernel = (-(x - points[i]).square().sum() / bandwidth).exp()
            (push,) = torch.autograd.grad(kernel, x)
            expected[i] += (-kernel.detach() * gradient[j] + push) / 5
    torch.testing.assert_close(direction(points, gradient), expected)


def test_particles_in_one_place_stay_together() -> None:
    points, gradient = torch.ones(3, 2), torch.ones(3, 2)
    assert direction(points, gradient).tolist() == [[-1.0, -1.0]] * 3
