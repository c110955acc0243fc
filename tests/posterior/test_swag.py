"""SWAG: the points are plain SGD's, the moments are those of the points, samples have their law."""

import dataclasses

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.base import flatten, unflatten
from gped_nas.posterior.swag import SwagConfig, swag
from tests.posterior.chains import have_samples, take
from tests.scenarios import classifier

SETTINGS = {
    "steps": 200,
    "batch_size": 4,
    "swag_lr": 0.1,
    "collect_every": 3,
    "collections": 6,
    "rank": 4,
}


def steps(num, *, state=None, seed=0, problem=None, **settings):
    cfg = SwagConfig(name="swag", **{**SETTINGS, **settings})
    generator = rng.generator(seed, "swag")
    return take(swag(problem or classifier(), cfg, generator=generator, state=state), num)


def test_training_then_collecting_then_samples():
    assert have_samples(steps(10)) == [False] * 8 + [True] * 2


def test_the_points_are_plain_sgd_from_the_trained_network():
    problem = classifier()
    chain = steps(8)
    generator = rng.generator(0, "other")
    generator.set_state(chain[1].state["rng"])
    theta = chain[1].state["theta"].clone()

    for step in chain[2:]:
        for _ in range(3):
            index = torch.randint(problem.num_examples, (4,), generator=generator)
            leaf = theta.requires_grad_()
            potential = problem.potential(unflatten(leaf, problem.shapes), index)
            (gradient,) = torch.autograd.grad(potential, leaf)
            theta = (theta - 0.1 * gradient / problem.num_examples).detach()
        torch.testing.assert_close(step.state["theta"], theta, rtol=1e-4, atol=1e-5)


def test_moments_are_those_of_the_points():
    chain = steps(9)
    points = torch.stack([s.state["theta"] for s in chain[2:8]]).double()
    state = chain[8].state
    torch.testing.assert_close(state["mean"].double(), points.mean(0), rtol=1e-5, atol=1e-6)

    # the sum of the squared deviations, not their mean: 6 points
    square = points.var(0, correction=0) * 6
    torch.testing.assert_close(state["square"].double(), square, rtol=1e-3, atol=1e-8)

    # deviations of points 3 to 6 from the mean of all points up to each of them
    deviations = torch.stack([points[i] - points[: i + 1].mean(0) for i in range(2, 6)])
    torch.testing.assert_close(state["deviations"].double(), deviations, rtol=1e-3, atol=1e-6)


def test_a_sample_by_hand():
    chain = steps(10)
    state = chain[8].state
    generator = rng.generator(0, "other")
    generator.set_state(state["rng"])
    diagonal_noise = torch.randn(len(state["mean"]), generator=generator)
    shared_noise = torch.randn(4, generator=generator)

    # variance 1/2 v, and 1 / sqrt(2 (4 - 1)) in front of the deviations
    diagonal = (state["square"] / 6 / 2).sqrt() * diagonal_noise
    shared = state["deviations"].mT @ shared_noise / 6**0.5
    torch.testing.assert_close(chain[9].sample.theta_W, state["mean"] + diagonal + shared)


def test_divergence_names_the_step_size_that_caused_it():
    problem = classifier()
    with pytest.raises(DivergenceError, match=r"swag: .*teacher\.method\.swag_lr"):
        steps(9, swag_lr=1e4, collect_every=200)
    with pytest.raises(DivergenceError, match=r"swag: .*teacher\.method\.lr"):
        steps(1, problem=dataclasses.replace(problem, x=problem.x * float("inf")))


def test_chains_of_other_generators_differ():
    a, b = steps(9)[-1], steps(9, seed=1)[-1]
    assert not torch.equal(a.sample.theta_W, b.sample.theta_W)
    assert len(flatten(unflatten(a.sample.theta_W, classifier().shapes))) == len(b.sample.theta_W)


@pytest.mark.parametrize(
    "wrong", [{"rank": 7}, {"rank": 1}, {"swag_lr": 0.0}, {"temperature": 1.0}, {"steps": 150}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"here: {next(iter(wrong))}"):
        parse(SwagConfig, {"name": "swag", **SETTINGS, **wrong}, "here")
