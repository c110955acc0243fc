"""Centered hidden units: dense students are trained on units less their means.

A layer that reads hidden units with activations a and means c is the same function in both forms:

    W a + b  =  W (a - c) + (b + W c)

A ReLU's activations are never negative. A change of a plain weight therefore moves the output at
every input in one direction, which is the bias's task; with the means taken off, units and bias are
learnt apart. For other activations the two forms are as much the same. The means are of a student's
own units over distillation inputs. They are taken at the start of each phase and kept for all of
it. What is stored, pruned and exported reads plain activations.

Source: LeCun et al. 1998, "Efficient BackProp", section 4.3; Schraudolph 1998, "Centering Neural
Network Gradient Factors".
"""

import torch
from torch import Tensor

from gped_nas.models.activations import activate
from gped_nas.models.base import Params
from gped_nas.models.dense import Chain

SEEN = 1_000
"""Inputs that means are taken over, at equal distances."""

Centers = tuple[Tensor, ...]
"""For each hidden layer the means (units,) that are taken off its activations, or nothing."""


def unit_means(params: Params, chain: Chain, inputs: Tensor, dtype: torch.dtype) -> Centers:
    """The centers of a student, numbers that ``dtype`` holds.

    Args:
        params: float32 parameters that read plain activations.
        chain: its layers.
        inputs: distillation inputs (M, D).
        dtype: what a step computes in.
    """
    stride = max(1, len(inputs) // SEEN)
    # rounded as in a step
    hidden = inputs[::stride].flatten(1).to(dtype).float()

    centers = []
    for weight, bias in chain[:-1]:
        hidden = activate(weight, torch.addmm(params[bias], hidden, params[weight].T))
        # exact for a unit that is constant, so that nothing is left of it
        mean = hidden.double().mean(0).float()
        centers.append(mean.to(dtype).float())

    return tuple(centers)


def enter(params: Params, chain: Chain, centers: Centers) -> Params:
    """Parameters of the same function that read centered activations."""
    return _shift_biases(params, chain, centers, 1.0)


def leave(params: Params, chain: Chain, centers: Centers) -> Params:
    """Parameters of the same function that read plain activations."""
    return _shift_biases(params, chain, centers, -1.0)


def _shift_biases(params: Params, chain: Chain, centers: Centers, sign: float) -> Params:
    """Add ``sign * W c`` to the bias of each layer that reads hidden units."""
    shifted = dict(params)
    for (weight, bias), center in zip(chain[1:], centers, strict=True):
        shift = params[weight].double() @ center.double()
        shifted[bias] = (params[bias].double() + sign * shift).to(params[bias].dtype)
    return shifted
