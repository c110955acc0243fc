"""R-hat and ESS against the paper's formulas in loops, against known laws, and at their edges."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, norm, rankdata
from scipy.stats import t as student

from gped_nas import rng
from gped_nas.errors import DataError
from gped_nas.posterior.diagnostics import (
    agreement,
    bulk_ess,
    chance_rhat,
    configurational_temperature,
    kinetic_temperature,
    ranks,
    rhat,
    t_quantile,
    total_variation,
)


def autoregressive(rho: float, *, chains: int, draws: int, num: int, seed: int = 0) -> torch.Tensor:
    """Stationary AR(1) chains of unit variance, (K, S, Q) float64."""
    generator = rng.generator(seed, "ar", str(rho))
    noise = torch.randn(draws, chains, num, generator=generator, dtype=torch.float64)

    states = [noise[0]]
    for e in noise[1:]:
        states.append(rho * states[-1] + math.sqrt(1 - rho**2) * e)
    return torch.stack(states).transpose(0, 1)


# --- the paper's formulas, one quantity at a time


def split(x: np.ndarray) -> np.ndarray:
    n = x.shape[1] // 2
    return np.concatenate([x[:, :n], x[:, -n:]])


def scores(x: np.ndarray) -> np.ndarray:
    return norm.ppf((rankdata(x).reshape(x.shape) - 3 / 8) / (x.size + 1 / 4))


def variances(x: np.ndarray) -> tuple[float, float]:
    m, n = x.shape
    between = n / (m - 1) * sum((x[j].mean() - x.mean()) ** 2 for j in range(m))
    within = np.mean([sum((x[j] - x[j].mean()) ** 2) / (n - 1) for j in range(m)])
    return within, (n - 1) / n * within + between / n


def slow_rhat(x: np.ndarray) -> float:
    halves = split(x)
    folded = abs(halves - np.median(halves))
    values = []
    for draws in (halves, folded):
        within, total = variances(scores(draws))
        values.append(math.sqrt(total / within))
    return max(values)


def slow_ess(x: np.ndarray) -> float:
    z = scores(split(x))
    m, n = z.shape
    within, total = variances(z)

    rho = [1.0]
    for lag in range(1, n):
        autocovariances = []
        for half in z:
            off = half - half.mean()
            autocovariances.append(sum(off[: n - lag] * off[lag:]) / n)
        rho.append(1 - (within - np.mean(autocovariances)) / total)

    tau, smallest = -1.0, math.inf
    for k in range(n // 2):
        pair = rho[2 * k] + rho[2 * k + 1]
        if pair <= 0:
            break
        smallest = min(smallest, pair)
        tau += 2 * smallest

    return m * n / max(tau, 1 / math.log10(m * n))


@pytest.mark.parametrize(("chains", "draws"), [(1, 40), (2, 51), (4, 24), (3, 4)])
@pytest.mark.parametrize("rho", [0.0, 0.8, -0.5])
def test_both_equal_the_formulas_written_out(chains, draws, rho):
    x = autoregressive(rho, chains=chains, draws=draws, num=4)
    x[0, :, 1] += 2.0
    x[0, :, 2] *= 5.0
    x[..., 3] = (2 * x[..., 3]).round()  # ties

    for q in range(4):
        quantity = x[..., q].numpy()
        assert float(rhat(x)[q]) == pytest.approx(slow_rhat(quantity), rel=1e-9)
        assert float(bulk_ess(x)[q]) == pytest.approx(slow_ess(quantity), rel=1e-9)


def test_quantities_do_not_see_each_other_whatever_the_block(monkeypatch):
    x = autoregressive(0.5, chains=2, draws=20, num=7)
    whole = rhat(x), bulk_ess(x)
    monkeypatch.setattr("gped_nas.posterior.diagnostics._BLOCK", 90)
    torch.testing.assert_close(rhat(x), whole[0])  # blocks of other sizes may round otherwise
    torch.testing.assert_close(bulk_ess(x), whole[1])


# --- known laws


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.3])
def test_effective_samples_of_an_autoregression(rho):
    """N (1 - rho) / (1 + rho) of N.

    400 quantities of 4 x 1000 draws see 5 %, the truncation's own bias included.
    """
    ess = bulk_ess(autoregressive(rho, chains=4, draws=1000, num=400))
    assert float(ess.mean()) == pytest.approx(4000 * (1 - rho) / (1 + rho), rel=0.05)


def test_rhat_of_one_law_is_one_and_of_different_ones_is_not():
    same = autoregressive(0.0, chains=4, draws=500, num=200)
    assert rhat(same).max() < 1.03

    # means 1 apart in one of four chains: var+ / W = 1 + 3/16 of the pooled scale
    apart = same.clone()
    apart[0] += 1.0
    assert rhat(apart).min() > 1.04
    apart[0] += 1.0
    assert rhat(apart).min() > 1.1

    # one location, another scale: only the folded part sees it
    wide = same.clone()
    wide[0] *= 4.0
    assert rhat(wide).min() > 1.1

    # one chain that disagrees with itself
    drifting = same[:1] + torch.linspace(0, 4, 500)[None, :, None]
    assert rhat(drifting).min() > 1.3


def test_rhat_and_ess_are_those_of_ranks():
    x = autoregressive(0.6, chains=2, draws=60, num=5)
    assert torch.equal(bulk_ess(x), bulk_ess(x.exp()))

    heavy = x.sinh().mul(3).sinh()  # far from normal
    assert torch.equal(bulk_ess(x), bulk_ess(heavy))
    assert rhat(heavy).max() < 1.3


def test_edges():
    x = autoregressive(0.0, chains=2, draws=10, num=5)
    x[..., 0] = 3.0  # never changes
    x[0, 4, 1] = torch.nan
    x[1, 4, 2] = torch.inf
    x[0, :, 3] = 0.0  # each chain stands still
    x[1, :, 3] = 1.0

    assert rhat(x)[:3].isnan().all()
    assert bulk_ess(x)[:3].isnan().all()
    assert float(rhat(x)[3]) == math.inf
    assert 0 < float(bulk_ess(x)[3]) < 4
    assert rhat(x)[4].isfinite()
    assert bulk_ess(x)[4].isfinite()
    with pytest.raises(DataError, match="found 3 a chain, expected at least 4"):
        rhat(x[:, :3])


def test_ranks_share_ties():
    x = torch.randint(0, 6, (5, 40), generator=rng.generator(0, "ties")).double()
    assert torch.equal(ranks(x), torch.from_numpy(rankdata(x.numpy(), axis=1)))


def test_agreement_and_total_variation_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    q = torch.tensor([[0.5, 0.4, 0.1], [0.4, 0.2, 0.4]])
    # |.2| + |.2| and |.3| + |.4| + |.1|: (0.4 + 0.8) / 2 / 2. The second winner differs: a tie goes
    # to the first.
    assert total_variation(p, q) == pytest.approx(0.3)
    assert agreement(p, q) == 0.5
    assert total_variation(p, p) == 0
    assert agreement(p, p) == 1


# --- temperatures


@pytest.mark.parametrize("num", [8, 50, 4000])
def test_the_kinetic_band_is_that_of_chi_squared(num):
    momenta = 2.0 * torch.ones(2, num // 2)
    estimate = kinetic_temperature(momenta, mass=2.0)
    assert estimate.value == pytest.approx(2.0)
    assert estimate.degrees_of_freedom == num
    assert estimate.low == pytest.approx(2.0 * num / chi2.ppf(0.975, num), rel=0.015)
    assert estimate.high == pytest.approx(2.0 * num / chi2.ppf(0.025, num), rel=0.015)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_configurational_temperature_of_a_gaussian_off_its_prior_s_center(temperature):
    """theta ~ N(m, T / a): (theta - c) a (theta - m) averages to T for any fixed c.

    The noise is larger away from m.
    """
    precision = torch.linspace(1, 50, 400, dtype=torch.float64)
    mean = 1.0
    noise = torch.randn(200, 400, generator=rng.generator(0, "virial"), dtype=torch.float64)
    theta = mean + noise * (temperature / precision).sqrt()
    gradient = precision * (theta - mean)

    widths = []
    for center in (0.0, mean):
        virial = ((theta - center) * gradient).sum(1)
        estimate = configurational_temperature(virial, 400, torch.arange(200))
        width = estimate.high - estimate.low
        assert estimate.degrees_of_freedom == 200
        assert abs(estimate.value - temperature) < width  # four standard errors
        assert width < 0.3 * temperature**0.5
        widths.append(width)
    assert widths[1] < 0.5 * widths[0]


def test_one_state_is_too_few():
    with pytest.raises(DataError, match="found 1 state"):
        configurational_temperature(torch.ones(1), 3, torch.zeros(1))


def test_the_interval_is_that_of_the_chains_means():
    # Means 1, 2 and 6 of three chains: 3 +- 4.303 sqrt(7) / sqrt(3).
    virial = torch.tensor([0.0, 2.0, 1.0, 3.0, 5.0, 7.0])
    estimate = configurational_temperature(virial, 1, torch.tensor([0, 0, 1, 1, 2, 2]))
    assert estimate.value == pytest.approx(3.0)
    assert estimate.high - 3.0 == pytest.approx(4.303 * math.sqrt(7 / 3))
    assert 3.0 - estimate.low == pytest.approx(4.303 * math.sqrt(7 / 3))


def test_a_chain_counts_by_its_states():
    # Shares 3/4 and 1/4 of the mean 2.5: deviations -.5 and 1.5, each weighed .375.
    estimate = configurational_temperature(
        torch.tensor([2.0, 2.0, 2.0, 4.0]), 1, torch.tensor([0, 0, 0, 1])
    )
    assert estimate.value == 2.5
    assert estimate.high - 2.5 == pytest.approx(12.706 * math.sqrt(2 * 2 * 0.375**2))


def test_the_states_of_one_chain_have_no_interval():
    estimate = configurational_temperature(torch.tensor([0.0, 2.0]), 1, torch.zeros(2))
    assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)
    assert "one chain" in estimate.why


def test_the_quantiles_of_t():
    for degrees in (1, 2, 3, 10, 15, 16, 20, 60, 1000):
        assert t_quantile(degrees) == pytest.approx(student.ppf(0.975, degrees), abs=1e-3)


def test_chains_of_one_law_seldom_exceed_the_rhat_of_chance() -> None:
    generator = rng.generator(0, "chance")
    noise = torch.randn(4, 25, 2000, generator=generator).double()
    draws = noise.clone()
    for t in range(1, 25):
        draws[:, t] = 0.5 * draws[:, t - 1] + 0.75**0.5 * noise[:, t]
    assert float((rhat(draws) > 1.1).double().mean()) > 0.3
    assert float((rhat(draws) > chance_rhat(draws)).double().mean()) < 0.04

    apart = draws + 2 * torch.randn(4, 1, 2000, generator=generator)
    assert float((rhat(apart) > chance_rhat(apart)).double().mean()) > 0.75

    # of independent draws tau is 1: R-hat^2 <= (n - 1) / n + 3 / n with n = 500
    alone = torch.randn(2, 1000, 50, generator=generator)
    assert chance_rhat(alone).mean() == pytest.approx((1 + 2 / 500) ** 0.5, abs=1e-3)


def test_the_rhat_of_chance_is_of_draws_that_change_and_are_finite() -> None:
    draws = torch.randn(2, 10, 3, generator=rng.generator(0, "edges"))
    draws[..., 0] = 1.0
    draws[0, 0, 1] = torch.inf
    assert chance_rhat(draws).isnan().tolist() == [True, True, False]
    with pytest.raises(DataError, match="found 3 a chain, expected at least 4"):
        chance_rhat(draws[:, :3])
