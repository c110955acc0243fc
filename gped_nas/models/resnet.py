"""Residual networks for small images: a stem, stages of residual blocks and one dense layer.

Global average pooling stands between the last stage and the dense layer.

There is no batch normalization, since a teacher's likelihood would depend on its batch. Filter
response normalization (``norms.py``), with plain activations in place of its thresholded ones,
takes its place: it looks at no other channel, so that removing a channel changes no other one.

Source: blocks of two 3x3 convolutions: He et al. 2016, arXiv:1512.03385, with the CIFAR layout of
its section 4.2 and 1x1 projections where the shape changes.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.models.activations import (
    ACTIVATIONS,
    RELU,
    activation_in,
    activation_of,
    with_activation,
)
from gped_nas.models.base import FAMILIES, Family, Group, Params, Shapes, Value
from gped_nas.models.images import channels_last, image_of
from gped_nas.models.norms import filter_response_norm
from gped_nas.models.values import MAX_WIDTH, activation_word, check_names, entries, whole

MAX_STAGES = 8
MAX_BLOCKS = 32


class ResNet(Family):
    """``layers.0`` is the stem, ``layers.1 ... layers.stages`` are stages.

    One layer more gives the raw outputs.

    Genotype values: ``stages``, how many stages there are, by default as many as ``width`` or
    ``depth`` lists; ``depth``, the residual blocks of a stage, and ``width``, its channels, each
    one number for all stages or one a stage; ``activation`` of all hidden units, which stands in
    the names of the stem. The first block of every stage but the first halves the image.

    The channels of a stage's residual stream are one group: all that writes to the stream (the stem
    or the projection, and every block's second norm) is penalized and removed together. The
    channels inside a block are a group of their own. A convolution before a norm is not penalized:
    the norm takes its scale out, so that a penalty would shrink it at no loss and say nothing about
    the channel. What scales a channel is its norm's gain and bias; they are penalized, and a
    channel where both are zero is zero at every place, also beside zero padding.
    """

    defaults = {"activation": RELU}
    counts = {"width": "stages", "depth": "stages"}
    monotone = frozenset({"width", "depth"})
    examples = (
        {"depth": 1, "width": [1]},
        {"depth": 2, "width": [3]},
        {"depth": [1, 2], "width": [4, 6]},
        {"depth": [2, 1, 1], "width": [3, 5, 2]},
        {"depth": 1, "width": [3, 4], "activation": "silu"},
    )
    example_inputs = ((1, 5, 6), (3, 8, 7))

    def canonical(self, values: Mapping[str, object]) -> dict[str, Value]:
        """See ``Family.canonical``: one entry a stage."""
        check_names(values, ("stages", "depth", "width", "activation"))
        width = values.get("width")
        depth = values.get("depth")
        lists = [value for value in (width, depth) if isinstance(value, list | tuple)]
        num_listed = len(lists[0]) if lists else None
        stages = whole("stages", values.get("stages", num_listed), 1, MAX_STAGES)
        return {
            "stages": stages,
            "depth": entries("depth", depth, stages, 1, MAX_BLOCKS, of="stages"),
            "width": entries("width", width, stages, 1, MAX_WIDTH, of="stages"),
            "activation": activation_word(values),
        }

    def shapes(
        self, values: Mapping[str, Any], input_shape: tuple[int, ...], num_outputs: int
    ) -> Shapes:
        """See ``Family.shapes``."""
        channels, *image = image_of("resnet", input_shape)
        _check_stages(values["stages"], image)

        widths = values["width"]
        depths = values["depth"]
        stem = with_activation("layers.0", values["activation"])
        shapes: Shapes = {f"{stem}.conv.weight": (widths[0], channels, 3, 3)}
        shapes |= _norm_shapes(f"{stem}.norm", widths[0])

        inputs = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
            for block in range(depth):
                name = f"layers.{stage}.{block}"
                shapes[f"{name}.conv1.weight"] = (width, inputs, 3, 3)
                shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
                shapes |= _norm_shapes(f"{name}.norm1", width)
                shapes |= _norm_shapes(f"{name}.norm2", width)
                if stage > 1 and block == 0:
                    shapes[f"{name}.projection.weight"] = (width, inputs, 1, 1)
                inputs = width

        head = f"layers.{len(widths) + 1}"
        shapes[f"{head}.weight"] = (num_outputs, inputs)
        shapes[f"{head}.bias"] = (num_outputs,)
        return shapes

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """See ``Family.forward``; inputs are images (B, channels, height, width)."""
        stem = _stem(params)
        activate = ACTIVATIONS[activation_of(stem)]
        hidden = F.conv2d(channels_last(x), params[f"{stem}.conv.weight"], padding=1)
        hidden = activate(_normalize(hidden, params, f"{stem}.norm"))

        stages, head = _structure(params)
        for block in itertools.chain(*stages):
            stride = 2 if block.projects else 1
            inner = F.conv2d(hidden, params[f"{block.name}.conv1.weight"], stride=stride, padding=1)
            inner = activate(_normalize(inner, params, f"{block.name}.norm1"))
            inner = F.conv2d(inner, params[f"{block.name}.conv2.weight"], padding=1)

            if block.projects:
                # its pixels are taken first: the backward of oneDNN's 1x1 convolution with stride 2
                # corrupts memory where channels lie side by side (torch 2.14, seen with 4 to 6 of
                # them)
                hidden = F.conv2d(hidden[:, :, ::2, ::2], params[f"{block.name}.projection.weight"])
            hidden = activate(hidden + _normalize(inner, params, f"{block.name}.norm2"))

        pooled = hidden.mean((2, 3))
        return F.linear(pooled, params[f"{head}.weight"], params[f"{head}.bias"])

    @property
    def why_no_layers(self) -> str:
        """See ``Family.why_no_layers``."""
        return (
            "its norm divides numbers by their own size, so that intervals say nothing behind two "
            "blocks"
        )

    def groups(self, shapes: Shapes) -> list[Group]:
        """See ``Family.groups``: the stream of each stage, and the inner channels of each block."""
        stages, head = _structure(shapes)
        groups = []
        for i, blocks in enumerate(stages):
            if i + 1 < len(stages):
                next_block = stages[i + 1][0].name
                next_readers = [f"{next_block}.conv1.weight", f"{next_block}.projection.weight"]
            else:
                next_readers = [f"{head}.weight"]

            stem = _stem(shapes) if i == 0 else None
            groups.append(_stream_group(blocks, next_readers, stem=stem))
            groups += [_inner_group(block) for block in blocks]
        return groups

    def macs(self, shapes: Shapes, input_shape: tuple[int, ...]) -> dict[str, int]:
        """See ``Family.macs``: a convolution uses every weight once at each pixel of its output."""
        _, *image = image_of("resnet", input_shape)
        stages, head = _structure(shapes)

        first = f"{_stem(shapes)}.conv.weight"
        macs = {first: prod(image) * prod(shapes[first])}
        for block in itertools.chain(*stages):
            if block.projects:
                image = _halve(image)
            for layer in block.convolutions:
                macs[f"{layer}.weight"] = prod(image) * prod(shapes[f"{layer}.weight"])

        macs[f"{head}.weight"] = prod(shapes[f"{head}.weight"])
        return macs

    def describe(self, shapes: Shapes) -> list[dict[str, Any]]:
        """See ``Family.describe``."""
        stages, head = _structure(shapes)
        stem = _stem(shapes)
        rows = [*_describe(f"{stem}.conv", f"{stem}.norm", shapes)]
        for block in itertools.chain(*stages):
            for i in (1, 2):
                rows += _describe(f"{block.name}.conv{i}", f"{block.name}.norm{i}", shapes)
            if block.projects:
                rows += _describe(f"{block.name}.projection", None, shapes)
        return [*rows, *_describe(head, None, shapes)]


@dataclass(frozen=True)
class _Block:
    """A residual block.

    Attributes:
        name: what its parameters' names begin with.
        projects: whether its shortcut is a projection.
    """

    name: str
    projects: bool

    @property
    def convolutions(self) -> tuple[str, ...]:
        both = (f"{self.name}.conv1", f"{self.name}.conv2")
        return (*both, f"{self.name}.projection") if self.projects else both


def _structure(named: Mapping[str, object]) -> tuple[list[list[_Block]], str]:
    """The blocks of every stage and the name of the last layer, as the parameters' names tell them.

    Raises:
        KeyError: there is no block.
    """
    block_names = {name.rsplit(".", 2)[0] for name in named}
    stages: list[list[_Block]] = []
    while blocks := list(_blocks(block_names, len(stages) + 1)):
        stages.append(blocks)
    if not stages:
        raise KeyError("layers.1.0")
    return stages, f"layers.{len(stages) + 1}"


def _blocks(block_names: set[str], stage: int) -> Iterator[_Block]:
    block = 0
    while (name := f"layers.{stage}.{block}") in block_names:
        yield _Block(name, projects=stage > 1 and block == 0)
        block += 1


def _stem(named: Mapping[str, object]) -> str:
    """What the names of the stem's parameters begin with."""
    return with_activation("layers.0", activation_in(named))


