"""Whether chains agree, what their draws are worth, and whether they have their temperature.

Draws are arrays (K, S, Q): chains, draws of one chain in their order, quantities. Every chain is
split into halves, so that a chain that still drifts disagrees with itself.

* **R-hat** is the rank-normalized split R-hat: the larger of the one of the draws (bulk: do chains
  have one location?) and the one of their distances from the pooled median (folded: do they have
  one scale?). One quantity has R-hat = sqrt(var+ / W), with W the mean variance within the M
  half-chains of n draws, B / n the variance of their means, var+ = (n - 1) / n W + B / n, all of
  normal scores z = Phi^-1((rank - 3/8) / (M n + 1/4)).
* **Bulk ESS** is the effective sample size of the same scores: M n / tau with tau = -1 + 2 sum_k
  P_k, P_k = rho_{2k} + rho_{2k+1}, cut before the first P_k that is not positive and made monotone
  (Geyer 1992), rho_t = 1 - (W - mean autocovariance at lag t) / var+. It may exceed M n where draws
  alternate; it is at most M n log10(M n).

Source: Vehtari, Gelman, Simpson, Carpenter & Buerkner 2021, arXiv:1903.08008, equations 1-4, 10-14,
sections 4.2-4.3. Departure: normal scores divide by M n + 1/4 (Blom 1958), as Stan's and ArviZ's
code does, where the paper prints - 1/4.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.errors import DataError

MIN_DRAWS = 4
"""Draws a chain below which its halves have no variance."""
_BLOCK = 2**22  # numbers worked on at once: what bounds memory


def rhat(draws_KSQ: Tensor) -> Tensor:
    """Rank-normalized split R-hat of each quantity, (Q,) float64.

    It is 1 where all chains draw from one law. With a single chain it compares only that chain's
    halves.

    Returns:
        NaN where all draws are equal or some are not finite; infinite where chains stand still at
        different values.

    Raises:
        DataError: fewer than 4 draws a chain.
    """

    def larger_rhat(draws_QMn: Tensor) -> Tensor:
        bulk = _plain_rhat(_score(draws_QMn))
        folded = _plain_rhat(_fold(draws_QMn))
        return torch.maximum(bulk, folded)

    return _by_block(draws_KSQ, larger_rhat)


def bulk_ess(draws_KSQ: Tensor) -> Tensor:
    """Bulk effective sample size of each quantity, all chains together, (Q,) float64.

    Returns:
        NaN where all draws are equal or some are not finite.

    Raises:
        DataError: fewer than 4 draws a chain.
    """
    return _by_block(draws_KSQ, lambda draws_QMn: _ess(_score(draws_QMn)))


def chance_rhat(draws_KSQ: Tensor) -> Tensor:
    """The R-hat that chains of one law seldom exceed, being as short as they are, (Q,) float64.

    A half-chain of n draws with autocorrelation time tau has a mean of variance W tau / n, so that
    R-hat^2 is about (n - 1) / n + tau / n where the chains agree. The bound has three times tau:
    the variance between M means is more than three times what it should be in 3 % of cases at
    M = 4, and in .3 % at M = 8 (chi^2 of M - 1 degrees of freedom). tau is of whole chains, and of
    each around its own mean, so that disagreement does not excuse itself.

    Returns:
        NaN where all draws are equal or some are not finite.

    Raises:
        DataError: fewer than 4 draws a chain.
    """

    num_chains, num_draws, _ = draws_KSQ.shape
    if num_draws < MIN_DRAWS:
        raise DataError(f"draws: found {num_draws} a chain, expected at least {MIN_DRAWS}")

    half = num_draws // 2
    width = max(1, _BLOCK // (num_chains * num_draws))
    bounds = []
    for block_KSQ in torch.split(draws_KSQ, width, 2):
        chains_QKn = block_KSQ.double().permute(2, 0, 1)
        is_constant = (chains_QKn == chains_QKn[:, :1, :1]).all(-1).all(-1)
        is_finite = chains_QKn.isfinite().all(-1).all(-1)

        time_Q = _time_within(_score(chains_QKn.nan_to_num()))
        bound_Q = ((half - 1 + 3 * time_Q) / half).sqrt()
        bounds.append(bound_Q.masked_fill(is_constant | ~is_finite, torch.nan))
    return torch.cat(bounds)


def agreement(prob_NC: Tensor, reference_NC: Tensor) -> float:
    """Share of inputs where two averages find the same class most probable.

    Source: Izmailov, Vikram, Hoffman & Wilson 2021, arXiv:2104.14421, section 6.
    """
    return float((prob_NC.argmax(-1) == reference_NC.argmax(-1)).double().mean())


def total_variation(prob_NC: Tensor, reference_NC: Tensor) -> float:
    """Mean total variation distance of two averages, 0 to 1: half the sum over classes of |p - q|.

    Source: as ``agreement``.
    """
    difference_NC = (prob_NC.double() - reference_NC.double()).abs()
    return float(difference_NC.sum(-1).mean() / 2)


@dataclass(frozen=True)
class Temperature:
    """An estimated temperature.

    Attributes:
        value: the estimate.
        low, high: its 95 % interval or band; see the function that made it. None where no interval
            is honest.
        degrees_of_freedom: independent squares (kinetic), or states (configurational), behind it.
        why: why there is no interval; empty where there is one.
    """

    value: float
    low: float | None
    high: float | None
    degrees_of_freedom: int
    why: str = ""


def kinetic_temperature(momenta_KW: Tensor, mass: float) -> Temperature:
    """T from momenta: m^T m / (d mass) over d = K W numbers.

    At temperature T that is T chi^2_d / d. The band is the 95 % one of T given the estimate,
    value d / chi^2_d, with the cube-root normal approximation of the quantiles (within 1.5 % from
    d = 8). Momenta of different chains must be independent.

    Source: Wenzel et al. 2020, arXiv:2002.02405, appendix I; Wilson & Hilferty 1931 (quantiles).
    """
    num = momenta_KW.numel()
    value = float(momenta_KW.double().square().sum() / (num * mass))

    # The quantiles of chi^2_d / d: its cube root is nearly normal.
    spread = 2 / (9 * num)
    upper = (1 - spread + 1.96 * spread**0.5) ** 3
    lower = (1 - spread - 1.96 * spread**0.5) ** 3
    return Temperature(value, value / upper, value / max(lower, 1e-12), num)


def configurational_temperature(virial_S: Tensor, num_params: int, chain_S: Tensor) -> Temperature:
    """T from states: the mean of (theta - c) . grad U(theta) / d, for any fixed point c.

    E[(theta - c) . grad U] = d T for every density proportional to exp(-U / T) that vanishes at
    infinity: integrate by parts. So zero, the prior's center, is as good a ``c`` as the posterior's
    mean in expectation, but not in noise: a term (mean - c) . grad U with average zero comes on
    top. ``c`` must not be an average of the states that are judged (an average of n of them pulls
    the estimate down by T / n). A minibatch gradient may stand in for grad U if its examples were
    drawn afresh.

    Args:
        virial_S: (theta_s - c) . grad U(theta_s) at S >= 2 states.
        num_params: d.
        chain_S: the chain of each state. Chains are independent, the states of one chain are not.

    Returns:
        The mean over states, with the 95 % t-interval of its chains' means: however slowly a chain
        forgets, its mean is one draw. One chain has no interval.

    Raises:
        DataError: fewer than two states.

    Source: Wenzel et al. 2020, arXiv:2002.02405, appendix I (c = 0); Leimkuhler & Matthews 2015,
        section 6.1.5; Geyer 1992, Statistical Science 7, section 3.2 (batch means; here a batch is
        a chain).
    """
    per_state = virial_S.double() / num_params
    num = len(per_state)
    if num < 2:
        raise DataError(f"configurational temperature: found {num} state, expected at least 2")

    value = float(per_state.mean())
    chains = set(chain_S.tolist())
    if len(chains) < 2:
        why = "states of one chain depend on each other; several chains have an interval"
        return Temperature(value, None, None, num, why)

    # Each chain by its share of the states: Var(mean) is the sum of squared shares of deviations.
    variance = 0.0
    for chain in chains:
        of_chain = per_state[chain_S == chain]
        variance += (len(of_chain) / num * (float(of_chain.mean()) - value)) ** 2
    variance *= len(chains) / (len(chains) - 1)

    half_width = t_quantile(len(chains) - 1) * variance**0.5
    return Temperature(value, value - half_width, value + half_width, num)


_T_975 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306]
_T_975 += [2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: half a 95 % interval in standard errors.

    A table up to 15 degrees of freedom; beyond it the first two terms of Cornish-Fisher, within
    0.001.
    """
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]

    z = 1.959964
    linear = (z**3 + z) / (4 * degrees)
    quadratic = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    return z + linear + quadratic


