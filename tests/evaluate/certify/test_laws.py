"""Certificates of a law: exact ends, split over inputs, and the test of independence."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from gped_nas import rng
from gped_nas.evaluate.certify.laws import law_shares, least_share, runs_p_value


def draws(num: int, shares: list[float], *, seed: int = 0) -> torch.Tensor:
    uniform = torch.rand(num, len(shares), generator=rng.generator(seed, "draws"))
    return uniform < torch.tensor(shares)


@pytest.mark.parametrize(("hits", "num"), [(1, 10), (9, 10), (950, 1000), (300, 300), (3, 5000)])
def test_the_lower_end_is_where_so_many_hits_have_the_risk(hits: int, num: int) -> None:
    """By definition: with a share of the lower end, so many hits or more come with the risk."""
    (low,) = least_share(np.array([hits]), num, 0.05)
    assert binom.sf(hits - 1, num, low) == pytest.approx(0.05, rel=1e-6)
    assert binom.sf(hits - 1, num, low) <= 0.05


def test_known_ends() -> None:
    # all of n: delta^(1/n); 95 % of 300 and of 1000 as tables have them
    assert least_share(np.array([300]), 300, 0.05)[0] == pytest.approx(0.05 ** (1 / 300))
    assert least_share(np.array([950]), 1000, 0.05)[0] == pytest.approx(0.9371, abs=5e-5)
    assert least_share(np.array([0]), 10, 0.05)[0] == 0


def test_ends_are_too_high_no_more_often_than_they_say() -> None:
    """2,000 sets of 60 draws each: one in twenty may be too high, and 4 standard errors more."""
    for share in (0.02, 0.5, 0.9, 0.99):
        hit_SN = draws(60, [share] * 2000, seed=int(1000 * share))
        low_N = least_share(hit_SN.sum(0).numpy(), 60, 0.05)
        assert (low_N > share).sum() <= 100 + 4 * (2000 * 0.05 * 0.95) ** 0.5


def test_what_is_unknown_lies_between_both_ends() -> None:
    certified_SN = draws(400, [0.6, 0.9])
    broken_SN = ~draws(400, [0.8, 0.95]) & ~certified_SN
    law = law_shares(certified_SN, broken_SN, generator=rng.generator(0, "runs"))

    # by hand: a risk of .05 over two ends of two inputs each
    for place in range(2):
        num_certified, num_broken = (
            int(certified_SN[:, place].sum()),
            int(broken_SN[:, place].sum()),
        )
        assert law.num_certified_N[place] == num_certified
        assert binom.sf(num_certified - 1, 400, law.low_N[place]) == pytest.approx(0.0125, rel=1e-6)
        assert binom.sf(num_broken - 1, 400, 1 - law.high_N[place]) == pytest.approx(
            0.0125, rel=1e-6
        )
    low, high = law.mean
    assert low == pytest.approx(law.low_N.mean()) and high == pytest.approx(law.high_N.mean())
    assert low < certified_SN.double().mean() < high


def test_independent_draws_pass_the_runs_test_as_often_as_it_says() -> None:
    """200 sets: p below .1 in a tenth of them, 20 +- 4 * 4.2."""
    small = 0
    for seed in range(200):
        hit_SN = draws(40, [0.3, 0.5, 0.8], seed=seed)
        small += runs_p_value(hit_SN, generator=rng.generator(seed, "r"), permutations=99) < 0.1
    assert 3 <= small <= 37


def test_a_chain_that_stays_where_it_is_fails_the_runs_test() -> None:
    """Of a chain that keeps its verdict nine times out of ten, and one that always changes it."""
    generator = rng.generator(0, "chain")
    change_S = torch.rand(200, generator=generator) < 0.1
    sticky_SN = (change_S.cumsum(0) % 2 == 0)[:, None]
    assert runs_p_value(sticky_SN, generator=generator) == pytest.approx(2 / 1000)
    alternating_SN = (torch.arange(200) % 2 == 0)[:, None]
    assert runs_p_value(alternating_SN, generator=generator) == pytest.approx(2 / 1000)
    assert runs_p_value(torch.ones(50, 3) == 1, generator=generator) == 1
