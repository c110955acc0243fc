"""Laplace on linear regression: the last layer is everything, and the law is exact.

20,000 samples: an entry S_ij of their covariance has a standard error of sqrt((S_ii S_jj + S_ij^2)
/ n), so four of them see 4 % in a variance; four standard errors of a mean see 2.8 % of a standard
deviation. Mode and covariance themselves are compared without draws.
"""

import itertools

import torch

from gped_nas import rng
from gped_nas.posterior.laplace import LaplaceConfig, laplace, last_layer
from tests.scenarios import regression

NUM = 20_000


def test_samples_have_the_exact_posterior():
    problem, mean, precision = regression()
    cfg = LaplaceConfig(name="laplace", steps=200, batch_size=10, lr=0.01)
    chain = laplace(problem, cfg, generator=rng.generator(0, "laplace"))
    steps = list(itertools.islice(chain, 2, NUM + 2))
    theta = torch.stack([s.sample.theta_W for s in steps]).double()
    covariance = torch.linalg.inv(precision)

    # the mode and its Hessian are exact up to float32, whatever Adam left
    mode = steps[0].state["theta"]
    torch.testing.assert_close(mode.double(), mean, rtol=1e-6, atol=1e-6)
    layer = last_layer(problem, problem.network, mode)
    expected = precision[layer.index][:, layer.index]
    torch.testing.assert_close(layer.hessian(layer.start), expected, rtol=1e-6, atol=1e-6)

    # and so are the draws
    std = covariance.diagonal().sqrt()
    assert ((theta.mean(0) - mean).abs() < 4 * std / NUM**0.5).all()
    error = (torch.outer(std, std).square() + covariance.square()).div(NUM).sqrt()
    assert ((theta.mT.cov() - covariance).abs() < 4 * error).all()

    # correlations are far from zero, so that a diagonal law would not pass
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() > 40 * error.max()
