"""The Gaussian process of the proposer against the textbook's formulas."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal, norm

from gped_nas.search.proposing.gaussian import (
    GaussianProcess,
    Hyperparameters,
    NegativeLogPosterior,
    covariance,
    fit,
    standards,
)

HYPER = Hyperparameters(np.array([0.3, -0.4]), 0.2, -1.5)


def points(num, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(num, 2))
    return x, np.sin(2 * x[:, 0]) + 0.3 * x[:, 1] + generator.normal(0, 0.05, num)


def matern(a, b, hyper):
    """Rasmussen & Williams 2006, equation 4.17, a pair at a time."""
    distance = np.sqrt((((a - b) / np.exp(hyper.lengths_D)) ** 2).sum())
    root = np.sqrt(5) * distance
    return np.exp(hyper.signal) ** 2 * (1 + root + 5 * distance**2 / 3) * np.exp(-root)


def dense(x, y, at, hyper, noise_variance):
    """Posterior means and standard deviations by the inverse, equations 2.23 and 2.24."""
    mean, std = y.mean(), y.std()
    k_xx = np.array([[matern(a, b, hyper) for b in x] for a in x]) + noise_variance * np.eye(len(x))
    k_ax = np.array([[matern(a, b, hyper) for b in x] for a in at])
    inverse = np.linalg.inv(k_xx)
    means = k_ax @ inverse @ ((y - mean) / std) * std + mean
    variances = np.exp(hyper.signal) ** 2 - np.einsum("an,nm,am->a", k_ax, inverse, k_ax)
    return means, np.sqrt(variances) * std


def test_predictions_are_those_of_the_dense_formula():
    x, y = points(12)
    at = np.random.default_rng(1).normal(size=(5, 2))
    process = GaussianProcess(x, y, HYPER)
    means, sds = dense(x, y, at, HYPER, process.noise_variance)
    beliefs = process.at(at)
    np.testing.assert_allclose(beliefs.mean_C, means, rtol=1e-9)
    np.testing.assert_allclose(beliefs.sd_C, sds, rtol=1e-9)


def test_the_covariance_is_the_kernel_of_each_pair():
    x, _ = points(4)
    y, _ = points(3, seed=1)
    expected = [[matern(a, b, HYPER) for b in y] for a in x]
    np.testing.assert_allclose(covariance(x, y, HYPER), expected, rtol=1e-12)


def test_believing_a_point_is_having_seen_its_mean():
    """The means stay; deviations are those of a process that has the point, of the same units."""
    x, y = points(8)
    at = np.random.default_rng(1).normal(size=(6, 2))
    process = GaussianProcess(x, y, HYPER)
    beliefs = process.at(at)
    before = beliefs.mean_C.copy()
    for index in (4, 1):
        beliefs.believe(index)
    np.testing.assert_array_equal(beliefs.mean_C, before)

    seen = np.vstack([x, at[[4, 1]]])
    k_ss = covariance(seen, seen, HYPER) + process.noise_variance * np.eye(10)
    k_as = covariance(at, seen, HYPER)
    variances = np.exp(2 * HYPER.signal) - np.einsum("an,nm,am->a", k_as, np.linalg.inv(k_ss), k_as)
    np.testing.assert_allclose(beliefs.sd_C, np.sqrt(variances) * y.std(), rtol=1e-8)


def test_hyperparameters_are_judged_by_likelihood_and_prior():
    x, y = points(7)
    y = (y - y.mean()) / y.std()
    objective = NegativeLogPosterior(x, y)

    def by_definition(flat):
        hyper = Hyperparameters.of(flat)
        k = covariance(x, x, hyper) + (np.exp(2 * hyper.noise) + 1e-6) * np.eye(7)
        log_prior = norm.logpdf(flat, [0.5, 0.5, 0.0, -2.0], 1.0).sum()
        return -multivariate_normal(np.zeros(7), k).logpdf(y) - log_prior

    one, other = HYPER.flat(), np.array([0.5, 1.0, -0.3, -2.0])
    difference = objective(one)[0] - objective(other)[0]
    assert difference == pytest.approx(by_definition(one) - by_definition(other), rel=1e-9)

    slope = approx_fprime(one, lambda flat: objective(flat)[0], 1e-7)
    np.testing.assert_allclose(objective(one)[1], slope, rtol=1e-4, atol=1e-5)


def test_a_fit_finds_what_matters():
    """An input that does nothing gets a long length; noise is found; new points are predicted."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 2))
    y = np.sin(2 * x[:, 0]) + generator.normal(0, 0.1, 60)
    process = fit(x, y)
    lengths = process.hyper.lengths_D
    assert lengths[1] > lengths[0] + 1
    assert 0.05 < np.exp(process.hyper.noise) * process.unit < 0.2

    at = generator.normal(size=(40, 2))
    beliefs = process.at(at)
    errors = beliefs.mean_C - np.sin(2 * at[:, 0])
    assert np.abs(errors).mean() < 0.15
    assert (np.abs(errors) < 4 * beliefs.sd_C + 0.02).all()


def test_a_fit_takes_many_points_alike_ones_and_one():
    x, y = points(300)
    assert fit(x, y).at(x[:3]).mean_C == pytest.approx(y[:3], abs=0.3)
    assert fit(x[:1], y[:1]).at(x[:2]).mean_C == pytest.approx([y[0], y[0]])
    alike = fit(np.zeros((4, 2)), np.ones(4))
    assert alike.at(np.zeros((1, 2))).mean_C == pytest.approx([1.0])
    assert standards(np.ones(4)) == (1.0, 1.0)
