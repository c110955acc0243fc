"""Layers of convolutional networks, as the names of their parameters tell them.

A network is known by its parameters alone, also after pruning, so that what shapes do not say is in
the names: ``layers.0.same.stride2.pool2.weight``. In this order:

    layers.0    place of the block or dense layer
    depthwise   one filter a channel;  pointwise: a pixel at a time. The two halves of a separable
                block
    same        zeros around the image, so that the convolution keeps its size
    stride2     every second pixel
    pool2       2x2 max pooling behind it
    tanh        the activation behind that, where it is no ReLU
    average     the average of each channel behind the activation, which dense layers read
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from gped_nas.models.activations import ACTIVATIONS, RELU
from gped_nas.models.base import Params
from gped_nas.models.elementary import (
    Activation,
    AveragePool,
    Convolution,
    Dense,
    Elementary,
    Flatten,
    MaxPool,
)
from gped_nas.models.images import channels_last

_NAME = re.compile(
    r"layers\.(\d{1,9})(?:\.(depthwise|pointwise))?(\.same)?(?:\.stride(\d{1,9}))?"
    r"(?:\.pool(\d{1,9}))?" + rf"(?:\.({'|'.join(ACTIVATIONS)}))?" + r"(\.average)?\.\w+"
)


@dataclass(frozen=True)
class Layer:
    """A convolution with what follows it, or a dense layer; see the module docstring.

    Attributes:
        number: place of its block, from 0.
        kind: ``depthwise``, ``pointwise`` or nothing.
        is_padded: ``same``.
        stride: pixels between two places of a filter.
        pool: side of the max pooling; 1 is none.
        is_averaged: ``average``.
        activation: behind the pooling; a last layer has none, whatever this says.
    """

    number: int
    kind: str = ""
    is_padded: bool = False
    stride: int = 1
    pool: int = 1
    is_averaged: bool = False
    activation: str = RELU

    @property
    def short_name(self) -> str:
        """The name for people and of groups."""
        return f"layers.{self.number}.{self.kind}" if self.kind else f"layers.{self.number}"

    @property
    def name(self) -> str:
        """What the names of its parameters begin with."""
        words = [self.short_name]
        if self.is_padded:
            words.append("same")
        if self.stride > 1:
            words.append(f"stride{self.stride}")
        if self.pool > 1:
            words.append(f"pool{self.pool}")
        if self.activation != RELU:
            words.append(self.activation)
        if self.is_averaged:
            words.append("average")
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
        return [(side - lost - 1) // self.stride + 1 for side in image]

    def pooled(self, image: Sequence[int]) -> list[int]:
        """Sides of the image behind its pooling and its average."""
        return [1 if self.is_averaged else side // self.pool for side in image]

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Its convolution of images (B, channels, height, width)."""
        side, stride = weight.shape[2], self.stride
        if side == 1 and stride > 1:
            # pixels are taken first: the backward of oneDNN's 1x1 convolution with a stride
            # corrupts memory where channels lie side by side (torch 2.14)
            x, stride = x[:, :, ::stride, ::stride], 1

        padding = side // 2 if self.is_padded else 0
        groups = len(weight) if self.kind == "depthwise" else 1
        return F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups)

    def elementary(self, weight: Tensor, bias: Tensor, *, is_last: bool) -> list[Elementary]:
        """What it does, step by step; see ``run``."""
        steps: list[Elementary] = []
        if weight.dim() == 4:
            padding = weight.shape[2] // 2 if self.is_padded else 0
            groups = len(weight) if self.kind == "depthwise" else 1
            steps.append(Convolution(weight, bias, self.stride, padding, groups))
            if self.pool > 1:
                steps.append(MaxPool(self.pool))
        else:
            steps += [Flatten(), Dense(weight, bias)]

        if not is_last:
            steps.append(Activation(self.activation))
        if self.is_averaged:
            steps.append(AveragePool())
        return steps

    def text(self, window: Sequence[int]) -> str:
        """What it is, for people; a dense layer has no window."""
        words = [f"{self.kind or 'conv'} {window[0]}x{window[1]}" if window else "linear"]
        if self.is_padded:
            words.append("same")
        if self.stride > 1:
            words.append(f"stride {self.stride}")
        if self.pool > 1:
            words.append(f"max pool {self.pool}x{self.pool}")
        if self.activation != RELU:
            words.append(self.activation)
        if self.is_averaged:
            words.append("global average")
        return ", ".join(words)


def layers_of(named: Mapping[str, object]) -> list[Layer]:
    """The layers that the names of parameters tell of, from input to output.

    Raises:
        KeyError: a name is none of such a network.
    """
    layers = []
    for name in named:
        match = _NAME.fullmatch(name)
        if match is None:
            raise KeyError(name)
        number, kind, same, stride, pool, activation, average = match.groups()
        layers.append(
            Layer(
                int(number),
                kind or "",
                is_padded=bool(same),
                stride=int(stride or 1),
                pool=int(pool or 1),
                is_averaged=bool(average),
                activation=activation or RELU,
            )
        )
    return list(dict.fromkeys(layers))


def run(
    params: Params, x: Tensor, after: Callable[[Layer, Tensor], Tensor] | None = None
) -> Tensor:
    """Raw outputs (B, U) of convolutions and dense layers with activations between them.

    Args:
        params: by name, in the order of the layers. Convolutions may be without a bias where
            ``after`` is given.
        x: images (B, channels, height, width).
        after: what is done to the units of each convolution before they are pooled; nothing by
            default.

    Raises:
        KeyError: a parameter is missing.
    """
    hidden = channels_last(x)
    layers = layers_of(params)
    for layer in layers:
        weight = params[layer.weight]
        if weight.dim() == 4:
            bias = params[layer.bias] if after is None else params.get(layer.bias)
            hidden = layer.convolve(hidden, weight, bias)
            if after is not None:
                hidden = after(layer, hidden)
            if layer.pool > 1:
                hidden = F.max_pool2d(hidden, layer.pool)
        else:
            hidden = F.linear(hidden.flatten(1), weight, params[layer.bias])

        if layer != layers[-1]:
            hidden = ACTIVATIONS[layer.activation](hidden)
        if layer.is_averaged:
            hidden = hidden.mean((2, 3))
    return hidden
