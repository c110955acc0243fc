"""What attacks raise, as functions of the averaged log-probabilities ``m`` (B, C), nats.

| loss | formula | source |
| --- | --- | --- |
| ``CROSS_ENTROPY`` | ``-m_y`` | |
| ``MARGIN`` | ``max_{j != y} m_j - m_y`` | Carlini & Wagner, arXiv:1608.04644 |
| ``PROBABILITY`` | ``max_{j != y} p_j - p_y`` | PMA, arXiv:2411.15210 |
| ``TARGETED_DLR`` | ``(m_t - m_y) / (m_1 - (m_3 + m_4) / 2)`` | APGD, arXiv:2003.01690 |
| ``TARGETED_MARGIN`` | ``m_t - m_y`` | |
| ``VOTES`` | mean over networks of ``log p_st - log p_sy`` | |
| ``MAJORITY`` | mean over networks of ``tanh(max_{j != y} (log p_sj - log p_sy) / 10)`` | |

``m`` stands in for the logits that papers have: it orders classes alike, and the ratio of
differences is that of logits where there is one network. ``m_1``, ``m_3``, ``m_4`` are the largest,
third and fourth largest.

``VOTES`` and ``MAJORITY`` are no losses of the average. Where networks are sure, the average's own
gradients vanish, and those of each network's log-probabilities do not. The hyperbolic tangent
counts networks that are wrong: one that is wrong by far counts once.
"""

import torch
from torch import Tensor

from gped_nas.evaluate.attacks.average import Aim, Loss, entropy, margin

_SMALL = 1e-12
_FAR = 10.0
"""A lead, nats, beyond which a network is as good as won or lost."""


def _label(log_prob: Tensor, aim: Aim) -> Tensor:
    return log_prob.gather(1, aim.label_N[:, None]).squeeze(1)


def _target(log_prob: Tensor, aim: Aim) -> Tensor:
    return log_prob.gather(1, aim.target_N[:, None]).squeeze(1)


def _cross_entropy(log_prob: Tensor, aim: Aim) -> Tensor:
    return -_label(log_prob, aim)


def _probability(log_prob: Tensor, aim: Aim) -> Tensor:
    prob = log_prob.exp()
    others = prob.scatter(1, aim.label_N[:, None], -1.0)
    return others.max(1).values - _label(prob, aim)


def _targeted_margin(log_prob: Tensor, aim: Aim) -> Tensor:
    return _target(log_prob, aim) - _label(log_prob, aim)


def _targeted_dlr(log_prob: Tensor, aim: Aim) -> Tensor:
    ordered = log_prob.sort(1, descending=True).values
    spread = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    return _targeted_margin(log_prob, aim) / (spread + _SMALL)


def _majority(log_prob: Tensor, aim: Aim) -> Tensor:
    return torch.tanh(margin(log_prob, aim) / _FAR)


def _nothing(log_prob: Tensor, aim: Aim) -> Tensor:
    return torch.zeros_like(log_prob[:, 0])


def _certainly_wrong(log_prob: Tensor, aim: Aim) -> Tensor:
    """Log-probability of the best other class: high where the answer is wrong and sure."""
    return log_prob.scatter(1, aim.label_N[:, None], -torch.inf).max(1).values


CROSS_ENTROPY = Loss(_cross_entropy)
MARGIN = Loss(margin)
PROBABILITY = Loss(_probability)
TARGETED_MARGIN = Loss(_targeted_margin)
TARGETED_DLR = Loss(_targeted_dlr)
VOTES = Loss(_nothing, network=_targeted_margin)
MAJORITY = Loss(_nothing, network=_majority)

RAISE_TOTAL = Loss(lambda log_prob, aim: entropy(log_prob), by_margin=False)
LOWER_TOTAL = Loss(lambda log_prob, aim: -entropy(log_prob), by_margin=False)
RAISE_MODEL = Loss(lambda log_prob, aim: entropy(log_prob), entropy=-1.0, by_margin=False)
LOWER_MODEL = Loss(lambda log_prob, aim: -entropy(log_prob), entropy=1.0, by_margin=False)
"""Entropy H, and mutual information H - E[H], up and down."""

WRONG_AND_SURE = Loss(_certainly_wrong, by_margin=False)
WRONG_AND_AGREED = Loss(
    lambda log_prob, aim: _certainly_wrong(log_prob, aim) - entropy(log_prob),
    entropy=1.0,
    by_margin=False,
)
"""A wrong answer that total, or model uncertainty, does not give away."""

DLR_CLASSES = 4
"""Classes that the targeted DLR needs."""
