"""Priors: their densities, averages, draws and gradients, and what files say of them."""

import math
from dataclasses import replace

import pytest
import torch
from torch import distributions as D

from gped_nas import rng
from gped_nas.config import load_yaml
from gped_nas.errors import ConfigError, RegistryError
from gped_nas.posterior.base import FlatParams, flatten
from gped_nas.posterior.priors import (
    PRIORS,
    FanInGaussianPrior,
    GaussianPrior,
    LaplacePrior,
    LayeredGaussianPrior,
    fan_in,
)
from gped_nas.search.space_file import parse_space
from tests.scenarios import classifier, with_bare_prior

SHAPES = {
    "layers.0.weight": (3, 4),
    "layers.0.bias": (3,),
    "conv.weight": (2, 3, 5, 5),
    "norm.gain": (2,),
}
FAN_IN = {"layers.0.weight": 4, "layers.0.bias": 4, "conv.weight": 75, "norm.gain": 1}
STD = {"layers": 1 / 2, "conv": 1 / 3, "norm": 2.0}
# every registered prior with the law of one of its parameters
LAWS = {
    "gaussian": (GaussianPrior(precision=4.0), lambda name: D.Normal(0.0, 0.5)),
    "fan_in_gaussian": (
        FanInGaussianPrior(scale=2.0),
        lambda name: D.Normal(0.0, math.sqrt(2.0 / FAN_IN[name])),
    ),
    "layered_gaussian": (
        LayeredGaussianPrior(dense=4.0, convolution=9.0, norm=0.25),
        lambda name: D.Normal(0.0, STD[name.split(".")[0]]),
    ),
    "laplace": (LaplacePrior(scale=0.4), lambda name: D.Laplace(0.0, 0.4)),
}
NAMES = sorted(LAWS)


def draw(*path, shapes=SHAPES):
    generator = rng.generator(0, "priors", *path)
    params = {}
    for name, shape in shapes.items():
        params[name] = torch.randn(shape, generator=generator, dtype=torch.float64)
    return params


def test_every_registered_prior_is_tested():
    assert set(LAWS) == set(PRIORS)


@pytest.mark.parametrize("name", NAMES)
def test_log_density_is_torchs_up_to_a_constant(name):
    prior, law = LAWS[name]
    a, b = draw("a"), draw("b")
    expected = sum((law(n).log_prob(a[n]) - law(n).log_prob(b[n])).sum() for n in SHAPES)
    difference = prior.log_density(a) - prior.log_density(b)
    torch.testing.assert_close(difference, expected, rtol=1e-6, atol=1e-6)

    zero = {n: torch.zeros(s) for n, s in SHAPES.items()}
    assert float(prior.log_density(zero)) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_expected_log_density_is_the_integral(name):
    # a sum over a fine grid of 12 standard deviations to each side
    prior, _ = LAWS[name]
    mean = draw("mean")
    variance = {n: v.square() + 0.1 for n, v in draw("variance").items()}
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    mass = (D.Normal(0.0, 1.0).log_prob(grid)).exp()
    mass /= mass.sum()

    zero = {n: torch.zeros(s) for n, s in SHAPES.items()}
    total = torch.zeros((), dtype=torch.float64)
    for name, shape in SHAPES.items():
        points = (mean[name][..., None] + variance[name].sqrt()[..., None] * grid).movedim(-1, 0)
        density = log_density_of_each(prior, name, points)
        assert density.shape[1:] == shape
        density = density.flatten(1).sum(1)

        # All built-in priors act on each parameter alone: check that, then integrate.
        alone = [prior.log_density({**zero, name: point}) for point in points[::400]]
        torch.testing.assert_close(density[::400], torch.stack(alone), rtol=1e-9, atol=1e-9)
        total += torch.tensordot(mass, density, 1)

    expected = prior.expected_log_density(mean, variance)
    torch.testing.assert_close(expected, total, rtol=1e-6, atol=1e-6)


