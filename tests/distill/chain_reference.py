"""The chains of a device beside the steps of a processor, with the same noise."""

import importlib
import itertools
from dataclasses import replace

import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.distill.phases.chain_layout import ChainLayout
from gped_nas.distill.phases.chains import ChainsTogether
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.tiles import Sizes
from gped_nas.posterior.base import METHODS, FlatParams, flatten
from gped_nas.posterior.chain import nothing_more
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from tests.distill.philox import noise
from tests.scenarios import METHOD_SETTINGS

SMALL = Launch(Sizes(16, 16), depth=16)
NAMES = ["sgld", "csgld", "psgld", "sghmc", "csghmc"]
SEED = 3


def config(name, **changes):
    """A small setting of a method."""
    settings = {"name": name, **METHOD_SETTINGS[name], "batch_size": 6, **changes}
    return parse(METHODS[name].config, settings, name)


def on(problem, device):
    """The problem with its data on a device."""
    return replace(problem, x=problem.x.to(device), y=problem.y.to(device))


def together(problem, cfg, chains=(0,), states=None, *, likelihood=None, launch=SMALL):
    """The steps of chains that walk."""
    likelihood = likelihood or CategoricalLikelihood()
    run = ChainsTogether(problem, cfg, likelihood, SEED, launch)
    return run(chains, states or [None] * len(chains))


def take(steps, num):
    """The first of them, and no more are begun."""
    taken = list(itertools.islice(steps, num))
    steps.close()
    return taken


def assert_same_state(step, other):
    """Both are where the other is, to the bit."""
    assert step.state.keys() == other.state.keys()
    for name, value in step.state.items():
        assert torch.equal(value, other.state[name]), name


def updates_of(name, problem, cfg, generator, monkeypatch):
    """What the method's module moves a chain by: ``update`` and ``start``."""
    module = importlib.import_module(f"gped_nas.posterior.{name}")

    def seized(problem, cfg, update, *, start=nothing_more, generator, state):
        return update, start

    monkeypatch.setattr(module, "run_chain", seized)
    return METHODS[name].run(problem, cfg, generator=generator, state=None)


def reference(name, problem, cfg, num_steps, monkeypatch, chain=0):
    """Buffers after each step of a chain on the processor, with the noise of a device."""
    generator = rng.generator(SEED, "posterior", chain)
    key = rng.seed(SEED, "posterior", chain, "noise")
    places = ChainLayout.of(problem.shapes, problem.network.dense, 1).positions_W

    update, start = updates_of(name, problem, cfg, generator, monkeypatch)
    theta = flatten(problem.initialize(generator))
    buffers = {"theta": theta, **start(theta)}
    flat = FlatParams(problem.shapes, theta)
    reached = []
    for step in range(num_steps):
        index_B = torch.randint(problem.num_examples, (cfg.batch_size,), generator=generator)
        # where two draws are made in a step, the first is a fresh momentum
        redraws = name == "csghmc" and step % cfg.step_size.length == cfg.explored
        draws = iter([1, 0] if redraws else [0])

        def draw(step=step, draws=draws):
            return noise(key, step, places, draw=next(draws))

        update(buffers, problem.gradient(flat, index_B), step, draw)
        reached.append({name: buffer.clone() for name, buffer in buffers.items()})
    return reached
