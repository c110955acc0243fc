"""What the hidden units of dense layers do in buffers: their activation, forward and backward.

Sums of a level lie in one buffer, and gradients by the activations in another, which becomes that
by the sums. ReLU and tanh find their derivative from the activations, so that these may lie where
the sums were; SiLU and GELU need the sums.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_aten = torch.ops.aten


@dataclass(frozen=True)
class Units:
    """One activation.

    Attributes:
        keeps_sums: whether the backward pass reads the sums, which are then not written over.
        forward: ``(sums, activations)``; writes the second, which is the first unless sums are
            kept.
        backward: ``(gradient, kept)``; turns the gradient by the activations into that by the sums,
            in place. ``kept`` are the sums where they are kept, else the activations.
    """

    keeps_sums: bool
    forward: Callable[[Tensor, Tensor], object]
    backward: Callable[[Tensor, Tensor], object]


def _relu(sums: Tensor, activations: Tensor) -> None:
    sums.clamp_min_(0)


def _relu_backward(gradient: Tensor, activations: Tensor) -> None:
    _aten.threshold_backward.grad_input(gradient, activations, 0, grad_input=gradient)


def _tanh(sums: Tensor, activations: Tensor) -> None:
    sums.tanh_()


def _tanh_backward(gradient: Tensor, activations: Tensor) -> None:
    _aten.tanh_backward.grad_input(gradient, activations, grad_input=gradient)


def _silu(sums: Tensor, activations: Tensor) -> None:
    _aten.silu.out(sums, out=activations)


def _silu_backward(gradient: Tensor, sums: Tensor) -> None:
    _aten.silu_backward.grad_input(gradient, sums, grad_input=gradient)


def _gelu(sums: Tensor, activations: Tensor) -> None:
    _aten.gelu.out(sums, out=activations)


def _gelu_backward(gradient: Tensor, sums: Tensor) -> None:
    _aten.gelu_backward.grad_input(gradient, sums, grad_input=gradient)


UNITS = {
    "relu": Units(False, _relu, _relu_backward),
    "tanh": Units(False, _tanh, _tanh_backward),
    "silu": Units(True, _silu, _silu_backward),
    "gelu": Units(True, _gelu, _gelu_backward),
}
"""By the name of the activation."""
