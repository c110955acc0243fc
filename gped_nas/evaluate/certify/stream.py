"""What is proved of stored posterior samples, one by one, and of their average.

**Shares.** Each sample is certified at an input, or broken by an input of the box, or neither. The
weight of those that are certified is at most the share of samples whose answer no input of the box
changes, and the weight of those that are not broken is at least that. These are sums over the
samples that are stored: no statistics. They say nothing of other samples.

**The average.** With weights w and probabilities p_s of S samples, the average answers y if
``sum_s w_s (p_sy - p_sk) > 0`` for every other class k. A sample's margins ``z_y - z_k`` are at
least L_k, so that with ``t_k = exp(-L_k)`` and the sum R of the other ``t_j``

    p_y - p_k >= (1 - t_k) / (1 + t_k + R)   if t_k <= 1,   (1 - t_k) / (1 + t_k)   otherwise

because it falls with ``z_k - z_y``, and then with the other ones where it is positive, and rises
with them where it is negative. This is no less than "lower p_y minus sigmoid of -L_k", and both
prove more than ``p_y > 1/2``. A softmax's logits at temperature T are divided by T beforehand.

Source: for shares Wicker, Laurenti, Patane & Kwiatkowska 2020, arXiv:2004.10281, whose P_safe they
are under the stored samples' own law; decision robustness is from 2023, arXiv:2306.13614.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gped_nas.evaluate.certify.bounds import Bounds
from gped_nas.evaluate.certify.box import Box
from gped_nas.evaluate.certify.breaking import Attack, inward, is_wrong, look_for_breaks
from gped_nas.evaluate.certify.networks import CertifiableNetwork, margins
from gped_nas.evaluate.certify.verdict import least_lead
from gped_nas.evaluate.conditions import Predictor
from gped_nas.evaluate.predictions import Floats

_UNIT = 2.0**-24
"""Unit roundoff of float32, which samples answer in."""

Breaks = Callable[[Predictor, Tensor], Tensor]
"""``breaks(predictor, index_M)``: whether an input of each of these boxes was found that the one
network answers wrongly, (M,)."""
Sample = tuple[float, CertifiableNetwork, Predictor]
"""A posterior sample: its weight, its layers, and the same network as it answers."""


@dataclass(frozen=True, eq=False)
class SampleVerdicts:
    """What is known of S posterior samples at N inputs.

    Attributes:
        weight_S: their weights, float64.
        margin_SNC: lower bounds of how far the label's logit is above each class's in the box; 0 at
            the label.
        is_broken_SN: whether an input of the box was found that the sample answers wrongly.
        label_N: the labels.
    """

    weight_S: Tensor
    margin_SNC: Tensor
    is_broken_SN: Tensor
    label_N: Tensor

    @property
    def is_certified_SN(self) -> Tensor:
        """Whether no input of the box changes a sample's right answer."""
        others_SNC = self._others(torch.inf)
        return (others_SNC > 0).all(-1)

    @property
    def certified_share_N(self) -> Floats:
        """Lower bound of the share of samples that no input of each box breaks."""
        return _shares(self.weight_S, self.is_certified_SN)

    @property
    def unbroken_share_N(self) -> Floats:
        """Upper bound of the same."""
        return _shares(self.weight_S, ~self.is_broken_SN)

    def served_lead_N(self, temperature: float = 1.0) -> Tensor:
        """Lower bound of how far the average's p_y is above every other probability in the box.

        Where it is above 0, no input of the box changes what the average answers, as it is
        computed in float32.

        Args:
            temperature: at which samples are served; margins are those of the divided logits.
        """
        total = math.fsum(self.weight_S.tolist())
        lead_NC = torch.zeros_like(self.margin_SNC[0])
        for weight, margin_NC in zip(self.weight_S, self._others(torch.inf), strict=True):
            lead_NC += weight / total * least_difference(margin_NC)

        slack = 2 * probability_slack(lead_NC.shape[1], temperature)
        return lead_NC.scatter(1, self.label_N[:, None], torch.inf).amin(1) - slack

    def _others(self, at_label: float) -> Tensor:
        """The margins, with a number of no consequence at the label."""
        index_SN1 = self.label_N.expand(len(self.weight_S), -1)[..., None]
        return self.margin_SNC.scatter(2, index_SN1, at_label)


