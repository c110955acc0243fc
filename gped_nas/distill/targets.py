"""Targets: what is averaged over the posterior, the head that predicts it, and the loss between the two.

A target of kind ``mean`` has a loss that is affine in the averaged quantity plus a term free of the student, so
that averaging first and training on the average gives exactly the averaged gradient. (An absolute error does
not: on single samples it learns the median.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.errors import ConfigError, RegistryError, nearest
from gped_nas.posterior.likelihoods import Prediction
from gped_nas.registry import Registry
from gped_nas.stream.reader import Stream

Heads = Mapping[str, Tensor]


@dataclass(frozen=True)
class Target:
    """A posterior expectation that students can be distilled for.

    Attributes:
        name: its registered name.
        kind: ``mean``; other kinds need other averages and are refused by ``expect``.
        values: log-probabilities (..., N, C) of posterior samples, nats, to what is averaged, (..., N, G).
        num_outputs: number of classes to the number U of raw outputs its head needs.
        predict: raw outputs (..., B, U) of its head and the raw outputs of the heads it requires, by name, to
            the student's own value (..., B, G), in the units of ``values``.
        loss: raw outputs (..., B, U), required heads, expectation (B, G) to losses (..., B), nats or squared
            units.
        requires: heads whose raw outputs it reads.
        prediction: what of a posterior sample ``values`` takes: log-probabilities (..., N, C), or means and
            variances (..., N, 2) of a real label.
        label: for people, with the unit.
    """

    name: str
    kind: Literal["mean", "derived", "quantile"]
    values: Callable[[Tensor], Tensor]
    num_outputs: Callable[[int], int]
    predict: Callable[[Tensor, Heads], Tensor]
    loss: Callable[[Tensor, Heads, Tensor], Tensor]
    label: str
    requires: tuple[str, ...] = ()
    prediction: Prediction = "log_prob"


TARGETS: Registry[Target] = Registry("target", "gped_nas.distill")
MAIN_TARGET: dict[Prediction, str] = {"log_prob": "predictive", "normal": "predictive_normal"}
"""The target that every student of such a teacher has: the one that metrics judge."""


def check_targets(names: tuple[str, ...], where: str) -> None:
    """Refuse unknown, repeated or incomplete target lists.

    Raises:
        RegistryError: an unknown name.
        ConfigError: a target twice, none at all, one whose required head is not there before it, or of another kind of
            label than the first.
    """
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"{where}: found {list(names)}, expected at least one target and none twice")
    for i, name in enumerate(names):
        if name not in TARGETS:
            raise RegistryError(f"{where}: unknown target '{name}'{nearest(name, TARGETS)}")
        for required in TARGETS[name].requires:
            if required not in names[:i]:
                raise ConfigError(f"{where}: '{name}' reads the head of '{required}'; list '{required}' before it")
    main = MAIN_TARGET[TARGETS[names[0]].prediction]
    for name in names:
        if TARGETS[name].prediction != TARGETS[main].prediction:
            raise ConfigError(f"{where}: '{name}' and '{names[0]}' are for different kinds of label; remove one")
    if main not in names:
        raise ConfigError(f"{where}: found {list(names)}, expected '{main}' among them")


def expect(target: Target, log_prob_SBC: Tensor, weight_S: Tensor) -> Tensor:
    """Average a target over posterior samples.

    Args:
        target: what to average; applied to each posterior sample on its own.
        log_prob_SBC: teacher log-probabilities, nats.
        weight_S: non-negative weights on any scale; normalised here.

    Returns:
        ``target_BG`` on the device and in the dtype of ``log_prob_SBC``, in the units of ``target``.

    Raises:
        ConfigError: the target is not of kind ``mean``, or the weights sum to zero.

    Source: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110, equation 2.
    """
    _require_mean(target)
    total = weight_S.sum()
    if not bool(total > 0):
        raise ConfigError(f"weights of posterior samples: found a sum of {float(total)}, expected more than 0")
    weight = (weight_S / total).to(log_prob_SBC.dtype)
    return torch.einsum("s,sbg->bg", weight, target.values(log_prob_SBC))


def stream_expectation(stream: Stream, target: str, view: str) -> Tensor:
    """``expect`` over a stream's predictions at a view, by blocks in float64, cached beside the stream."""
    _require_mean(TARGETS[target])
    return stream.average(target, view, TARGETS[target].values)


def _require_mean(target: Target) -> None:
    if target.kind != "mean":
        raise ConfigError(f"target '{target.name}' is of kind {target.kind}; averaging its samples would be wrong")


