"""Targets of logits: how far posterior samples disagree before a softmax hides it.

A logit is a log-probability less its mean over classes, see ``formulas.centered_logits``.
"""

import torch
from torch import Tensor

from gped_nas.targets.base import TARGETS, MeanTarget, RawHeads
from gped_nas.targets.formulas import centered_logits, log_softmax

LEAST_VARIANCE = 1e-4
"""Of a student's logit: without an end, one that meets its teacher exactly would have a loss of
minus infinity."""
LOSS_SCALE = 0.1
"""Of a density of logits beside the cross-entropy of the predictive head, whose students it would
outweigh: logits of improbable classes differ most and matter least."""


def mean_logits(raw: Tensor, heads: RawHeads) -> Tensor:
    """A student's average logits (..., B, C): those of its predictive head, moved by ``raw``.

    That head is detached. The average of logits is not the logit of the average, but near to it.
    """
    return centered_logits(log_softmax(heads["predictive"].detach())) + raw


def student_variance(raw: Tensor) -> Tensor:
    """A student's variance of raw outputs, its logarithms but for ``LEAST_VARIANCE``."""
    return raw.exp() + LEAST_VARIANCE


def density_loss(squared_distance: Tensor, variance: Tensor) -> Tensor:
    """Minus a normal log-density less a constant, nats times ``LOSS_SCALE``: mean over classes."""
    losses = 0.5 * (variance.log() + squared_distance / variance)
    return LOSS_SCALE * losses.mean(-1)


def _moments(log_prob: Tensor) -> Tensor:
    logits = centered_logits(log_prob)
    return torch.cat([logits, logits.square()], -1)


def _variance_of(moments: Tensor) -> Tensor:
    mean, second_moment = moments.chunk(2, -1)
    return (second_moment - mean.square()).clamp_min(0)


def _predict_variance(raw: Tensor, heads: RawHeads) -> Tensor:
    _, log_variance = raw.chunk(2, -1)
    return student_variance(log_variance)


def _variance_loss(raw: Tensor, heads: RawHeads, moments: Tensor) -> Tensor:
    # Minus the log-density of a sample's logits, less a constant. It is affine in E[z] and E[z^2],
    # which the squared error of a variance is not, and least at mean and variance.
    move, log_variance = raw.chunk(2, -1)
    mean, second_moment = moments.chunk(2, -1)
    variance = student_variance(log_variance)

    squared_error = (mean - mean_logits(move, heads)).square()
    squared_distance = second_moment - mean.square() + squared_error
    return density_loss(squared_distance, variance)


TARGETS.add(
    MeanTarget(
        name="logit_variance",
        label="posterior variance of each logit (nats²)",
        requires=("predictive",),
        shown=_variance_of,
        values=_moments,
        num_outputs=lambda num_classes: 2 * num_classes,
        predict=_predict_variance,
        loss=_variance_loss,
    )
)
