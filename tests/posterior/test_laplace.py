"""Laplace on the last layer: its Hessian is exact, its mode is found, its draws have its law."""

import dataclasses

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.posterior.base import flatten, supervised_network, unflatten
from gped_nas.posterior.laplace import LaplaceConfig, laplace, last_layer, newton
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from gped_nas.posterior.priors import FanInGaussianPrior, LaplacePrior
from tests.posterior.chains import take
from tests.scenarios import GENOTYPES, classifier, unstructured

GENOTYPE = Genotype("mlp", depth=2, width=[6, 3])
PROBLEM = classifier(GENOTYPE)
LAST = ("layers.2.weight", "layers.2.bias")


def steps(num, *, state=None, seed=0, problem=PROBLEM, **settings):
    cfg = LaplaceConfig(name="laplace", **{"steps": 200, "batch_size": 4, **settings})
    return take(laplace(problem, cfg, generator=rng.generator(seed, "l"), state=state), num)


def layer_of(problem=PROBLEM):
    theta = flatten(problem.initialize(rng.generator(0, "theta"))) + 0.1
    return last_layer(problem, problem.network, theta)


def test_samples_replace_the_last_layer_only():
    chain = steps(5)
    trained = unflatten(chain[1].state["theta"], PROBLEM.shapes)
    for step in chain[2:]:
        for name, p in unflatten(step.sample.theta_W, PROBLEM.shapes).items():
            assert torch.equal(p, trained[name]) == (name not in LAST)


@pytest.mark.parametrize("genotype", sum(GENOTYPES.values(), []), ids=str)
def test_every_family_is_linear_in_its_last_layer(genotype):
    problem = classifier(genotype)
    shapes = problem.shapes
    generator = rng.generator(0, "family")
    theta = flatten({n: torch.randn(s, generator=generator) for n, s in shapes.items()})

    layer = last_layer(problem, problem.network, theta)
    expected = FAMILIES[genotype.family].forward(unflatten(theta, shapes), problem.x)
    torch.testing.assert_close(layer.outputs(layer.start).float(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(layer.replaced(layer.start), theta)


@pytest.mark.parametrize(
    "prior", [PROBLEM.prior, FanInGaussianPrior(scale=0.7)], ids=["gaussian", "fan_in_gaussian"]
)
def test_the_hessian_is_that_of_the_potential(prior):
    # softmax: autograd's Hessian of U over the whole network, in the last layer's parameters
    problem = dataclasses.replace(PROBLEM, log_prior=prior)
    layer = layer_of(problem)
    everything = torch.arange(problem.num_examples)
    double = dataclasses.replace(problem, x=problem.x.double())

    def potential(w):
        theta = layer.theta.double().index_put((layer.index,), w)
        return double.potential(unflatten(theta, problem.shapes), everything)

    w = layer.start
    expected = torch.func.jacrev(torch.func.jacrev(potential))(w)
    torch.testing.assert_close(layer.hessian(w), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.potential(w), potential(w), rtol=1e-6, atol=1e-5)


def test_newton_ends_where_the_gradient_vanishes():
    layer = layer_of()
    w = newton(layer, layer.start)
    assert float(layer.gradient(layer.start).norm()) > 1
    assert float(layer.gradient(w).norm()) < 1e-4

    # from far away too, where whole steps overshoot
    far = newton(layer, layer.start + 30 * torch.sign(layer.start))
    torch.testing.assert_close(far, w, rtol=1e-5, atol=1e-5)


def test_a_sample_by_hand():
    chain = steps(4)
    layer = last_layer(PROBLEM, PROBLEM.network, chain[2].state["theta"])
    generator = rng.generator(0, "other")
    generator.set_state(chain[2].state["rng"])
    noise = torch.randn(len(layer.start), 1, dtype=torch.float64, generator=generator)

    factor = torch.linalg.cholesky(layer.hessian(layer.start))
    expected = layer.start + torch.linalg.solve(factor.mT, noise)[:, 0]
    w = chain[3].sample.theta_W[layer.index].double()
    torch.testing.assert_close(w, expected, rtol=1e-5, atol=1e-5)


def test_a_prior_without_curvature_is_refused():
    flat = LaplacePrior()
    problem = dataclasses.replace(PROBLEM, log_prior=flat)
    with pytest.raises(ConfigError, match=r"teacher\.prior\.name"):
        steps(3, problem=problem)


def test_a_hessian_that_is_not_positive_definite_is_an_error():
    network = dataclasses.replace(
        PROBLEM.network, log_likelihood=lambda outputs, y: outputs.square().sum(1) * 100
    )
    problem = dataclasses.replace(PROBLEM, log_likelihood=network)
    with pytest.raises(DivergenceError, match="positive definite"):
        steps(3, problem=problem)


def test_a_network_without_a_dense_last_layer_is_refused():
    shapes = {"a.weight": (2, 3, 3, 3), "a.bias": (2,)}
    network = supervised_network(FAMILIES["mlp"], shapes, CategoricalLikelihood())
    assert network.last_layer is None

    headless = dataclasses.replace(PROBLEM.network, last_layer=None)
    for problem in (unstructured(PROBLEM), dataclasses.replace(PROBLEM, log_likelihood=headless)):
        with pytest.raises(ConfigError, match="dense layer"):
            steps(1, problem=problem)


def test_divergence_is_an_error():
    broken = dataclasses.replace(PROBLEM, x=PROBLEM.x * float("inf"))
    with pytest.raises(DivergenceError, match=r"laplace: .*teacher\.method\.lr"):
        steps(1, problem=broken)


def test_it_has_no_temperature():
    with pytest.raises(ConfigError, match="temperature: unknown key"):
        parse(LaplaceConfig, {"name": "laplace", "temperature": 1.0}, "here")


def test_the_curvature_of_a_softmax_by_hand():
    # diag(p) - p p^T at p = (1/2, 1/4, 1/4)
    layer = layer_of()
    logits = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64).log()
    expected = torch.tensor([[4.0, -2, -2], [-2, 3, -1], [-2, -1, 3]], dtype=torch.float64) / 16
    torch.testing.assert_close(layer._curvature(logits, torch.tensor([1]))[0], expected)
