"""Means over seeds and their differences: by hand, by a loop, and how often intervals hold."""

import math

import numpy as np
import pytest
from scipy import stats

from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.judging import evaluate_or_explain, paired_difference
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.predictions import Floats, Predictions
from gped_nas.evaluate.resamples import Resamples, draw_resamples
from gped_nas.evaluate.seeds import (
    Sampled,
    difference_error,
    differences,
    means,
    sample_metrics,
)

N, CLASSES, SEEDS = 200, 3, 4
RESAMPLES = draw_resamples(N, root=0, part="test", num_resamples=400)


def trained(sharpness: float, *, noise: float = 0.7) -> tuple[list[Predictions], np.ndarray]:
    """Networks of several seeds that know a class so well, and the labels."""
    generator = np.random.default_rng(0)
    labels_N = generator.integers(CLASSES, size=N)
    hard_NC = generator.normal(size=(N, CLASSES))
    networks = []
    for _ in range(SEEDS):
        logits = hard_NC + noise * generator.normal(size=(N, CLASSES))
        logits[np.arange(N), labels_N] += sharpness
        log_prob = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        entropy_N = -(np.exp(log_prob) * log_prob).sum(1)
        networks.append(Predictions(log_prob, {"expected_entropy": entropy_N}))
    return networks, labels_N


def test_every_metric_is_the_mean_of_its_values_by_seed() -> None:
    networks, labels_N = trained(1.5)
    teacher = trained(2.0)[0][0]
    sampled = sample_metrics(networks, labels_N, [teacher] * SEEDS, resamples=RESAMPLES)
    measured = means(sampled, root=0)

    tables = [
        evaluate_or_explain(network, labels_N, teacher, resamples=RESAMPLES) for network in networks
    ]
    assert {Key(name) for name in measured} == set(tables[0])
    assert {"nll", "accuracy", "ece", "brier", "entropy_error", "kl_to_teacher"} <= set(measured)
    for name, row in measured.items():
        by_seed = [table[Key(name)].value for table in tables]
        assert row.value == pytest.approx(np.mean(by_seed)), name
        assert row.n == N
        assert (row.low is None) == bool(row.why)
        if row.low is not None:
            assert row.low < row.value < row.high
    assert "noise adds to it" in measured["ece"].why
    assert "no interval is known" in measured["ece_debiased"].why


def test_a_difference_is_paired_in_examples_and_seeds() -> None:
    """Both ends by a loop over the resamples, and by Satterthwaite's formula."""
    mine, labels_N = trained(2.0)
    theirs, _ = trained(1.6)
    first = sample_metrics(mine, labels_N, [None] * SEEDS, resamples=RESAMPLES)
    second = sample_metrics(theirs, labels_N, [None] * SEEDS, resamples=RESAMPLES)
    row = differences(first, second, root=0)["nll"]

    nll_KN = [
        -a.log_score(labels_N) + b.log_score(labels_N) for a, b in zip(mine, theirs, strict=True)
    ]
    difference_KN = np.stack(nll_KN)
    assert row.value == pytest.approx(difference_KN.mean())

    on_examples = [np.repeat(difference_KN.mean(0), c).mean() for c in RESAMPLES.counts_RN]
    of_examples = np.var(on_examples)
    of_seeds = difference_KN.mean(1).var(ddof=1) / SEEDS
    total = of_examples + of_seeds
    degrees = total**2 / (of_examples**2 / (N - 1) + of_seeds**2 / (SEEDS - 1))
    half = stats.t.ppf(0.975, int(degrees)) * math.sqrt(total)
    assert (row.value - row.low) >= half * 0.999 and (row.high - row.value) >= half * 0.999
    assert row.high - row.low < 2 * 1.1 * half
    # unpaired, the examples would make it far wider
    spread = np.sqrt(np.var(-mine[0].log_score(labels_N)) / N)
    assert half < spread


def test_the_error_of_a_difference_is_over_examples_and_seeds() -> None:
    """By seed 1, 0 and 2: mean 1, variance 1, of the mean 1/3; on draws -1 and 1 around: 1."""
    around_RK = np.array([[-1.0], [1.0]])
    first_K, second_K = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 1.0])
    first = Sampled(METRICS["nll"], "classification", first_K, first_K + 3 * around_RK, 2)
    second = Sampled(METRICS["nll"], "classification", second_K, second_K + 2 * around_RK, 2)
    assert difference_error(first, second) == pytest.approx((1.0, math.sqrt(1 + 1 / 3)))


def test_ends_are_those_of_the_bootstrap_where_these_are_farther() -> None:
    generator = np.random.default_rng(1)
    skewed_RK = np.repeat(generator.exponential(size=(4_000, 1)), 2, axis=1)
    row = means({"nll": sampled_of(np.array([6.0, 6.0]), skewed_RK)}, root=0)["nll"]
    high = np.quantile(skewed_RK[:, 0], 0.975) - skewed_RK[:, 0].mean()
    assert row.high == pytest.approx(6.0 + high, rel=1e-9)


