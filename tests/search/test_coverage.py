"""Coverage of the box: expectations over orders and resamples against brute force."""

import itertools
import tracemalloc

import numpy as np
import pytest

from gped_nas.search.coverage import random_order, resampled_difference
from gped_nas.search.pareto import hypervolume, hypervolume_history

POINTS = {
    2: [[0.2, 0.8], [0.5, 0.5], [0.9, 0.1], [0.6, 0.6], [np.nan, 0.1]],
    3: [[0.2, 0.8, 0.5], [0.5, 0.5, 0.5], [0.9, 0.1, 0.3], [0.6, 0.6, 0.2], [0.1, 0.9, 0.9]],
}


@pytest.mark.parametrize("num_objectives", [2, 3])
def test_random_order_is_the_mean_over_all_orders(num_objectives: int) -> None:
    points = np.array(POINTS[num_objectives])
    ones = np.ones(num_objectives)
    orders = itertools.permutations(range(len(points)))
    histories = [hypervolume_history(points[list(order)], ones) for order in orders]

    expected = random_order(points)
    assert expected == pytest.approx(np.mean(histories, axis=0), abs=0.004)
    assert expected[-1] == pytest.approx(hypervolume(points, ones), abs=1e-12)
    assert (np.diff(expected) >= -1e-12).all()


def test_a_study_of_nothing_covers_nothing() -> None:
    assert random_order(np.empty((0, 2))).tolist() == []
    assert random_order([[np.nan, np.nan]]).tolist() == [0.0]
    assert resampled_difference(np.empty((0, 2)), np.empty((0, 2))) == (0.0, (0.0, 0.0))


def test_the_difference_is_exact_and_its_interval_is_that_of_resampled_sets() -> None:
    """Brute force: 1000 resamples of each set with exact hypervolumes and draws of its own.

    Two standard errors from 1000 resamples each agree to 10 %.
    """
    generator = np.random.default_rng(3)
    better = generator.random((30, 2)) * 0.9 + 0.1
    worse = generator.random((30, 2)) * 0.6 + 0.4
    ones = np.ones(2)

    def resample(points: np.ndarray) -> float:
        return hypervolume(points[generator.integers(30, size=30)], ones)

    difference, (low, high) = resampled_difference(better, worse)
    exact = hypervolume(better, ones) - hypervolume(worse, ones)
    assert difference == pytest.approx(exact, abs=1e-12)
    assert 0 < low <= difference <= high

    differences = [resample(better) - resample(worse) for _ in range(1000)]
    assert high - low == pytest.approx(2 * 1.96 * np.std(differences), rel=0.1)
    assert high - difference == pytest.approx(difference - low)

    reverse, (below, above) = resampled_difference(worse, better)
    assert reverse == -difference and below < 0 and above < 0


def test_the_memory_of_a_random_order_is_linear_in_points() -> None:
    """A matrix of points by points would take 8 bytes * 4000 ** 2 = 122 MiB."""
    points = np.random.default_rng(0).random((4000, 3))
    tracemalloc.start()
    random_order(points)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20
