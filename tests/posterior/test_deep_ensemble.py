"""Deep ensembles: members are MAP networks of their own, with anchors drawn from the prior."""

import dataclasses
import itertools

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.base import flatten, unflatten
from gped_nas.posterior.deep_ensemble import DeepEnsembleConfig, deep_ensemble
from gped_nas.posterior.map import MapConfig, map_estimate
from tests.posterior.chains import assert_same_states, have_samples, take, with_samples
from tests.scenarios import classifier, regression, with_bare_prior


def steps(num, *, state=None, seed=0, problem=None, **settings):
    cfg = DeepEnsembleConfig(name="deep_ensemble", **{"steps": 200, "batch_size": 4, **settings})
    generator = rng.generator(seed, "ensemble")
    return take(deep_ensemble(problem or classifier(), cfg, generator=generator, state=state), num)


def test_a_sample_when_a_member_is_done():
    assert have_samples(steps(6)) == [False, True] * 3


def test_members_are_map_networks_of_their_own():
    members = with_samples(steps(6))
    generator = rng.generator(0, "ensemble")
    cfg = MapConfig(name="map", steps=200, batch_size=4)

    # Each goes on drawing where the one before ended, and shares nothing else with it.
    for member in members:
        alone = list(map_estimate(classifier(), cfg, generator=generator))[-1]
        assert torch.equal(member.sample.theta_W, alone.sample.theta_W)

    starts = [flatten(classifier().initialize(rng.generator(i, "ensemble"))) for i in range(2)]
    distances = [
        (a.sample.theta_W - b.sample.theta_W).norm() for a, b in itertools.combinations(members, 2)
    ]
    assert min(distances) > 0.5 * float((starts[0] - starts[1]).norm())


@pytest.mark.parametrize("regularizer", ["prior", "anchor"])
def test_resuming_at_any_step_gives_the_same_bits(regularizer):
    whole = steps(6, regularizer=regularizer)
    for stop in range(5):
        rest = steps(5 - stop, state=whole[stop].state, seed=7, regularizer=regularizer)
        assert_same_states(whole[stop + 1 :], rest)
        assert have_samples(whole[stop + 1 :]) == have_samples(rest)


def test_members_are_continued_in_order():
    # four members at once, or two and later two more
    whole = steps(8)
    more = [*steps(4), *steps(4, state=whole[3].state, seed=3)]
    for a, b in zip(whole, more, strict=True):
        assert torch.equal(a.state["theta"], b.state["theta"])


def test_an_anchored_member_is_the_mode_of_its_anchored_potential():
    # Linear regression: (X^T X / s^2 + a) theta = X^T y / s^2 + a anchor,
    # that is theta = mean + a A^-1 anchor.
    problem, mean, precision = regression(precision=1.5)
    settings = {
        "steps": 800,
        "batch_size": 256,
        "lr": 0.02,
        "regularizer": "anchor",
        "problem": problem,
    }
    members = with_samples(steps(16, **settings))
    anchors = torch.stack([member.state["anchor"] for member in members]).double()
    assert not torch.equal(anchors[0], anchors[1])

    expected = mean + torch.linalg.solve(precision, 1.5 * anchors.mT).mT
    error = torch.stack([member.sample.theta_W for member in members]).double() - expected
    std = torch.linalg.inv(precision).diagonal().sqrt()

    # What is left is minibatch noise: a tenth of a posterior standard deviation. The anchors move
    # modes by more.
    assert (error.abs() < 0.1 * std).all()
    assert ((expected - mean).abs() > 0.1 * std).any(1).all()


def test_anchors_are_draws_from_the_prior():
    chain = steps(2, steps=100, regularizer="anchor")
    generator = rng.generator(0, "ensemble")
    problem = classifier()
    expected = flatten(problem.prior.sample(problem.shapes, generator=generator))
    assert torch.equal(chain[0].state["anchor"], expected)
    assert unflatten(chain[1].state["anchor"], problem.shapes).keys() == problem.shapes.keys()


def test_an_unknown_prior_has_no_anchors():
    with pytest.raises(ConfigError, match="regularizer"):
        steps(1, regularizer="anchor", problem=with_bare_prior(classifier()))


def test_divergence_is_an_error():
    broken = dataclasses.replace(classifier(), x=classifier().x * float("inf"))
    with pytest.raises(DivergenceError, match=r"deep_ensemble: .*teacher\.method\.lr"):
        steps(1, problem=broken)


@pytest.mark.parametrize("wrong", [{"regularizer": "none"}, {"temperature": 1.0}, {"steps": 150}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"here: {next(iter(wrong))}"):
        parse(DeepEnsembleConfig, {"name": "deep_ensemble", **wrong}, "here")
