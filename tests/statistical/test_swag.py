"""SWAG's samples against the normal distribution that its moments define.

With mean m, variances v and deviations D (J, W) the law is N(m, (diag(v) + D^T D / (J - 1)) / 2).
An entry S_ij of the covariance of n = 40,000 samples has a standard error of sqrt((S_ii S_jj +
S_ij^2) / n): four see 2.8 % in a variance, and 4 % of sqrt(S_ii S_jj) in the largest of the 43 * 42
/ 2 covariances at five. Leaving out a half, or J for J - 1 (25 % of the low-rank part here), is far
above that.
"""

import itertools

import torch

from gped_nas import rng
from gped_nas.posterior.swag import SwagConfig, swag
from tests.scenarios import classifier

NUM, BURN_IN, COLLECTIONS, RANK = 40_000, 2, 10, 5


def test_samples_have_the_covariance_of_their_moments():
    cfg = SwagConfig(
        name="swag",
        steps=200,
        batch_size=4,
        swag_lr=0.3,
        collect_every=5,
        collections=COLLECTIONS,
        rank=RANK,
    )
    chain = swag(classifier(), cfg, generator=rng.generator(0, "swag"))
    start = BURN_IN + COLLECTIONS
    steps = list(itertools.islice(chain, start, start + NUM))
    theta = torch.stack([step.sample.theta_W for step in steps]).double()

    moments = steps[0].state
    mean, square, deviations = (moments[k].double() for k in ("mean", "square", "deviations"))
    law = (torch.diag(square / COLLECTIONS) + deviations.mT @ deviations / (RANK - 1)) / 2
    std = law.diagonal().sqrt()
    alive = std > 1e-7  # a unit that no example switches on only decays, at the scale of rounding
    assert alive.sum() > 30

    error = (torch.outer(std, std).square() + law.square()).div(NUM).sqrt()
    misfit = (theta.mT.cov() - law).abs() / error
    assert misfit.diagonal()[alive].max() < 4
    assert misfit[alive][:, alive].max() < 5
    assert ((theta.mean(0) - mean).abs()[alive] < 4 * std[alive] / NUM**0.5).all()

    # both halves count: either one alone is off by far more than this sees
    assert ((deviations.square().sum(0) / (RANK - 1) / 2 / law.diagonal())[alive] > 0.2).any()
    assert ((square / COLLECTIONS / 2 / law.diagonal())[alive] > 0.2).any()