def sampled_of(values_K: Floats, values_RK: Floats | None, n: int = N, why: str = "") -> Sampled:
    return Sampled(METRICS["nll"], "classification", values_K, values_RK, n, why)


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize(("of_seeds", "of_examples"), [(0.0, 1.0), (0.1, 1.0), (0.3, 0.5)])
def test_intervals_hold_the_truth(num_seeds: int, of_seeds: float, of_examples: float) -> None:
    """1,000 studies of 100 examples: 95 % less four standard errors is 92.2 %.

    Without the seeds' share, those of the last case would hold in 40 % of them.
    """
    generator = np.random.default_rng(2)
    n, num_studies, num_held = 100, 1_000, 0
    counts_RN = draw_resamples(n, root=0, part="test", num_resamples=200).counts_RN / n
    for _ in range(num_studies):
        terms_NK = of_examples * generator.normal(size=(n, 1))
        terms_NK = terms_NK + of_seeds * generator.normal(size=num_seeds)
        terms_NK = terms_NK + 0.5 * generator.normal(size=(n, num_seeds))
        sampled = sampled_of(terms_NK.mean(0), counts_RN @ terms_NK, n)
        row = means({"nll": sampled}, root=0)["nll"]
        num_held += row.low <= 0 <= row.high
    assert num_held / num_studies > 0.922


def test_shares_that_hardly_differ_have_no_narrow_interval() -> None:
    generator = np.random.default_rng(3)
    n, num_held = 100, 0
    resamples = draw_resamples(n, root=0, part="test", num_resamples=200)
    for _ in range(100):
        first, second = rare_errors(generator, n), rare_errors(generator, n)
        row = difference_of_accuracy(first, second, resamples)
        num_held += row[0] <= 0 <= row[1]
    assert num_held / 100 > 0.87

    same = rare_errors(generator, n)
    low, high = difference_of_accuracy(same, same, resamples)
    # Tango: z^2 / (n + z^2) where two predictors never differ
    assert (low, high) == pytest.approx((-0.03699, 0.03699), abs=1e-4)


def rare_errors(generator: np.random.Generator, n: int) -> list[Predictions]:
    """Three networks whose errors are one in a hundred, each on examples of its own."""
    networks = []
    for _ in range(3):
        is_right_N = generator.random(n) > 0.01
        prob_NC = np.where(is_right_N[:, None], [0.9, 0.1], [0.1, 0.9])
        networks.append(Predictions(np.log(prob_NC)))
    return networks


def difference_of_accuracy(
    first: list[Predictions], second: list[Predictions], resamples: Resamples
) -> tuple[float, float]:
    labels_N = np.zeros(resamples.n, np.int64)
    sides = []
    for networks in (first, second):
        sides.append(sample_metrics(networks, labels_N, [None] * 3, resamples=resamples))
    row = differences(*sides, root=0)["accuracy"]
    assert row.low is not None and row.high is not None
    return row.low, row.high


def test_one_seed_has_an_interval_over_examples_alone() -> None:
    (mine, *_), labels_N = trained(2.0)
    (theirs, *_), _ = trained(1.6)
    sides = [sample_metrics([one], labels_N, [None], resamples=RESAMPLES) for one in (mine, theirs)]
    row = differences(*sides, root=0)["nll"]
    usual = paired_difference("nll", mine, theirs, labels_N, resamples=RESAMPLES)
    assert usual.interval is not None and row.low is not None and row.high is not None
    assert row.value == pytest.approx(usual.value)
    assert row.high - row.low == pytest.approx(usual.interval[1] - usual.interval[0], rel=0.15)


@pytest.mark.parametrize(
    ("sampled", "why"),
    [
        (sampled_of(np.ones(2), np.ones((9, 2))), "all 200 examples give the same"),
        (sampled_of(np.ones(2), np.ones((9, 2)), n=29), "29 examples are too few"),
        (sampled_of(np.ones(2), np.full((9, 2), np.inf)), "not finite on some draws"),
        (sampled_of(np.array([1.0, np.inf]), np.full((9, 2), np.inf)), "with one of the seeds"),
        (sampled_of(np.ones(2), np.ones((9, 2)), why="only 1 is wrong"), "only 1 is wrong"),
    ],
)
def test_where_there_is_no_interval_it_says_why(sampled: Sampled, why: str) -> None:
    row = means({"nll": sampled}, root=0)["nll"]
    assert row.low is None and row.high is None
    assert why in row.why


def detectors(num_seeds: int) -> tuple[list[Predictions], np.ndarray]:
    """Networks that are nearly always less sure of inputs from outside, and which these are."""
    generator = np.random.default_rng(4)
    is_outside_N = np.arange(N) >= N // 2
    networks = []
    for _ in range(num_seeds):
        concentration_N = np.where(is_outside_N, 20.0, 0.3)
        prob = [generator.dirichlet(np.full(CLASSES, a)) for a in concentration_N]
        networks.append(Predictions(np.log(np.array(prob) + 1e-12)))
    return networks, is_outside_N.astype(int)


def test_no_interval_reaches_beyond_what_a_metric_can_be() -> None:
    networks, labels_N = detectors(3)
    sampled = sample_metrics(
        networks,
        labels_N,
        [None] * 3,
        resamples=RESAMPLES,
        asked=["ood_auroc_total", "ood_fpr95_total"],
        task="ood",
    )
    rows = means(sampled, root=0)
    area = rows["ood_auroc_total"]
    assert area.value is not None and area.value > 0.98
    assert area.low is not None and area.low < area.value
    assert area.high == 1.0
    assert rows["ood_fpr95_total"].value is not None and "threshold" in rows["ood_fpr95_total"].why

    accuracy = sample_metrics(
        rare_errors(np.random.default_rng(5), 100),
        np.zeros(100, np.int64),
        [None] * 3,
        resamples=draw_resamples(100, root=0, part="test", num_resamples=200),
    )
    assert means(accuracy, root=0)["accuracy"].high == 1.0
