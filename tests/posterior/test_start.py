"""Chains that begin at a trained network: its training, its key, and going on after a stop."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.posterior.base import METHODS, parse_method, unflatten
from gped_nas.posterior.map import MapConfig, map_estimate
from gped_nas.testing.methods import (
    METHOD_CHECKS,
    MethodCase,
    every_family_can_be_the_teacher,
    method_case,
)
from tests.scenarios import classifier

CHAINS = ("sgld", "psgld", "sghmc", "csgld", "csghmc", "hmc")
TRAINING = {"name": "map", "steps": 200, "lr": 0.05, "batch_size": 4}


def from_map(name: str) -> MethodCase:
    return method_case(name, {**METHODS[name].example, "start": TRAINING})


PROMISES = [check for check in METHOD_CHECKS if check is not every_family_can_be_the_teacher]


@pytest.mark.parametrize("check", PROMISES, ids=lambda check: check.__name__)
def test_a_chain_from_a_trained_network_keeps_its_promises(
    check: Callable[[MethodCase], None],
) -> None:
    check(from_map("sghmc"))


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_begins_where_its_own_training_ends(name: str) -> None:
    problem = classifier()
    steps = from_map(name).run(problem)

    cfg = MapConfig(**TRAINING)
    *_, trained = map_estimate(problem, cfg, generator=rng.generator(0, "posterior", 0))
    assert trained.sample is not None
    assert torch.equal(steps[1].state["start_theta"], trained.sample.theta_W)
    assert [step.sample is None for step in steps[:2]] == [True, True]
    assert all("start_theta" not in step.state for step in steps[2:])

    # the chain from there, with the generator as training left it
    generator = torch.Generator()
    generator.set_state(trained.state["rng"])
    point = unflatten(trained.sample.theta_W, problem.shapes)
    at_point = replace(problem, initialize=lambda generator: point)
    there = METHODS[name](at_point, method_case(name).parse(), generator=generator)
    for step, expected in zip(steps[2:], itertools.islice(there, 6), strict=True):
        assert torch.equal(step.state["theta"], expected.state["theta"])


def test_settings_of_the_training_are_those_of_map() -> None:
    short = from_map("sgld").parse(start="map")
    assert short.start == MapConfig(name="map")
    assert from_map("sgld").parse().start == MapConfig(**TRAINING)


@pytest.mark.parametrize("start", ["hmc", {"name": "prior"}, {"steps": 100}, 3])
def test_any_other_start_is_refused(start: Any) -> None:
    with pytest.raises(ConfigError, match="start: found .*, expected prior, map, or settings of"):
        from_map("sgld").parse(start=start)


def test_a_mistake_in_the_training_is_named() -> None:
    with pytest.raises(ConfigError, match="map: stepz: unknown key; did you mean 'steps'"):
        from_map("sgld").parse(start={"name": "map", "stepz": 100})


@pytest.mark.parametrize("name", CHAINS)
def test_the_start_is_in_the_key_where_there_is_a_network_alone(name: str) -> None:
    fresh = method_case(name).parse(start="prior")
    assert "start" not in fresh.identity()
    assert fresh == method_case(name).parse()
    assert from_map(name).parse().identity()["start"] == TRAINING
    read_again = parse_method(from_map(name).parse().model_dump(mode="json"), "here")
    assert read_again == from_map(name).parse()
