"""How well chains mix, and how alike they predict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.teacher import averaged
from gped_nas.posterior.diagnostics import (
    agreement,
    bulk_ess,
    chance_rhat,
    rhat,
    total_variation,
)

RHAT_BOUND = 1.1
"""Gelman & Rubin's classical bound.

Vehtari et al. 2021 ask for 1.01 of single numbers that will be published.
"""

MOST_CHANCE = 1.3
"""Above it no chance excuses an R-hat: chains that drift, or stand, are at 1.5 and more."""


@dataclass(frozen=True)
class Mixing:
    """How well many quantities mix.

    Attributes:
        num: quantities looked at.
        num_constant: of them, those that no draw changes; left out below.
        num_not_finite: of them, those with a draw that is no finite number; left out below.
        rhat: the R-hat that 50, 90 and 99 % of the quantities do not exceed; None where none is
            left.
        above: share of the quantities left with R-hat above 1.1.
        ess: the bulk effective sample size that 50, 90 and 99 % of the quantities reach, all chains
            together.
    """

    num: int
    num_constant: int
    num_not_finite: int
    rhat: tuple[float, float, float] | None
    above: float
    ess: tuple[float, float, float] | None
    disagree: float = 0.0


def by_chain(values_SQ: Tensor, chains: int) -> Tensor:
    """Draws (K, S / K, Q) from posterior samples (S, Q), of which number s is of chain s % K."""
    return values_SQ.view(-1, chains, values_SQ.shape[-1]).transpose(0, 1)


def mixing_of(draws_KSQ: Tensor) -> Mixing:
    """R-hat and effective sample sizes of many quantities.

    Raises:
        DataError: fewer than 4 draws a chain.
    """
    is_finite_Q = draws_KSQ.isfinite().all(0).all(0)
    rhat_Q = rhat(draws_KSQ)[is_finite_Q]
    ess_Q = bulk_ess(draws_KSQ)[is_finite_Q]

    # R-hat of a constant is 0 / 0
    moves_Q = ~rhat_Q.isnan()
    bound_Q = chance_rhat(draws_KSQ)[is_finite_Q].clamp(RHAT_BOUND, MOST_CHANCE)[moves_Q]
    disagree_Q = (rhat_Q[moves_Q] > bound_Q).double()
    rhat_Q = rhat_Q[moves_Q].sort().values
    ess_Q = ess_Q[moves_Q].sort(descending=True).values

    return Mixing(
        num=draws_KSQ.shape[2],
        num_constant=int((~moves_Q).sum()),
        num_not_finite=int((~is_finite_Q).sum()),
        rhat=_most_reach(rhat_Q),
        above=float((rhat_Q > RHAT_BOUND).double().mean()) if len(rhat_Q) else 0.0,
        ess=_most_reach(ess_Q),
        disagree=float(disagree_Q.mean()) if len(disagree_Q) else 0.0,
    )


def _most_reach(ordered_Q: Tensor) -> tuple[float, float, float] | None:
    """What 50, 90 and 99 % of the numbers reach; None where there are none."""
    if not len(ordered_Q):
        return None

    # order statistics, not interpolated: infinite numbers do not spoil them
    def reached_by(percent: int) -> float:
        rank = math.ceil(len(ordered_Q) * percent / 100)
        return float(ordered_Q[rank - 1])

    return reached_by(50), reached_by(90), reached_by(99)


def between_chains(log_prob_SNC: Tensor, weight_S: Tensor, chains: int) -> tuple[float, float]:
    """Agreement and total variation of the averages of two chains, mean over all pairs."""
    probs = []
    for chain in range(chains):
        average = averaged(log_prob_SNC[chain::chains], weight_S[chain::chains])
        assert isinstance(average, Predictions), "chains are compared where labels are classes"
        probs.append(torch.from_numpy(average.log_prob_NC).exp())
    return between_averages(probs)


def between_averages(probs: Sequence[Tensor]) -> tuple[float, float]:
    """Agreement and total variation of what several averages say (N, C), mean over all pairs."""
    agreements = []
    distances = []
    for i, prob in enumerate(probs):
        for earlier_prob in probs[:i]:
            agreements.append(agreement(prob, earlier_prob))
            distances.append(total_variation(prob, earlier_prob))

    return sum(agreements) / len(agreements), sum(distances) / len(distances)
