"""Convolutional networks: blocks of convolution, max pooling and activation, then dense layers.

Where convolutions are valid (no padding), a dead filter's constant reaches every place that its
reader looks at, and is folded into the reader's bias exactly. A reader that pads with zeros sees
the constant in the middle of the image and zeros around it, which no bias can say: there a filter
is dead only if its bias is zero too. Pooling comes before the activation, which then has fewer
numbers to look at. For a ReLU and a tanh the values are the same as in the other order, since they
are monotone.

The networks of the GPED paper (Vadera, Jalaian & Marlin 2020) are two of its genotypes: ``depth=2,
width=[10, 20], kernel=4, pool=2, head_width=[80]`` on MNIST, and ``depth=2, width=[16, 32],
kernel=5, pool=2, head_width=[200, 50]`` on CIFAR-10.

Source of separable blocks: Howard et al. 2017, arXiv:1704.04861, section 3.1.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.models.activations import ACTIVATIONS, RELU
from gped_nas.models.base import FAMILIES, Family, Form, Group, Params, Shapes, Value
from gped_nas.models.elementary import Elementary
from gped_nas.models.forms import FORMS
from gped_nas.models.images import image_of
from gped_nas.models.layers import Layer, layers_of, run
from gped_nas.models.values import MAX_WIDTH, check_names, entries, whole, word

MAX_DEPTH = 16
MAX_HEAD_DEPTH = 8
MAX_KERNEL = 31
MAX_POOL = 8
MAX_STRIDE = 8
_WORDS = {
    "padding": ("valid", "same"),
    "head": ("flatten", "global_average"),
    "block": ("plain", "separable"),
    "norm": ("none", *FORMS),
    "activation": tuple(ACTIVATIONS),
}
"""Values that are words, the default first."""
_NAMES = (
    *("depth", "width", "kernel", "stride", "pool", "stages", "head_depth", "head_width"),
    *_WORDS,
)


class Cnn(Family):
    """Blocks ``layers.0 ... layers.(depth - 1)``, then dense layers; the last gives the outputs.

    Genotype values: ``depth``, the number of convolution blocks; ``width`` (filters), ``kernel``
    (its side), ``stride`` and ``pool`` (side of the max pooling after the convolution; 1, the
    default, is none), each one number for all blocks or one a block; ``stages`` in place of
    ``pool``: the blocks are shared out over so many stages, and each but the last ends with a 2x2
    max pooling; ``padding``, ``valid`` (the default: none) or ``same`` (zeros around the image, so
    that a convolution keeps its size); ``block``, ``plain`` or ``separable``: behind the first
    block a convolution of each channel with one filter, then one of single pixels;
    ``head``, what dense layers read: ``flatten``, every pixel, or ``global_average``, the average
    of each channel; ``head_width``, the widths of the dense layers between the blocks and the raw
    outputs, none by default, and ``head_depth``, how many of them there are where that is not said
    by their list; ``norm``, what students are trained with and what is folded away: ``none``,
    ``batch`` or ``weight`` (see ``forms.py``); ``activation`` of all hidden units.

    Parameters alone say what the network is: a weight with four axes is a convolution's, and what
    else its layer does is in its name, ``layers.0.same.stride2.pool2.weight``; a valid one without
    stride and pooling is ``layers.0.weight``. See ``Layer``.
    """

    of_training = frozenset({"norm"})
    defaults = {"stride": 1} | {name: words[0] for name, words in _WORDS.items()}
    counts = {
        "width": "depth",
        "kernel": "depth",
        "stride": "depth",
        "pool": "depth",
        "head_width": "head_depth",
    }
    monotone = frozenset({"width", "head_width"})
    examples = (
        {"depth": 1, "width": 1, "kernel": 1},
        {"depth": 1, "width": 3, "kernel": 6, "head_width": [4]},
        {"depth": 2, "width": [4, 5], "kernel": [3, 2], "pool": [2, 1], "head_width": [6, 3]},
        {"depth": 3, "width": [2, 6, 3], "kernel": 2, "pool": [1, 1, 2], "head": "global_average"},
        {"depth": 3, "width": [3, 4, 2], "kernel": [3, 1, 5], "pool": [2, 1, 1], "padding": "same"},
        {
            "depth": 4,
            "width": [3, 4, 2, 3],
            "kernel": [3, 3, 1, 3],
            "stride": [2, 1, 2, 1],
            "stages": 2,
            "padding": "same",
            "head": "global_average",
        },
        {
            "depth": 3,
            "width": [3, 4, 2],
            "kernel": [3, 3, 1],
            "stride": [1, 2, 1],
            "padding": "same",
            "block": "separable",
        },
        {"depth": 2, "width": 3, "kernel": [3, 2], "pool": [1, 2], "block": "separable"},
        {"depth": 2, "width": [4, 3], "kernel": 3, "padding": "same", "norm": "batch"},
        {
            "depth": 2,
            "width": [3, 4],
            "kernel": [3, 2],
            "pool": [2, 1],
            "head_width": [5],
            "activation": "tanh",
        },
        {
            "depth": 2,
            "width": [3, 4],
            "kernel": 3,
            "padding": "same",
            "block": "separable",
            "head": "global_average",
            "activation": "silu",
        },
        {"depth": 1, "width": 3, "kernel": 3, "norm": "weight", "activation": "gelu"},
    )
    example_inputs = ((1, 6, 7), (3, 9, 8))

    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """See ``Family.canonical``: one entry a block or dense layer."""
        check_names(values, _NAMES)
        depth = whole("depth", values.get("depth"), 1, MAX_DEPTH)
        head_width = values.get("head_width", ())
        num_listed = len(head_width) if isinstance(head_width, list | tuple) else 1
        head_depth = whole("head_depth", values.get("head_depth", num_listed), 0, MAX_HEAD_DEPTH)

        def one_a_block(name: str, value: object, high: int) -> tuple[int, ...]:
            return entries(name, value, depth, 1, high, of="blocks")

        words = {
            name: word(name, values.get(name, choices[0]), choices)
            for name, choices in _WORDS.items()
        }
        kernel = one_a_block("kernel", values.get("kernel"), MAX_KERNEL)
        if words["padding"] == "same":
            _check_centered(kernel)

        full: dict[str, Value] = {
            "depth": depth,
            "width": one_a_block("width", values.get("width"), MAX_WIDTH),
            "kernel": kernel,
            "stride": one_a_block("stride", values.get("stride", 1), MAX_STRIDE),
            "head_depth": head_depth,
            "head_width": entries(
                "head_width", head_width, head_depth, 1, MAX_WIDTH, of="dense layers"
            ),
            **words,
        }
        if "stages" in values:
            _check_no_pool(values)
            full["stages"] = _check_stages(values["stages"], depth)
        else:
            full["pool"] = one_a_block("pool", values.get("pool", 1), MAX_POOL)
        return full

    def shapes(
        self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int
    ) -> Shapes:
        """See ``Family.shapes``."""
        channels, *image = image_of("cnn", input_shape)
        shapes: Shapes = {}

        for i, width in enumerate(values["width"]):
            kernel = values["kernel"][i]
            for layer in _block(values, i):
                if layer.kind == "depthwise":
                    shapes[layer.weight] = (channels, 1, kernel, kernel)
                else:
                    side = 1 if layer.kind == "pointwise" else kernel
                    shapes[layer.weight] = (width, channels, side, side)
                    channels = width
                shapes[layer.bias] = (channels,)

                side = shapes[layer.weight][2]
                if not layer.is_padded:
                    _check_fits("kernel", side, image, i)
                image = layer.convolved(image, side)
                if "stages" in values:
                    _check_halvable(values["stages"], layer.pool, image, i)
                else:
                    _check_fits("pool", layer.pool, image, i)
                image = layer.pooled(image)

        sizes = [channels * prod(image), *values["head_width"], num_outputs]
        num_layers = values["depth"] + values["head_depth"] + 1
        for i, (inputs, outputs) in enumerate(pairwise(sizes), values["depth"]):
            is_last = i + 1 == num_layers
            layer = Layer(i, activation=RELU if is_last else values["activation"])
            shapes[layer.weight] = (outputs, inputs)
            shapes[layer.bias] = (outputs,)
        return shapes

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """See ``Family.forward``; inputs are images (B, channels, height, width)."""
        return run(params, x)

    def layers(self, params: Params) -> list[Elementary]:
        """See ``Family.layers``."""
        chain: list[Elementary] = []
        blocks = layers_of(params)
        for block in blocks:
            weight, bias = params[block.weight], params[block.bias]
            chain += block.elementary(weight, bias, is_last=block == blocks[-1])
        return chain

    def form(self, values: Mapping[str, Any]) -> Form | None:
        """See ``Family.form``: that of ``norm``."""
        return FORMS.get(values["norm"])

    def groups(self, shapes: Shapes) -> list[Group]:
        """See ``Family.groups``: every filter and every hidden unit is one group.

        A filter and the depthwise one that looks at it alone are one group, since neither is worth
        anything without the other.
        """
        groups = []
        layers = layers_of(shapes)
        for i, (layer, reader) in enumerate(pairwise(layers)):
            if reader.kind == "depthwise":
                groups.append(_coupled_group(layer, reader, layers[i + 2]))
            elif layer.kind != "depthwise":
                groups.append(_group(layer, reader, shapes))
        return groups

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """See ``Family.macs``: a convolution uses every weight once at each pixel of its output."""
        _, *image = image_of("cnn", input_shape)
        macs = {}
        for layer in layers_of(shapes):
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
        for layer in layers_of(shapes):
            outputs, inputs, *window = shapes[layer.weight]
            params = outputs * inputs * prod(window) + outputs
            if layer.kind == "depthwise":
                inputs = outputs
            rows.append(
                {
                    "layer": layer.short_name,
                    "kind": layer.text(window),
                    "inputs": inputs,
                    "outputs": outputs,
                    "params": params,
                }
            )
        return rows


def _block(values: Mapping[str, Any], i: int) -> list[Layer]:
    """The convolutions of a block."""
    is_padded = values["padding"] == "same"
    stride, pool = values["stride"][i], _pools(values)[i]
    is_last = i + 1 == values["depth"]
    is_averaged = is_last and values["head"] == "global_average"
    activation = values["activation"]

    # the first one reads the image, whose channels are few and belong together
    if values["block"] == "separable" and i > 0:
        return [
            Layer(i, "depthwise", is_padded=is_padded, stride=stride, activation=activation),
            Layer(i, "pointwise", pool=pool, is_averaged=is_averaged, activation=activation),
        ]
    return [
        Layer(
            i,
            is_padded=is_padded,
            stride=stride,
            pool=pool,
            is_averaged=is_averaged,
            activation=activation,
        )
    ]


def _pools(values: Mapping[str, Any]) -> tuple[int, ...]:
    """Side of the pooling behind each block.

    Stages have as many blocks as each other, or earlier ones one more.
    """
    if "stages" not in values:
        pools: tuple[int, ...] = values["pool"]
        return pools

    depth, stages = values["depth"], values["stages"]
    pools = ()
    for stage in range(stages):
        num_blocks = depth // stages + (stage < depth % stages)
        end = 2 if stage + 1 < stages else 1
        pools = (*pools, *[1] * (num_blocks - 1), end)
    return pools


def _group(layer: Layer, reader: Layer, shapes: Shapes) -> Group:
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


def _coupled_group(layer: Layer, depthwise: Layer, reader: Layer) -> Group:
    """The units of a layer and the depthwise filters that read one each.

    A depthwise filter of zeros sends its bias to every pixel, with padding or without.
    """
    return Group(
        layer=layer.short_name,
        weights=(layer.weight, depthwise.weight),
        readers=(reader.weight,),
        followers=(layer.bias, depthwise.bias),
        constant=(depthwise.bias, reader.bias),
    )


def _check_stages(value: object, depth: int) -> int:
    """How many stages there are.

    Raises:
        ConfigError: a stage would have no block.
    """
    stages = whole("stages", value, 1, MAX_DEPTH)
    if stages > depth:
        raise ConfigError(f"stages: found {stages}, expected at most {depth}, the depth")
    return stages


def _check_no_pool(values: Mapping[str, object]) -> None:
    """Refuse two answers to where images are halved.

    Raises:
        ConfigError: there are both ``stages`` and ``pool``.
    """
    if "pool" in values:
        raise ConfigError(
            f"pool: found {values['pool']!r} beside stages {values['stages']!r}, expected one of "
            "them; leave out pool where stages say how often images are halved"
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


def _check_halvable(stages: int, pool: int, image: list[int], block: int) -> None:
    if pool > min(image):
        raise ConfigError(
            f"stages: found {stages}, whose pooling behind block {block + 1} would see "
            f"{image[0]}x{image[1]} pixels, expected at least 2x2; use fewer stages"
        )


def _check_fits(name: str, side: int, image: list[int], block: int) -> None:
    if side > min(image):
        raise ConfigError(
            f"{name}: found {side} in block {block + 1}, where {image[0]}x{image[1]} pixels are "
            "left, expected no more than those; use smaller kernels, less pooling or fewer blocks"
        )


FAMILIES.register("cnn")(Cnn())
