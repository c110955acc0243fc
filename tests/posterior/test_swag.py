import dataclasses
import itertools

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.base import flatten, unflatten
from gped_nas.posterior.swag import SwagConfig, swag
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
    return list(
        itertools.islice(swag(problem or classifier(), cfg, generator=generator, state=state), num)
    )


def test_training_then_collecting_then_samples():
    assert [s.sample is not None for s in steps(10)] == [False] * 8 + [True] * 2


def test_the_points_are_plain_sgd_from_the_trained_network():
    problem, found = classifier(), steps(8)
    generator = rng.generator(0, "other")
    generator.set_state(found[1].state["rng"])
    theta = found[1].state["theta"].clone()
    for step in found[2:]:
        for _ in range(3):
            index = torch.randint(problem.num_examples, (4,), generator=generator)
            leaf = theta.requires_grad_()
            (gradient,) = torch.autograd.grad(
                problem.potential(unflatten(leaf, problem.shapes), index), leaf
            )
            theta = (theta - 0.1 * gradient / problem.num_examples).detach()
        torch.testing.assert_close(step.state["theta"], theta, rtol=1e-4, atol=1e-5)


def test_moments_are_those_of_the_points():
    found = steps(9)
    points = torch.stack([s.state["theta"] for s in found[2:8]]).double()
    state = found[8].state
    torch.testing.assert_close(state["mean"].double(), points.mean(0), rtol=1e-5, atol=1e-6)
    # the square of the deviations, not their mean: 6 points
    torch.testing.assert_close(
        state["square"].double(), points.var(0, correction=0) * 6, rtol=1e-3, atol=1e-8
    )
    # deviations of points 3 to 6 from the mean of all points up to each of them
    deviations = torch.stack([points[i] - points[: i + 1].mean(0) for i in range(2, 6)])
    torch.testing.assert_close(state["deviations"].double(), deviations, rtol=1e-3, atol=1e-6)


def test_a_sample_by_hand():
    found = steps(10)
    state = found[8].state
    generator = rng.generator(0, "other")
    generator.set_state(state["rng"])
    own = torch.randn(len(state["mean"]), generator=generator)
    shared = torch.randn(4, generator=generator)
    # variance 1/2 v, and 1 / sqrt(2 (4 - 1)) in front of the deviations
    expected = (
        state["mean"]
        + (state["square"] / 6 / 2).sqrt() * own
        + state["deviations"].mT @ shared / 6**0.5
    )
    torch.testing.assert_close(found[9].sample.theta_W, expected)


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
