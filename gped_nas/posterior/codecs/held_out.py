"""Which samples of a chain a codec does not learn from, and when a learned law is worth keeping.

A law that is learned from few points soon says these points again. So every fifth stretch of a
chain is held out, and a law is kept where it is better there than the normal law, on average by
more than its standard error, and better than what was kept before.

Stretches, not single samples: neighbors in a chain are alike, so that a single one would be known
from those beside it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_STRETCHES = 20
_EVERY = 5


def is_held_out(num: int) -> Tensor:
    """Of ``num`` samples in the order of their chain, the ones to hold out: bool (S,)."""
    stretch = max(num // _STRETCHES, 1)
    return (torch.arange(num) // stretch) % _EVERY == _EVERY // 2


@dataclass(frozen=True, eq=False)
class Split:
    """A chain's samples, those to learn from and those that were held out.

    Attributes:
        x_SJ, weight_S: coordinates to learn from, and weights.
        held_MJ, held_weight_M: of what was held out.
    """

    x_SJ: Tensor
    weight_S: Tensor
    held_MJ: Tensor
    held_weight_M: Tensor


def split_chain(x_SJ: Tensor, weight_S: Tensor) -> Split:
    """Hold out a fifth of a chain."""
    is_held_S = is_held_out(len(x_SJ))
    return Split(x_SJ[~is_held_S], weight_S[~is_held_S], x_SJ[is_held_S], weight_S[is_held_S])


@dataclass(eq=False)
class Kept:
    """The best law so far.

    Attributes:
        theta: its network, flat; zeros while the normal law is the best.
        gain: how much better it is than the normal law on what was held out.
    """

    theta: Tensor
    gain: float = 0.0

    def offer(self, theta: Tensor, gain_M: Tensor, weight_M: Tensor) -> None:
        """Keep a law if it is better.

        Args:
            theta: its network, flat.
            gain_M: how much better than the normal law it is at each sample that was held out.
            weight_M: their weights, on any scale.
        """
        share_M = weight_M / weight_M.sum()
        mean = float(share_M @ gain_M)
        freedom = 1 - float(share_M.square().sum())
        if freedom == 0:
            return  # a single sample has no standard error: nothing is known

        variance = float(share_M.square() @ (gain_M - mean).square()) / freedom
        if mean > max(self.gain, variance**0.5):
            self.theta = theta.clone()
            self.gain = mean
