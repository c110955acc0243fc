"""The law of chains on a device: that of the discretized chain on a Gaussian posterior.

Copies of a regression are the outputs of one dense layer. They share minibatches, which are large
enough that their noise hardly depends on where a copy is.
"""

import importlib.util
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from gped_nas.config import parse
from gped_nas.distill.phases import chain_walk
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.tiles import Sizes
from gped_nas.posterior import conjugate, laws, selftest
from gped_nas.posterior.base import METHODS, Network
from gped_nas.posterior.likelihoods import GaussianLikelihood
from gped_nas.posterior.trials import TRIALS, Trial
from tests.distill.chain_reference import NAMES, together

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is there on Linux"
)
COPIES, BATCH = 192, 256
LARGE = Launch(Sizes(512, 256), depth=64)
QUICK = Trial(
    "few steps",
    {"step_size": {"initial": 0.01}, "burn_in": 8, "thinning": 4},
    laws.sgld,
    prior=50.0,
    samples=4,
)


def copies(known):
    """So many regressions as one layer, and what is known of its outputs."""
    problem = known.problem
    num_outputs = 2 * COPIES
    shapes = {"w": (num_outputs, 3), "b": (num_outputs,)}

    def log_likelihood(outputs, y):
        return -0.5 * (outputs - y).square().sum(1) / 0.7**2

    return replace(
        problem,
        shapes=shapes,
        log_likelihood=Network(
            lambda params, x: F.linear(x, params["w"], params["b"]),
            log_likelihood,
            last_layer=("w", "b"),
            dense=(("w", "b"),),
        ),
        # at the mean, so that spreading is all that takes time
        initialize=lambda generator: {
            "w": known.mean_W[:6].float().repeat(COPIES).view(num_outputs, 3),
            "b": known.mean_W[6:].float().repeat(COPIES),
        },
        y=problem.y.repeat(1, COPIES),
    )


def of_copies(flat_W):
    """Numbers of a layer's parameters (W,), copy by copy, (COPIES, 8)."""
    weights = flat_W[: 6 * COPIES].view(COPIES, 6)
    return torch.cat([weights, flat_W[6 * COPIES :].view(COPIES, 2)], 1)


def find(name, trial, num_samples):
    """What the selftest finds of chains that walk."""
    known = conjugate.regression(precision=trial.prior)
    settings = {"name": name, **trial.settings, "batch_size": BATCH}
    cfg = parse(METHODS[name].config, settings, name)
    likelihood = GaussianLikelihood(name="gaussian", noise_std=0.7)
    steps = together(copies(known), cfg, likelihood=likelihood, launch=LARGE)

    draws = []
    while len(draws) < num_samples:
        ((step,),) = [next(steps)]
        if step.sample is not None:
            draws.append(of_copies(step.sample.theta_W.double()))
    state = {n: of_copies(v).flatten() for n, v in step.state.items() if n not in ("step", "rng")}
    return selftest._compare(name, trial, known, torch.stack(draws), trial.law(known, cfg, state))


@pytest.fixture(autouse=True)
def _one_program_moves_all(monkeypatch):
    monkeypatch.setattr(chain_walk, "_QUARTER", 2048)


def test_sgld_has_its_stationary_variance(monkeypatch):
    """Within four standard errors of its mean and variances."""
    monkeypatch.setattr(selftest, "STANDARD_ERRORS", 4.0)
    finding = find("sgld", QUICK, QUICK.samples)
    assert finding.ok, finding
    assert finding.sees < 0.25


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_methods_pass_their_selftest(name):
    (trial,) = TRIALS[name]
    finding = find(name, trial, 6)
    assert finding.ok, finding
