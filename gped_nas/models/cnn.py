"""Convolutional networks: blocks of convolution, max pooling and ReLU, then dense layers.

Convolutions are valid (no padding), so a dead filter's constant reaches every place that its reader
looks at, and can be folded into the reader's bias exactly. Pooling comes before the ReLU: the
values are the same, since the ReLU is monotone, and it has fewer numbers to look at.

The networks of the GPED paper (Vadera, Jalaian & Marlin 2020) are two of its genotypes: ``depth=2,
width=[10, 20], kernel=4, pool=2, head_width=[80]`` on MNIST, and ``depth=2, width=[16, 32],
kernel=5, pool=2, head_width=[200, 50]`` on CIFAR-10.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Family, Group, Params, Shapes, Value
from gped_nas.models.images import channels_last, image_of
from gped_nas.models.values import MAX_WIDTH, check_names, entries, whole

MAX_DEPTH = 16
MAX_HEAD_DEPTH = 8
MAX_KERNEL = 31
MAX_POOL = 8
_POOL = "pool"


class Cnn(Family):
    """Layers ``layers.0 ... layers.(depth + head_depth)``: convolutions, then dense ones.

    The last one gives the outputs.

    Genotype values: ``depth``, the number of convolution blocks; ``width`` (filters), ``kernel``
    (its side) and ``pool`` (side of the max pooling after the convolution; 1, the default, is
    none), each one number for all blocks or one a block; ``head_width``, the widths of the dense
    layers between the blocks and the raw outputs, none by default, and ``head_depth``, how many of
    them there are where that is not said by their list.

    Parameters alone say what the network is: a weight with four axes is a convolution's, and its
    block's pooling is in its name, ``layers.0.pool2.weight``; without pooling it is
    ``layers.0.weight``.
    """

    counts = {"width": "depth", "kernel": "depth", "pool": "depth", "head_width": "head_depth"}
    monotone = frozenset({"width", "head_width"})
    examples = (
        {"depth": 1, "width": 1, "kernel": 1},
        {"depth": 1, "width": 3, "kernel": 6, "head_width": [4]},
        {"depth": 2, "width": [4, 5], "kernel": [3, 2], "pool": [2, 1], "head_width": [6, 3]},
        {"depth": 3, "width": [2, 6, 3], "kernel": 2, "pool": [1, 1, 2]},
    )
    example_inputs = ((1, 6, 7), (3, 9, 8))

    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """See ``Family.canonical``: one entry a block or dense layer."""
        check_names(values, ("depth", "width", "kernel", "pool", "head_depth", "head_width"))
        depth = whole("depth", values.get("depth"), 1, MAX_DEPTH)
        head_width = values.get("head_width", ())
        num_listed = len(head_width) if isinstance(head_width, list | tuple) else 1
        head_depth = whole("head_depth", values.get("head_depth", num_listed), 0, MAX_HEAD_DEPTH)

        def one_a_block(name: str, value: object, high: int) -> tuple[int, ...]:
            return entries(name, value, depth, 1, high, of="blocks")

        return {
            "depth": depth,
            "width": one_a_block("width", values.get("width"), MAX_WIDTH),
            "kernel": one_a_block("kernel", values.get("kernel"), MAX_KERNEL),
            "pool": one_a_block("pool", values.get("pool", 1), MAX_POOL),
            "head_depth": head_depth,
            "head_width": entries(
                "head_width", head_width, head_depth, 1, MAX_WIDTH, of="dense layers"
            ),
        }

    def shapes(
        self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int
    ) -> Shapes:
        """See ``Family.shapes``."""
        channels, *image = image_of("cnn", input_shape)
        shapes: Shapes = {}

        blocks = zip(values["width"], values["kernel"], values["pool"], strict=True)
        for i, (width, kernel, pool) in enumerate(blocks):
            suffix = f".{_POOL}{pool}" if pool > 1 else ""
            layer = f"layers.{i}{suffix}"
            shapes[f"{layer}.weight"] = (width, channels, kernel, kernel)
            shapes[f"{layer}.bias"] = (width,)

            _check_fits("kernel", kernel, image, i)
            image = [side - kernel + 1 for side in image]
            _check_fits("pool", pool, image, i)
            image = [side // pool for side in image]
            channels = width

        sizes = [channels * prod(image), *values["head_width"], num_outputs]
        for i, (inputs, outputs) in enumerate(pairwise(sizes), len(values["width"])):
            shapes[f"layers.{i}.weight"] = (outputs, inputs)
            shapes[f"layers.{i}.bias"] = (outputs,)
        return shapes

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """See ``Family.forward``; inputs are images (B, channels, height, width)."""
        hidden = channels_last(x)
        layers = _layers(params)
        for layer in layers:
            weight = params[f"{layer}.weight"]
            bias = params[f"{layer}.bias"]
            if weight.dim() == 4:
                hidden = F.conv2d(hidden, weight, bias)
                if _pool(layer) > 1:
                    hidden = F.max_pool2d(hidden, _pool(layer))
            else:
                hidden = F.linear(hidden.flatten(1), weight, bias)

            if layer != layers[-1]:
                hidden = F.relu(hidden)
        return hidden

    def groups(self, shapes: Shapes) -> list[Group]:
        """See ``Family.groups``: every filter and every hidden unit is one group."""
        return [
            Group(
                layer=_without_pool(layer),
                weights=(f"{layer}.weight",),
                readers=(f"{reader}.weight",),
                followers=(f"{layer}.bias",),
                constant=(f"{layer}.bias", f"{reader}.bias"),
            )
            for layer, reader in pairwise(_layers(shapes))
        ]

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """See ``Family.macs``: a convolution uses every weight once at each pixel of its output."""
        _, *image = image_of("cnn", input_shape)
        macs = {}
        for layer in _layers(shapes):
            shape = shapes[f"{layer}.weight"]
            num_uses = 1
            if len(shape) == 4:
                image = [side - kernel + 1 for side, kernel in zip(image, shape[2:], strict=True)]
                num_uses = prod(image)
                image = [side // _pool(layer) for side in image]
            macs[f"{layer}.weight"] = num_uses * prod(shape)
        return macs

    def describe(self, shapes: Shapes) -> list[dict[str, Any]]:
        """See ``Family.describe``."""
        rows = []
        for layer in _layers(shapes):
            outputs, inputs, *window = shapes[f"{layer}.weight"]
            kind = f"conv {window[0]}x{window[1]}" if window else "linear"
            if _pool(layer) > 1:
                kind += f", max pool {_pool(layer)}x{_pool(layer)}"

            params = outputs * inputs * prod(window) + outputs
            rows.append(
                {
                    "layer": _without_pool(layer),
                    "kind": kind,
                    "inputs": inputs,
                    "outputs": outputs,
                    "params": params,
                }
            )
        return rows


def _layers(named: Mapping[str, object]) -> list[str]:
    """What the parameters' names begin with, from input to output."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in named))


def _pool(layer: str) -> int:
    """Side of the pooling that a layer's name tells of, 1 where it tells of none."""
    suffix = re.search(rf"\.{_POOL}(\d{{1,9}})$", layer)
    return int(suffix[1]) if suffix else 1


def _without_pool(layer: str) -> str:
    return layer.partition(f".{_POOL}")[0]


def _check_fits(name: str, side: int, image: list[int], block: int) -> None:
    if side > min(image):
        raise ConfigError(
            f"{name}: found {side} in block {block + 1}, where {image[0]}x{image[1]} pixels are "
            "left, expected no more than those; use smaller kernels, less pooling or fewer blocks"
        )


FAMILIES.register("cnn")(Cnn())
