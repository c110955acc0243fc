"""The chain of ``subspace`` against the exact law of a conjugate regression in its subspace.

With the posterior N(mu, A^-1) and theta = m + z P the density of z is normal, of precision
P A P^T / T and mean -(P A P^T)^-1 P A (m - mu). Of 2,500 samples four standard errors, from 25
batches of 100, see about 11 % in a variance and .1 standard deviations in a mean.
"""

import itertools

import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.posterior.subspace import SubspaceConfig, slice_step, subspace
from tests.scenarios import regression

NUM, BATCHES, TEMPERATURE = 2500, 25, 0.5


def errors(draws_SK: Tensor, mean_K: Tensor, variance_K: Tensor) -> Tensor:
    """Mean and variances beside those of the law, in standard errors of batch means."""
    away_SK = draws_SK - mean_K
    found = []
    for value_SK, expected_K in ((away_SK, torch.zeros_like(mean_K)), (away_SK**2, variance_K)):
        batches = value_SK.view(BATCHES, -1, len(mean_K)).mean(1)
        found.append((batches.mean(0) - expected_K).abs() / (batches.std(0) / BATCHES**0.5))
    return torch.stack(found)


def test_samples_have_the_exact_law_of_the_subspace() -> None:
    problem, mean_W, precision_WW = regression()
    cfg = SubspaceConfig(
        name="subspace",
        steps=200,
        lr=0.03,
        batch_size=5,
        swag_lr=0.2,
        collect_every=5,
        collections=20,
        rank=10,
        components=3,
        temperature=TEMPERATURE,
        burn_in=30,
        thinning=3,
    )
    chain = subspace(problem, cfg, generator=rng.generator(0, "subspace"))
    drawn = (step for step in chain if step.sample is not None)
    steps = list(itertools.islice(drawn, NUM))
    theta_SW = torch.stack([step.sample.theta_W for step in steps if step.sample]).double()

    state = steps[0].state
    basis_KW, origin_W = state["basis"], state["mean"].double()
    torch.testing.assert_close(basis_KW @ basis_KW.mT, torch.eye(3, dtype=torch.float64))
    away_SW = theta_SW - origin_W
    z_SK = away_SW @ basis_KW.mT
    torch.testing.assert_close(z_SK @ basis_KW, away_SW, atol=1e-5, rtol=0)

    restricted_KK = basis_KW @ precision_WW @ basis_KW.mT
    pull_K = basis_KW @ precision_WW @ (origin_W - mean_W)
    mean_K = -torch.linalg.solve(restricted_KK, pull_K)
    covariance_KK = TEMPERATURE * torch.linalg.inv(restricted_KK)

    # along the eigenvectors of the law, so that correlations are looked at too
    _, axes_KK = torch.linalg.eigh(covariance_KK)
    variance_K = (axes_KK.mT @ covariance_KK @ axes_KK).diagonal()
    assert errors(z_SK @ axes_KK, mean_K @ axes_KK, variance_K).max() < 4
    # the law at T = 1, or around the origin, would be seen
    assert errors(z_SK @ axes_KK, mean_K @ axes_KK, 2 * variance_K)[1].min() > 4
    assert errors(z_SK @ axes_KK, 0 * mean_K, variance_K)[0].max() > 4


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_a_wrong_reference_changes_nothing_but_the_way(scale: float) -> None:
    """N(1, 1/4) by a reference that is too narrow, and by one that is too wide."""
    generator = rng.generator(0, "slice", str(scale))
    scale_K = torch.tensor([scale], dtype=torch.float64)

    def log_density(z_K: Tensor) -> float:
        z = float(z_K)
        return -2 * (z - 1) ** 2 + z**2 / (2 * scale**2)

    z_K = torch.zeros(1, dtype=torch.float64)
    draws = []
    for _ in range(4 * NUM):
        z_K = slice_step(z_K, log_density, scale_K, generator=generator)
        draws.append(z_K)
    law = torch.tensor([1.0]).double(), torch.tensor([0.25]).double()
    assert errors(torch.stack(draws)[100 - len(draws) % 100 :: 4], *law).max() < 4
