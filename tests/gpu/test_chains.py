"""A teacher's chains on a GPU, against a processor's steps and against themselves."""

from dataclasses import replace

import pytest
import torch

from gped_nas.api import sampling
from gped_nas.api.session import Session
from gped_nas.api.teacher import load_dataset
from gped_nas.distill.phases.chain_walk import CHAINS
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.tiles import Sizes
from gped_nas.errors import Interrupted
from gped_nas.models.base import Genotype
from gped_nas.posterior import conjugate, laws
from gped_nas.posterior.base import posterior_of
from gped_nas.posterior.likelihoods import CategoricalLikelihood, GaussianLikelihood
from gped_nas.posterior.priors import GaussianPrior
from gped_nas.search.space_file import load_space
from tests.distill import chain_reference
from tests.distill.chain_reference import (
    NAMES,
    assert_same_state,
    config,
    on,
    reference,
    take,
    together,
)
from tests.gpu.place import DEVICE, IS_CARD, cases
from tests.scenarios import classifier, tree

LAUNCHES = [CHAINS, replace(CHAINS, precision="ieee"), Launch(Sizes(32, 32), depth=32)]


@pytest.mark.parametrize("name", cases(NAMES, NAMES[:1]))
def test_chains_step_as_on_a_processor(name, monkeypatch):
    problem, cfg = classifier(), config(name)
    num_steps = 20 if IS_CARD else 4
    steps = take(together(on(problem, DEVICE), cfg, launch=CHAINS), num_steps // cfg.thinning)
    expected = reference(name, problem, cfg, num_steps, monkeypatch)
    for i, (step,) in enumerate(steps):
        for buffer, value in expected[(i + 1) * cfg.thinning - 1].items():
            assert torch.allclose(step.state[buffer], value, rtol=1e-3, atol=1e-5), buffer


@pytest.mark.parametrize("launch", cases(LAUNCHES, LAUNCHES[:1]), ids=str)
def test_a_large_network_descends_as_on_a_processor(launch, monkeypatch):
    """Without noise, with tiles that are cut off, and parts that end before thinning does."""
    num_steps, widths = (300, [130, 90]) if IS_CARD else (2, [20, 18])
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn((500, 70), generator=generator), torch.arange(500) % 10
    problem = posterior_of(
        Genotype("mlp", depth=2, width=widths),
        x,
        y,
        num_outputs=10,
        prior=GaussianPrior(precision=10.0),
        likelihood=CategoricalLikelihood(),
        device=torch.device("cpu"),
    )
    settings = {"temperature": 0.0, "batch_size": 50, "thinning": num_steps, "burn_in": 0}
    cfg = config("sgld", **settings, step_size={"initial": 1e-5})
    ((step,),) = take(together(on(problem, DEVICE), cfg, launch=launch), 1)

    monkeypatch.setattr(chain_reference, "noise", lambda *args, **more: torch.zeros(()))
    expected = reference("sgld", problem, cfg, num_steps, monkeypatch)[-1]["theta"]
    assert float((step.state["theta"] - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("name", cases(NAMES, NAMES[:1]))
def test_company_and_a_stop_change_no_bit_of_a_chain(name):
    problem, cfg = on(classifier(), DEVICE), config(name)
    num_chains, rounds = (40, 6) if IS_CARD else (3, 2)
    alone = take(together(problem, cfg, (2,), launch=CHAINS), rounds)
    many = take(together(problem, cfg, tuple(range(num_chains)), launch=CHAINS), rounds)
    for steps, (other,) in zip(many, alone, strict=True):
        assert_same_state(steps[2], other)

    states = [None, alone[0][0].state]
    resumed = take(together(problem, cfg, (0, 2), states, launch=CHAINS), rounds - 1)
    for steps, (other,) in zip(resumed, alone[1:], strict=True):
        assert_same_state(steps[1], other)


@pytest.mark.parametrize("name", cases(["sgld", "sghmc"], ["sgld"]))
def test_the_law_of_a_gaussian_posterior(name):
    """Variances of many chains, against the exact law of the discretized chain."""
    num_chains, thinning, burn_in, rounds = (512, 20, 100, 15) if IS_CARD else (1, 2, 8, 6)
    known = conjugate.regression(precision=50.0)
    settings = {
        "sgld": {"step_size": {"initial": 0.01}},
        "sghmc": {"step_size": {"initial": 0.07}, "friction": 10.0},
    }[name]
    cfg = config(name, batch_size=240, burn_in=burn_in, thinning=thinning, **settings)
    likelihood = GaussianLikelihood(name="gaussian", noise_std=0.7)
    steps = together(
        on(known.problem, DEVICE),
        cfg,
        tuple(range(num_chains)),
        likelihood=likelihood,
        launch=CHAINS,
    )
    draws = []
    for of_chains in take(steps, rounds):
        draws += [step.sample.theta_W for step in of_chains if step.sample is not None]

    law = getattr(laws, name)(known, cfg, {})
    away_SW = torch.stack(draws).double() - law.mean_W
    # the draws of a chain are almost independent
    limit = 4.5 / len(draws) ** 0.5
    spread_W = away_SW.square().mean(0) / law.variance_W
    assert float((spread_W - 1).abs().max()) < limit * 2**0.5
    assert float((away_SW.mean(0) / law.variance_W.sqrt()).abs().max()) < limit


def test_a_stream_that_was_stopped_has_the_same_bytes(tmp_path, monkeypatch):
    """Through the door that everybody takes."""
    monkeypatch.setattr(sampling, "has_phases", lambda device: True)
    space = load_space("digits_sgld", {"teacher.genotype.width": 20})
    method = {"chains": 2, "num_samples": 4, "burn_in": 0, "thinning": 1, "batch_size": 16}
    space = replace(space, method=space.method.model_copy(update=method))
    dataset = load_dataset(space)
    whole = Session(DEVICE, streams=tmp_path / "whole")
    stopped = Session(DEVICE, streams=tmp_path / "stopped", should_stop=lambda: True)

    segments = tree(sampling.sample(space, dataset, whole).folder / "segments")
    with pytest.raises(Interrupted):
        sampling.sample(space, dataset, stopped)
    again = sampling.sample(space, dataset, replace(stopped, should_stop=lambda: False))
    assert tree(again.folder / "segments") == segments
    # noise by counter: a processor's chains draw other numbers
    monkeypatch.setattr(sampling, "has_phases", lambda device: False)
    elsewhere = Session(torch.device("cpu"), streams=tmp_path / "elsewhere")
    others = tree(sampling.sample(space, dataset, elsewhere).folder / "segments")
    assert others.keys() == segments.keys() and others != segments
