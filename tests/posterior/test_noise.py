"""Learned noise: parameters beside a network's, their prior, and what methods make of them."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as D

import gped_nas as gn
from gped_nas import rng
from gped_nas.api.map_network import tuned_map_network
from gped_nas.api.session import Session
from gped_nas.api.teacher import sample_teacher
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Genotype, Params
from gped_nas.posterior.base import METHODS, FlatParams, Problem, parse_method, posterior_of
from gped_nas.posterior.likelihoods import LIKELIHOODS, Likelihood
from gped_nas.posterior.noise import NOISE, family_with_noise, prior_with_noise
from gped_nas.posterior.priors import GaussianPrior
from gped_nas.stream.key import StreamKey

GAUSSIAN = LIKELIHOODS["gaussian"](name="gaussian")
LEARNED = LIKELIHOODS["gaussian_learned"](name="gaussian_learned", noise_std=0.4, spread=0.5)
HETEROSCEDASTIC = LIKELIHOODS["heteroscedastic"](name="heteroscedastic", noise_std=0.4)
PRIOR = GaussianPrior(precision=4.0)
GENOTYPE = Genotype("mlp", depth=1, width=3)
CONVOLVED = Genotype("cnn", depth=1, width=2, kernel=2)


def problem(likelihood: Likelihood, genotype: Genotype = GENOTYPE) -> Problem:
    """24 examples, whose labels are half of the first number of an input."""
    shape = (4,) if genotype is GENOTYPE else (1, 4, 4)
    x = torch.randn(24, *shape, generator=rng.generator(0, "noise", "x"))
    return posterior_of(
        genotype,
        x,
        0.5 * x.flatten(1)[:, 0],
        num_outputs=1,
        prior=PRIOR,
        likelihood=likelihood,
        device=torch.device("cpu"),
    )


def drawn(case: Problem, name: str = "params") -> Params:
    generator = rng.generator(0, "noise", name)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in case.shapes.items()
    }


def test_a_given_noise_leaves_family_and_prior_alone() -> None:
    assert family_with_noise(FAMILIES["mlp"], GAUSSIAN) is FAMILIES["mlp"]
    assert prior_with_noise(PRIOR, GAUSSIAN) is PRIOR


def log_joint(case: Problem, params: Params) -> Tensor:
    """By torch's distributions: log std is normal with mean log .4 and deviation .5."""
    network = {name: p for name, p in params.items() if name != NOISE}
    std = 0.4 * (params[NOISE] / 2).exp()
    total = D.Normal(math.log(0.4), 0.5).log_prob(std.log()).sum()
    for p in network.values():
        total = total + D.Normal(0.0, 0.5).log_prob(p).sum()

    mean = FAMILIES["mlp"].forward(network, case.x.double())[:, 0]
    return total + D.Normal(mean, std).log_prob(case.y.double()).sum()


def test_the_potential_is_that_of_a_normal_label_and_a_log_normal_noise() -> None:
    case = problem(LEARNED)
    assert list(case.shapes) == [*GENOTYPE.shapes((4,), 1), NOISE]

    case = replace(case, x=case.x.double(), y=case.y.double())
    first, second = drawn(case, "first"), drawn(case, "second")
    everything = torch.arange(24)
    change = case.potential(first, everything) - case.potential(second, everything)
    torch.testing.assert_close(change, log_joint(case, second) - log_joint(case, first))


@pytest.mark.parametrize("genotype", [GENOTYPE, CONVOLVED])
@pytest.mark.parametrize("likelihood", [LEARNED, HETEROSCEDASTIC])
def test_the_gradient_with_the_priors_score_is_that_of_the_potential(
    likelihood: Likelihood, genotype: Genotype
) -> None:
    case = problem(likelihood, genotype)
    everything = torch.arange(24)
    theta_W = torch.cat([p.float().flatten() for p in drawn(case).values()])
    gradient_W = case.gradient(FlatParams(case.shapes, theta_W), everything).clone()
    expected_W = FlatParams(case.shapes, theta_W).gradient(
        lambda params: case.potential(params, everything)
    )
    torch.testing.assert_close(gradient_W, expected_W)


