"""Metrics of moments, costs, Dirichlets and quantiles against closed forms and by hand."""

import math

import numpy as np
import pytest
import torch

from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.posterior import LEAST_CONCENTRATION
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.teacher import averaged
from gped_nas.targets.base import TARGETS, resolve
from gped_nas.targets.mean import UtilitySettings, utility
from gped_nas.targets.quantile import QuantileSettings, quantile

LABELS = np.array([0, 1])


def saying(**expectations):
    """Predictions of two examples of two classes that say this beside one half for each class."""
    targets = expectations.pop("targets", ())
    arrays = {name: np.array(values, np.float64) for name, values in expectations.items()}
    return Predictions(np.full((2, 2), math.log(0.5)), arrays, targets)


def teacher_of(*probabilities, targets):
    """The average of posterior samples of which each says the same of both examples."""
    log_prob = torch.tensor([[p, p] for p in probabilities], dtype=torch.float64).log()
    return averaged(log_prob, torch.ones(len(log_prob)), None, targets)


def value(name, student, teacher=None):
    return METRICS[name].value(student, LABELS, teacher)


def test_moments_are_compared_class_by_class():
    # E[p^2] of (.2, .8) and (.6, .4): (.2, .4); E[p]^2 = (.16, .36); variances (.04, .04).
    teacher = teacher_of((0.2, 0.8), (0.6, 0.4), targets=resolve(["predictive", "second_moment"]))
    student = saying(second_moment=[[0.3, 0.4], [0.2, 0.1]], variance=[[0.0, 0.04], [0.01, 0.06]])
    assert value("second_moment_error", student, teacher) == pytest.approx((0.1 + 0.3) / 2)
    assert value("posterior_variance_error", student, teacher) == pytest.approx((0.04 + 0.05) / 2)


def test_costs_are_those_of_the_action_that_the_student_takes():
    # Rows are labels, columns actions: the student takes action 1, then action 0.
    costs = ((0.0, 3.0), (10.0, 1.0))
    target = utility(UtilitySettings(costs=costs))
    student = saying(utility=[[5.0, 4.0], [2.0, 9.0]], targets=(target,))
    assert value("realized_cost", student) == pytest.approx((costs[0][1] + costs[1][0]) / 2)

    # The teacher says (.8, .2): it expects costs of 2 and 2.6, and takes action 0 in both.
    teacher = teacher_of((0.8, 0.2), targets=(TARGETS["predictive"], target))
    assert teacher.expectations["utility"] == pytest.approx(np.array([[2.0, 2.6], [2.0, 2.6]]))
    assert value("utility_regret", student, teacher) == pytest.approx(0.6 / 2)
    assert value("utility_regret", teacher, teacher) == 0.0


def test_the_default_cost_of_a_wrong_class_is_one():
    student = saying(utility=[[0.2, 0.8], [0.1, 0.9]])
    assert value("realized_cost", student) == pytest.approx(0.5)


def test_kl_of_dirichlets_in_closed_form():
    # KL(Dir(1, 1) || Dir(2, 2)) = ln G(2) - ln G(4) + 2 ln G(2) + 2 (1 - 2) (psi(1) - psi(2))
    #                            = -ln 6 + 2, and KL of Dir(2, 2) to itself is 0.
    student = saying(dirichlet=[[2.0, 2.0], [2.0, 2.0]])
    teacher = saying(dirichlet=[[1.0, 1.0], [2.0, 2.0]])
    assert value("dirichlet_kl", student, teacher) == pytest.approx((2 - math.log(6)) / 2)
    assert value("precision_error", student, teacher) == pytest.approx(math.log(2) / 2)


def test_kl_of_dirichlets_is_that_of_their_samples():
    generator = torch.Generator().manual_seed(0)
    p = torch.distributions.Dirichlet(torch.tensor([0.7, 2.0], dtype=torch.float64))
    q = torch.distributions.Dirichlet(torch.tensor([1.5, 1.0], dtype=torch.float64))
    # Distributions draw from the global generator alone.
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(1000, (), generator=generator)))
        samples = p.sample((200_000,))
    estimate = float((p.log_prob(samples) - q.log_prob(samples)).mean())

    student = saying(dirichlet=[[1.5, 1.0]] * 2)
    teacher = saying(dirichlet=[[0.7, 2.0]] * 2)
    assert value("dirichlet_kl", student, teacher) == pytest.approx(estimate, abs=0.02)


