"""Mean-field VI: its free energy by hand, local draws of outputs, and independent samples."""

import dataclasses
import math

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.models.base import FAMILIES, num_params
from gped_nas.posterior.base import flatten, supervised_network
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from gped_nas.posterior.vi import ViConfig, free_energy, local_outputs, vi
from tests.posterior.chains import have_samples, take
from tests.scenarios import (
    GENOTYPES,
    INPUT_SHAPE,
    NUM_CLASSES,
    classifier,
    regression,
    unstructured,
    with_bare_prior,
)

PROBLEM = classifier()
SIZE = num_params(PROBLEM.shapes)


def steps(num, *, state=None, seed=0, problem=PROBLEM, **settings):
    cfg = ViConfig(name="vi", **{"steps": 300, "batch_size": 4, **settings})
    return take(vi(problem, cfg, generator=rng.generator(seed, "vi"), state=state), num)


def test_training_then_independent_samples():
    chain = steps(6)
    assert have_samples(chain) == [False, False, False, True, True, True]
    assert all(torch.equal(s.state["theta"], chain[2].state["theta"]) for s in chain[3:])

    generator = rng.generator(0, "other")
    generator.set_state(chain[3].state["rng"])
    noise = torch.randn(SIZE, generator=generator)
    theta = chain[2].state["theta"]
    expected = theta[:SIZE] + theta[SIZE:].exp() * noise
    torch.testing.assert_close(chain[4].sample.theta_W, expected)


def test_it_starts_where_it_is_told():
    # with a step size of nothing, mean and spread stay what they were
    theta = steps(1, steps=100, lr=1e-12, initial_std=0.2)[0].state["theta"]
    expected = flatten(PROBLEM.initialize(rng.generator(0, "vi")))
    torch.testing.assert_close(theta[:SIZE], expected)
    torch.testing.assert_close(theta[SIZE:], torch.full((SIZE,), math.log(0.2)))


@pytest.mark.parametrize("genotype", GENOTYPES["mlp"], ids=str)
def test_the_chain_of_dense_layers_is_the_network(genotype):
    family = FAMILIES["mlp"]
    shapes = genotype.shapes(INPUT_SHAPE, NUM_CLASSES)
    network = supervised_network(family, shapes, CategoricalLikelihood())
    params = draw_params(shapes)
    zero = {n: torch.zeros_like(p) for n, p in params.items()}

    outputs = local_outputs(network, params, zero, PROBLEM.x, generator=rng.generator(0, "y"))
    assert len(network.dense) == genotype["depth"] + 1
    torch.testing.assert_close(outputs, family.forward(params, PROBLEM.x))


def draw_params(shapes):
    generator = rng.generator(0, "params")
    return {n: torch.randn(s, generator=generator) for n, s in shapes.items()}


def test_a_network_with_more_than_dense_layers_is_no_chain():
    family = FAMILIES["mlp"]
    assert supervised_network(family, PROBLEM.shapes, CategoricalLikelihood()).dense

    with_gain = {"gain": (4,), **PROBLEM.shapes}
    assert supervised_network(family, with_gain, CategoricalLikelihood()).dense == ()
    for genotype in [*GENOTYPES["cnn"], *GENOTYPES["resnet"]]:
        assert not classifier(genotype).network.dense


def test_the_local_draw_has_the_law_of_a_draw_of_the_weights():
    # 40,000 draws of the outputs at one input: mean and second moments of both ways, four standard
    # errors apart.
    num = 40_000
    shapes = PROBLEM.shapes
    generator = rng.generator(0, "law")
    mean = draw_params(shapes)
    variance = {n: 0.3 * p.square() + 0.05 for n, p in mean.items()}
    x = PROBLEM.x[3:4]

    local = local_outputs(PROBLEM.network, mean, variance, x.expand(num, -1), generator=generator)
    params = {}
    for name, shape in shapes.items():
        noise = torch.randn(num, *shape, generator=generator)
        params[name] = mean[name] + variance[name].sqrt() * noise
    plain = torch.vmap(lambda params: PROBLEM.network.forward(params, x)[0])(params)

    def products(outputs):
        return (outputs[:, :, None] * outputs[:, None]).flatten(1)

    for a, b in ((local, plain), (products(local), products(plain))):
        a, b = a.double(), b.double()
        bound = 4 * ((a.var(0) + b.var(0)) / num).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < bound).all()
        # the smallest error in the mean of an output that this sees: 5 % of its standard deviation
        assert (bound[:3] < 0.05 * (a.std(0)[:3] + 1e-9)).all()


