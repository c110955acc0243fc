"""Metrics of logits and intervals against sums over classes, inputs and pairs of inputs."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gped_nas.evaluate import posterior as module
from gped_nas.evaluate.base import METRICS, LabelFacts, draw_resamples
from gped_nas.evaluate.intervals import Bounds
from gped_nas.evaluate.judging import evaluate
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.teacher import averaged
from gped_nas.targets.base import parse_targets
from gped_nas.targets.formulas import centered_logits

CLASSES, INPUTS, SAMPLES = 3, 6, 4
TARGETS = parse_targets(
    ["predictive", "interval", "logit_variance", {"name": "factors", "rank": 2}], "here"
)
LABELS = np.array([0, 1, 2, 0, 1, 2])
WEIGHT = torch.tensor([1.0, 3.0, 2.0, 2.0], dtype=torch.float64)


def samples(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (SAMPLES, INPUTS, CLASSES)
    return torch.randn(shape, generator=generator, dtype=torch.float64).log_softmax(-1)


def said(seed: int) -> Predictions:
    predictions = averaged(samples(seed), WEIGHT, None, TARGETS)
    assert isinstance(predictions, Predictions)
    return predictions


def student(factors: Tensor) -> Predictions:
    return Predictions(said(1).log_prob_NC, {"factors": factors.numpy()}, TARGETS)


def covariances(of: Tensor) -> Tensor:
    """Of the samples' logits at each pair of inputs, (N, N, C, C)."""
    share = WEIGHT / WEIGHT.sum()
    logits = centered_logits(of)
    deviations = logits - torch.einsum("s,snc->nc", share, logits)
    return torch.einsum("s,snc,smd->nmcd", share, deviations, deviations)


FACTORS = torch.randn(
    (INPUTS, 4 * CLASSES), generator=torch.Generator().manual_seed(5), dtype=torch.float64
)
FACTORS[:, -CLASSES:].square_()


@pytest.mark.parametrize("chunk", [1, 4_000_000])
def test_covariances_are_compared_input_by_input_and_pair_by_pair(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    theirs = covariances(samples(0))
    rows = FACTORS.unflatten(1, (4, CLASSES))
    shared = torch.einsum("njc,mjd->nmcd", rows[:, 1:3], rows[:, 1:3])
    error = (shared - theirs).norm() / theirs.norm()
    value = METRICS["factor_coupling_error"].value(student(FACTORS), LABELS, said(0))
    assert value == pytest.approx(float(error))

    alone, whole = torch.zeros(2, dtype=torch.float64)
    for n in range(INPUTS):
        ours = shared[n, n] + rows[n, 3].diag()
        alone = alone + (ours - theirs[n, n]).square().sum()
        whole = whole + theirs[n, n].square().sum()
    value = METRICS["factor_covariance_error"].value(student(FACTORS), LABELS, said(0))
    assert value == pytest.approx(float((alone / whole).sqrt()))


@pytest.mark.parametrize("name", ["factor_covariance_error", "factor_coupling_error"])
def test_factors_that_are_turned_or_change_signs_say_the_same(name: str) -> None:
    rows = FACTORS.unflatten(1, (4, CLASSES)).clone()
    turn = torch.tensor([[0.6, 0.8], [0.8, -0.6]]).double()  # a rotation and a sign
    rows[:, 1:3] = torch.einsum("ij,njc->nic", turn, rows[:, 1:3])
    metric = METRICS[name]
    turned = metric.value(student(rows.flatten(1)), LABELS, said(0))
    assert turned == pytest.approx(metric.value(student(FACTORS), LABELS, said(0)))


def test_knowing_no_covariance_is_the_worst() -> None:
    nothing = torch.zeros_like(FACTORS)
    for name in ("factor_covariance_error", "factor_coupling_error"):
        metric = METRICS[name]
        assert metric.value(student(nothing), LABELS, said(0)) == pytest.approx(1)
        assert metric.worst == 1.0


def test_a_teacher_is_off_by_what_its_first_factors_leave_out() -> None:
    teacher = said(0)
    whole = covariances(samples(0)).movedim(1, 2).flatten(2).flatten(0, 1)
    eigenvalues = torch.linalg.eigvalsh(whole)
    expected = eigenvalues[:-2].norm() / eigenvalues.norm()
    value = METRICS["factor_coupling_error"].value(teacher, LABELS)
    assert value == pytest.approx(float(expected))


def test_errors_of_ends_and_variances_are_sums_over_classes() -> None:
    mine, theirs = said(1), said(0)
    prob, other = samples(1).exp(), samples(0).exp()
    ends = (prob.amin(0) - other.amin(0)).abs() + (prob.amax(0) - other.amax(0)).abs()
    value = METRICS["interval_error"].value(mine, LABELS, theirs)
    assert value == pytest.approx(float(ends.sum(1).mean()))

    variances = [covariances(samples(seed)).diagonal(dim1=2, dim2=3) for seed in (1, 0)]
    at_each = (variances[0] - variances[1])[torch.arange(INPUTS), torch.arange(INPUTS)]
    value = METRICS["logit_variance_error"].value(mine, LABELS, theirs)
    assert value == pytest.approx(float(at_each.abs().sum(1).mean()))


def test_the_intersection_is_judged_by_the_label() -> None:
    inside = np.array([[0.5, 0.25, 0.25]] * 3)
    predictions = Predictions(np.log(inside), {"intersection": inside})
    value = METRICS["intersection_nll"].value(predictions, np.array([0, 1, 2]))
    assert value == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)

    inside[0] = (0.0, 0.5, 0.5)
    predictions = Predictions(predictions.log_prob_NC, {"intersection": inside})
    assert METRICS["intersection_nll"].value(predictions, np.array([0, 1, 2])) == math.inf


def test_the_worst_variance_is_that_of_samples_at_either_end() -> None:
    """Two samples, sure of one class each: a logit is 13.8 (1 - 1 / C) away at most."""
    sure = torch.eye(CLASSES, dtype=torch.float64)[:2, None].log()
    predictions = averaged(sure, torch.ones(2), None, TARGETS)
    variance = predictions.expectations["logit_variance"][0]
    # log 1e-6 = -13.8155 at the first class of one sample; and 0 of the other one
    assert variance.tolist() == pytest.approx([(13.8155 / 2) ** 2] * 2 + [0.0], rel=1e-5)
    worst = METRICS["logit_variance_error"].worst
    assert callable(worst)
    assert variance.sum() <= worst(LabelFacts(CLASSES))


def test_an_intersection_that_is_never_wrong_has_no_interval() -> None:
    """How large the losses of wrong ones are is not known, as of the NLL; the prediction is."""
    generator = np.random.default_rng(0)
    labels = np.zeros(100, int)
    doubt = 0.01 * generator.random(100)
    sure = np.stack([1 - doubt, doubt], axis=1)
    unsure = Predictions(np.log(np.full((100, 2), 0.5)), {"intersection": sure})
    resamples = draw_resamples(100, root=0, part="validation")

    row = evaluate(unsure, labels, resamples=resamples)[Key("intersection_nll")]
    assert row.value == pytest.approx(-np.log(sure[:, 0]).mean())
    assert row.interval is None and "only 0 of 100 examples are wrong" in row.why

    labels[:5] = 1
    low, high = evaluate(unsure, labels, resamples=resamples)[Key("intersection_nll")].interval
    assert low < high


def test_no_error_of_a_posterior_is_below_zero() -> None:
    for name in ("interval_error", "intersection_nll", "logit_variance_error"):
        metric = METRICS[name]
        assert metric.cut(Bounds(-0.1, 0.2), "classification") == Bounds(0.0, 0.2)
