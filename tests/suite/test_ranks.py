"""Average ranks, Friedman's test and Nemenyi's distance, against hand calculations and scipy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gped_nas.suite import ranks
from gped_nas.suite.ranks import (
    critical_distance,
    friedman,
    groups,
    permutation_p_value,
    rank,
)


def test_a_hand_calculation() -> None:
    """Three treatments on four data sets; the third data set has a tie.

    Ranks, lower is better: a 1 1 1.5 1, b 2 2 1.5 3, c 3 3 3 2. Means 4.5/4, 8.5/4, 11/4, which
    deviate from 2 by -.875, .125, .75: the squares sum to 1.34375. Without ties chi2 is
    12 * 4 / 12 * 1.34375 = 5.375; one tie of two takes 6 of 4 * 3 * 8 = 96.
    """
    values = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.2, 0.2, 0.3], [0.1, 0.3, 0.2]])
    ranking = rank(["a", "b", "c"], values, higher_is_better=False)
    assert ranking.names == ("a", "b", "c")
    assert ranking.mean_ranks == (1.125, 2.125, 2.75)
    assert ranking.num_blocks == 4
    assert ranking.chi2 == pytest.approx(5.375 / (1 - 6 / 96))
    # 2.343 sqrt(3 * 4 / 24)
    assert ranking.distance == pytest.approx(2.343 * 0.5**0.5, abs=1e-3)
    assert ranking.groups == (("a", "b", "c"),)

    best_last = rank(["a", "b", "c"], values, higher_is_better=True)
    assert best_last.names == ("c", "b", "a")
    assert best_last.mean_ranks == (1.25, 1.875, 2.875)


def test_the_example_of_the_source() -> None:
    """Demsar 2006, section 3.2.2: four treatments on fourteen data sets, chi2 9.28, CD 1.25.

    Its chi2 has no correction for ties: the average ranks there are these.
    """
    mean_ranks = np.array([3.143, 2.000, 2.893, 1.964])
    spread = ((mean_ranks - 2.5) ** 2).sum()
    assert 12 * 14 / 20 * spread == pytest.approx(9.28, abs=0.02)
    assert critical_distance(4, 14) == pytest.approx(2.569 * (20 / 84) ** 0.5, abs=1e-3)
    assert critical_distance(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize(
    ("num_treatments", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (7, 2.949), (10, 3.164)]
)
def test_the_studentized_range_is_that_of_the_published_table(
    num_treatments: int, q: float
) -> None:
    k = num_treatments
    assert critical_distance(k, 1) == pytest.approx(q * (k * (k + 1) / 6) ** 0.5, rel=3e-4)


@given(st.integers(3, 5), st.integers(2, 9), st.integers(0, 2**16))
def test_friedmans_statistic_is_scipys_with_ties_too(
    num_treatments: int, num_blocks: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 4, (num_blocks, num_treatments)) / 4
    block_ranks = stats.rankdata(values, axis=1)
    ours = friedman(block_ranks)
    if ours is None:
        assert (values == values[:, :1]).all()
    else:
        assert ours == pytest.approx(stats.friedmanchisquare(*values.T).statistic, abs=1e-9)


def _p_value_by_hand(block_ranks: np.ndarray) -> float:
    """Every permutation of every block, the first one too."""
    observed = friedman(block_ranks)
    assert observed is not None
    orders = list(itertools.permutations(range(block_ranks.shape[1])))
    as_large = []
    for choice in itertools.product(orders, repeat=len(block_ranks)):
        permuted = np.array(
            [row[list(order)] for row, order in zip(block_ranks, choice, strict=True)]
        )
        statistic = friedman(permuted)
        assert statistic is not None
        as_large.append(statistic >= observed - 1e-9)
    return float(np.mean(as_large))


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2, 3], [1, 2, 3]],
        [[1, 2, 3], [1, 3, 2], [2, 1, 3]],
        [[1.5, 1.5, 3], [1, 2, 3], [1, 2, 3]],
        [[1, 2], [1, 2], [1, 2], [2, 1], [1, 2]],
    ],
)
def test_the_p_value_is_the_share_of_all_permutations(rows: list[list[float]]) -> None:
    block_ranks = np.array(rows, dtype=float)
    assert permutation_p_value(block_ranks) == pytest.approx(_p_value_by_hand(block_ranks))


def test_two_blocks_in_the_same_order_are_one_case_of_six() -> None:
    """Each of the 6 orders of the second block; F would say 0."""
    block_ranks = np.array([[1.0, 2, 3], [1, 2, 3]])
    assert permutation_p_value(block_ranks) == pytest.approx(1 / 6)


def test_drawn_permutations_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six blocks of three: 7,776 orders; drawn ones err by sqrt(p (1 - p) / 19,999) < .0036."""
    block_ranks = np.array([[1.0, 2, 3], [1, 3, 2], [1, 2, 3], [2, 1, 3], [3, 1, 2], [1, 2, 3]])
    exact = permutation_p_value(block_ranks)
    monkeypatch.setattr(ranks, "_MOST_FACTORIAL", 99)
    monkeypatch.setattr(ranks.math, "factorial", lambda k: 10**9)
    assert permutation_p_value(block_ranks) == pytest.approx(exact, abs=4 * 0.0036)


def test_no_more_is_said_than_the_blocks_allow() -> None:
    single = rank(["a", "b"], np.array([[1.0, 2.0]]), higher_is_better=False)
    assert (single.chi2, single.distance, single.groups) == (None, None, ())
    assert "one block" in single.why

    tied = rank(["a", "b"], np.ones((3, 2)), higher_is_better=False)
    assert tied.mean_ranks == (1.5, 1.5)
    assert "tied" in tied.why and not tied.is_different

    # of three blocks of two treatments no order is extreme enough: 2 of 8 are as extreme
    three = rank(["a", "b"], np.array([[1.0, 2]] * 3), higher_is_better=False)
    assert three.p_value == pytest.approx(0.25)
    assert not three.is_different
    six = rank(["a", "b"], np.array([[1.0, 2]] * 6), higher_is_better=False)
    assert six.p_value == pytest.approx(2 / 64)
    assert six.is_different and six.groups == ()


def test_groups_are_the_longest_runs_that_are_closer_than_the_distance() -> None:
    names = ["a", "b", "c", "d"]
    assert groups(names, [1, 2, 3, 4], 1.5) == (("a", "b"), ("b", "c"), ("c", "d"))
    assert groups(names, [1, 1.2, 1.4, 4], 1.5) == (("a", "b", "c"),)
    assert groups(names, [1, 2, 3, 4], 0.5) == ()
