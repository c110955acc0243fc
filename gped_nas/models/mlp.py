"""Fully connected networks: ReLU between dense layers, a width for each hidden layer."""

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gped_nas.models.base import FAMILIES, Family, Group, Params, Shapes, Value
from gped_nas.models.values import MAX_WIDTH, check_names, entries, whole

MAX_DEPTH = 16


class Mlp(Family):
    """Dense layers ``layers.0 ... layers.depth``; the last one gives the raw outputs.

    Genotype values: ``depth``, the number of hidden layers (0 is a linear model), and ``width``,
    one number for all of them or one a layer.
    """

    counts = {"width": "depth"}
    monotone = frozenset({"width"})
    examples = (
        {"depth": 0},
        {"depth": 1, "width": 1},
        {"depth": 1, "width": 7},
        {"depth": 2, "width": [5, 3]},
        {"depth": 3, "width": [2, 9, 4]},
        {"depth": 12, "width": 3},
    )
    example_inputs = ((4,), (1, 3, 3))

    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """See ``Family.canonical``: ``width`` becomes one entry a hidden layer."""
        check_names(values, ("depth", "width"))
        depth = whole("depth", values.get("depth"), 0, MAX_DEPTH)
        default = () if depth == 0 else None  # a linear model needs no width
        width = entries("width", values.get("width", default), depth, 1, MAX_WIDTH)
        return {"depth": depth, "width": width}

    def shapes(
        self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int
    ) -> Shapes:
        """See ``Family.shapes``."""
        sizes = [prod(input_shape), *values["width"], num_outputs]
        shapes: Shapes = {}
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            shapes[f"layers.{i}.weight"] = (outputs, inputs)
            shapes[f"layers.{i}.bias"] = (outputs,)
        return shapes

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """See ``Family.forward``; inputs are flattened."""
        hidden = x.flatten(1)
        num_layers = (len(params) + 1) // 2  # so that one missing is looked for
        for i in range(num_layers):
            hidden = F.linear(hidden, params[f"layers.{i}.weight"], params[f"layers.{i}.bias"])
            if i < num_layers - 1:
                hidden = F.relu(hidden)
        return hidden

    def groups(self, shapes: Shapes) -> list[Group]:
        """See ``Family.groups``: every hidden unit is one group."""
        return [
            Group(
                layer=f"layers.{i}",
                weights=(f"layers.{i}.weight",),
                readers=(f"layers.{i + 1}.weight",),
                followers=(f"layers.{i}.bias",),
                constant=(f"layers.{i}.bias", f"layers.{i + 1}.bias"),
            )
            for i in range(len(shapes) // 2 - 1)
        ]

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """See ``Family.macs``: one multiply-add a weight."""
        return {name: prod(shape) for name, shape in shapes.items() if name.endswith("weight")}

    def describe(self, shapes: Shapes) -> list[dict[str, Any]]:
        """See ``Family.describe``."""
        return [
            {
                "layer": f"layers.{i}",
                "kind": "linear",
                "inputs": shapes[f"layers.{i}.weight"][1],
                "outputs": shapes[f"layers.{i}.weight"][0],
                "params": prod(shapes[f"layers.{i}.weight"]) + shapes[f"layers.{i}.bias"][0],
            }
            for i in range(len(shapes) // 2)
        ]


FAMILIES.register("mlp")(Mlp())
