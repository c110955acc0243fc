"""Each interval by hand or by a second implementation, and where there is none."""

import math

import numpy as np
import pytest
from scipy import stats

from gped_nas.errors import RegistryError
from gped_nas.evaluate.base import Metric, draw_resamples
from gped_nas.evaluate.intervals import (
    MIN_EXAMPLES,
    around,
    distances,
    exact_test,
    of_paired_shares,
    of_share,
    tango,
    wilson,
)
from gped_nas.evaluate.judging import evaluate
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.predictions import Predictions


def test_wilson_is_that_of_scipy():
    for hits, n in ((0, 100), (3, 100), (352, 359), (359, 359), (1, 2)):
        theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert of_share(np.repeat([1.0, 0.0], [hits, n - hits])).low == pytest.approx(theirs.low)
        assert np.allclose(wilson(np.array(hits), n), (theirs.low, theirs.high), atol=1e-6)


def test_tango_is_that_of_his_paper():
    # Tango 1998, table II: 44 pairs, 1 and 0 differ: [-.0275, .1184] (printed for a crossover study
    # of n = 44 with difference .0227 by the score method); the hand check is the equation itself.
    for first, second, n in ((1, 0, 44), (43, 0, 44), (0, 0, 30), (14, 3, 100), (9, 9, 359)):
        for end, sign in zip(tango(np.array(first), np.array(second), n), (1, -1), strict=True):
            assert score_deviation(first, second, n, float(end)) == pytest.approx(
                sign * 1.959964, abs=1e-4
            )


def score_deviation(first: int, second: int, n: int, difference: float) -> float:
    """Of the data from a difference, with the likeliest shares found by brute force."""
    grid = np.linspace(max(0.0, -difference), (1 - difference) / 2, 2_000_001)[1:-1]
    likelihood = (
        first * np.log(grid + difference + 1e-300)
        + second * np.log(grid)
        + (n - first - second) * np.log(np.maximum(1 - 2 * grid - difference, 1e-300))
    )
    share = grid[likelihood.argmax()]
    variance = n * (2 * share + difference - difference**2)
    return (first - second - n * difference) / math.sqrt(variance)


def test_the_exact_test_is_the_binomial_one():
    for first, second in ((0, 0), (1, 0), (5, 0), (6, 0), (14, 3), (900, 800), (7, 7)):
        theirs = stats.binomtest(first, first + second).pvalue if first + second else 1.0
        assert exact_test(first, second) == pytest.approx(theirs)


def test_paired_shares_count_the_examples_where_one_alone_is_right():
    first = np.repeat([1.0, 1.0, 0.0, 0.0], [60, 14, 3, 23])
    second = np.repeat([1.0, 0.0, 1.0, 0.0], [60, 14, 3, 23])
    bounds = of_paired_shares(first, second)
    assert (bounds.low, bounds.high) == tango(np.array(14), np.array(3), 100)
    assert bounds.p_value == pytest.approx(stats.binomtest(14, 17).pvalue)


def test_bootstrap_t_by_a_loop():
    generator = np.random.default_rng(0)
    values = generator.exponential(size=(40, 2)) ** 2
    values[:, 1] *= -1
    resamples = draw_resamples(40, root=0, part="test", num_resamples=199)
    below, above = distances(values, resamples)

    error = values.std(axis=0) / math.sqrt(40)
    for q in range(2):
        t = []
        for counts in resamples.counts_RN:
            drawn = np.repeat(values[:, q], counts)
            t.append((drawn.mean() - values[:, q].mean()) / (drawn.std() / math.sqrt(40)))
        # of 199 the 2.5 % quantiles are the fifth from either end; t with 39 degrees is 2.0227
        plain = 2.0227 * math.sqrt(40 / 39)
        assert below[q] == pytest.approx(error[q] * max(sorted(t)[194], plain), rel=1e-4)
        assert above[q] == pytest.approx(error[q] * max(-sorted(t)[4], plain), rel=1e-4)

    # It follows the skew: the long tail's side is the longer one.
    assert above[0] > 1.1 * below[0]
    assert below[1] > 1.1 * above[1]


def test_what_nothing_is_known_of_says_so():
    few = np.zeros((100, 2))
    few[:2, 0] = 1.0  # 13 % of all resamples hold neither of the two
    few[:, 1] = 0.3
    resamples = draw_resamples(100, root=0, part="test")
    rare, constant = around(few.mean(axis=0), few, resamples)
    assert (rare.low, rare.why) == (
        None,
        "too few of 100 examples differ from the rest to know their spread",
    )
    assert constant.why == "all 100 examples give the same: their spread is not known"

    n = MIN_EXAMPLES - 1
    (small,) = around(
        np.zeros(1),
        np.random.default_rng(0).normal(size=(n, 1)),
        draw_resamples(n, root=0, part="test"),
    )
    assert (small.low, small.why) == (
        None,
        "29 examples are too few to know their spread: it needs 30",
    )


def test_pseudo_values_of_a_root_are_those_of_leaving_out():
    metric = Metric("root", "minimize", "root", lambda p, y, t: y[:, None], _root_of_mean)
    terms = np.random.default_rng(0).exponential(size=(50, 1))
    pseudo = metric.pseudo_values(terms)

    whole = math.sqrt(terms.mean())
    for i in (0, 17, 49):
        without = math.sqrt(np.delete(terms, i).mean())
        assert pseudo[i] == pytest.approx(50 * whole - 49 * without)


def _root_of_mean(sums_RT, n):
    return np.sqrt(sums_RT[:, 0] / n)


def calibrated(n: int, sharpness: float = 1.0) -> tuple[Predictions, np.ndarray]:
    generator = np.random.default_rng(0)
    top = 0.5 + 0.5 * generator.random(n) ** (1 / sharpness)
    labels = (generator.random(n) > top).astype(np.int64)
    return Predictions(np.log(np.c_[top, 1 - top])), labels


def test_losses_of_too_few_errors_have_no_interval():
    predictions, labels = calibrated(100, sharpness=60)
    assert labels.sum() <= 2
    measures = evaluate(
        predictions, labels, resamples=draw_resamples(100, root=0, part="validation")
    )
    for metric in ("nll", "brier"):
        assert measures[Key(metric)].interval is None
        assert "how large the losses of wrong ones are" in measures[Key(metric)].why
    assert measures[Key("accuracy")].interval is not None


@pytest.mark.parametrize("name", ["percentile", "basic"])
def test_intervals_of_old_names_are_taken_for_the_general_one(name):
    with pytest.warns(DeprecationWarning, match=f"interval='{name}' is bootstrap_t now"):
        metric = Metric("old", "minimize", "old", lambda p, y, t: y, interval=name)
    assert metric.interval == "bootstrap_t"


def test_an_unknown_interval_is_refused():
    with pytest.raises(RegistryError, match="found interval 'wide', expected one of bootstrap_t"):
        Metric("gap", "minimize", "gap", lambda p, y, t: y, interval="wide")