def test_the_priors_average_and_draws_are_of_its_law() -> None:
    prior = prior_with_noise(PRIOR, LEARNED)
    shapes = {"layers.0.weight": (200, 200), NOISE: (40_000,)}
    draws = prior.sample(shapes, generator=rng.generator(0, "noise", "prior"))
    # 40,000 draws know a standard deviation to .35 %: four of these
    assert float(draws["layers.0.weight"].std()) == pytest.approx(0.5, rel=0.014)
    assert float(draws[NOISE].std()) == pytest.approx(1.0, rel=0.014)

    # the average over draws of two parameters, each of 40,000 numbers: -(1 + 1) / 2 each
    mean = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    variance = {"layers.0.weight": 0.25 + mean["layers.0.weight"], NOISE: 1.0 + mean[NOISE]}
    assert float(prior.expected_log_density(mean, variance)) == pytest.approx(-40_000)


@pytest.mark.parametrize("likelihood", [LEARNED, HETEROSCEDASTIC])
@pytest.mark.parametrize(
    "name",
    [n for n, m in METHODS.items() if n not in ("import", "laplace") and not m.reads_samples],
)
def test_every_method_without_a_closed_form_samples_a_learned_noise(
    name: str, likelihood: Likelihood
) -> None:
    case, method = problem(likelihood), METHODS[name]
    cfg = parse_method({"name": name, **method.example}, "here")
    steps = itertools.islice(method(case, cfg, generator=rng.generator(0, "noise")), 8)
    samples = [step.sample.theta_W for step in steps if step.sample is not None]
    start_W = torch.cat([p.flatten() for p in case.initialize(rng.generator(0, "noise")).values()])
    assert samples and all(bool(theta_W.isfinite().all()) for theta_W in samples)
    # the last parameter is the noise, or the bias of the output that says it: both begin at 0
    assert float(start_W[-1]) == 0.0 and float(samples[-1][-1]) != 0.0


@pytest.mark.parametrize("likelihood", [LEARNED, HETEROSCEDASTIC])
def test_laplace_says_that_it_needs_a_closed_form(likelihood: Likelihood) -> None:
    cfg = parse_method({"name": "laplace", **METHODS["laplace"].example}, "here")
    generator = rng.generator(0, "noise")
    with pytest.raises(ConfigError, match="laplace with a noise that is learned"):
        next(METHODS["laplace"](problem(likelihood), cfg, generator=generator))


def test_a_streams_key_has_the_shapes_of_network_and_noise() -> None:
    key = StreamKey(
        dataset="d" * 64,
        input_shape=(4,),
        num_outputs=1,
        genotype={"family": "mlp", **GENOTYPE.architecture()},
        prior={"precision": 2.0},
        method={"name": "map"},
        seed=0,
        likelihood=LEARNED.to_json(),
    )
    assert key.shapes == problem(LEARNED).shapes
    assert key.network_shapes == GENOTYPE.shapes((4,), 1)
    assert key.num_predicted == 2


@pytest.mark.parametrize(("likelihood", "num_outputs"), [(LEARNED, 1), (HETEROSCEDASTIC, 2)])
def test_a_module_of_ones_own_learns_a_noise(
    likelihood: Likelihood, num_outputs: int, tmp_path: Path
) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(10, 4), nn.Tanh(), nn.Linear(4, num_outputs))

    method = {"name": "deep_ensemble", "num_samples": 2, "steps": 100}
    teacher = {
        "family": "module",
        "genotype": {"name": "mine"},
        "likelihood": likelihood.to_json(),
        "method": method,
    }
    overrides = {"teacher": teacher, "baseline": {"steps": 100, "precisions": [1.0]}}
    space = gn.load_space("diabetes_mlp", overrides, modules={"mine": build})
    made = sample_teacher(space, Session(streams=tmp_path))

    assert (NOISE in made.stream.key.shapes) is (likelihood is LEARNED)
    assert made.averaged("validation").variance_N.min() > 0
    assert tuned_map_network(made).predict(made.dataset.inputs("test")).shape[1] == 2
