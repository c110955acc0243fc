"""Step sizes that chains find: curvatures that are known, stretches taken anew, stops, and keys."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from gped_nas import rng
from gped_nas.errors import DivergenceError
from gped_nas.posterior import step_search
from gped_nas.posterior.base import METHODS, Problem, Step, parse_method
from gped_nas.posterior.step_search import BOUND, largest_curvature
from gped_nas.testing.methods import (
    METHOD_CHECKS,
    MethodCase,
    every_family_can_be_the_teacher,
    method_case,
    samples_are_of_the_problems_size,
)
from tests.scenarios import classifier, gaussian

PRECISIONS = torch.tensor([1.0, 4.0, 100.0])


def of_three_precisions() -> Problem:
    def log_prior(params: dict[str, torch.Tensor]) -> torch.Tensor:
        return -0.5 * (PRECISIONS * params["theta"].square()).sum()

    return replace(gaussian(3, precision=1.0, start=0.5), log_prior=log_prior)


def chain(problem: Problem, num: int, **settings: Any) -> list[Step]:
    cfg = parse_method({"batch_size": 5, **settings}, "here")
    steps = METHODS[cfg.name](problem, cfg, generator=rng.generator(0, "posterior", 0))
    return list(itertools.islice(steps, num))


def found(step: Step) -> float:
    return float(step.state["step_size"])


@pytest.mark.parametrize(("metric", "expected"), [(None, 100.0), (1 / PRECISIONS, 1.0)])
def test_the_largest_curvature_is_that_of_the_steepest_direction(
    metric: torch.Tensor | None, expected: float
) -> None:
    curvature = largest_curvature(
        of_three_precisions(),
        torch.full((3,), 0.5),
        batch_size=1,
        generator=rng.generator(0, "curvature"),
        metric_W=metric,
    )
    assert curvature == pytest.approx(expected, rel=1e-3)


def test_the_curvature_is_infinite_where_a_gradient_is_not_finite() -> None:
    generator = rng.generator(0, "curvature")
    curvature = largest_curvature(
        nowhere_finite(), torch.zeros(3), batch_size=1, generator=generator
    )
    assert curvature == float("inf")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgld", BOUND / 100),
        ("csgld", BOUND / 100),
        # gamma h = .1 and h / gamma = 1 / 100: a minibatch heats as much as with SGLD's step
        ("sghmc", (0.1 / 100) ** 0.5),
        ("csghmc", (0.1 / 100) ** 0.5),
    ],
)
def test_of_a_constant_curvature_the_first_step_size_is_kept(name: str, expected: float) -> None:
    length = {"step_size": {"length": 200}} if name.startswith("c") else {"burn_in": 200}
    steps = chain(of_three_precisions(), 5, name=name, **length)
    assert [found(step) for step in steps] == [pytest.approx(expected, rel=1e-3)] * 5
    assert [int(step.state.get("step", 0)) for step in steps] == [0, 100, 200, 300, 400]
    assert [step.sample is not None for step in steps][:3] == [False] * 3


def test_psgld_finds_it_in_the_frame_of_its_preconditioner() -> None:
    # the gradient of the steepest coordinate is 50, so that D is about 1 / 50 and its a D is 2
    first = chain(of_three_precisions(), 1, name="psgld")[0]
    assert found(first) == pytest.approx(BOUND / 2, rel=0.01)


def test_friction_carries_off_the_heat_of_minibatches() -> None:
    given = chain(of_three_precisions(), 1, name="sghmc", friction=0.5)[0]
    assert found(given) == pytest.approx(0.5 / 100, rel=1e-3)
    heavy = chain(of_three_precisions(), 1, name="sghmc", friction=50.0, mass=4.0)[0]
    assert found(heavy) == pytest.approx((4 * BOUND / 100) ** 0.5, rel=1e-3)


def valley() -> Problem:
    """U = theta^4: flat where the chain begins, and steeper the further away."""
    return replace(
        gaussian(50, precision=1.0, start=1e-3),
        log_prior=lambda params: -params["theta"].double().pow(4).sum().float(),
    )


def test_where_the_curvature_rises_a_stretch_is_taken_anew_with_half_the_step_size() -> None:
    steps = chain(valley(), 60, name="sgld", burn_in=1000)
    sizes = [found(step) for step in steps]
    reached = [int(step.state.get("step", 0)) for step in steps]
    assert sizes[0] > 1e3  # the curvature there is 12e-6
    assert sizes[-1] < 0.5

    for (before, after), (size, next_size) in zip(
        itertools.pairwise(reached), itertools.pairwise(sizes), strict=True
    ):
        is_anew = after == before
        assert next_size == (size / 2 if is_anew else size)
        assert is_anew or after == before + 100
    assert all(bool(s.state.get("theta", torch.zeros(1)).isfinite().all()) for s in steps)

    # what is kept at the end of burn-in is stable there, and samples come after it
    (end,) = (step for step in steps if int(step.state.get("step", 0)) == 1000)
    curvature = 12 * float(end.state["theta"].square().max())
    assert found(end) * curvature < 1.01 * BOUND
    sampled = [step for step in steps if step.sample is not None]
    assert sampled and {found(step) for step in sampled} == {found(end)}


def test_a_step_size_that_diverges_is_never_kept() -> None:
    problem = classifier()
    steep = replace(problem, x=1000 * problem.x)
    given = {"name": "sgld", "burn_in": 20, "thinning": 20}
    with pytest.raises(DivergenceError):
        chain(steep, 30, **given, step_size={"initial": 5.0})
    steps = chain(steep, 30, **given)
    assert steps[-1].sample is not None


def test_a_chain_without_burn_in_throws_its_trial_away() -> None:
    steps = chain(valley(), 40, name="sgld", burn_in=0, thinning=10, batch_size=1)
    sizes = [found(step) for step in steps if "departure" in step.state]
    assert len(sizes) > 3 and sizes[-1] < 2
    assert int(steps[len(sizes)].state["step"]) == 10


def nowhere_finite() -> Problem:
    return replace(gaussian(3, precision=1.0), log_prior=lambda params: params["theta"].log().sum())


def test_where_no_step_size_is_stable_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DivergenceError, match="sgld: the gradient is not finite around where"):
        chain(nowhere_finite(), 1, name="sgld")

    monkeypatch.setattr(step_search, "_MOST_HALVINGS", 3)
    with pytest.raises(DivergenceError, match="sgld: after 4 halvings .* is not stable; give"):
        chain(valley(), 10, name="sgld")


PROMISES = [
    check
    for check in METHOD_CHECKS
    if check not in (every_family_can_be_the_teacher, samples_are_of_the_problems_size)
]


@pytest.mark.parametrize("check", PROMISES, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ["psgld", "csghmc"])
def test_a_chain_that_finds_its_step_size_keeps_its_promises(
    name: str, check: Callable[[MethodCase], None]
) -> None:
    example = dict(METHODS[name].example)
    example["step_size"] = {key: v for key, v in example["step_size"].items() if key != "initial"}
    start = {"name": "map", "steps": 100, "batch_size": 4}
    check(method_case(name, {**example, "start": start}))


def test_a_given_step_size_is_in_the_key_as_before() -> None:
    given = parse_method({"name": "sghmc", "step_size": {"initial": 0.01}}, "here")
    assert given.identity() == {
        "name": "sghmc",
        "chains": 1,
        "batch_size": 100,
        "temperature": 1.0,
        "burn_in": 1000,
        "thinning": 100,
        "step_size": {"initial": 0.01, "halve_at": []},
        "friction": 1.0,
        "mass": 1.0,
    }
    finding = parse_method({"name": "sghmc"}, "here").identity()
    assert (finding["step_size"]["initial"], finding["friction"]) == (None, None)
