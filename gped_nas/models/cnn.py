"""Convolutional networks: blocks of convolution, max pooling and ReLU, then dense layers.

Where convolutions are valid (no padding), a dead filter's constant reaches every place that its
reader looks at, and is folded into the reader's bias exactly. A reader that pads with zeros sees
the constant in the middle of the image and zeros around it, which no bias can say: there a filter
is dead only if its bias is zero too. Pooling comes before the ReLU: the values are the same, since
the ReLU is monotone, and it has fewer numbers to look at.

The networks of the GPED paper (Vadera, Jalaian & Marlin 2020) are two of its genotypes: ``depth=2,
width=[10, 20], kernel=4, pool=2, head_width=[80]`` on MNIST, and ``depth=2, width=[16, 32],
kernel=5, pool=2, head_width=[200, 50]`` on CIFAR-10.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Family, Group, Params, Shapes, Value
from gped_nas.models.images import channels_last, image_of
from gped_nas.models.values import MAX_WIDTH, check_names, entries, whole, word

MAX_DEPTH = 16
MAX_HEAD_DEPTH = 8
MAX_KERNEL = 31
MAX_POOL = 8
PADDINGS = ("valid", "same")


class Cnn(Family):
    """Layers ``layers.0 ... layers.(depth + head_depth)``: convolutions, then dense ones.

    The last one gives the outputs.

    Genotype values: ``depth``, the number of convolution blocks; ``width`` (filters), ``kernel``
    (its side) and ``pool`` (side of the max pooling after the convolution; 1, the default, is
    none), each one number for all blocks or one a block; ``padding``, ``valid`` (the default: none)
    or ``same`` (zeros around the image, so that a convolution keeps its size); ``head_width``, the
    widths of the dense layers between the blocks and the raw outputs, none by default, and
    ``head_depth``, how many of them there are where that is not said by their list.

    Parameters alone say what the network is: a weight with four axes is a convolution's, and what
    else its block does is in its name, ``layers.0.same.pool2.weight``; a valid one without pooling
    is ``layers.0.weight``. See ``_Layer``.
    """

    counts = {"width": "depth", "kernel": "depth", "pool": "depth", "head_width": "head_depth"}
    monotone = frozenset({"width", "head_width"})
    examples = (
        {"depth": 1, "width": 1, "kernel": 1},
        {"depth": 1, "width": 3, "kernel": 6, "head_width": [4]},
        {"depth": 2, "width": [4, 5], "kernel": [3, 2], "pool": [2, 1], "head_width": [6, 3]},
        {"depth": 3, "width": [2, 6, 3], "kernel": 2, "pool": [1, 1, 2]},
        {"depth": 3, "width": [3, 4, 2], "kernel": [3, 1, 5], "pool": [2, 1, 1], "padding": "same"},
    )
    example_inputs = ((1, 6, 7), (3, 9, 8))

    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """See ``Family.canonical``: one entry a block or dense layer."""
        names = ("depth", "width", "kernel", "pool", "padding", "head_depth", "head_width")
        check_names(values, names)
        depth = whole("depth", values.get("depth"), 1, MAX_DEPTH)
        head_width = values.get("head_width", ())
        num_listed = len(head_width) if isinstance(head_width, list | tuple) else 1
        head_depth = whole("head_depth", values.get("head_depth", num_listed), 0, MAX_HEAD_DEPTH)

        def one_a_block(name: str, value: object, high: int) -> tuple[int, ...]:
            return entries(name, value, depth, 1, high, of="blocks")

        kernel = one_a_block("kernel", values.get("kernel"), MAX_KERNEL)
        full: dict[str, Value] = {
            "depth": depth,
            "width": one_a_block("width", values.get("width"), MAX_WIDTH),
            "kernel": kernel,
            "pool": one_a_block("pool", values.get("pool", 1), MAX_POOL),
            "head_depth": head_depth,
            "head_width": entries(
                "head_width", head_width, head_depth, 1, MAX_WIDTH, of="dense layers"
            ),
        }
        # its default is left out, so that genotypes of before it have the same identity
        padding = word("padding", values.get("padding", "valid"), PADDINGS)
        if padding == "same":
            full["padding"] = padding
            _check_centered(kernel)
        return full

    def shapes(
        self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int
    ) -> Shapes:
        """See ``Family.shapes``."""
        channels, *image = image_of("cnn", input_shape)
        padding = values.get("padding", "valid")
        shapes: Shapes = {}

        blocks = zip(values["width"], values["kernel"], values["pool"], strict=True)
        for i, (width, kernel, pool) in enumerate(blocks):
            layer = _Layer(i, is_padded=padding == "same", pool=pool)
            shapes[layer.weight] = (width, channels, kernel, kernel)
            shapes[layer.bias] = (width,)

            if not layer.is_padded:
                _check_fits("kernel", kernel, image, i)
            image = layer.convolved(image, kernel)
            _check_fits("pool", pool, image, i)
            image = layer.pooled(image)
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
            weight = params[layer.weight]
            bias = params[layer.bias]
            if weight.dim() == 4:
                padding = weight.shape[2] // 2 if layer.is_padded else 0
                hidden = F.conv2d(hidden, weight, bias, padding=padding)
                if layer.pool > 1:
                    hidden = F.max_pool2d(hidden, layer.pool)
            else:
                hidden = F.linear(hidden.flatten(1), weight, bias)

            if layer != layers[-1]:
                hidden = F.relu(hidden)
        return hidden

    def groups(self, shapes: Shapes) -> list[Group]:
        """See ``Family.groups``: every filter and every hidden unit is one group."""
        return [_group(layer, reader, shapes) for layer, reader in pairwise(_layers(shapes))]

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """See ``Family.macs``: a convolution uses every weight once at each pixel of its output."""
        _, *image = image_of("cnn", input_shape)
        macs = {}
        for layer in _layers(shapes):
            shape = shapes[layer.weight]
            num_uses = 1
            if len(shape) == 4:
                image = layer.convolved(image, shape[2])
                num_uses = prod(image)
                image = layer.pooled(image)
            macs[layer.weight] = num_uses * prod(shape)
        return macs

    def describe(self, shapes: Shapes) -> list[dict[str, Any]]:
        """See ``Family.describe``."""
        rows = []
        for layer in _layers(shapes):
            outputs, inputs, *window = shapes[layer.weight]
            kind = f"conv {window[0]}x{window[1]}" if window else "linear"
            if layer.is_padded:
                kind += ", same"
            if layer.pool > 1:
                kind += f", max pool {layer.pool}x{layer.pool}"

            params = outputs * inputs * prod(window) + outputs
            rows.append(
                {
                    "layer": layer.short_name,
                    "kind": kind,
                    "inputs": inputs,
                    "outputs": outputs,
                    "params": params,
                }
            )
        return rows


@dataclass(frozen=True)
class _Layer:
    """What a layer's name says of it: ``layers.0.same.pool2``.

    Attributes:
        number: its place, from 0.
        is_padded: ``same``: zeros around the image keep its size.
        pool: ``pool2``: side of the max pooling behind it; 1 is none.
    """

    number: int
    is_padded: bool = False
    pool: int = 1

    @property
    def short_name(self) -> str:
        """The name for people and of groups."""
        return f"layers.{self.number}"

    @property
    def name(self) -> str:
        """What the names of its parameters begin with."""
        words = [self.short_name]
        if self.is_padded:
            words.append("same")
        if self.pool > 1:
            words.append(f"pool{self.pool}")
        return ".".join(words)

    @property
    def weight(self) -> str:
        """The name of its weight."""
        return f"{self.name}.weight"

    @property
    def bias(self) -> str:
        """The name of its bias."""
        return f"{self.name}.bias"

    def convolved(self, image: Sequence[int], kernel: int) -> list[int]:
        """Sides of the image behind its convolution."""
        lost = 0 if self.is_padded else kernel - 1
        return [side - lost for side in image]

    def pooled(self, image: Sequence[int]) -> list[int]:
        """Sides of the image behind its pooling."""
        return [side // self.pool for side in image]


_NAME = re.compile(r"layers\.(\d{1,9})(\.same)?(?:\.pool(\d{1,9}))?\.\w+")


def _layers(named: Mapping[str, object]) -> list[_Layer]:
    """The layers that parameters' names tell of, from input to output."""
    layers = []
    for name in named:
        match = _NAME.fullmatch(name)
        if match is None:
            raise KeyError(name)
        number, same, pool = match.groups()
        layers.append(_Layer(int(number), is_padded=bool(same), pool=int(pool or 1)))
    return list(dict.fromkeys(layers))


