"""Chains on a device, in Triton's interpreter, against the chains of a processor."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from gped_nas.config import parse
from gped_nas.distill.phases.chain_walk import can_walk
from gped_nas.distill.phases.chains import walks_chains
from gped_nas.errors import DivergenceError
from gped_nas.posterior import conjugate
from gped_nas.posterior.base import METHODS
from gped_nas.posterior.likelihoods import CategoricalLikelihood, GaussianLikelihood
from gped_nas.posterior.priors import FanInGaussianPrior, LaplacePrior, LayeredGaussianPrior
from tests.distill.chain_reference import (
    NAMES,
    assert_same_state,
    config,
    reference,
    take,
    together,
)
from tests.distill.philox import noise, normal, philox
from tests.scenarios import METHOD_SETTINGS, TEACHER, classifier, unstructured

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is there on Linux"
)


# -------------------------------------------------------------------------------------------------
# against the processor's own steps


LONG = [pytest.param(temperature, 20, marks=pytest.mark.soak) for temperature in (1.0, 0.0)]


@pytest.mark.parametrize(("temperature", "num_steps"), [(1.0, 8), *LONG])
@pytest.mark.parametrize("name", NAMES)
def test_chains_step_as_on_a_processor(name, temperature, num_steps, monkeypatch):
    problem, cfg = classifier(), config(name, temperature=temperature)
    steps = take(together(problem, cfg), num_steps // cfg.thinning)
    expected = reference(name, problem, cfg, num_steps, monkeypatch)
    for i, (step,) in enumerate(steps):
        number = (i + 1) * cfg.thinning
        assert int(step.state["step"]) == number
        assert (step.sample is not None) == cfg.is_sample(number)
        for buffer, value in expected[number - 1].items():
            assert torch.allclose(step.state[buffer], value, rtol=1e-4, atol=1e-5), buffer


def of_regression(prior=None):
    """Linear regression of two outputs, whose posterior is known."""
    known = conjugate.regression()
    problem = known.problem if prior is None else replace(known.problem, log_prior=prior)
    return problem, GaussianLikelihood(name="gaussian", noise_std=0.7)


@pytest.mark.parametrize(
    "prior",
    [FanInGaussianPrior(scale=0.5), LayeredGaussianPrior(dense=30.0), LaplacePrior(scale=0.2)],
    ids=lambda prior: prior.name,
)
def test_every_prior_draws_as_on_a_processor(prior, monkeypatch):
    problem, likelihood = of_regression(prior)
    cfg = config("sgld", step_size={"initial": 1e-3})
    steps = take(together(problem, cfg, likelihood=likelihood), 3)
    expected = reference("sgld", problem, cfg, 6, monkeypatch)
    for i, (step,) in enumerate(steps):
        theta = expected[2 * i + 1]["theta"]
        assert torch.allclose(step.state["theta"], theta, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------------
# stopping, going on, and company


def test_company_and_a_stop_change_no_bit_of_a_chain():
    """Chains of different age step together, and each as it does alone."""
    problem, cfg = classifier(), config("sghmc")
    alone = [steps[0] for steps in take(together(problem, cfg, (2,)), 4)]

    (_, first) = take(together(problem, cfg, (0, 2)), 1)[0]
    assert_same_state(first, alone[0])
    resumed = take(together(problem, cfg, (2, 5), [first.state, None]), 3)
    for (step, _), other in zip(resumed, alone[1:], strict=True):
        assert_same_state(step, other)
    young = take(together(problem, cfg, (5,)), 1)[0][0]
    assert_same_state(resumed[0][1], young)


def test_a_chain_that_diverges_is_refused():
    cfg = config("sgld", step_size={"initial": 1e30})
    told = "sgld: parameters are not finite after 2 steps"
    # numpy, which stands in for a device, would say so first
    with np.errstate(all="ignore"), pytest.raises(DivergenceError, match=told):
        take(together(classifier(), cfg), 1)


def test_minibatches_drawn_together_are_those_of_one_draw_a_step():
    first, second = (torch.Generator().manual_seed(7) for _ in range(2))
    for num_examples in (24, 54_000, 2**33):
        at_once = torch.randint(num_examples, (50, 100), generator=first)
        in_turn = [torch.randint(num_examples, (100,), generator=second) for _ in range(50)]
        assert torch.equal(at_once, torch.stack(in_turn))
    assert torch.equal(first.get_state(), second.get_state())


def test_what_cannot_be_walked_is_left_to_the_processor():
    problem, cfg = classifier(), config("sgld")
    assert walks_chains(cfg, problem, CategoricalLikelihood(), 2)
    assert not walks_chains(cfg, unstructured(problem), CategoricalLikelihood(), 2)
    hmc = parse(METHODS["hmc"].config, {"name": "hmc", **METHOD_SETTINGS["hmc"]}, "hmc")
    assert not walks_chains(hmc, problem, CategoricalLikelihood(), 2)
    assert walks_chains(config("sgld", start="map"), problem, CategoricalLikelihood(), 2)
    finding = config("sgld", step_size={"halve_at": [3]})
    assert not walks_chains(finding, problem, CategoricalLikelihood(), 2)
    tanh = classifier(TEACHER.replace(activation="tanh"))
    assert not walks_chains(cfg, tanh, CategoricalLikelihood(), 2)
    # more numbers than 32 bits count
    assert not can_walk(problem, CategoricalLikelihood(), num_chains=64, batch_size=10**6)


# -------------------------------------------------------------------------------------------------
# noise


def moved(keys, steps, *, size, num_steps):
    """What chains (K, T, size) that stand at zero are moved by, step by step, from noise alone."""
    from gped_nas.distill.phases import chain_programs

    num_chains = len(keys)
    numbers = torch.zeros(num_chains, num_steps, 8)
    numbers[..., 1] = 1.0
    place = torch.zeros(1, dtype=torch.int32)
    moves = []
    for _ in range(num_steps):
        theta, unused = torch.zeros(num_chains, size), torch.zeros(num_chains, size)
        chain_programs.move[(-(-size // 1024), num_chains)](
            theta, unused, unused, torch.zeros(size), numbers, torch.tensor(keys),
            torch.tensor(steps), place, size, num_steps, 1.0, 0.0,
            RULE=0, IS_LAPLACE=False, QUARTER=256,
        )  # fmt: skip
        moves.append(theta)
        place += 1
    return torch.stack(moves, 1)


def test_philox_is_that_of_its_authors():
    """Known answers of Random123 1.14."""
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    expected = (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    assert philox((ones,) * 4, (ones,) * 2) == expected


def test_noise_is_the_quantile_of_philox_words():
    keys, steps = [2**62 + 12_345, 77], [5, 2**33 + 1]
    moves = moved(keys, steps, size=1500, num_steps=2)
    for k, key in enumerate(keys):
        for t in range(2):
            expected = noise(key, steps[k] + t, range(1500))
            assert torch.allclose(moves[k, t], expected, atol=2e-6)


def test_the_quantile_is_right_far_out():
    from tests.distill.quantile_program import quantiles

    words = [0, 1, 2, 3, 50, 51, 2**20, 2**28 + 1, 2**30, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1]
    words += [2**27, 2**26 + 1, 2**25]
    out = torch.zeros(16)
    quantiles[(1,)](torch.tensor(words), out, SIZE=16)
    expected = torch.tensor([normal(word) for word in words])
    assert torch.allclose(out[4:], expected[4:], rtol=1e-5, atol=1e-6)
    # four words of 2^32 are further out than the source's formula is right
    assert torch.allclose(out[:4], expected[:4], rtol=5e-4)


def test_noise_is_white():
    """Between parameters, steps and chains; and normal, in its moments and its tails."""
    moves_KTW = moved([11, 12, 13, 14], [0, 0, 100, 3], size=4096, num_steps=4)
    z_RW = moves_KTW.flatten(0, 1).double()
    count = z_RW.numel()

    assert abs(float(z_RW.mean())) < 4 / count**0.5
    assert abs(float(z_RW.square().mean()) - 1) < 4 * (2 / count) ** 0.5
    assert abs(float(z_RW.pow(4).mean()) - 3) < 4 * (96 / count) ** 0.5
    outside = float((z_RW.abs() > 1.959964).double().mean())
    assert abs(outside - 0.05) < 4 * (0.05 * 0.95 / count) ** 0.5

    # rows are a step of a chain each: any two of them, and each with itself moved
    size = z_RW.shape[1]
    correlation_RR = z_RW @ z_RW.mT / size
    limit = 5 / size**0.5
    assert float((correlation_RR - torch.diag(correlation_RR.diagonal())).abs().max()) < limit
    for shift in (1, 2, 3, 256, 512, 768, 1024):
        assert abs(float((z_RW * z_RW.roll(shift, 1)).mean())) < 4 / count**0.5
