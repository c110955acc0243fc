"""Targets of kind ``derived``: computed from averages over the posterior, the teacher's and the
student's alike.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gped_nas.targets.base import TARGETS, Heads, Target

_LEAST_SPREAD = torch.finfo(torch.float32).eps
"""Samples that all agree have no finite precision: it ends where float32 no longer sees their
spread.
"""


def derived_target(
    name: str,
    derive: Callable[[Heads], Tensor],
    *,
    requires: tuple[str, ...],
    label: str,
    from_heads: Callable[[Heads], Tensor] | None = None,
) -> Target:
    """A target computed from the averages of other targets, with neither head nor loss.

    Args:
        name: the name to register it under.
        derive: values of the required targets by name, each (..., B, G'), to its own, (..., B, G).
        requires: targets of kind ``mean``.
        label: for people, with the unit.
        from_heads: raw outputs of the required heads by name, each (..., B, U), to what ``derive``
            makes of their predictions; for numbers in which rounding of those would be amplified.
            ``derive`` itself by default.
    """

    def of_one_sample(log_prob: Tensor) -> Tensor:
        return derive({one: TARGETS[one].values(log_prob) for one in requires})

    def predict(raw: Tensor, heads: Heads) -> Tensor:
        if from_heads:
            return from_heads(heads)
        return derive({one: TARGETS[one].predict(heads[one], heads) for one in requires})

    def no_loss(raw: Tensor, heads: Heads, expectation: Tensor) -> Tensor:
        raise AssertionError(f"{name} is derived and has no loss")

    return Target(
        name=name,
        kind="derived",
        values=of_one_sample,
        num_outputs=lambda num_classes: 0,
        predict=predict,
        loss=no_loss,
        label=label,
        requires=requires,
        derive=derive,
    )


def _variance(mean: Heads) -> Tensor:
    # Not negative but for rounding; averages are kept in float32.
    return (mean["second_moment"] - mean["predictive"].square()).clamp_min(0)


def _mutual_information(mean: Heads) -> Tensor:
    total: Tensor = torch.special.entr(mean["predictive"]).sum(-1, keepdim=True)
    return (total - mean["expected_entropy"]).clamp_min(0)


def _dirichlet(mean: Heads) -> Tensor:
    """Concentrations alpha of the Dirichlet whose mean, and whose variance summed over classes, are
    the posterior's.

    A Dirichlet of mean m and precision s = sum alpha has Var[p_c] = m_c (1 - m_c) / (s + 1); summed
    over classes and solved, s = (1 - sum E[p^2]) / (sum E[p^2] - sum E[p]^2). Source: Minka 2000,
    Estimating a Dirichlet distribution, section 1 (moments), who matches the variance of one class;
    the sum treats all classes alike.
    """
    m, second = mean["predictive"], mean["second_moment"]
    spread = (second - m.square()).sum(-1, keepdim=True)
    precision = (1 - second.sum(-1, keepdim=True)).clamp_min(0) / spread.clamp_min(_LEAST_SPREAD)
    return precision * m


def _dirichlet_from_heads(heads: Heads) -> Tensor:
    """``_dirichlet`` of a student without its differences of nearly equal numbers.

    With the head's E[p^2] = q^2 + g q (1 - q), g = sigmoid(a), the spread is sum g q (1 - q) and 1
    - sum E[p^2] is sum (1 - g) q (1 - q), where 1 - g = sigmoid(-a) and 1 - q is the sum of the
    other classes' q: only positive numbers are added. Raw outputs that are off by r move log q by
    at most 2 r, log q (1 - q) by 2 r and a ratio of g by 2 r, so that concentrations are off by at
    most 8 r of themselves.
    """
    q, a = heads["predictive"].softmax(-1), heads["second_moment"]
    others = q @ (1 - torch.eye(q.shape[-1], dtype=q.dtype, device=q.device))
    spread = (a.sigmoid() * q * others).sum(-1, keepdim=True)
    certain = ((-a).sigmoid() * q * others).sum(-1, keepdim=True)
    return certain / spread.clamp_min(_LEAST_SPREAD) * q


TARGETS.register("variance")(
    derived_target(
        "variance",
        _variance,
        requires=("predictive", "second_moment"),
        label="posterior variance of each probability",
    )
)
TARGETS.register("mutual_information")(
    derived_target(
        "mutual_information",
        _mutual_information,
        requires=("predictive", "expected_entropy"),
        label="mutual information of label and parameters (nats)",
    )
)
TARGETS.register("dirichlet")(
    derived_target(
        "dirichlet",
        _dirichlet,
        requires=("predictive", "second_moment"),
        from_heads=_dirichlet_from_heads,
        label="concentrations of the moment-matched Dirichlet",
    )
)