def _group(layer: _Layer, reader: _Layer, shapes: Shapes) -> Group:
    """The units of a layer, which one layer reads."""
    window = shapes[reader.weight][2:]
    is_seen_beside_zeros = reader.is_padded and max(window) > 1
    if is_seen_beside_zeros:
        return Group(layer.short_name, (layer.weight, layer.bias), (reader.weight,))
    return Group(
        layer=layer.short_name,
        weights=(layer.weight,),
        readers=(reader.weight,),
        followers=(layer.bias,),
        constant=(layer.bias, reader.bias),
    )


def _check_centered(kernels: tuple[int, ...]) -> None:
    """Refuse filters without a middle, around which zeros are as many on all sides.

    Raises:
        ConfigError: one has an even side.
    """
    for kernel in kernels:
        if kernel % 2 == 0:
            raise ConfigError(
                f"kernel: found {kernel} with padding same, expected an odd side; use "
                f"{kernel - 1} or {kernel + 1}, or padding valid"
            )


def _check_fits(name: str, side: int, image: list[int], block: int) -> None:
    if side > min(image):
        raise ConfigError(
            f"{name}: found {side} in block {block + 1}, where {image[0]}x{image[1]} pixels are "
            "left, expected no more than those; use smaller kernels, less pooling or fewer blocks"
        )


FAMILIES.register("cnn")(Cnn())
