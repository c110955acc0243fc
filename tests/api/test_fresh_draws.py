"""Fresh draws are of the law that the stored samples are of, and none of them is stored."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from gped_nas.api.fresh_draws import fresh_params
from gped_nas.api.session import Session
from gped_nas.api.teacher import Teacher, sample_teacher
from gped_nas.errors import ConfigError
from gped_nas.posterior.base import METHODS, flatten
from gped_nas.search.space_file import load_space
from gped_nas.stream.calibration import Calibration
from tests.cli.harness import Home

FIT = {"chains": 2, "num_samples": 6, "steps": 100}
LAWS = {
    "vi": {"name": "vi", **FIT},
    "laplace": {"name": "laplace", **FIT},
    "swag": {"name": "swag", **FIT, "collect_every": 2, "collections": 4, "rank": 3},
    "mc_dropout": {"name": "mc_dropout", **FIT, "rate": 0.3},
}
CHAIN = {"name": "sgld", "num_samples": 2, "burn_in": 2, "thinning": 2}


def teacher(home: Home, method: dict[str, Any]) -> Teacher:
    return sample_teacher(
        load_space(home.space, {"teacher.method": method, "teacher.genotype.width": 16}), Session()
    )


def drawn(of: Teacher, num: int, **settings: Any) -> Tensor:
    return torch.stack([flatten(params) for params in fresh_params(of, num, **settings)])


def test_every_law_is_tried_here() -> None:
    independent = {name for name, method in METHODS.items() if method.is_law}
    assert {name for name in independent if not METHODS[name].reads_samples} == set(LAWS)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(LAWS[name], id=name, marks=[pytest.mark.soak] if name == "laplace" else [])
        for name in LAWS
    ],
)
def test_draws_are_fresh_and_of_the_same_law(sampled: Home, method: dict[str, Any]) -> None:
    of = teacher(sampled, method)
    stored_SW = torch.stack([of.stream.theta(index) for index in range(6)])
    fresh_SW = drawn(of, 200)
    assert torch.equal(fresh_SW[:20], drawn(of, 20)), "more draws begin with the same ones"
    assert not torch.equal(fresh_SW[:20], drawn(of, 20, seed=1))
    rows = {theta.numpy().tobytes() for theta in torch.cat([stored_SW, fresh_SW])}
    assert len(rows) > 195, "masks of few units may come again"

    # Each stored sample is of a fit, and so are draws: 3 stored ones of a fit and its 100 fresh
    # ones differ in the mean by at most six standard errors, of either fit.
    assert distance(stored_SW[0::2], fresh_SW) < 6
    assert distance(stored_SW[1::2], fresh_SW) < 6


def distance(stored_SW: Tensor, fresh_SW: Tensor) -> float:
    """The distance of a fit's stored samples' mean from that of its draws, in standard errors."""
    nearest = torch.cdist(fresh_SW, stored_SW).min(1).values
    of_fit = fresh_SW[nearest <= nearest.median()]
    assert 70 < len(of_fit) < 130
    mean, spread = of_fit.mean(0), of_fit.std(0)
    varies = spread > 0
    apart = (stored_SW.mean(0) - mean)[varies] / (spread[varies] * (1 / 3 + 1 / 100) ** 0.5)
    return float(apart.square().mean().sqrt())


@pytest.mark.parametrize("method", LAWS.values(), ids=LAWS)
def test_draws_do_not_remember_the_draw_before(sampled: Home, method: dict[str, Any]) -> None:
    """300 draws: a correlation of neighbors above 4 / sqrt(300) = 0.23 is seen."""
    of = teacher(sampled, {**method, "chains": 1})
    fresh_SW = drawn(of, 300).double()
    weighing_W = torch.randn(fresh_SW.shape[1], generator=torch.Generator().manual_seed(0))
    centered_S = (fresh_SW - fresh_SW.mean(0)) @ weighing_W.double()
    neighbors = (centered_S[1:] * centered_S[:-1]).sum() / centered_S.square().sum()
    assert abs(float(neighbors)) < 4 / 300**0.5


def test_fits_are_drawn_as_often_as_they_weigh(sampled: Home) -> None:
    of = teacher(sampled, LAWS["laplace"])
    weighed = Teacher(
        of.space, of.dataset, of.stream.calibrated(Calibration(weights=(0.2, 0.8))), of.session
    )
    # what lies below the last layer is a fit's own
    own = [of.stream.theta(fit)[:1024] for fit in range(2)]
    counts = [0, 0]
    for params in fresh_params(weighed, 200):
        counts[[torch.equal(flatten(params)[:1024], fit) for fit in own].index(True)] += 1
    assert sum(counts) == 200
    assert abs(counts[1] - 160) < 4 * (200 * 0.2 * 0.8) ** 0.5


@pytest.mark.parametrize(
    ("method", "why"),
    [
        (CHAIN, "successive states of a chain repeat each other"),
        ({"name": "map", "steps": 100}, "points that were optimized are all that there is"),
        ({"name": "subset", "num_samples": 2, "of": CHAIN}, "stored copies are all that there is"),
    ],
    ids=["chain", "optimized", "copied"],
)
def test_what_is_no_law_is_refused(sampled: Home, method: dict[str, Any], why: str) -> None:
    of = teacher(sampled, method)
    with pytest.raises(ConfigError, match=f"expected independent draws of a law .*: {why}"):
        next(fresh_params(of, 1))


def test_a_teacher_without_samples_has_no_law_at_hand(sampled: Home) -> None:
    recipe = {"recipe.mode": "online", "recipe.stream": "none"}
    space = load_space(sampled.space, {"teacher.method": LAWS["mc_dropout"], **recipe})
    with pytest.raises(ConfigError, match="found none.* expected stored for fresh draws; add"):
        next(fresh_params(sample_teacher(space, Session()), 1))


def test_more_stored_samples_leave_fresh_ones_alone(sampled: Home) -> None:
    few = drawn(teacher(sampled, LAWS["mc_dropout"]), 5)
    many = drawn(teacher(sampled, {**LAWS["mc_dropout"], "num_samples": 10}), 5)
    assert torch.equal(few, many)
    pairs = itertools.pairwise(few)
    assert not any(torch.equal(first, second) for first, second in pairs)
