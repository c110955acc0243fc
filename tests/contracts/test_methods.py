"""Every registered posterior method keeps the promises that ``gped_nas.testing`` checks."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.posterior.base import METHODS, Method, Problem
from gped_nas.testing.methods import (
    METHOD_CHECKS,
    MethodCase,
    a_law_draws_anew_from_another_generator,
    method_case,
)
from tests.scenarios import METHOD_SETTINGS

TEMPERED = ("sgld", "psgld", "sghmc", "csgld", "csghmc")


def _write_samples_to_import(problem: Problem) -> None:
    generator = rng.generator(0, "to import")
    tensors = {}
    for name, shape in problem.shapes.items():
        tensors[name] = torch.randn(4, *shape, generator=generator)
    Path("samples.safetensors").write_bytes(safetensors.torch.save(tensors))


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_its_promises(
    name: str,
    check: Callable[[MethodCase], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    reads_a_file = METHODS[name].origin == "given"
    if reads_a_file:
        check(method_case(name, prepare=_write_samples_to_import))
    else:
        check(method_case(name))


def test_a_chain_that_says_it_is_a_law_is_found_out() -> None:
    @dataclass(frozen=True, eq=False)
    class Mistaken(MethodCase):
        @property
        def method(self) -> Method:
            return replace(METHODS[self.name], origin="fitted")

    case = Mistaken("sgld", METHODS["sgld"].example)
    with pytest.raises(AssertionError, match="sgld: a draw changes more of its state than 'rng'"):
        a_law_draws_anew_from_another_generator(case)


@pytest.mark.parametrize("name", METHODS)
def test_a_temperature_is_a_setting_of_stochastic_gradient_chains_alone(name: str) -> None:
    case = method_case(name)
    has_temperature = "temperature" in METHODS[name].config.model_fields
    assert has_temperature or name not in TEMPERED
    if has_temperature:
        assert case.parse(temperature=0.5).temperature == 0.5
    else:
        with pytest.raises(ConfigError, match="temperature: unknown key"):
            case.parse(temperature=0.5)


@pytest.mark.parametrize("name", METHOD_SETTINGS)
@pytest.mark.parametrize("answer", ["Choose it", "costs?", "bias", "Sources?:"])
def test_its_page_says_when_to_choose_it_its_cost_its_bias_and_its_source(
    name: str, answer: str
) -> None:
    page = sys.modules[METHODS[name].run.__module__].__doc__
    assert page and re.search(rf"\b{answer}", page, re.IGNORECASE)