def ranks(values_QM: Tensor) -> Tensor:
    """Ranks from 1 along the last axis, ties sharing their mean, float64."""
    values_QM = values_QM.contiguous()
    ordered = values_QM.sort(-1).values

    # Ties have the ranks num_below + 1 to num_up_to; their mean is half the sum of the ends.
    num_below = torch.searchsorted(ordered, values_QM)
    num_up_to = torch.searchsorted(ordered, values_QM, right=True)
    return (num_below + num_up_to + 1).double() / 2


def _by_block(draws_KSQ: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """``of`` the half-chains (Q, M, n), a block of quantities at a time; NaN where undefined."""
    num_chains, num_draws, num = draws_KSQ.shape
    if num_draws < MIN_DRAWS:
        raise DataError(
            f"draws: found {num_draws} a chain, expected at least {MIN_DRAWS} to split it into "
            "halves"
        )

    half = num_draws // 2
    width = max(1, _BLOCK // (num_chains * num_draws))
    values = []
    for start in range(0, num, width):
        block = draws_KSQ[:, :, start : start + width].double().permute(2, 0, 1)

        # Of an odd number of draws the middle one is left out.
        halves = torch.cat([block[..., :half], block[..., num_draws - half :]], 1)

        is_constant = (halves == halves[:, :1, :1]).all(-1).all(-1)
        is_finite = halves.isfinite().all(-1).all(-1)
        value = of(halves.nan_to_num())
        values.append(value.masked_fill(is_constant | ~is_finite, torch.nan))
    return torch.cat(values) if values else torch.empty(0, dtype=torch.float64)


def _score(draws_QMn: Tensor) -> Tensor:
    """Normal scores of the pooled ranks of each quantity."""
    pooled = draws_QMn.flatten(1)
    scores: Tensor = torch.special.ndtri((ranks(pooled) - 0.375) / (pooled.shape[1] + 0.25))
    return scores.view_as(draws_QMn)


def _fold(draws_QMn: Tensor) -> Tensor:
    """Normal scores of the distances from each quantity's pooled median."""
    ordered = draws_QMn.flatten(1).sort(-1).values
    num = ordered.shape[1]
    median = (ordered[:, (num - 1) // 2] + ordered[:, num // 2]) / 2
    return _score((draws_QMn - median[:, None, None]).abs())


def _variances(values_QMn: Tensor) -> tuple[Tensor, Tensor]:
    """W, and var+, of each quantity."""
    n = values_QMn.shape[2]
    within = values_QMn.var(2).mean(1)
    return within, (n - 1) / n * within + values_QMn.mean(2).var(1)


def _plain_rhat(values_QMn: Tensor) -> Tensor:
    within, total = _variances(values_QMn)
    value = (total / within).sqrt()

    # Where every half stands still, W is rounding: either all stand at one value, or the halves
    # never meet.
    is_still = within <= 1e-12 * total
    value = value.masked_fill(is_still & (total > 0), torch.inf)
    return value.masked_fill(total == 0, 1.0)


def _ess(values_QMn: Tensor) -> Tensor:
    num_halves, n = values_QMn.shape[1:]
    within, total = _variances(values_QMn)

    rho = 1 - (within[:, None] - _autocovariance(values_QMn)) / total[:, None]
    rho[:, 0] = 1.0
    tau = _time(rho)

    num = num_halves * n
    ess: Tensor = num / tau.clamp_min(1 / math.log10(num))
    return ess


def _autocovariance(values_QMn: Tensor) -> Tensor:
    """At all lags, mean over chains, each around its own mean, (Q, n)."""
    n = values_QMn.shape[2]

    # padding to 2 n keeps it from wrapping around
    spectrum = torch.fft.rfft(values_QMn - values_QMn.mean(2, keepdim=True), n=2 * n)
    autocovariance_Qn: Tensor = torch.fft.irfft(spectrum.abs().square(), n=2 * n)[..., :n].mean(1)
    return autocovariance_Qn / n


def _time(rho_Qn: Tensor) -> Tensor:
    """The autocorrelation time (Q,) of autocorrelations.

    P_k = rho_{2k} + rho_{2k+1} is made monotone and cut before the first that is not positive.
    """
    n = rho_Qn.shape[1]
    pairs = rho_Qn[:, : n // 2 * 2].reshape(len(rho_Qn), n // 2, 2).sum(2)
    is_before_cut = (pairs > 0).cumprod(1)
    time_Q: Tensor = -1 + 2 * (pairs.cummin(1).values * is_before_cut).sum(1)
    return time_Q


def _time_within(values_QKn: Tensor) -> Tensor:
    """The autocorrelation time (Q,) of chains, of each around its own mean.

    That mean takes its own variance v = W tau / n out of every autocovariance: it is put back, with
    the tau that follows, again and again.
    """
    n = values_QKn.shape[2]
    share_n = 1 - torch.arange(n, dtype=torch.float64) / n
    found_Qn = _autocovariance(values_QKn) / share_n

    missing_Q = torch.zeros(len(found_Qn), dtype=torch.float64)
    for _ in range(10):
        whole_Qn = found_Qn + missing_Q[:, None]
        time_Q = _time(whole_Qn / whole_Qn[:, :1].clamp_min(1e-300)).clamp(1.0, n)
        missing_Q = whole_Qn[:, 0] * time_Q / n
    return time_Q
