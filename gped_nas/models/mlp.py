"""Fully connected networks: ReLU between dense layers, a width for each hidden layer."""

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gped_nas.errors import ConfigError, nearest
from gped_nas.models.base import COMMON_VALUES, FAMILIES, Group, Params, Shapes, Value

MAX_DEPTH = 16
MAX_WIDTH = 65_536


class Mlp:
    """Dense layers ``layers.0 ... layers.depth``; the last one gives the raw outputs.

    Genotype values: ``depth``, the number of hidden layers (0 is a linear model), and ``width``, one number
    for all of them or one a layer.
    """

    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """See ``Family.canonical``: ``width`` becomes one entry a hidden layer."""
        for name in values:
            if name not in ("depth", "width"):
                raise ConfigError(f"{name}: unknown key{nearest(name, ('depth', 'width', *COMMON_VALUES))}")
        depth = _int("depth", values.get("depth"), 0, MAX_DEPTH)
        width = values.get("width", () if depth == 0 else None)
        if isinstance(width, list | tuple):
            if len(width) < depth:
                raise ConfigError(f"width: found {len(width)} entries, expected one for each of {depth} layers")
            widths = tuple(_int("width", w, 1, MAX_WIDTH) for w in width[:depth])
        else:
            widths = (_int("width", width, 1, MAX_WIDTH),) * depth
        return {"depth": depth, "width": widths}

    def shapes(self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int) -> Shapes:
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
        num_layers = len(params) // 2
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
                weight=f"layers.{i}.weight",
                bias=f"layers.{i}.bias",
                reader=f"layers.{i + 1}.weight",
                reader_bias=f"layers.{i + 1}.bias",
            )
            for i in range(len(shapes) // 2 - 1)
        ]

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """See ``Family.macs``: one multiply-add a weight."""
        return {"linear": sum(prod(shape) for name, shape in shapes.items() if name.endswith("weight"))}

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


def _int(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name}: found {value!r}, expected a whole number from {low} to {high}")
    return value


FAMILIES.register("mlp")(Mlp())
