"""Mean-field inference on linear regression: its own optimum is known exactly.

On a Gaussian posterior of mean m and precision A the best product of normal distributions has mean
m and variances 1 / A_ii, which is not (A^-1)_ii: with inputs of correlation 0.8 the true variances
are up to 2.7 times larger. What training leaves is optimizer noise, shrunk by the falling step
size: the bounds are 3 % of a standard deviation on means and 1 % on standard deviations with local
draws, 8 % and 4 % with plain ones. A variance wrong by 2 % is not seen. The draws are 20,000 from
the fitted law: four standard errors see 2 % in a standard deviation, 4 % in a variance.
"""

import itertools

import pytest
import torch

from gped_nas import rng
from gped_nas.posterior.vi import ViConfig, vi
from tests.scenarios import regression, unstructured

NUM, STEPS = 20_000, 4000


@pytest.mark.parametrize(
    ("draws", "bound_mean", "bound_std"), [("local", 0.03, 0.01), ("plain", 0.08, 0.04)]
)
def test_it_reaches_the_mean_field_optimum(draws, bound_mean, bound_std):
    problem, mean, precision = regression()
    if draws == "plain":
        problem = unstructured(problem)
    cfg = ViConfig(name="vi", steps=STEPS, batch_size=400, lr=0.01)
    steps = vi(problem, cfg, generator=rng.generator(0, "vi", draws))
    (last,) = itertools.islice(steps, STEPS // 100 - 1, STEPS // 100)
    theta = last.state["theta"].double()
    std = precision.diagonal() ** -0.5
    assert ((theta[:8] - mean).abs() < bound_mean * std).all()
    assert (theta[8:].exp() / std - 1).abs().max() < bound_std

    # it is not the marginal law
    true_std = torch.linalg.inv(precision).diagonal().sqrt()
    assert (true_std / std).max() > 1.3


def test_samples_have_the_fitted_law():
    problem, _, _ = regression()
    cfg = ViConfig(name="vi", steps=100, batch_size=20)
    chain = vi(problem, cfg, generator=rng.generator(0, "vi", "samples"))
    tuned, *steps = itertools.islice(chain, 1 + NUM)

    mean, std = tuned.state["theta"].double().split(8)
    samples = torch.stack([s.sample.theta_W for s in steps]).double()
    assert ((samples.mean(0) - mean).abs() < 4 * std.exp() / NUM**0.5).all()
    assert (samples.std(0) / std.exp() - 1).abs().max() < 4 / (2 * NUM) ** 0.5
    correlations = samples.mT.corrcoef() - torch.eye(8)
    assert correlations.abs().max() < 4.5 / NUM**0.5  # the largest of 28: four and a half
