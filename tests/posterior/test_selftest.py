"""The conjugate self-test: its problem is the exact one, right methods pass, and broken ones are
seen.
"""

import dataclasses
import math

import pytest
import torch

from gped_nas.errors import DivergenceError
from gped_nas.posterior import selftest as module
from gped_nas.posterior.base import METHODS, FlatParams, Method, PosteriorSample
from gped_nas.posterior.conjugate import copies, regression
from gped_nas.posterior.selftest import NOT_TRIED, TRIALS, selftest


def test_every_registered_method_is_tried_or_it_is_said_why_not() -> None:
    assert set(TRIALS) | set(NOT_TRIED) == set(METHODS)
    assert not set(TRIALS) & set(NOT_TRIED)
    (found,) = selftest(["swag"])
    assert found.ok is None and "SGD" in found.note


def test_copies_have_the_gradient_and_curvature_of_the_regression() -> None:
    known = regression()
    one, three = (
        FlatParams(known.problem.shapes, torch.zeros(8)),
        FlatParams({"theta": (3, 8)}, torch.zeros(24)),
    )
    at = torch.linspace(-1, 2, 24).view(3, 8)
    three.theta_W.copy_(at.flatten())
    problem = copies(known, 3)
    index = torch.tensor([0, 0])  # a minibatch of two is the whole of it, twice
    found = three.gradient(lambda params: problem.potential(params, index)).view(3, 8).clone()
    for row, theta in zip(found, at, strict=True):
        one.theta_W.copy_(theta)
        everything = torch.arange(30)
        expected = one.gradient(lambda params: known.problem.potential(params, everything))  # noqa: B023
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-3)
        exact = known.precision_WW @ (theta.double() - known.mean_W)
        torch.testing.assert_close(expected.double(), exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["sgld", "psgld", "sghmc", "hmc", "map"])
def test_methods_pass(name: str) -> None:
    (found,) = selftest([name])
    assert found.ok, found
    assert found.note == "" and found.seconds > 0
    if (
        name == "sgld"
    ):  # by hand, the discretization's inflation is between those of the extreme curvatures
        assert 1 / (1 - 0.008 * 13.6 / 4) < found.expected < 1 / (1 - 0.008 * 131.6 / 4)
        assert found.expected == pytest.approx(found.found, abs=0.02)


def replaced(monkeypatch: pytest.MonkeyPatch, name: str, run) -> None:
    monkeypatch.setitem(METHODS._items, name, Method(METHODS[name].config, run))


@pytest.mark.parametrize(
    ("scale", "shift"), [(math.sqrt(1.06), 0.0), (math.sqrt(0.94), 0.0), (1.0, 0.05)]
)
def test_six_percent_of_a_variance_and_a_twentieth_of_a_standard_deviation_are_seen(
    scale, shift, monkeypatch
) -> None:
    right = METHODS["sghmc"]
    known = regression()
    std = known.covariance_WW.diagonal().sqrt().float()
    mean = known.mean_W.float()

    def wrong(problem, cfg, *, generator, state=None):
        for step in right(problem, cfg, generator=generator, state=state):
            theta = step.sample.theta_W.view(-1, 8)
            moved = mean + (theta - mean) * scale + shift * std
            yield dataclasses.replace(step, sample=PosteriorSample(moved.flatten()))

    replaced(monkeypatch, "sghmc", wrong)
    (found,) = selftest(["sghmc"])
    assert found.ok is False
    assert max(found.mean_error, found.variance_error) > 1


def test_a_method_that_diverges_fails_and_says_how(monkeypatch) -> None:
    def wild(problem, cfg, *, generator, state=None):
        raise DivergenceError("left the finite numbers")
        yield

    replaced(monkeypatch, "sgld", wild)
    (found,) = module.selftest(["sgld"])
    assert found.ok is False and found.note == "left the finite numbers"
