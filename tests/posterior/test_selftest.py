"""The conjugate self-test: its problem is exact, right methods pass, and broken ones are seen."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.errors import DivergenceError
from gped_nas.models.base import num_params
from gped_nas.posterior.base import METHODS, FlatParams, Method, PosteriorSample, Problem
from gped_nas.posterior.conjugate import copies, copies_with_units, regression
from gped_nas.posterior.selftest import selftest
from gped_nas.posterior.trials import NOT_TRIED, TRIALS
from tests.faults.conftest import SOAK


def test_every_registered_method_is_tried_or_it_is_said_why_not() -> None:
    names = {name for name, method in METHODS.items() if not method.reads_samples}
    assert set(TRIALS) | set(NOT_TRIED) == names
    assert not set(TRIALS) & set(NOT_TRIED)
    (finding,) = selftest(["import"])
    assert finding.ok is None
    assert finding.note == "draws nothing"
    (finding,) = selftest(["subset"])
    assert finding.ok is None
    assert finding.note == "its law is of the samples that it reads"


def gradients(problem: Problem, points_KW: Tensor, index_B: Tensor) -> Tensor:
    """Of U at each of some points, one a copy (K, W), from the examples at ``index_B``."""
    theta_W = torch.zeros(num_params(problem.shapes))
    theta_W[: points_KW.numel()] = points_KW.flatten()
    flat = FlatParams(problem.shapes, theta_W)
    whole = flat.gradient(lambda params: problem.potential(params, index_B))
    return whole[: points_KW.numel()].view(points_KW.shape)


def test_copies_have_the_gradient_and_curvature_of_the_regression() -> None:
    posterior = regression()
    points = torch.linspace(-1, 2, 24).view(3, 8)
    everything = torch.arange(30)

    of_copies = gradients(copies(posterior, 3), points, everything)
    for gradient, theta in zip(of_copies, points, strict=True):
        single = FlatParams(posterior.problem.shapes, theta.clone())
        expected = single.gradient(lambda params: posterior.problem.potential(params, everything))
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-3)

        exact = posterior.precision_WW @ (theta.double() - posterior.mean_W)
        torch.testing.assert_close(expected.double(), exact, rtol=1e-4, atol=1e-3)


def test_an_example_scatters_around_the_average_gradient_as_in_the_regression() -> None:
    posterior = regression()
    mean = posterior.mean_W.float()
    for example, scatter in enumerate(posterior.scatter_NW):
        flat = FlatParams(posterior.problem.shapes, mean.clone())
        index = torch.tensor([example])
        # Of U, N times the example's: with the opposite sign, and the gradient of U is zero here.
        whole = flat.gradient(lambda params, i=index: posterior.problem.potential(params, i))
        torch.testing.assert_close(whole.double(), -30 * scatter, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("make", [copies, copies_with_units])
def test_minibatches_of_copies_have_the_noise_that_laws_expect(make) -> None:
    posterior = regression()
    problem = make(posterior, 2000)
    points = posterior.mean_W.float().expand(2000, 8)
    index = torch.randint(30, (20, 5), generator=rng.generator(0, "minibatches"))
    noise = torch.stack([gradients(problem, points, index_B) for index_B in index]).double()

    # 20 minibatches of 2,000 orders: the scatter of a variance is that of which examples repeat.
    expected = posterior.minibatch_noise(5).diagonal()
    torch.testing.assert_close(noise.var((0, 1)), expected, rtol=0.2, atol=0.0)
    correlation = noise.flatten(0, 1).mT.corrcoef()
    of_law = posterior.minibatch_noise(5) / torch.outer(expected, expected).sqrt()
    torch.testing.assert_close(correlation, of_law, rtol=0.0, atol=0.05)


@pytest.mark.parametrize("name", METHODS if SOAK else ["hmc", "csgld", "swag", "map"])
def test_methods_pass(name: str) -> None:
    for finding in selftest([name]):
        is_tried = name in TRIALS
        assert finding.ok or not is_tried, finding
        assert bool(finding.note) != is_tried
        assert finding.seconds > 0 or not is_tried


def test_what_minibatches_add_to_sgld_is_what_theory_says() -> None:
    # By hand: T + eta v / 4 over a (1 - eta a / 4) of one parameter, at both ends of the
    # curvatures, with a noise v of about N / B times the likelihood's curvature.
    (finding,) = selftest(["sgld"])
    assert finding.ok, finding
    low, high = ((1 + 0.004 * 6 * (a - 1.5) / 4) / (1 - 0.004 * a / 4) for a in (13.6, 131.6))
    assert low < finding.expected < high
    assert finding.expected == pytest.approx(finding.found, abs=0.05)


def replace_method(monkeypatch: pytest.MonkeyPatch, name: str, run) -> None:
    monkeypatch.setitem(METHODS._items, name, Method(METHODS[name].config, run))


@pytest.mark.parametrize(("scale", "shift"), [(math.sqrt(0.92), 0.0), (1.0, 0.05)])
def test_eight_percent_of_a_variance_and_a_twentieth_of_a_standard_deviation_are_seen(
    scale, shift, monkeypatch
) -> None:
    right = METHODS["sghmc"]
    posterior = regression()
    std = posterior.covariance_WW.diagonal().sqrt().float()
    mean = posterior.mean_W.float()

    def wrong(problem, cfg, *, generator, state=None):
        for step in right(problem, cfg, generator=generator, state=state):
            if step.sample is not None:
                theta = step.sample.theta_W.view(-1, 8)
                moved = mean + (theta - mean) * scale + shift * std
                yield dataclasses.replace(step, sample=PosteriorSample(moved.flatten()))

    replace_method(monkeypatch, "sghmc", wrong)
    (finding,) = selftest(["sghmc"])
    assert finding.ok is False
    assert max(finding.mean_error, finding.variance_error) > 1


def test_a_method_that_diverges_fails_and_says_how(monkeypatch) -> None:
    def diverge(problem, cfg, *, generator, state=None):
        raise DivergenceError("left the finite numbers")
        yield

    replace_method(monkeypatch, "sgld", diverge)
    (finding,) = selftest(["sgld"])
    assert finding.ok is False
    assert finding.note == "left the finite numbers"