def _stream_group(blocks: Sequence[_Block], next_readers: list[str], *, stem: str | None) -> Group:
    """The channels of a stage's residual stream.

    Args:
        blocks: the blocks of the stage.
        next_readers: the weights behind the stage that read its stream.
        stem: what writes to the stream of the first stage; a projection does in any other.
    """
    norms = [f"{block.name}.norm2" for block in blocks]
    followers = [f"{block.name}.conv2.weight" for block in blocks]
    readers = [f"{block.name}.conv1.weight" for block in blocks[1:]]
    weights = []

    if stem is not None:
        layer = f"{stem}.conv"
        norms.insert(0, f"{stem}.norm")
        followers.insert(0, f"{layer}.weight")
        readers.insert(0, f"{blocks[0].name}.conv1.weight")
    else:
        layer = f"{blocks[0].name}.projection"
        weights.append(f"{layer}.weight")  # no norm takes its scale out

    for norm in norms:
        weights += [f"{norm}.gain", f"{norm}.bias"]
    return Group(layer, tuple(weights), (*readers, *next_readers), tuple(followers))


def _inner_group(block: _Block) -> Group:
    """The channels between the two convolutions of a block."""
    return Group(
        layer=f"{block.name}.conv1",
        weights=(f"{block.name}.norm1.gain", f"{block.name}.norm1.bias"),
        readers=(f"{block.name}.conv2.weight",),
        followers=(f"{block.name}.conv1.weight",),
    )