def log_density_of_each(prior, name, points):
    """The log-density of every entry of ``points`` on its own, from the law by hand."""
    if isinstance(prior, LaplacePrior):
        return -points.abs() / prior.scale
    if isinstance(prior, LayeredGaussianPrior):
        precision = STD[name.split(".")[0]] ** -2
    elif isinstance(prior, GaussianPrior):
        precision = prior.precision
    else:
        precision = FAN_IN[name] / prior.scale
    return -0.5 * precision * points.square()


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_law(name):
    # 60,000 draws each: four standard errors of the standard deviation see 1.2 % (normal), 1.8 %
    # (Laplace).
    prior, law = LAWS[name]
    kurtosis = 6.0 if name == "laplace" else 3.0
    # mean absolute value: 0.798 standard deviations (normal), 0.707 (Laplace)
    share = math.sqrt(0.5) if name == "laplace" else math.sqrt(2 / math.pi)

    shapes = {"layers.0.weight": (15_000, 4), "layers.0.bias": (15_000,)}
    params = prior.sample(shapes, generator=rng.generator(0, "priors", name))
    assert {n: tuple(p.shape) for n, p in params.items()} == shapes

    for n, p in params.items():
        std = float(law(n).stddev)
        num = p.numel()
        assert abs(float(p.mean())) < 4 * std / math.sqrt(num)
        assert abs(float(p.var()) / std**2 - 1) < 4 * math.sqrt((kurtosis - 1) / num)
        assert abs(float(p.abs().mean()) / std - share) < 4 / math.sqrt(num)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite(name):
    prior, _ = LAWS[name]
    mean = {n: v.float().requires_grad_() for n, v in draw("mean").items()}
    mean["norm.gain"] = torch.zeros(2, requires_grad=True)  # the kink of the Laplace prior
    prior.log_density(mean).backward()
    assert all(p.grad.isfinite().all() for p in mean.values())

    variance = {n: torch.full(s, 1e-8, requires_grad=True) for n, s in SHAPES.items()}
    prior.expected_log_density(mean, variance).backward()
    assert all(p.grad.isfinite().all() for p in [*mean.values(), *variance.values()])


def test_fan_in_of_every_kind_of_parameter():
    assert {name: fan_in(name, SHAPES) for name in SHAPES} == FAN_IN


def space(prior=None):
    data = load_yaml(
        "name: t\ndataset: {name: digits}\n"
        "teacher: {family: mlp, genotype: {depth: 1, width: 4}, method: {name: map}}\n"
        "students: [{family: mlp, genotype: {depth: 0}}]",
        "f.yaml",
    )
    if prior is not None:
        data["teacher"]["prior"] = prior
    return parse_space(data, "f.yaml")


def test_a_prior_without_a_name_is_gaussian_and_keeps_its_key():
    assert space().prior == GaussianPrior(precision=10.0)
    for settings in ({"precision": 3.0}, {"name": "gaussian", "precision": 3.0}):
        parsed = space(settings)
        assert parsed.prior == GaussianPrior(precision=3.0)
        # what streams and studies were keyed by before priors had names
        assert parsed.prior.to_json() == {"precision": 3.0}
        assert parsed.resolved["teacher"]["prior"] == {"precision": 3.0}


@pytest.mark.parametrize("name", NAMES)
def test_settings_read_back(name):
    prior, _ = LAWS[name]
    parsed = space({"name": name, **prior.to_json()})
    assert parsed.prior == prior
    assert space(parsed.resolved["teacher"]["prior"]) == parsed


def test_keys_of_priors_differ():
    assert len({str(prior.to_json()) for prior, _ in LAWS.values()}) == len(LAWS)
    assert FanInGaussianPrior(scale=0.3).to_json() != LaplacePrior(scale=0.3).to_json()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"name": "gausian"},
            RegistryError,
            "f.yaml: teacher.prior.name: unknown prior 'gausian'; did you mean 'gaussian'",
        ),
        ({"name": 3}, ConfigError, "f.yaml: teacher.prior.name: found 3, expected the name of a"),
        (
            {"name": "laplace", "precision": 1.0},
            ConfigError,
            "f.yaml: teacher.prior: precision: unknown key",
        ),
        ({"name": "laplace", "scale": 0.0}, ConfigError, "f.yaml: teacher.prior: scale: found 0.0"),
        (
            {"name": "fan_in_gaussian", "scal": 1.0},
            ConfigError,
            "teacher.prior: scal: unknown key; did you mean 'scale'",
        ),
    ],
)
def test_impossible_priors_are_refused(settings, error, message):
    with pytest.raises(error) as caught:
        space(settings)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_chains_gradient_is_autograds_to_the_bit(name):
    prior, _ = LAWS[name]
    with_score = replace(classifier(), log_prior=prior)
    theta = flatten(with_score.initialize(rng.generator(0, "priors", "gradient")))
    index = torch.tensor([3, 20, 3, 7])

    gradients = []
    for problem in (with_score, with_bare_prior(with_score)):
        flat = FlatParams(problem.shapes, theta.clone())
        for _ in range(2):  # what the first call left is overwritten
            gradients.append(problem.gradient(flat, index).clone())
        gradients.append(flat.gradient(lambda params: with_score.potential(params, index)).clone())
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])

    # and the prior has a part in it
    flat = FlatParams(with_score.shapes, theta.clone())
    of_prior = flat.gradient(lambda params: -prior.log_density(params))
    assert float(of_prior.abs().max()) > 0.1