def head_slices(targets: tuple[str, ...], num_classes: int) -> dict[str, slice]:
    """Which raw outputs of the last layer belong to which target's head."""
    slices, start = {}, 0
    for name in targets:
        stop = start + TARGETS[name].num_outputs(num_classes)
        slices[name] = slice(start, stop)
        start = stop
    return slices


def num_raw_outputs(targets: tuple[str, ...], num_classes: int) -> int:
    """Raw outputs of a student with all these heads."""
    return sum(TARGETS[name].num_outputs(num_classes) for name in targets)


def split_heads(raw: Tensor, targets: tuple[str, ...], num_classes: int) -> dict[str, Tensor]:
    """Raw outputs (..., B, U) cut into the heads' parts."""
    return {name: raw[..., cut] for name, cut in head_slices(targets, num_classes).items()}


def predictions(raw: Tensor, targets: tuple[str, ...], num_classes: int) -> dict[str, Tensor]:
    """Every expectation a student predicts: raw outputs (..., B, U) to ``{target: (..., B, G)}``."""
    heads = split_heads(raw, targets, num_classes)
    return {name: TARGETS[name].predict(heads[name], heads) for name in targets}


def loss(
    raw: Tensor, targets: tuple[str, ...], weights: Mapping[str, float], expectations: Heads, num_classes: int
) -> Tensor:
    """The distillation loss: the weighted sum of the targets' losses, averaged over the batch.

    Args:
        raw: raw outputs (..., B, U).
        targets: the student's heads in order.
        weights: weight of each target; 1 where not given.
        expectations: ``{target: (B, G)}``.
        num_classes: C.

    Returns:
        One scalar for each leading index.
    """
    heads = split_heads(raw, targets, num_classes)
    total = raw.new_zeros(raw.shape[:-2])
    for name in targets:
        part = TARGETS[name].loss(heads[name], heads, expectations[name]).mean(-1)
        total = total + weights.get(name, 1.0) * part
    return total


def entropy(log_prob: Tensor) -> Tensor:
    """Entropy over the last axis, nats; a class of probability zero adds nothing."""
    return -(log_prob.exp() * log_prob.clamp_min(torch.finfo(log_prob.dtype).min)).sum(-1)


def _predictive_loss(raw: Tensor, heads: Heads, expectation: Tensor) -> Tensor:
    return -(expectation * F.log_softmax(raw, -1)).sum(-1)


def _entropy_predict(raw: Tensor, heads: Heads) -> Tensor:
    # sigmoid(a) H[q] with H[q] detached: E[H] <= H[q] always, so mutual information is never negative, and
    # the entropy loss cannot bend the predictive head.
    student_entropy = entropy(F.log_softmax(heads["predictive"].detach(), -1))
    return raw.sigmoid() * student_entropy.unsqueeze(-1)


def _entropy_loss(raw: Tensor, heads: Heads, expectation: Tensor) -> Tensor:
    return (_entropy_predict(raw, heads) - expectation).square().sum(-1)


def _normal_values(normal: Tensor) -> Tensor:
    mean, variance = normal.unbind(-1)
    return torch.stack([mean, mean.square() + variance], -1)


def _normal_loss(raw: Tensor, heads: Heads, expectation: Tensor) -> Tensor:
    # The expected negative log-density of y under N(mu, exp(a)), less a constant: affine in E[y] and E[y^2], written
    # so that little cancels. Its minimum has the predictive's mean and variance (Balan et al. 2015, arXiv:1506.04416).
    mu, log_variance = raw.unbind(-1)
    mean, second = expectation.unbind(-1)
    return 0.5 * (log_variance + (-log_variance).exp() * (second - mean.square() + (mean - mu).square()))


TARGETS.register("predictive")(
    Target(
        name="predictive",
        kind="mean",
        values=torch.exp,
        num_outputs=lambda num_classes: num_classes,
        predict=lambda raw, heads: raw.softmax(-1),
        loss=_predictive_loss,
        label="posterior predictive probability",
    )
)
TARGETS.register("expected_entropy")(
    Target(
        name="expected_entropy",
        kind="mean",
        values=lambda log_prob: entropy(log_prob).unsqueeze(-1),
        num_outputs=lambda num_classes: 1,
        predict=_entropy_predict,
        loss=_entropy_loss,
        label="expected entropy (nats)",
        requires=("predictive",),
    )
)
TARGETS.register("predictive_normal")(
    Target(
        name="predictive_normal",
        kind="mean",
        prediction="normal",
        values=_normal_values,
        num_outputs=lambda num_classes: 2,
        predict=lambda raw, heads: torch.stack([raw[..., 0], raw[..., 1].exp()], -1),
        loss=_normal_loss,
        label="posterior predictive mean and variance",
    )
)
