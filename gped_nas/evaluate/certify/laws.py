"""The law behind samples: how large a share of its draws is certified, by independent draws.

Of n independent draws, k are certified at an input. Then the share p of all draws that are is, with
confidence 1 - d, at least the p of which k or more of n come with probability d: the exact end of
Clopper & Pearson. What is broken ends p from above in the same way. One draw is asked about all
inputs, so that d is split over them, and over both ends: all intervals hold together.

A chain's states are no such draws; ``posterior.draws`` refuses them. Whether draws look independent
is tried by a test of runs: in the order in which they were drawn, an input's verdict changes from
one draw to the next as often as in a random order of the same draws, or else they are not.

Source: Clopper & Pearson 1934, Biometrika 26; Wald & Wolfowitz 1940, Annals of Mathematical
Statistics 11 (runs), here over all inputs at once, against permutations of the draws.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from gped_nas.evaluate.predictions import Floats

CONFIDENCE = 0.95
_ROUNDING = 1e-12
"""What the inverse of the incomplete beta function may be off."""
_PERMUTATIONS = 999


@dataclass(frozen=True, eq=False)
class LawShares:
    """How large a share of a law's draws no input of a box breaks, for each of N inputs.

    Attributes:
        num_draws: of the law.
        num_certified_N, num_broken_N: how many of them.
        low_N, high_N: between which each share lies, all of them with the confidence.
        confidence: of all intervals together.
        p_value: of the test that draws are independent; 1 where all verdicts are the same.
    """

    num_draws: int
    num_certified_N: NDArray[np.int64]
    num_broken_N: NDArray[np.int64]
    low_N: Floats
    high_N: Floats
    confidence: float
    p_value: float

    @property
    def mean(self) -> tuple[float, float]:
        """Between which the share lies on average over the inputs, with the confidence."""
        return float(self.low_N.mean()), float(self.high_N.mean())


def law_shares(
    is_certified_SN: Tensor,
    is_broken_SN: Tensor,
    *,
    generator: Generator,
    confidence: float = CONFIDENCE,
) -> LawShares:
    """What independent draws say of the law that they are of.

    Args:
        is_certified_SN: whether each draw is certified at each input, in the order of drawing.
        is_broken_SN: whether an input of the box is there that it answers wrongly.
        generator: of the test's permutations.
        confidence: that all intervals together hold the shares.
    """
    num_draws, num_inputs = is_certified_SN.shape
    num_certified_N = is_certified_SN.sum(0).numpy()
    num_broken_N = is_broken_SN.sum(0).numpy()

    risk = (1 - confidence) / (2 * num_inputs)
    low_N = least_share(num_certified_N, num_draws, risk)
    high_N = 1 - least_share(num_broken_N, num_draws, risk)
    p_value = runs_p_value(is_certified_SN, generator=generator)
    return LawShares(num_draws, num_certified_N, num_broken_N, low_N, high_N, confidence, p_value)


def least_share(num_hits: NDArray[np.int64], num_draws: int, risk: float) -> Floats:
    """Lower ends of the share of hits among all draws; each is too high with ``risk`` at most.

    Args:
        num_hits: among the draws, of any shape.
        num_draws: independent ones.
        risk: of each end.
    """
    from scipy.special import betaincinv  # slow to import

    hits = np.asarray(num_hits, np.float64)
    with np.errstate(invalid="ignore"):
        low: Floats = betaincinv(hits, num_draws - hits + 1, risk)
    return np.where(hits == 0, 0.0, np.maximum(low - _ROUNDING, 0.0))


def runs_p_value(
    is_hit_SN: Tensor, *, generator: Generator, permutations: int = _PERMUTATIONS
) -> float:
    """How probable so few, or so many, changes between neighbors are in a random order.

    It is exact: under independence it is at most x with probability at most x.

    Args:
        is_hit_SN: verdicts of draws, in the order of drawing.
        generator: of the permutations.
        permutations: how many.
    """
    hit_SN = is_hit_SN.double()
    observed = _num_changes(hit_SN)
    random_orders = []
    for _ in range(permutations):
        order_S = torch.randperm(len(hit_SN), generator=generator)
        random_orders.append(_num_changes(hit_SN[order_S]))

    changes = torch.tensor([observed, *random_orders], dtype=torch.float64)
    num_as_few = int((changes <= observed).sum())
    num_as_many = int((changes >= observed).sum())
    return min(1.0, 2 * min(num_as_few, num_as_many) / len(changes))


def _num_changes(hit_SN: Tensor) -> float:
    return float((hit_SN[1:] - hit_SN[:-1]).abs().sum())
