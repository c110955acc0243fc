"""Every metric is what a plain formula says, on random, tied, degenerate and infinite inputs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gped_nas.data.base import Normalization
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.scores import SCORES
from gped_nas.evaluate.teacher import averaged
from gped_nas.targets.base import parse_targets
from tests.evaluate.oracles import COSTS, LEVELS, ORACLES, THRESHOLDS

CLASS_TARGETS = parse_targets(
    [
        "predictive",
        "second_moment",
        {"name": "utility", "costs": COSTS},
        {"name": "quantile", "levels": LEVELS},
        "logit_variance",
        {"name": "factors", "rank": 2},
        "interval",
    ],
    "here",
)
REAL_TARGETS = parse_targets(
    [
        "predictive_normal",
        "model_variance",
        "noise_variance",
        {"name": "label_quantile", "levels": LEVELS},
        {"name": "exceedance", "thresholds": THRESHOLDS},
    ],
    "here",
)
KINDS = ("random", "tied", "certain", "alike")
SIZES = st.sampled_from([1, 2, 3, 5, 8, 20, 25, 40])
CASES = given(st.integers(0, 2**32), st.sampled_from(KINDS), st.sampled_from(KINDS), SIZES)
ELSEWHERE = {"ece_debiased", "certified_accuracy"}
"""The formula of the first is a simulation, and ``test_calibration.py`` simulates another way; what
is proven is held to exact minima in ``certify/``."""


def draw_probabilities(generator, kind, shape):
    """Samples (S, N, C): of any numbers, of few numbers and zeros, of zeros and ones, all alike."""
    if kind == "random":
        return generator.dirichlet(np.full(shape[-1], 0.7), shape[:-1])
    if kind == "alike":
        return np.broadcast_to(generator.dirichlet(np.ones(shape[-1])), shape).copy()
    if kind == "certain":
        return np.eye(shape[-1])[generator.integers(shape[-1], size=shape[:-1])]
    counts = generator.integers(0, 3, shape) + np.eye(shape[-1])[0]
    return counts / counts.sum(axis=-1, keepdims=True)


def classifier(generator, kind, n):
    """What a teacher of one to three samples says of three classes."""
    prob = draw_probabilities(generator, kind, (int(generator.integers(1, 4)), n, 3))
    with np.errstate(divide="ignore"):
        log_prob = torch.from_numpy(np.log(prob))
    return averaged(log_prob, torch.ones(len(prob)), None, CLASS_TARGETS)


def regressor(generator, kind, n):
    """What a teacher of one to three samples says of real labels."""
    shape = (int(generator.integers(1, 4)), n)
    mean = generator.normal(size=shape)
    variance = generator.exponential(size=shape) + 0.01
    if kind == "tied":
        mean, variance = np.round(mean), np.round(variance) + 1
    elif kind == "certain":
        variance = np.full(shape, 1e-12)
    elif kind == "alike":
        mean, variance = np.zeros(shape), np.ones(shape)
    samples = torch.from_numpy(np.stack([mean, variance], -1))
    return averaged(samples, torch.ones(len(mean)), Normalization(0.0, 1.0), REAL_TARGETS)


def check_all(task, student, labels, teacher):
    """Every metric that applies against its oracle.

    Returns:
        The names of those that apply.
    """
    checked = set()
    for name, metric in METRICS.items():
        if task not in metric.tasks or name in ELSEWHERE:
            continue
        judged = labels
        if metric.task == "ood":
            judged = (np.arange(len(labels)) % 3 == 1).astype(labels.dtype)
        if not metric.applies(student, teacher):
            continue
        if name.startswith("factor_") and SCORES["logit_variance"].of(teacher).max() < 1e-20:
            continue  # a share of nothing but rounding

        value = metric.value(student, judged, teacher)
        expected = ORACLES[name](student, judged, teacher)
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True), name
        checked.add(name)
    return checked


def test_every_metric_has_an_oracle():
    assert set(METRICS) <= set(ORACLES) | ELSEWHERE

    generator = np.random.default_rng(0)
    checked = set()
    for task, predictor in (("classification", classifier), ("regression", regressor)):
        labels = generator.integers(3, size=40) if task == "classification" else np.zeros(40)
        several = [predictor(generator, "random", 40) for _ in range(9)]
        student, teacher = [x for x in several if not x.is_point][:2]
        checked |= check_all(task, student, labels, teacher)
    assert checked == set(METRICS) - ELSEWHERE


def check_classes(seed, kind, teachers_kind, n):
    generator = np.random.default_rng(seed)
    student, teacher = (classifier(generator, kind, n) for kind in (kind, teachers_kind))
    check_all("classification", student, generator.integers(3, size=n), teacher)


def check_real_labels(seed, kind, teachers_kind, n):
    generator = np.random.default_rng(seed)
    student, teacher = (regressor(generator, kind, n) for kind in (kind, teachers_kind))
    labels = np.round(generator.normal(size=n), 1) * generator.choice([1, 1, 1e6])
    check_all("regression", student, labels, teacher)


@pytest.mark.parametrize("check", [check_classes, check_real_labels])
def test_metrics_are_their_oracles(check):
    settings(max_examples=12, deadline=None, derandomize=True)(CASES(check))()


@pytest.mark.soak
@pytest.mark.parametrize("check", [check_classes, check_real_labels])
def test_metrics_are_their_oracles_on_many_inputs(check):
    settings(max_examples=400, deadline=None)(CASES(check))()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(KINDS), SIZES)
def test_scores_are_those_of_their_formulas(seed, kind, n):
    generator = np.random.default_rng(seed)
    said = classifier(generator, kind, n)
    prob = said.samples.predicted_SNG.exp().numpy()
    entropies = stats.entropy(prob, axis=-1).mean(axis=0)
    total = stats.entropy(prob.mean(axis=0), axis=-1)
    floored = np.log(np.maximum(prob.mean(axis=0), 1e-6))
    logits = np.log(np.maximum(prob, 1e-6))
    logits -= logits.mean(axis=-1, keepdims=True)

    expected = {
        "confidence": -prob.mean(axis=0).max(axis=-1),
        "total": total,
        "expected": entropies,
        "model": total - entropies,
        "energy": floored.mean(axis=-1),
        "logit_variance": logits.var(axis=0).mean(axis=-1),
    }
    of_classes = {name for name, score in SCORES.items() if "classification" in score.tasks}
    assert expected.keys() == of_classes
    for name, values in expected.items():
        assert SCORES[name].of(said) == pytest.approx(values, abs=1e-9), name
    real = regressor(generator, kind, n)
    assert (SCORES["variance"].of(real) == real.variance_N).all()


def test_two_rows_by_hand():
    """(.7, .2, .1) is of class 0, (.1, .6, .3) of class 2.

    Brier: (.09 + .04 + .01 + .01 + .36 + .49) / 2. NLL: -(log .7 + log .3) / 2.
    """
    predictions = Predictions(np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]))
    labels = np.array([0, 2])
    assert METRICS["brier"].value(predictions, labels) == pytest.approx(0.5, abs=1e-15)
    assert METRICS["nll"].value(predictions, labels) == pytest.approx(0.780324, abs=5e-7)
    assert -(math.log(0.7) + math.log(0.3)) / 2 == pytest.approx(0.780324, abs=5e-7)
