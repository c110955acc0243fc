"""Targets that are averages over the posterior, and the constructor of new ones."""

from collections.abc import Callable
from math import isfinite
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gped_nas.config import Config
from gped_nas.targets.base import TARGETS, MeanTarget, RawHeads, try_values
from gped_nas.targets.formulas import constant, entropy, log_softmax, squared_error

Row = Annotated[tuple[float, ...], Field(strict=False)]


def identity(raw: Tensor) -> Tensor:
    """Raw outputs as they are."""
    return raw


def mean_target(
    name: str,
    values: Callable[[Tensor], Tensor],
    *,
    link: Callable[[Tensor], Tensor] = identity,
    error: Callable[[Tensor, Tensor], Tensor] = squared_error,
    label: str = "",
    version: int = 1,
) -> MeanTarget:
    """A mean with a head of its own: one raw output for each number that ``values`` gives.

    Args:
        name: the name to register it under.
        values: log-probabilities (..., N, C) of posterior samples, nats, to what is averaged,
            (..., N, G); one number an example is ``values.unsqueeze(-1)``.
        link: raw outputs (..., B, G) to the student's value, elementwise; ``torch.sigmoid`` keeps
            it in [0, 1].
        error: the student's value (..., B, G) and the teacher's (B, G) to losses (..., B). One that
            is not affine in the teacher's value is refused where it would be biased.
        label: for people, with the unit; the name by default.
        version: raise it whenever ``values`` comes to mean something else.
    """

    def num_outputs(num_classes: int) -> int:
        uniform = torch.zeros(1, num_classes).log_softmax(-1)
        return try_values(name, values, uniform).shape[-1]

    return MeanTarget(
        name=name,
        label=label or name,
        version=version,
        values=values,
        num_outputs=num_outputs,
        predict=lambda raw, heads: link(raw),
        loss=lambda raw, heads, expectation: error(link(raw), expectation),
    )


def _predictive_loss(raw: Tensor, heads: RawHeads, expectation: Tensor) -> Tensor:
    return -(expectation * log_softmax(raw)).sum(-1)


TARGETS.add(
    MeanTarget(
        name="predictive",
        label="posterior predictive probability",
        values=torch.exp,
        num_outputs=lambda num_classes: num_classes,
        predict=lambda raw, heads: raw.softmax(-1),
        loss=_predictive_loss,
    )
)


def _predict_entropy(raw: Tensor, heads: RawHeads) -> Tensor:
    # sigmoid(a) H[q] with H[q] detached: E[H] <= H[q] always, so mutual information is never
    # negative, and the entropy loss cannot bend the predictive head.
    student_entropy = entropy(log_softmax(heads["predictive"].detach()))
    return raw.sigmoid() * student_entropy.unsqueeze(-1)


def _entropy_loss(raw: Tensor, heads: RawHeads, expectation: Tensor) -> Tensor:
    return squared_error(_predict_entropy(raw, heads), expectation)


TARGETS.add(
    MeanTarget(
        name="expected_entropy",
        label="expected entropy (nats)",
        requires=("predictive",),
        values=lambda log_prob: entropy(log_prob).unsqueeze(-1),
        num_outputs=lambda num_classes: 1,
        predict=_predict_entropy,
        loss=_entropy_loss,
    )
)


def _predict_second_moment(raw: Tensor, heads: RawHeads) -> Tensor:
    # q^2 + sigmoid(a) q (1 - q) with q detached: E[p]^2 <= E[p^2] <= E[p] hold for the student too,
    # so its variance is never negative nor above that of a certain but unknown class.
    q = heads["predictive"].detach().softmax(-1)
    return q.square() + raw.sigmoid() * q * (1 - q)


def _second_moment_loss(raw: Tensor, heads: RawHeads, expectation: Tensor) -> Tensor:
    return squared_error(_predict_second_moment(raw, heads), expectation)


TARGETS.add(
    MeanTarget(
        name="second_moment",
        label="second moment of each probability",
        requires=("predictive",),
        values=lambda log_prob: (2 * log_prob).exp(),
        num_outputs=lambda num_classes: num_classes,
        predict=_predict_second_moment,
        loss=_second_moment_loss,
    )
)


class UtilitySettings(Config):
    """Settings of ``utility``."""

    costs: Annotated[
        tuple[Row, ...], Field(strict=False, description="a row a class: the cost of each action")
    ] = ()

    @model_validator(mode="after")
    def _is_a_matrix(self) -> "UtilitySettings":
        lengths = sorted({len(row) for row in self.costs})
        if len(lengths) > 1 or lengths == [0]:
            raise ValueError(
                f"costs: found rows of {lengths} entries, expected a row a class and an entry an "
                "action"
            )
        if not all(isfinite(cost) for row in self.costs for cost in row):
            raise ValueError("costs: expected finite numbers")
        return self


def utility(settings: UtilitySettings) -> MeanTarget:
    """The expected cost of each action: ``sum_c p(c | x) costs[c][action]``.

    Without costs, a wrong class costs 1.

    Costs are linear in the predictive distribution, so there is no head: the student's expected
    costs are those of its predictive head, and the two cannot contradict each other. What the
    target adds is its loss, the squared error of the expected costs, which spends the student's
    capacity where errors are dear and cross-entropy does not see it (Cobb, Roberts & Gal 2018,
    arXiv:1805.03901, weigh the posterior itself that way).
    """

    def expected_cost(prob: Tensor) -> Tensor:
        if not settings.costs:
            return 1 - prob
        return prob @ constant(settings.costs, prob.dtype, prob.device)

    def predict(raw: Tensor, heads: RawHeads) -> Tensor:
        return expected_cost(heads["predictive"].softmax(-1))

    def loss(raw: Tensor, heads: RawHeads, expectation: Tensor) -> Tensor:
        return squared_error(predict(raw, heads), expectation)

    return MeanTarget(
        name="utility",
        label="expected cost of each action",
        requires=("predictive",),
        settings=settings,
        build=utility,
        num_classes=len(settings.costs) or None,
        values=lambda log_prob: expected_cost(log_prob.exp()),
        num_outputs=lambda num_classes: 0,
        predict=predict,
        loss=loss,
    )


TARGETS.add(utility(UtilitySettings()))


def _moments_of_label(normal: Tensor) -> Tensor:
    mean, variance = normal.unbind(-1)
    return torch.stack([mean, mean.square() + variance], -1)


def _mean_and_variance(moments: Tensor) -> Tensor:
    mean, second_moment = moments.unbind(-1)
    return torch.stack([mean, second_moment - mean.square()], -1)


def _predict_normal(raw: Tensor, heads: RawHeads) -> Tensor:
    return torch.stack([raw[..., 0], raw[..., 1].exp()], -1)


def _normal_loss(raw: Tensor, heads: RawHeads, expectation: Tensor) -> Tensor:
    # The expected negative log-density of y under N(mu, exp(a)), less a constant: affine in E[y]
    # and E[y^2], written so that little cancels. Its minimum has the predictive's mean and variance
    # (Balan et al. 2015, arXiv:1506.04416).
    mu, log_variance = raw.unbind(-1)
    mean, second_moment = expectation.unbind(-1)
    squared_distance = second_moment - mean.square() + (mean - mu).square()
    return 0.5 * (log_variance + (-log_variance).exp() * squared_distance)


TARGETS.add(
    MeanTarget(
        name="predictive_normal",
        label="mean and variance of the label",
        prediction="normal",
        shown=_mean_and_variance,
        values=_moments_of_label,
        num_outputs=lambda num_classes: 2,
        predict=_predict_normal,
        loss=_normal_loss,
    )
)
