"""Targets of kind ``mean``: averages over the posterior, and the constructor of new ones."""

from collections.abc import Callable
from math import isfinite
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gped_nas.config import Config
from gped_nas.targets.base import TARGETS, Heads, Target, constant, entropy, log_softmax

Row = Annotated[tuple[float, ...], Field(strict=False)]


def squared_error(predicted: Tensor, expectation: Tensor) -> Tensor:
    """Squared error summed over the last axis: least at the average, and affine in it up to a
    constant.
    """
    return (predicted - expectation).square().sum(-1)


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
) -> Target:
    """A target of kind ``mean`` with a head of its own: one raw output for each number that
        ``values`` gives.

    Args:
        name: the name to register it under.
        values: log-probabilities (..., N, C) of posterior samples, nats, to what is averaged, (...,
            N, G).
        link: raw outputs (..., B, G) to the student's value, elementwise; ``torch.sigmoid`` keeps
            it in [0, 1].
        error: the student's value (..., B, G) and the teacher's (B, G) to losses (..., B). One that
            is not affine in the teacher's value is refused where it would be biased.
        label: for people, with the unit; the name by default.
    """
    return Target(
        name=name,
        kind="mean",
        values=values,
        num_outputs=lambda num_classes: values(torch.zeros(1, num_classes).log_softmax(-1)).shape[
            -1
        ],
        predict=lambda raw, heads: link(raw),
        loss=lambda raw, heads, expectation: error(link(raw), expectation),
        label=label or name,
    )


def _predictive_loss(raw: Tensor, heads: Heads, expectation: Tensor) -> Tensor:
    return -(expectation * log_softmax(raw)).sum(-1)


def _entropy_predict(raw: Tensor, heads: Heads) -> Tensor:
    # sigmoid(a) H[q] with H[q] detached: E[H] <= H[q] always, so mutual information is never
    # negative, and the entropy loss cannot bend the predictive head.
    student_entropy = entropy(log_softmax(heads["predictive"].detach()))
    return raw.sigmoid() * student_entropy.unsqueeze(-1)


def _second_moment_predict(raw: Tensor, heads: Heads) -> Tensor:
    # q^2 + sigmoid(a) q (1 - q) with q detached: E[p]^2 <= E[p^2] <= E[p] hold for the student too,
    # so its variance is never negative nor above that of a certain but unknown class.
    q = heads["predictive"].detach().softmax(-1)
    return q.square() + raw.sigmoid() * q * (1 - q)


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
        loss=lambda raw, heads, expectation: squared_error(
            _entropy_predict(raw, heads), expectation
        ),
        label="expected entropy (nats)",
        requires=("predictive",),
    )
)
TARGETS.register("second_moment")(
    Target(
        name="second_moment",
        kind="mean",
        values=lambda log_prob: (2 * log_prob).exp(),
        num_outputs=lambda num_classes: num_classes,
        predict=_second_moment_predict,
        loss=lambda raw, heads, expectation: squared_error(
            _second_moment_predict(raw, heads), expectation
        ),
        label="second moment of each probability",
        requires=("predictive",),
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


def utility(settings: UtilitySettings) -> Target:
    """The expected cost of each action: ``sum_c p(c | x) costs[c][action]``; without costs, 1 for a
        wrong class.

    Costs are linear in the predictive distribution, so there is no head: the student's expected
    costs are those of its predictive head, and the two cannot contradict each other. What the
    target adds is its loss, the squared error of the expected costs, which spends the student's
    capacity where errors are dear and cross-entropy does not see it (Cobb, Roberts & Gal 2018,
    arXiv:1805.03901, weigh the posterior itself that way).
    """

    def expected_cost(prob: Tensor) -> Tensor:
        return (
            prob @ constant(settings.costs, prob.dtype, prob.device) if settings.costs else 1 - prob
        )

    def predict(raw: Tensor, heads: Heads) -> Tensor:
        return expected_cost(heads["predictive"].softmax(-1))

    return Target(
        name="utility",
        kind="mean",
        values=lambda log_prob: expected_cost(log_prob.exp()),
        num_outputs=lambda num_classes: 0,
        predict=predict,
        loss=lambda raw, heads, expectation: squared_error(predict(raw, heads), expectation),
        label="expected cost of each action",
        requires=("predictive",),
        settings=settings,
        build=utility,
        num_classes=len(settings.costs) or None,
    )


TARGETS.register("utility")(utility(UtilitySettings()))


def _normal_values(normal: Tensor) -> Tensor:
    mean, variance = normal.unbind(-1)
    return torch.stack([mean, mean.square() + variance], -1)


def _mean_and_variance(moments: Tensor) -> Tensor:
    mean, second = moments.unbind(-1)
    return torch.stack([mean, second - mean.square()], -1)


def _normal_loss(raw: Tensor, heads: Heads, expectation: Tensor) -> Tensor:
    # The expected negative log-density of y under N(mu, exp(a)), less a constant: affine in E[y]
    # and E[y^2], written so that little cancels. Its minimum has the predictive's mean and variance
    # (Balan et al. 2015, arXiv:1506.04416).
    mu, log_variance = raw.unbind(-1)
    mean, second = expectation.unbind(-1)
    return 0.5 * (
        log_variance + (-log_variance).exp() * (second - mean.square() + (mean - mu).square())
    )


TARGETS.register("predictive_normal")(
    Target(
        name="predictive_normal",
        kind="mean",
        values=_normal_values,
        num_outputs=lambda num_classes: 2,
        predict=lambda raw, heads: torch.stack([raw[..., 0], raw[..., 1].exp()], -1),
        loss=_normal_loss,
        label="mean and variance of the label",
        shown=_mean_and_variance,
        prediction="normal",
    )
)
