"""Group lasso by proximal steps in the optimizer's own metric.

The penalty is ``lambda * sum_g sqrt(n_g) * ||w_g||`` over groups of ``n_g`` weights (Yuan & Lin
2006): for each unit, its rows of all the parameters that its ``models.base.Group`` penalizes, side
by side. An optimizer that moves each weight by ``-step * D_i * grad_i`` measures length in the
metric ``D^-1``; the proximal step in that metric is

    argmin_z  sum_i (z_i - w_i)^2 / (2 step D_i) + lambda sqrt(n) ||z||,

whose fixed points are the stationary points of loss plus penalty, whatever the scale of D.
(Thresholding at ``step * lambda``, as if D were one, leaves every unit of an Adam-trained network
alive: Adam's D is of the order of 1 / |gradient|, hundreds of times larger.)

A group dies exactly when ``||D^-1 w|| <= step * lambda * sqrt(n)``. Otherwise

    z_i = w_i r / (r + c_i),    c_i = step lambda sqrt(n) D_i,    sum_i (w_i / (r + c_i))^2 = 1,

where the root ``r = ||z||`` is computed by Newton's method from zero: the function is convex and
decreasing there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

NEWTON_STEPS = 8


def rows_of(weights: Sequence[Tensor]) -> Tensor:
    """The rows of several parameters side by side: (units, numbers of a unit)."""
    return torch.cat([weight.reshape(len(weight), -1) for weight in weights], 1)


def write_rows(weights: Sequence[Tensor], rows: Tensor) -> None:
    """Write rows that ``rows_of`` put side by side back into their parameters."""
    parts = torch.split(rows, [weight[0].numel() for weight in weights], 1)
    for weight, part in zip(weights, parts, strict=True):
        weight.copy_(part.view_as(weight))


def prox_group_lasso(weight: Tensor, scale: Tensor, step: Tensor | float, penalty: float) -> Tensor:
    """The proximal step of the group lasso, one group a row.

    Args:
        weight: (rows, n) weights after the gradient step.
        scale: (rows, n) positive diagonal D of the optimizer's metric.
        step: the gradient's step size, over which the penalty acts.
        penalty: lambda; 0 changes nothing.

    Returns:
        (rows, n); rows that die are exactly zero.
    """
    if penalty == 0:
        return weight
    c = (step * penalty * weight.shape[1] ** 0.5) * scale
    is_dead = (weight / c).square().sum(1, keepdim=True) <= 1

    r = torch.zeros_like(weight[:, :1])
    for _ in range(NEWTON_STEPS):
        inverse = 1 / (r + c)
        squares = (weight * inverse).square()
        value = squares.sum(1, keepdim=True)
        slope = (squares * inverse).sum(1, keepdim=True)
        # Newton on 1/sqrt(value) - 1, which is nearly linear in r, instead of on value - 1: few
        # steps suffice
        r = (r + value * (value.sqrt() - 1) / slope).clamp_min(0)

    shrunk = weight * (r / (r + c))
    # a NaN is not dead and stays NaN: divergence must show
    return torch.where(is_dead, torch.zeros_like(weight), shrunk)
