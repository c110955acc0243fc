"""Activations: what hidden units make of their sums.

A network is known by the names and shapes of its parameters, also after pruning. So the activation
behind a layer is a word of their names: ``layers.0.tanh.weight``. Without such a word it is a ReLU,
as in networks that were stored before there was a choice.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

RELU = "relu"

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    RELU: F.relu,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
}
"""By name. All are zero at zero, so that a unit without weights and bias sends nothing."""

SECOND_MOMENTS = {
    RELU: 0.5,
    "tanh": 0.3942944903978413,
    "silu": 0.3557755198173522,
    "gelu": 0.4252214825702987,
}
"""The mean of an activation's square where sums are standard normal."""

_WORDS = frozenset(ACTIVATIONS) - {RELU}


def with_activation(layer: str, activation: str) -> str:
    """The name of a layer whose units have this activation."""
    return layer if activation == RELU else f"{layer}.{activation}"


def activation_of(name: str) -> str:
    """The activation behind the layer that a parameter's name is of."""
    for word in name.split("."):
        if word in _WORDS:
            return word
    return RELU


def activation_in(names: Iterable[str]) -> str:
    """The activation of a network with one for all of its hidden units."""
    for name in names:
        activation = activation_of(name)
        if activation != RELU:
            return activation
    return RELU


def activate(name: str, sums: Tensor) -> Tensor:
    """What the units of a layer make of their sums.

    Args:
        name: of one of the layer's parameters.
        sums: of any shape.
    """
    return ACTIVATIONS[activation_of(name)](sums)