def _check_stages(stages: int, image: list[int]) -> None:
    """Refuse stages that would see images of less than 2x2 pixels.

    Raises:
        ConfigError: one of them would.
    """
    seen = image
    for stage in range(1, stages + 1):
        if min(seen) < 2:
            raise ConfigError(
                f"stages: found {stages}, of which number {stage} would see an image of "
                f"{seen[0]}x{seen[1]} pixels, expected at least 2x2; use at most {stage - 1} for "
                f"images of {image[0]}x{image[1]}"
            )
        seen = _halve(seen)


def _norm_shapes(name: str, width: int) -> Shapes:
    return {f"{name}.gain": (width,), f"{name}.bias": (width,)}


def _normalize(x: Tensor, params: Params, name: str) -> Tensor:
    return filter_response_norm(x, params[f"{name}.gain"], params[f"{name}.bias"])


def _halve(image: list[int]) -> list[int]:
    """What a stride of 2 leaves of an image: every other row and column, from the first one on."""
    return [(side + 1) // 2 for side in image]


def _describe(layer: str, norm: str | None, shapes: Shapes) -> Iterator[dict[str, Any]]:
    """The rows of a layer and of the norm that follows it."""
    outputs, inputs, *window = shapes[f"{layer}.weight"]
    kind = f"conv {window[0]}x{window[1]}" if window else "linear"
    num_biases = 0 if window else outputs
    params = outputs * inputs * prod(window) + num_biases
    yield {"layer": layer, "kind": kind, "inputs": inputs, "outputs": outputs, "params": params}

    if norm:
        width = shapes[f"{norm}.gain"][0]
        yield {
            "layer": norm,
            "kind": "norm",
            "inputs": width,
            "outputs": width,
            "params": 2 * width,
        }


FAMILIES.register("resnet")(ResNet())