def free_energies(problem, mean, log_std, index, num, *, generator):
    """Estimates of the free energy, float64."""
    estimates = [
        free_energy(problem, mean, log_std, index, generator=generator) for _ in range(num)
    ]
    return torch.stack(estimates).double()


def test_the_local_estimate_agrees_with_the_plain_one_and_is_less_noisy():
    mean = flatten(draw_params(PROBLEM.shapes))
    log_std = torch.full_like(mean, math.log(0.3))
    index = torch.arange(PROBLEM.num_examples)
    generator = rng.generator(0, "estimates")

    local = free_energies(PROBLEM, mean, log_std, index, 600, generator=generator)
    plain = free_energies(unstructured(PROBLEM), mean, log_std, index, 600, generator=generator)

    error = math.sqrt(float(local.var() + plain.var()) / 600)
    assert abs(float(local.mean() - plain.mean())) < 4 * error
    assert 2 * local.var() < plain.var()


def silent_regression():
    problem, _, _ = regression(precision=1.5)
    silent = dataclasses.replace(
        problem.network, log_likelihood=lambda outputs, y: outputs.sum(1) * 0
    )
    return dataclasses.replace(problem, log_likelihood=silent)


def test_free_energy_by_hand():
    # No data term: x = 0 rows times the scale. The KL of N(m, s^2) from N(0, 1 / a) is
    # (a (m^2 + s^2) - 1 - log(a s^2)) / 2, and the estimate leaves out -(1 + log a) / 2, exactly.
    problem = silent_regression()
    generator = rng.generator(0, "kl")
    mean = torch.randn(8, generator=generator)
    log_std = torch.randn(8, generator=generator)

    q = torch.distributions.Normal(mean, log_std.exp())
    prior = torch.distributions.Normal(torch.zeros(8), torch.full((8,), 1.5**-0.5))
    expected = torch.distributions.kl_divergence(q, prior).sum() + 8 * (1 + math.log(1.5)) / 2
    estimate = free_energy(problem, mean, log_std, torch.arange(5), generator=generator)
    torch.testing.assert_close(estimate, expected)


def test_a_prior_without_a_closed_form_is_averaged_over_draws():
    # Without a likelihood the noise is the prior's alone: four standard errors are below half of
    # what the spread adds.
    problem = silent_regression()
    bare = with_bare_prior(problem)
    index = torch.arange(30)
    generator = rng.generator(0, "monte carlo")
    mean = torch.randn(8, generator=generator)
    log_std = torch.full((8,), -1.0)

    exact = free_energies(problem, mean, log_std, index, 1000, generator=generator)
    sampled = free_energies(bare, mean, log_std, index, 1000, generator=generator)

    error = math.sqrt(float(exact.var() + sampled.var()) / 1000)
    assert abs(float(exact.mean() - sampled.mean())) < 4 * error
    # the mean of the prior's quadratic under the spread alone: 1.5 / 2 * 8 exp(-2) = 0.81
    assert 4 * error < 0.81 / 2


@pytest.mark.parametrize("problem", [PROBLEM, unstructured(PROBLEM)], ids=["local", "plain"])
def test_gradients_are_finite_at_tiny_and_large_spread(problem):
    for log_std in (-15.0, 2.0):
        mean = torch.zeros(SIZE, requires_grad=True)
        spread = torch.full((SIZE,), log_std, requires_grad=True)
        generator = rng.generator(0, "g")
        free_energy(problem, mean, spread, torch.arange(6), generator=generator).backward()
        assert mean.grad.isfinite().all()
        assert spread.grad.isfinite().all()


def test_divergence_is_an_error():
    broken = dataclasses.replace(PROBLEM, x=PROBLEM.x * float("inf"))
    with pytest.raises(DivergenceError, match=r"vi: .*teacher\.method\.lr"):
        steps(1, problem=broken)


def test_it_has_no_temperature():
    with pytest.raises(ConfigError, match="temperature: unknown key"):
        parse(ViConfig, {"name": "vi", "temperature": 0.5}, "here")