def test_concentrations_of_nothing_give_a_finite_kl():
    student = saying(dirichlet=[[0.0, 0.0], [1e-30, 5.0]])
    teacher = saying(dirichlet=[[3.0, 1e-30], [0.0, 0.0]])
    assert math.isfinite(value("dirichlet_kl", student, teacher))

    floored = saying(dirichlet=[[LEAST_CONCENTRATION] * 2, [LEAST_CONCENTRATION, 5.0]])
    assert value("dirichlet_kl", student, floored) == pytest.approx(0.0, abs=1e-12)


def test_a_dirichlet_says_nothing_of_one_network():
    targets = resolve(["predictive", "second_moment"])
    single = teacher_of((0.3, 0.7), targets=targets)
    several = teacher_of((0.3, 0.7), (0.4, 0.6), targets=targets)
    for name in ("dirichlet_kl", "precision_error"):
        assert METRICS[name].applies(several, several)
        assert not METRICS[name].applies(single, several)
        assert not METRICS[name].applies(several, single)
    assert METRICS["posterior_variance_error"].applies(single, several)


def test_pinball_loss_and_coverage_by_hand():
    # Class 0 has samples .1, .2, .3, .4, class 1 their complements. The student says .25 and .75 at
    # the only level, .5: half of the samples lie below either. Their distances are .15, .05, .05,
    # .15, so that the mean pinball loss is .05 a class.
    target = quantile(QuantileSettings(levels=(0.5,)))
    samples = [(p, 1 - p) for p in (0.1, 0.2, 0.3, 0.4)]
    teacher = teacher_of(*samples, targets=(TARGETS["predictive"], target))
    student = saying(quantile=[[0.25, 0.75]] * 2, targets=(target,))
    assert value("quantile_loss", student, teacher) == pytest.approx(2 * 0.05)
    assert value("quantile_coverage_error", student, teacher) == pytest.approx(0.0, abs=1e-12)

    # At .05 and .55 no sample lies below: the level .5 is missed by .5 in both classes.
    low = saying(quantile=[[0.05, 0.55]] * 2, targets=(target,))
    assert value("quantile_coverage_error", low, teacher) == pytest.approx(0.5)
    assert value("quantile_loss", low, teacher) == pytest.approx(2 * 0.5 * 0.2)


def test_quantiles_without_samples_to_judge_them_by_are_left_out():
    teacher = teacher_of((0.3, 0.7), (0.4, 0.6), targets=resolve(["predictive", "quantile"]))
    student = saying(quantile=[[0.1] * 6] * 2)
    for name in ("quantile_loss", "quantile_coverage_error"):
        assert METRICS[name].applies(student, teacher)
        assert not METRICS[name].applies(student, None)
        assert not METRICS[name].applies(student, saying())


def test_the_samples_own_quantiles_have_the_least_loss_and_cover_as_they_say():
    targets = (TARGETS["predictive"], TARGETS["quantile"])
    generator = np.random.default_rng(0)
    log_prob = torch.from_numpy(np.log(generator.dirichlet(np.ones(3), (6, 40))))
    teacher = averaged(log_prob, torch.tensor([1.0, 2.0, 1.0, 0.5, 0.5, 1.0]), None, targets)
    labels = np.zeros(40, int)
    least = METRICS["quantile_loss"].value(teacher, labels)
    assert METRICS["quantile_coverage_error"].value(teacher, labels) == pytest.approx(0, abs=1e-9)

    for shift in (-0.05, 0.02, 0.1):
        moved = teacher.expectations | {"quantile": teacher.expectations["quantile"] + shift}
        student = Predictions(teacher.log_prob_NC, moved, teacher.targets)
        assert METRICS["quantile_loss"].value(student, labels, teacher) > least


def test_samples_are_read_in_parts_with_the_same_result(monkeypatch):
    generator = np.random.default_rng(1)
    log_prob = torch.from_numpy(np.log(generator.dirichlet(np.ones(3), (5, 30))))
    targets = (TARGETS["predictive"], TARGETS["quantile"])
    teacher = averaged(log_prob, torch.ones(5), None, targets)
    names = ("quantile_loss", "quantile_coverage_error")
    whole = [METRICS[name].value(teacher, np.zeros(30, int)) for name in names]

    monkeypatch.setattr("gped_nas.evaluate.posterior._CHUNK", 5 * 3 * 3 * 7)
    parts = [METRICS[name].value(teacher, np.zeros(30, int)) for name in names]
    assert parts == pytest.approx(whole, rel=1e-12)