def judge_samples(
    samples: Iterable[Sample],
    box: Box,
    label_N: Tensor,
    breaks: Breaks,
    *,
    bounds: Bounds = "crown",
) -> SampleVerdicts:
    """What is known of each posterior sample; one of them is in memory at a time.

    Args:
        samples: the samples.
        box: around each of N inputs.
        label_N: their classes.
        breaks: looks for inputs that are answered wrongly; it is asked where nothing is certified.
        bounds: how margins are bounded.
    """
    weights, all_margins, all_broken = [], [], []
    for weight, network, predictor in samples:
        margin_NC = margins(network, box.low, box.high, label_N, bounds=bounds)
        open_M = (least_lead(margin_NC, label_N) <= 0).nonzero().squeeze(1)
        is_broken_N = torch.zeros(len(label_N), dtype=torch.bool)
        if len(open_M):
            is_broken_N[open_M] = breaks(predictor, open_M)

        weights.append(weight)
        all_margins.append(margin_NC)
        all_broken.append(is_broken_N)

    weight_S = torch.tensor(weights, dtype=torch.float64)
    return SampleVerdicts(weight_S, torch.stack(all_margins), torch.stack(all_broken), label_N)


def breaks_within(
    raw: Tensor, box: Box, label_N: Tensor, *, attack: Attack, generator: Generator
) -> Breaks:
    """What looks for inputs of boxes that a network answers wrongly.

    Args:
        raw: inputs (N, *input_shape), each in its box; it is looked at first.
        box: around each.
        label_N: their classes.
        attack: what looks further.
        generator: of what it draws.
    """

    def breaks(predictor: Predictor, index_M: Tensor) -> Tensor:
        some = Box(box.low[index_M], box.high[index_M])
        label_M = label_N[index_M]
        is_broken_M = is_wrong(predictor, inward(some, raw[index_M]), label_M)

        open_M = (~is_broken_M).nonzero().squeeze(1)
        if len(open_M):
            still = Box(some.low[open_M], some.high[open_M])
            worst, _ = look_for_breaks(predictor, still, label_M[open_M], attack, generator)
            is_wrong_M = is_wrong(predictor, worst, label_M[open_M])
            is_broken_M[open_M] = is_wrong_M & still.holds(worst)
        return is_broken_M

    return breaks


def least_difference(margin_NC: Tensor) -> Tensor:
    """The least ``p_y - p_k`` (N, C) of a softmax with these margins or larger ones.

    Args:
        margin_NC: lower bounds of ``z_y - z_k``; infinity at the label.
    """
    odds_NC = (-margin_NC).exp()
    rest_NC = odds_NC.sum(1, keepdim=True) - odds_NC
    # an infinite one has made the sum infinite: the rest is then that of the others alone
    rest_NC = torch.where(odds_NC.isinf(), 0.0, rest_NC)

    leading = -torch.expm1(-margin_NC) / (1 + odds_NC + rest_NC.clamp(min=0))
    trailing = torch.tanh(margin_NC / 2)
    return torch.where(margin_NC >= 0, leading, trailing)


def probability_slack(num_classes: int, temperature: float = 1.0) -> float:
    """How far a probability that a sample serves may be from that of its computed logits.

    float32's log-softmax gives log p with an error of ``u (2 |log p| + C + 8)`` at most: it
    subtracts the largest logit first, and then the logarithm of a sum of C exponentials. Dividing
    by T and normalizing again in float64 multiplies that by 1 / T and adds twice ``log C`` of it;
    storing it rounds once more. ``p |log p|`` is less than 1 / e. The average is made in float64.

    Args:
        num_classes: C.
        temperature: T.
    """
    terms = num_classes + 2 * math.log(num_classes) + 8
    return 4 * _UNIT * terms * max(1.0, 1 / temperature)


def _shares(weight_S: Tensor, is_hit_SN: Tensor) -> Floats:
    """The weight of the hits at each input, rounded once."""
    weights = weight_S.tolist()
    total = math.fsum(weights)
    shares = []
    for is_hit_S in is_hit_SN.T.tolist():
        hits = [weight for weight, is_hit in zip(weights, is_hit_S, strict=True) if is_hit]
        shares.append(math.fsum(hits) / total)
    return torch.tensor(shares, dtype=torch.float64).numpy()
