"""Problems: unbiased minibatches, flat buffers and their views, and a network's posterior."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from gped_nas import rng
from gped_nas.data.base import load
from gped_nas.models.base import Genotype
from gped_nas.posterior.base import FlatParams, Problem, flatten, posterior_of, unflatten
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from gped_nas.posterior.priors import GaussianPrior
from tests.scenarios import classifier


def flat_gradient(problem: Problem, theta, index):
    flat = FlatParams(problem.shapes, theta.clone())
    return flat.gradient(lambda params: problem.potential(params, index)).clone()


def start(problem: Problem):
    return flatten(problem.initialize(rng.generator(0, "start")))


def small() -> Problem:
    problem = classifier()
    return Problem(
        shapes=problem.shapes,
        log_likelihood=problem.log_likelihood,
        log_prior=problem.log_prior,
        initialize=problem.initialize,
        x=problem.x[:4].double(),
        y=problem.y[:4],
    )


def test_minibatch_potential_and_gradient_are_unbiased():
    # All 4^2 = 16 minibatches of two examples drawn with replacement, each as likely: their mean is
    # the full one.
    problem = small()
    theta = start(problem).double()
    params = unflatten(theta, problem.shapes)
    everything = torch.arange(4)
    minibatches = [torch.tensor(pair) for pair in itertools.product(range(4), repeat=2)]

    potential = torch.stack([problem.potential(params, index) for index in minibatches]).mean()
    expected = problem.potential(params, everything)
    torch.testing.assert_close(potential, expected, rtol=1e-12, atol=1e-12)

    gradient = torch.stack([flat_gradient(problem, theta, index) for index in minibatches]).mean(0)
    expected = flat_gradient(problem, theta, everything)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


def test_potential_is_minus_the_log_posterior():
    problem = small()
    params = unflatten(start(problem).double(), problem.shapes)
    log_likelihood = problem.log_likelihood(params, problem.x, problem.y)
    by_hand = -sum(float(v) for v in log_likelihood) - float(problem.log_prior(params))
    assert float(problem.potential(params, torch.arange(4))) == pytest.approx(by_hand, rel=1e-12)


def test_flat_gradient_is_autograds_and_fresh_each_time():
    problem = small()
    theta = start(problem).double().requires_grad_()
    index = torch.tensor([0, 2, 3])
    problem.potential(unflatten(theta, problem.shapes), index).backward()

    flat = FlatParams(problem.shapes, theta.detach().clone())
    for _ in range(2):  # gradients of one call do not add to the next
        gradient = flat.gradient(lambda params: problem.potential(params, index))
        torch.testing.assert_close(gradient, theta.grad, rtol=1e-12, atol=1e-12)


def test_an_update_of_the_buffer_is_an_update_of_every_leaf():
    flat = FlatParams({"w": (2, 3), "b": (2,)}, torch.zeros(8))
    flat.theta_W.add_(torch.arange(8.0))
    assert flat.params["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert flat.params["b"].tolist() == [6, 7]


def test_views_and_flatten_are_inverse_with_leading_axes():
    shapes = {"w": (2, 3), "b": (2,), "s": ()}
    theta = torch.arange(27.0).view(3, 9)
    parts = unflatten(theta, shapes)
    assert {n: tuple(p.shape) for n, p in parts.items()} == {"w": (3, 2, 3), "b": (3, 2), "s": (3,)}
    assert torch.equal(flatten({n: p[1] for n, p in parts.items()}), theta[1])


def test_a_networks_posterior_is_its_cross_entropy_and_prior():
    dataset = load({"name": "digits"})
    problem = posterior_of(
        Genotype("mlp", depth=1, width=3),
        dataset.inputs("train"),
        dataset.normalized_labels("train"),
        num_outputs=10,
        prior=GaussianPrior(precision=3.0),
        likelihood=CategoricalLikelihood(),
        device=torch.device("cpu"),
    )
    assert problem.num_examples == len(dataset.train)
    assert torch.equal(problem.x, dataset.inputs("train"))
    x, y = problem.x[:5], problem.y[:5]
    params = problem.initialize(rng.generator(0, "start"))

    # with all weights zero every class has probability 1 / 10
    zero = {n: torch.zeros_like(p) for n, p in params.items()}
    uniform = torch.full((5,), -math.log(10))
    torch.testing.assert_close(problem.log_likelihood(zero, x, y), uniform)

    # biases start at zero
    hidden = F.relu(F.linear(x.flatten(1), params["layers.0.weight"]))
    logits = F.linear(hidden, params["layers.1.weight"])
    expected = logits.log_softmax(-1)[torch.arange(5), y]
    torch.testing.assert_close(problem.log_likelihood(params, x, y), expected)


def test_prior_is_the_normal_density_up_to_a_constant():
    prior = GaussianPrior(precision=4.0)
    a = {"w": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([-1.0])}
    b = {"w": torch.tensor([[0.0, 0.5]]), "b": torch.tensor([3.0])}
    normal = torch.distributions.Normal(0.0, 0.5)
    expected = sum(normal.log_prob(a[n]).sum() - normal.log_prob(b[n]).sum() for n in a)
    torch.testing.assert_close(prior.log_density(a) - prior.log_density(b), expected)
    assert float(prior.log_density(a)) == -0.5 * 4 * (1 + 4 + 1)
