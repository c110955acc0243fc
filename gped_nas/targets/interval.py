"""The range of each class's probability over the posterior, and the distribution inside it."""

from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gped_nas.config import Config
from gped_nas.targets.base import TARGETS, DerivedTarget, RawHeads, StatisticTarget
from gped_nas.targets.formulas import log_softmax
from gped_nas.targets.quantile import empirical_quantile

_LEAST_WIDTH = 1e-30
"""Of all classes together, so that nothing is divided by zero where samples agree."""


class IntervalSettings(Config):
    """Settings of ``interval``."""

    share: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="share of the posterior between the two ends, in its middle; 1 is the "
            "range over all samples",
        ),
    ] = 1.0


def ends_of_samples(prob_SNC: Tensor, weight_S: Tensor, share: float) -> Tensor:
    """The least and the largest probability of each class over samples: (N, C * 2), ends last.

    With a share below 1 they are central quantiles, moved where needed so that they hold the
    average. Lower ends therefore sum to at most 1 and upper ones to at least 1: there is a
    distribution between them.

    Args:
        prob_SNC: of each sample.
        weight_S: their weights, summing to 1.
        share: of the posterior between the ends.
    """
    is_there_S = weight_S > 0
    weight_S, prob_SNC = weight_S[is_there_S], prob_SNC[is_there_S]
    if share == 1:
        ends = torch.stack([prob_SNC.amin(0), prob_SNC.amax(0)], -1)
        return ends.flatten(-2)

    tail = (1 - share) / 2
    quantiles = empirical_quantile(prob_SNC, weight_S, (tail, 1 - tail))
    low_NC, high_NC = torch.unflatten(quantiles, -1, (-1, 2)).unbind(-1)
    mean_NC = torch.einsum("s,snc->nc", weight_S, prob_SNC)
    # a mean of NaN stays one
    ends = torch.stack([low_NC.minimum(mean_NC), high_NC.maximum(mean_NC)], -1)
    return ends.flatten(-2)


def _distances(heads: RawHeads) -> tuple[Tensor, Tensor]:
    """How far a student's ends are below and above its predictive probabilities, (..., B, C).

    In log-odds the ends are softplus of a raw output away from q. Written so, nothing is
    subtracted that nearly equals: with e = exp(-softplus), q - low = q (1 - q) (1 - e) / (1 - q + q
    e), and likewise above.
    """
    q = log_softmax(heads["predictive"].detach()).exp()
    # 1 - q as the sum of the other classes' q
    others = q @ (1 - torch.eye(q.shape[-1], dtype=q.dtype, device=q.device))
    below, above = torch.unflatten(F.softplus(heads["interval"]), -1, (-1, 2)).unbind(-1)

    spread = q * others
    to_low = spread * -torch.expm1(-below) / (others + q * (-below).exp())
    to_high = spread * -torch.expm1(-above) / (q + others * (-above).exp())
    return to_low, to_high


def _log_complement(log_q: Tensor) -> Tensor:
    """log(1 - q) of each class (..., C), as that of the sum of the other classes."""
    num_classes = log_q.shape[-1]
    is_same = torch.eye(num_classes, dtype=torch.bool, device=log_q.device)
    others = log_q.unsqueeze(-2).masked_fill(is_same, -torch.inf)
    return others.logsumexp(-1)


def _predict(raw: Tensor, heads: RawHeads) -> Tensor:
    q = log_softmax(heads["predictive"].detach()).exp()
    to_low, to_high = _distances({**heads, "interval": raw})
    # rounded differences and sums may end a hair outside
    ends = torch.stack([(q - to_low).clamp_min(0), (q + to_high).clamp_max(1)], -1)
    return ends.flatten(-2)


def _loss(raw: Tensor, heads: RawHeads, ends: Tensor) -> Tensor:
    # Cross-entropy of each end as a probability: least at the end, and it sees small ones too,
    # which a squared error does not.
    log_q = log_softmax(heads["predictive"].detach())
    log_odds = log_q - _log_complement(log_q)
    below, above = torch.unflatten(F.softplus(raw), -1, (-1, 2)).unbind(-1)
    logits = torch.stack([log_odds - below, log_odds + above], -1).flatten(-2)
    losses = F.softplus(logits) - ends * logits
    return losses.sum(-1)


def interval(settings: IntervalSettings) -> StatisticTarget:
    """The ends between which the posterior's probabilities of each class lie: (..., B, C * 2).

    Ends come last: the first class's lower and upper one, then the second's. A student's ends hold
    its own predictive probability, which is detached.

    Source: Wang et al. 2025, arXiv:2511.13766 (CREDIT), who learn the range of an ensemble. There
    the student has the intersection probability for its prediction; here it follows from the ends.
    """
    what = "range" if settings.share == 1 else f"central {settings.share:.0%}"
    return StatisticTarget(
        name="interval",
        label=f"ends of each probability's {what} over the posterior",
        requires=("predictive",),
        settings=settings,
        build=interval,
        values=torch.exp,
        of_samples=lambda prob, weight, _: ends_of_samples(prob, weight, settings.share),
        num_outputs=lambda num_classes: 2 * num_classes,
        predict=_predict,
        loss=_loss,
    )


TARGETS.add(interval(IntervalSettings()))


def _intersection(values: Mapping[str, Tensor]) -> Tensor:
    """The one distribution that lies at the same share of every class's interval.

    With lower ends l and widths w, it is l + a w where a = (1 - sum l) / sum w. Source: Cuzzolin
    2022, The intersection probability: betting with probability intervals.
    """
    low, high = torch.unflatten(values["interval"], -1, (-1, 2)).unbind(-1)
    width = high - low
    missing = (1 - low.sum(-1, keepdim=True)).clamp_min(0)
    total = width.sum(-1, keepdim=True)
    share = (missing / total.clamp_min(_LEAST_WIDTH)).clamp_max(1)
    intersection: Tensor = low + share * width
    return intersection


def _intersection_from_heads(heads: RawHeads) -> Tensor:
    """``_intersection`` of a student: q moved by sums of positive distances alone."""
    q = log_softmax(heads["predictive"].detach()).exp()
    to_low, to_high = _distances(heads)
    below = to_low.sum(-1, keepdim=True)
    share = below / (below + to_high.sum(-1, keepdim=True)).clamp_min(_LEAST_WIDTH)
    return q - (1 - share) * to_low + share * to_high


TARGETS.add(
    DerivedTarget(
        name="intersection",
        label="intersection probability: the distribution inside the intervals",
        requires=("predictive", "interval"),
        derive=_intersection,
        from_heads=_intersection_from_heads,
    )
)
