"""Small dense networks that learned codecs train: parameters by name, flat where they are kept."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor
from torch.nn import functional

from gped_nas.models.base import Params, Shapes


def dense_shapes(widths: list[int]) -> Shapes:
    """Shapes of the layers between these widths, input to output: ``weight_1``, ``bias_1``, ..."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
        shapes[f"weight_{layer}"] = (fan_out, fan_in)
        shapes[f"bias_{layer}"] = (fan_out,)
    return shapes


def he_start(shapes: Shapes, *, generator: Generator) -> Tensor:
    """Fresh flat parameters: weights N(0, 2 / fan-in), biases 0.

    Source: He et al. 2015, arXiv:1502.01852, equation 10.
    """
    parts = []
    for shape in shapes.values():
        if len(shape) == 2:
            weight = torch.randn(shape, generator=generator) * math.sqrt(2 / shape[1])
            parts.append(weight.flatten())
        else:
            parts.append(torch.zeros(shape))
    return torch.cat(parts)


def silent_start(shapes: Shapes, *, generator: Generator) -> Tensor:
    """``he_start`` with a last layer of zeros: the network's outputs are 0 everywhere."""
    start = he_start(shapes, generator=generator)
    last_weight, last_bias = list(shapes.values())[-2:]
    start[-(math.prod(last_weight) + math.prod(last_bias)) :] = 0
    return start


def dense_relu(params: Params, x_BD: Tensor) -> Tensor:
    """Outputs (B, U) of a network with ReLU between its layers."""
    return _dense(params, x_BD, functional.relu)


def dense_silu(params: Params, x_BD: Tensor) -> Tensor:
    """Outputs (B, U) of a network with SiLU between its layers, which has a slope everywhere."""
    return _dense(params, x_BD, functional.silu)


def _dense(params: Params, x_BD: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    tensors = list(params.values())
    hidden = x_BD
    for weight, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
        hidden = activation(functional.linear(hidden, weight, bias))
    return functional.linear(hidden, tensors[-2], tensors[-1])


def three_layers(num_inputs: int, width: int, num_outputs: int) -> Shapes:
    """Of a network with three hidden layers of the same width."""
    return dense_shapes([num_inputs, width, width, width, num_outputs])
