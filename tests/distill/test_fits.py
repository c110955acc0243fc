"""Networks trained together on a device, in Triton's interpreter, against those of a processor."""

import importlib.util
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.distill.phases.chains import walks_chains
from gped_nas.distill.phases.fits import (
    MembersTogether,
    begin_fit,
    fit_together,
    resume_fit,
    walks_members,
)
from gped_nas.errors import DivergenceError
from gped_nas.posterior import adam
from gped_nas.posterior.base import METHODS
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from gped_nas.posterior.priors import GaussianPrior, LaplacePrior
from tests.distill.chain_reference import SEED, SMALL, config, take, together
from tests.scenarios import classifier, unstructured

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is there on Linux"
)

LIKELIHOOD = CategoricalLikelihood()
STEPS = 4


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Trainings of a few steps, looked at every two of them."""
    monkeypatch.setattr(adam, "CHECK_EVERY", 2)


def settings(name, **changes):
    """A short training by a method."""
    few = {"name": name, "steps": STEPS, "batch_size": 6, "lr": 0.01, **changes}
    return parse(METHODS[name].config, few, name)


def alone(problem, cfg, chain=0, state=None):
    """The steps of a chain on the processor."""
    generator = rng.generator(SEED, "posterior", chain)
    return METHODS[cfg.name](problem, cfg, generator=generator, state=state)


def members_of(problem, cfg, chain, num, state=None):
    """The first samples of a chain on the processor."""
    samples = (s.sample for s in alone(problem, cfg, chain, state) if s.sample is not None)
    return [sample.theta_W for sample in itertools.islice(samples, num)]


def walked(problem, cfg, chains, num, states=None):
    """The first rounds of members that are trained together."""
    run = MembersTogether(problem, cfg, LIKELIHOOD, SEED, SMALL)
    return take(run(chains, states or [None] * len(chains)), num)


def assert_near(theta_W, expected_W):
    assert torch.allclose(theta_W, expected_W, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("regularizer", ["prior", "anchor"])
def test_members_are_those_of_a_processor(regularizer):
    """Two chains of three members each: the third is of a second training of all."""
    problem = classifier()
    cfg = settings("deep_ensemble", regularizer=regularizer, num_samples=4, chains=2)
    assert walks_members(cfg, problem, LIKELIHOOD)

    rounds = walked(problem, cfg, (0, 1), 3)
    for chain in (0, 1):
        expected = members_of(problem, cfg, chain, 3)
        for steps, theta_W in zip(rounds, expected, strict=True):
            assert_near(steps[chain].sample.theta_W, theta_W)


def test_a_chain_that_was_stopped_goes_on_with_its_members():
    """After a member of either machine, and in the middle of one that a processor began."""
    problem = classifier()
    cfg = settings("deep_ensemble", regularizer="anchor", num_samples=2, chains=2)
    expected = members_of(problem, cfg, 0, 3)

    (first, other) = walked(problem, cfg, (0, 1), 1)[0]
    idle, (second, _) = walked(problem, cfg, (0, 1), 2, [first.state, other.state])
    assert [step.sample for step in idle] == [None, None]
    assert_near(second.sample.theta_W, expected[1])

    (*_, state) = [s.state for s in itertools.islice(alone(problem, cfg), STEPS // 2 + 1)]
    assert int(state["step"]) == 2
    (second, fresh), (third, _) = walked(problem, cfg, (0, 1), 2, [state, None])
    assert_near(second.sample.theta_W, expected[1])
    assert_near(third.sample.theta_W, expected[2])
    assert_near(fresh.sample.theta_W, members_of(problem, cfg, 1, 1)[0])

    # what a device leaves, a processor goes on with
    (theta_W,) = members_of(problem, cfg, 0, 1, first.state)
    assert_near(theta_W, expected[1])


def test_a_map_teacher_is_that_of_a_processor():
    problem, cfg = classifier(), settings("map")
    ((step,),) = walked(problem, cfg, (0,), 1)
    assert_near(step.sample.theta_W, members_of(problem, cfg, 0, 1)[0])


@pytest.mark.parametrize("kind", [GaussianPrior, LaplacePrior], ids=lambda kind: kind.__name__)
def test_networks_under_priors_of_their_own_are_trained_together(kind):
    """Each as alone: company changes no bit of it, and a processor changes its rounding."""
    problem, cfg = classifier(), settings("map", lr=0.05)
    strengths = [0.5, 40.0]
    make = (lambda s: kind(precision=s)) if kind is GaussianPrior else (lambda s: kind(scale=1 / s))

    def fit(places):
        fits = [begin_fit(problem, rng.generator(SEED, "map", place)) for place in places]
        priors = [make(strengths[place]) for place in places]
        (*_, steps) = fit_together(problem, cfg, LIKELIHOOD, fits, priors=priors, launch=SMALL)
        return [step.sample.theta_W for step in steps]

    both = fit([0, 1])
    assert torch.equal(both[1], fit([1])[0])
    for place, theta_W in enumerate(both):
        tight = replace(problem, log_prior=make(strengths[place]))
        generator = rng.generator(SEED, "map", place)
        (*_, step) = METHODS["map"](tight, cfg, generator=generator)
        assert_near(theta_W, step.sample.theta_W)


def test_a_training_that_was_stopped_ends_with_the_same_bits():
    problem, cfg = classifier(), settings("map")
    steps = list(alone(problem, cfg))
    resumed = resume_fit(steps[0].state, torch.Generator())
    ((step,),) = fit_together(problem, cfg, LIKELIHOOD, [resumed], launch=SMALL)
    assert_near(step.sample.theta_W, steps[-1].sample.theta_W)
    assert int(step.state["step"]) == STEPS
    assert torch.equal(step.state["rng"], steps[-1].state["rng"])


def test_a_network_that_diverges_is_refused():
    told = "map: parameters are not finite after 4 steps .*; lower teacher.method.lr"
    # numpy, which stands in for a device, would say so first
    with np.errstate(all="ignore"), pytest.raises(DivergenceError, match=told):
        walked(classifier(), settings("map", lr=1e38), (0,), 1)


def test_what_cannot_be_trained_together_is_left_to_the_processor():
    problem = classifier()
    assert not walks_members(settings("map"), unstructured(problem), LIKELIHOOD)


# -------------------------------------------------------------------------------------------------
# chains that begin at trained networks


@pytest.mark.parametrize("num_trained", [0, 1, 2])
def test_chains_begin_at_networks_that_are_trained_together(num_trained):
    """From nothing, and where a processor's training was stopped; noise is that of a device."""
    problem = classifier()
    start = {"name": "map", "steps": STEPS, "batch_size": 5, "lr": 0.02}
    cfg = config("sghmc", start=start)
    assert walks_chains(cfg, problem, LIKELIHOOD, 2)
    states = [None, None]
    trained = [step.state for step in itertools.islice(alone(problem, cfg), STEPS // 2)]
    if num_trained:
        states[0] = trained[num_trained - 1]

    before, steps = take(together(problem, cfg, (0, 1), states), 2)
    assert [step.sample for step in before] == [None, None]
    assert_near(before[0].state["start_theta"], trained[-1]["start_theta"])
    assert torch.equal(before[0].state["start_rng"], trained[-1]["start_rng"])
    assert int(steps[0].state["step"]) == cfg.thinning

    # as a chain whose parameters are given
    again = take(together(problem, cfg, (0, 1), [step.state for step in before]), 1)[0]
    for step, other in zip(steps, again, strict=True):
        for name, value in step.state.items():
            assert torch.equal(value, other.state[name]), name
