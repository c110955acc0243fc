"""The conjugate self-test: its problem is exact, right methods pass, and broken ones are seen."""

import dataclasses
import math

import pytest
import torch

from gped_nas.errors import DivergenceError
from gped_nas.posterior.base import METHODS, FlatParams, Method, PosteriorSample
from gped_nas.posterior.conjugate import copies, regression
from gped_nas.posterior.selftest import NOT_TRIED, TRIALS, selftest


def test_every_registered_method_is_tried_or_it_is_said_why_not() -> None:
    assert set(TRIALS) | set(NOT_TRIED) == set(METHODS)
    assert not set(TRIALS) & set(NOT_TRIED)
    (finding,) = selftest(["swag"])
    assert finding.ok is None
    assert "SGD" in finding.note


def test_copies_have_the_gradient_and_curvature_of_the_regression() -> None:
    posterior = regression()
    points = torch.linspace(-1, 2, 24).view(3, 8)

    problem = copies(posterior, 3)
    index = torch.tensor([0, 0])  # a minibatch of two is the whole of it, twice
    three = FlatParams({"theta": (3, 8)}, points.flatten().clone())
    gradients = three.gradient(lambda params: problem.potential(params, index)).view(3, 8)

    everything = torch.arange(30)
    for gradient, theta in zip(gradients, points, strict=True):
        single = FlatParams(posterior.problem.shapes, theta.clone())
        expected = single.gradient(lambda params: posterior.problem.potential(params, everything))
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-3)

        exact = posterior.precision_WW @ (theta.double() - posterior.mean_W)
        torch.testing.assert_close(expected.double(), exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["sgld", "psgld", "sghmc", "hmc", "map"])
def test_methods_pass(name: str) -> None:
    (finding,) = selftest([name])
    assert finding.ok, finding
    assert finding.note == ""
    assert finding.seconds > 0

    # by hand: the discretization's inflation is between those of the extreme curvatures
    if name == "sgld":
        assert 1 / (1 - 0.008 * 13.6 / 4) < finding.expected < 1 / (1 - 0.008 * 131.6 / 4)
        assert finding.expected == pytest.approx(finding.found, abs=0.02)


def replace_method(monkeypatch: pytest.MonkeyPatch, name: str, run) -> None:
    monkeypatch.setitem(METHODS._items, name, Method(METHODS[name].config, run))


@pytest.mark.parametrize(
    ("scale", "shift"), [(math.sqrt(1.06), 0.0), (math.sqrt(0.94), 0.0), (1.0, 0.05)]
)
def test_six_percent_of_a_variance_and_a_twentieth_of_a_standard_deviation_are_seen(
    scale, shift, monkeypatch
) -> None:
    right = METHODS["sghmc"]
    posterior = regression()
    std = posterior.covariance_WW.diagonal().sqrt().float()
    mean = posterior.mean_W.float()

    def wrong(problem, cfg, *, generator, state=None):
        for step in right(problem, cfg, generator=generator, state=state):
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
