"""Targets computed from averages over the posterior, the teacher's and the student's alike."""

import torch
from torch import Tensor

from gped_nas.targets.base import TARGETS, DerivedTarget, Expectations, RawHeads

_LEAST_SPREAD = torch.finfo(torch.float32).eps
"""Samples that all agree have no finite precision: it ends where float32 sees no spread."""


def _variance(mean: Expectations) -> Tensor:
    # Not negative but for rounding; averages are kept in float32.
    return (mean["second_moment"] - mean["predictive"].square()).clamp_min(0)


def _mutual_information(mean: Expectations) -> Tensor:
    total: Tensor = torch.special.entr(mean["predictive"]).sum(-1, keepdim=True)
    return (total - mean["expected_entropy"]).clamp_min(0)


def _dirichlet(mean: Expectations) -> Tensor:
    """Concentrations alpha of the Dirichlet with the posterior's mean and summed variance.

    A Dirichlet of mean m and precision s = sum alpha has Var[p_c] = m_c (1 - m_c) / (s + 1); summed
    over classes and solved, s = (1 - sum E[p^2]) / (sum E[p^2] - sum E[p]^2). Source: Minka 2000,
    Estimating a Dirichlet distribution, section 1 (moments), who matches the variance of one class;
    the sum treats all classes alike.
    """
    m = mean["predictive"]
    second_moment = mean["second_moment"]

    spread = (second_moment - m.square()).sum(-1, keepdim=True)
    uncertain = (1 - second_moment.sum(-1, keepdim=True)).clamp_min(0)
    precision = uncertain / spread.clamp_min(_LEAST_SPREAD)
    return precision * m


def _dirichlet_from_heads(heads: RawHeads) -> Tensor:
    """``_dirichlet`` of a student without its differences of nearly equal numbers.

    With the head's E[p^2] = q^2 + g q (1 - q), g = sigmoid(a), the spread is sum g q (1 - q), and
    1 - sum E[p^2] is sum (1 - g) q (1 - q), where 1 - g = sigmoid(-a) and 1 - q is the sum of the
    other classes' q: only positive numbers are added. Raw outputs that are off by r move log q by
    at most 2 r, log q (1 - q) by 2 r and a ratio of g by 2 r, so that concentrations are off by at
    most 8 r of themselves.
    """
    q = heads["predictive"].softmax(-1)
    a = heads["second_moment"]

    # 1 - q as the sum of the other classes' q
    others = q @ (1 - torch.eye(q.shape[-1], dtype=q.dtype, device=q.device))
    spread = (a.sigmoid() * q * others).sum(-1, keepdim=True)
    certain = ((-a).sigmoid() * q * others).sum(-1, keepdim=True)
    return certain / spread.clamp_min(_LEAST_SPREAD) * q


TARGETS.add(
    DerivedTarget(
        name="variance",
        label="posterior variance of each probability",
        requires=("predictive", "second_moment"),
        derive=_variance,
    )
)
TARGETS.add(
    DerivedTarget(
        name="mutual_information",
        label="mutual information of label and parameters (nats)",
        requires=("predictive", "expected_entropy"),
        derive=_mutual_information,
    )
)
TARGETS.add(
    DerivedTarget(
        name="dirichlet",
        label="concentrations of the moment-matched Dirichlet",
        requires=("predictive", "second_moment"),
        derive=_dirichlet,
        from_heads=_dirichlet_from_heads,
    )
)
