"""Fully connected networks: dense layers with an activation between them, each of its own width."""

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gped_nas.models.activations import (
    RELU,
    activate,
    activation_in,
    activation_of,
    with_activation,
)
from gped_nas.models.base import FAMILIES, Family, Group, Params, Shapes, Value
from gped_nas.models.elementary import Activation, Dense, Elementary, Flatten
from gped_nas.models.values import MAX_WIDTH, activation_word, check_names, entries, whole

MAX_DEPTH = 16


class Mlp(Family):
    """Dense layers ``layers.0 ... layers.depth``; the last one gives the raw outputs.

    Genotype values: ``depth``, the number of hidden layers (0 is a linear model), ``width``, one
    number for all of them or one a layer, and ``activation`` of all hidden units.
    """

    defaults = {"activation": RELU}
    counts = {"width": "depth"}
    monotone = frozenset({"width"})
    examples = (
        {"depth": 0},
        {"depth": 1, "width": 1},
        {"depth": 1, "width": 7},
        {"depth": 2, "width": [5, 3]},
        {"depth": 3, "width": [2, 9, 4]},
        {"depth": 12, "width": 3},
        {"depth": 2, "width": [4, 3], "activation": "tanh"},
        {"depth": 1, "width": 5, "activation": "silu"},
        {"depth": 3, "width": [3, 4, 2], "activation": "gelu"},
    )
    example_inputs = ((4,), (1, 3, 3))

    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """See ``Family.canonical``: ``width`` becomes one entry a hidden layer."""
        check_names(values, ("depth", "width", "activation"))
        depth = whole("depth", values.get("depth"), 0, MAX_DEPTH)
        default = () if depth == 0 else None  # a linear model needs no width
        width = entries("width", values.get("width", default), depth, 1, MAX_WIDTH)
        activation = activation_word(values)
        # a linear model has no units
        return {"depth": depth, "width": width, "activation": activation if depth else RELU}

    def shapes(
        self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int
    ) -> Shapes:
        """See ``Family.shapes``."""
        sizes = [prod(input_shape), *values["width"], num_outputs]
        layers = _layers(values["depth"], values["activation"])
        shapes: Shapes = {}
        for layer, (inputs, outputs) in zip(layers, pairwise(sizes), strict=True):
            shapes[f"{layer}.weight"] = (outputs, inputs)
            shapes[f"{layer}.bias"] = (outputs,)
        return shapes

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """See ``Family.forward``; inputs are flattened."""
        hidden = x.flatten(1)
        *layers, last = _layers_of(params)
        for layer in layers:
            sums = F.linear(hidden, params[f"{layer}.weight"], params[f"{layer}.bias"])
            hidden = activate(layer, sums)
        return F.linear(hidden, params[f"{last}.weight"], params[f"{last}.bias"])

    def layers(self, params: Params) -> list[Elementary]:
        """See ``Family.layers``."""
        chain: list[Elementary] = [Flatten()]
        *hidden, last = _layers_of(params)
        for layer in hidden:
            chain.append(Dense(params[f"{layer}.weight"], params[f"{layer}.bias"]))
            chain.append(Activation(activation_of(layer)))
        return [*chain, Dense(params[f"{last}.weight"], params[f"{last}.bias"])]

    def groups(self, shapes: Shapes) -> list[Group]:
        """See ``Family.groups``: every hidden unit is one group."""
        return [
            Group(
                layer=f"layers.{i}",
                weights=(f"{layer}.weight",),
                readers=(f"{reader}.weight",),
                followers=(f"{layer}.bias",),
                constant=(f"{layer}.bias", f"{reader}.bias"),
            )
            for i, (layer, reader) in enumerate(pairwise(_layers_of(shapes)))
        ]

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """See ``Family.macs``: one multiply-add a weight."""
        return {name: prod(shape) for name, shape in shapes.items() if name.endswith("weight")}

    def describe(self, shapes: Shapes) -> list[dict[str, Any]]:
        """See ``Family.describe``."""
        rows = []
        for i, layer in enumerate(_layers_of(shapes)):
            outputs, inputs = shapes[f"{layer}.weight"]
            activation = activation_of(layer)
            rows.append(
                {
                    "layer": f"layers.{i}",
                    "kind": "linear" if activation == RELU else f"linear, {activation}",
                    "inputs": inputs,
                    "outputs": outputs,
                    "params": outputs * inputs + outputs,
                }
            )
        return rows


def _layers(depth: int, activation: str) -> list[str]:
    """What the names of each layer's parameters begin with, from input to raw outputs."""
    hidden = [with_activation(f"layers.{i}", activation) for i in range(depth)]
    return [*hidden, f"layers.{depth}"]


def _layers_of(named: Mapping[str, object]) -> list[str]:
    """The layers of a network by its parameters' names, one of which may be missing."""
    num_layers = (len(named) + 1) // 2
    return _layers(num_layers - 1, activation_in(named))


FAMILIES.register("mlp")(Mlp())
