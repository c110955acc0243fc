"""Learned noise against the truth: exact posteriors by quadrature, and a noise that was made.

In a linear model whose noise is known the weights of the mean have an exact posterior. What is left
of the parameters, one or two numbers that say the noise, has a density that is known at every point
up to a constant: a fine grid gives its moments.

Seen once: a log-density with half of its term log v moves the noise of one size by forty standard
errors, and a prior that is twice as wide by six.
"""

import itertools

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from gped_nas import rng
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.posterior.base import METHODS, Problem, parse_method, posterior_of, unflatten
from gped_nas.posterior.likelihoods import LIKELIHOODS, Likelihood
from gped_nas.posterior.noise import family_with_noise
from gped_nas.posterior.priors import GaussianPrior
from gped_nas.targets.expectations import expect
from gped_nas.targets.layout import HeadLayout

LINEAR = Genotype("mlp", depth=0)
PRECISION = 1.0
SAMPLES = 250
PLACES = torch.linspace(-0.9, 0.9, 10)[:, None]
HETEROSCEDASTIC = LIKELIHOODS["heteroscedastic"](name="heteroscedastic", least_std=1e-4)
ONE_SIZE = LIKELIHOODS["gaussian_learned"](name="gaussian_learned", spread=0.3)


def noise_std(x: Tensor) -> Tensor:
    """What was made: a noise that grows sixfold from -1 to 1."""
    return 0.3 * (0.9 * x[:, 0]).exp()


def examples(num: int) -> tuple[Tensor, Tensor]:
    generator = rng.generator(0, "learned noise", num)
    x = 2 * torch.rand(num, 1, generator=generator) - 1
    return x, 0.8 * x[:, 0] + 0.2 + noise_std(x) * torch.randn(num, generator=generator)


def linear(likelihood: Likelihood, num: int) -> Problem:
    x, y = examples(num)
    return posterior_of(
        LINEAR,
        x,
        y,
        num_outputs=1,
        prior=GaussianPrior(precision=PRECISION),
        likelihood=likelihood,
        device=torch.device("cpu"),
    )


def sampled(problem: Problem, num: int) -> Tensor:
    """Samples (S, W) of HMC, float64."""
    cfg = parse_method(
        {
            "name": "hmc",
            "num_samples": num,
            "burn_in": 80,
            "leapfrog_steps": 8,
            "thinning": 2,
        },
        "here",
    )
    steps = METHODS["hmc"](problem, cfg, generator=rng.generator(0, "learned noise"))
    samples = (step.sample.theta_W for step in steps if step.sample is not None)
    return torch.stack(list(itertools.islice(samples, num))).double()


def log_evidence(x: Tensor, y: Tensor, variance_N: Tensor) -> Tensor:
    """Log-density of the labels under a noise, weights of the mean averaged out."""
    features = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    covariance = features @ features.mT / PRECISION + variance_N.diag()
    return MultivariateNormal(torch.zeros(len(x)).double(), covariance).log_prob(y.double())


def moments(log_density_J: Tensor, value_JQ: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of some quantities on a grid."""
    weight_J = log_density_J.softmax(0)
    mean_Q = weight_J @ value_JQ
    return mean_Q, weight_J @ (value_JQ - mean_Q).square()


@pytest.mark.soak
def test_a_noise_of_one_size_has_its_exact_posterior() -> None:
    problem = linear(ONE_SIZE, 30)
    grid_J = torch.linspace(-3, 3, 121).double()
    log_density = []
    for log_ratio in grid_J:
        variance_N = torch.full((30,), 0.25 * float(log_ratio.exp())).double()
        # twice a log noise of deviation .3
        log_prior = -0.5 * (log_ratio / 0.6).square()
        log_density.append(log_evidence(problem.x, problem.y, variance_N) + log_prior)
    exact_mean, exact_variance = moments(torch.stack(log_density), grid_J[:, None])

    log_ratio_S = sampled(problem, SAMPLES)[:, -1]
    # almost independent draws: a mean's variance is v / S, a variance's 2 v^2 / S
    assert abs(log_ratio_S.mean() - exact_mean) < 4 * (exact_variance / SAMPLES).sqrt()
    assert abs(log_ratio_S.var() / exact_variance - 1) < 4 * (2 / SAMPLES) ** 0.5


def test_a_noise_that_depends_on_the_input_has_its_exact_posterior() -> None:
    problem = linear(HETEROSCEDASTIC, 30)
    slope_J, bias_J = torch.meshgrid(
        torch.linspace(-3, 5, 33).double(), torch.linspace(-4, 2, 33).double(), indexing="ij"
    )
    grid_J2 = torch.stack([slope_J.flatten(), bias_J.flatten()], 1)
    features = torch.cat([problem.x, torch.ones(30, 1)], 1).double()
    log_density = []
    for parameters in grid_J2:
        variance_N = 1e-8 + 0.25 * (features @ parameters).exp()
        log_prior = -0.5 * PRECISION * parameters.square().sum()
        log_density.append(log_evidence(problem.x, problem.y, variance_N) + log_prior)
    exact_mean, exact_variance = moments(torch.stack(log_density), grid_J2)

    # weights (2, 1), then biases (2,); the second output is the noise
    drawn_S2 = sampled(problem, SAMPLES)[:, [1, 3]]
    assert ((drawn_S2.mean(0) - exact_mean).abs() < 4 * (exact_variance / SAMPLES).sqrt()).all()
    assert ((drawn_S2.var(0) / exact_variance - 1).abs() < 4 * (2 / SAMPLES) ** 0.5).all()


@pytest.fixture(scope="module")
def predicted_SN2() -> Tensor:
    """What 40 samples predict at the places, and at 400 inputs beside them."""
    problem = linear(HETEROSCEDASTIC, 8000)
    family = family_with_noise(FAMILIES["mlp"], HETEROSCEDASTIC)
    x = torch.cat([PLACES, torch.linspace(-1, 1, 400)[:, None]]).double()
    predictions = []
    for theta_W in sampled(problem, 40):
        outputs = family.forward(unflatten(theta_W, problem.shapes), x)
        predictions.append(HETEROSCEDASTIC.predict(outputs))
    return torch.stack(predictions)


def test_the_noise_is_recovered_to_5_percent_at_ten_places(predicted_SN2: Tensor) -> None:
    expected_std = predicted_SN2[:, :10, 1].mean(0).sqrt()
    assert ((expected_std / noise_std(PLACES) - 1).abs() < 0.05).all()


def test_a_students_variance_follows_it(predicted_SN2: Tensor) -> None:
    """To 5 % of the label's variance by the law of total variance, at the same places."""
    layout = HeadLayout(["predictive_normal"], 1)
    (target,) = layout.learned
    average_NG = expect(target, predicted_SN2, torch.ones(40))
    data = DistillationSet(
        torch.linspace(-1, 1, 400)[:, None], {target.name: average_NG[10:].float()}, layout
    )
    recipe = Recipe(steps=1200, lr=1e-2, beta2=0.999)
    genotype = Genotype("mlp", depth=1, width=32)
    (student,) = distill([genotype], data, recipe, seed=0, device=torch.device("cpu")).students

    said_N2 = layout.predict(FAMILIES["mlp"].forward(student.params, PLACES))[target.name]
    mean_SN, variance_SN = predicted_SN2[:, :10].unbind(-1)
    total_N = variance_SN.mean(0) + mean_SN.var(0, unbiased=False)
    assert ((said_N2[:, 1] / total_N - 1).abs() < 0.05).all()
    assert ((said_N2[:, 1].sqrt() / noise_std(PLACES) - 1).abs() < 0.05).all()
