"""The prior precision of the largest evidence, against the formula that it maximizes."""

import pytest
import torch

from gped_nas import rng
from gped_nas.posterior.base import flatten, unflatten
from gped_nas.posterior.evidence import evidence_precision, gauss_newton_diagonal
from tests.scenarios import classifier, regression


def generator(*path):
    return rng.generator(0, "evidence", *path)


def test_the_diagonal_of_a_regression_is_exact():
    # outputs are linear with noise 0.7: the matrix is that of the posterior less the prior's 1.5
    problem, mean_W, precision_WW = regression()
    diagonal_W = gauss_newton_diagonal(problem, mean_W.float(), generator=generator("linear"))
    expected_W = (precision_WW.diagonal() - 1.5).float()
    torch.testing.assert_close(diagonal_W, expected_W, rtol=1e-5, atol=1e-4)


def test_the_diagonal_of_a_classifier_is_the_mean_over_signs():
    problem = classifier()
    theta_W = flatten(problem.initialize(generator("parameters")))
    draws = [
        gauss_newton_diagonal(problem, theta_W, generator=generator("signs", i)) for i in range(400)
    ]
    estimate_W = torch.stack(draws).mean(0)
    error_W = torch.stack(draws).std(0) / len(draws) ** 0.5

    # by hand: sum over examples and pairs of outputs of J_c Lambda_cd J_d
    params = unflatten(theta_W, problem.shapes)
    network = problem.network
    expected_W = torch.zeros_like(theta_W)
    for x in problem.x:
        jacobian = torch.func.jacrev(lambda p, x=x: network.forward(p, x[None])[0])(params)
        rows_CW = torch.cat([jacobian[name].flatten(1) for name in problem.shapes], 1)
        prob_C = network.forward(params, x[None])[0].softmax(0)
        curvature_CC = prob_C.diag() - prob_C[:, None] * prob_C
        expected_W += torch.einsum("cw,cd,dw->w", rows_CW, curvature_CC, rows_CW)
    assert bool(((estimate_W - expected_W).abs() < 5 * error_W + 1e-4).all())


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_the_precision_maximizes_the_evidence_of_this_network(size):
    problem, mean_W, precision_WW = regression()
    theta_W = size * mean_W.float()
    found = evidence_precision(problem, theta_W, generator=generator("linear"))

    curvature_W = precision_WW.diagonal() - 1.5
    grid = found * torch.logspace(-2, 2, 4001, dtype=torch.float64)
    determinants = torch.log1p(curvature_W / grid[:, None]).sum(1)
    evidence = -0.5 * grid * theta_W.double().square().sum() - 0.5 * determinants
    assert float(grid[evidence.argmax()]) == pytest.approx(found, rel=0.005)
