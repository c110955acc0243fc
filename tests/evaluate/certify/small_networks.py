"""Small ReLU networks and students, and the smallest value of a form of outputs by enumeration."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from gped_nas.data.normalization import Normalization
from gped_nas.data.scale import ValueRange
from gped_nas.distill.student import Student, StudentSpec
from gped_nas.evaluate.certify.bounds import propagate
from gped_nas.evaluate.certify.programme import Bounds, Programme, build, read_bounds
from gped_nas.models.activations import RELU
from gped_nas.models.elementary import Activation, Dense, Elementary
from gped_nas.targets.base import TARGETS

Floats = NDArray[np.float64]


def network(widths: Sequence[int], seed: int, *, scale: float = 1.0) -> list[Elementary]:
    """Dense layers of these widths, inputs first, with ReLUs between them.

    Args:
        widths: of inputs, hidden layers and outputs.
        seed: of the weights.
        scale: that all parameters are multiplied by.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[Elementary] = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        weight = torch.randn((outputs, inputs), generator=generator, dtype=torch.float64)
        offset = torch.randn(outputs, generator=generator, dtype=torch.float64)
        layers.append(Dense(scale * weight / inputs**0.5, 0.5 * scale * offset))
        layers.append(Activation(RELU))
    return layers[:-1]


def small_student(
    inputs: int, widths: Sequence[int], classes: int, seed: int, *, activation: str = RELU
) -> Student:
    """A student of random weights, of inputs from 0 to 16, that says the class alone."""
    layers = network([inputs, *widths, classes], seed, scale=1.5)
    dense = [layer for layer in layers if isinstance(layer, Dense)]
    word = "" if activation == RELU else f".{activation}"
    params = {}
    for number, layer in enumerate(dense):
        name = f"layers.{number}{word if layer is not dense[-1] else ''}"
        params[f"{name}.weight"] = layer.weight.float()
        params[f"{name}.bias"] = layer.offset.float()

    spec = StudentSpec(
        family="mlp",
        input_shape=(inputs,),
        class_names=tuple("abcdefgh"[:classes]),
        targets=(TARGETS["predictive"],),
        normalization=Normalization(8.0, 4.0),
        storage_dtype="float32",
        scale=ValueRange(0, 16),
    )
    return Student(spec, params)


def bounds_before(layers: Sequence[Elementary], low: Tensor, high: Tensor) -> list[Bounds]:
    """What is known of the sums of each activation in one box."""
    return read_bounds(propagate(layers, low[None], high[None]))


def programme_of(layers: Sequence[Elementary], low: Tensor, high: Tensor) -> Programme:
    """The programme of a network over one box."""
    return build(layers, low, high, bounds_before(layers, low, high))


def random_box(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """The ends of a box, (num,) each."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(num, generator=generator, dtype=torch.float64)
    reach = 0.1 + torch.rand(num, generator=generator, dtype=torch.float64)
    return middle - reach, middle + reach


def enumerate_minimum(
    layers: Sequence[Elementary], low: Tensor, high: Tensor, form_U: Floats
) -> float:
    """The smallest value over a box: a linear programme for each pattern of ReLUs that are on.

    It knows nothing of bounds, and takes 2 to the number of hidden units programmes.
    """
    dense = [layer for layer in layers if isinstance(layer, Dense)]
    *hidden, last = dense
    num_hidden = sum(len(layer.weight) for layer in hidden)
    smallest = np.inf
    for pattern in product((0.0, 1.0), repeat=num_hidden):
        is_on = np.array(pattern)
        weight, offset = np.eye(low.numel()), np.zeros(low.numel())
        rows, limits = [], []
        start = 0
        for layer in hidden:
            weight = layer.weight.numpy() @ weight
            offset = layer.weight.numpy() @ offset + layer.offset.numpy()
            on = is_on[start : start + len(weight)]
            start += len(weight)
            # the sum is at least 0 where the unit is on, and at most 0 where it is off
            sign = 1 - 2 * on
            rows.append(sign[:, None] * weight)
            limits.append(-sign * offset)
            weight, offset = on[:, None] * weight, on * offset

        cost = form_U @ last.weight.numpy() @ weight
        shift = form_U @ (last.weight.numpy() @ offset + last.offset.numpy())
        # a solver's tolerances are absolute: numbers of every programme are near 1
        size = max(np.abs(cost).max(), np.finfo(float).tiny)
        sizes_R = np.maximum(np.abs(np.vstack(rows)).max(1), np.finfo(float).tiny)
        solved = linprog(
            cost / size,
            A_ub=np.vstack(rows) / sizes_R[:, None],
            b_ub=np.hstack(limits) / sizes_R,
            bounds=np.stack([low.flatten().numpy(), high.flatten().numpy()], 1),
        )
        if solved.status == 0:
            smallest = min(smallest, size * solved.fun + shift)
    return float(smallest)
