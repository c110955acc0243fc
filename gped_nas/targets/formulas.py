"""Formulas that several targets share."""

import functools
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@functools.cache
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of a target's settings as a tensor, made once.

    To bring them to a GPU at each step would wait for it.
    """
    return torch.tensor(values, dtype=dtype, device=device)


def log_softmax(raw: Tensor) -> Tensor:
    """Log-probabilities of raw outputs (..., B, C), nats.

    Computed across rows of a batch: along a last axis of ten numbers no vector instruction has
    anything to do, and the loss of a step would take five times as long.
    """
    return F.log_softmax(raw.mT, -2).mT


def entropy(log_prob: Tensor) -> Tensor:
    """Entropy over the last axis, nats; a class of probability zero adds nothing."""
    finite = log_prob.clamp_min(torch.finfo(log_prob.dtype).min)  # 0 times -inf would be NaN
    return -(log_prob.exp() * finite).sum(-1)


def squared_error(predicted: Tensor, expectation: Tensor) -> Tensor:
    """Squared error summed over the last axis: least at the average, and affine in it.

    Affine up to a term that is free of the student.
    """
    return (predicted - expectation).square().sum(-1)


LEAST_PROBABILITY = 1e-6
"""Where a probability becomes a logit, it is taken for at least this: zero has no logarithm."""


def centered_logits(log_prob: Tensor) -> Tensor:
    """Logits of log-probabilities (..., C), nats: these less their mean over classes.

    Probabilities below ``LEAST_PROBABILITY`` are taken for it, so that a logit is within
    log(1e-6) = 13.8 nats of zero.
    """
    finite = log_prob.clamp_min(log(LEAST_PROBABILITY))
    return finite - finite.mean(-1, keepdim=True)
