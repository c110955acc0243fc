"""The subspace that ``subspace`` samples in: its directions, and what cannot span it."""

import itertools
from dataclasses import replace

import pytest
import torch

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.base import METHODS
from gped_nas.posterior.subspace import SubspaceConfig, principal_directions, subspace
from tests.scenarios import classifier, gaussian

SETTINGS = {"name": "subspace", **METHODS["subspace"].example}


def test_the_directions_are_the_leading_right_singular_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    deviations = torch.randn(6, 40, generator=generator) * torch.linspace(3, 0.1, 40)
    basis_KW, spread_K = principal_directions(deviations, 3)

    _, values, vectors = torch.linalg.svd(deviations.double(), full_matrices=False)
    overlap = (basis_KW @ vectors[:3].mT).abs()
    torch.testing.assert_close(overlap, torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(spread_K, values[:3] / 6**0.5)


def test_more_directions_than_deviations_are_refused_as_a_setting() -> None:
    with pytest.raises(ConfigError, match=r"components: found 4, expected at most rank \(3\)"):
        parse(SubspaceConfig, {**SETTINGS, "components": 4}, "here")


def test_a_trajectory_of_too_few_directions_says_so() -> None:
    cfg = parse(SubspaceConfig, {**SETTINGS, "swag_lr": 0.1}, "here")
    chain = subspace(gaussian(1, precision=2.0, start=3.0), cfg, generator=rng.generator(0, "one"))
    with pytest.raises(ConfigError, match=r"found 2, but the trajectory spans 1 directions; lower"):
        list(itertools.islice(chain, 8))


def test_a_mean_without_a_potential_is_told() -> None:
    problem = classifier()
    cfg = parse(SubspaceConfig, SETTINGS, "here")
    chain = subspace(problem, cfg, generator=rng.generator(0, "x"))
    moments = list(itertools.islice(chain, 4))[-1].state

    nowhere = replace(problem, log_prior=lambda params: torch.tensor(torch.nan))
    chain = subspace(nowhere, cfg, generator=rng.generator(0, "x"), state=moments)
    with pytest.raises(DivergenceError, match=r"potential is inf at the mean.*lower .*swag_lr"):
        next(chain)
