"""A network as a chain of elementary layers, which bounds can be carried through.

``Family.layers`` gives them. Each reads a batch (B, *shape) of what the one before gives, in the
dtype of its parameters. An ``Affine`` one is ``W x + b``: bounds need its ``|W|`` and its ``W^T``
beside it, and how many numbers are added up in one output, since rounding grows with that.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.models.activations import ACTIVATIONS

Shape = tuple[int, ...]


class Elementary(ABC):
    """A layer of a network: what it makes of a batch, and of what shape."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B, *output_shape) of inputs (B, *input_shape)."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of one output."""
        return tuple(self.forward(torch.zeros((1, *input_shape), dtype=torch.float64)).shape[1:])


class Affine(Elementary):
    """``W x + b``."""

    @abstractmethod
    def linear(self, x: Tensor) -> Tensor:
        """``W x`` of inputs (B, *input_shape)."""

    @abstractmethod
    def transposed(self, a: Tensor, input_shape: Shape) -> Tensor:
        """``W^T a`` (B, *input_shape) of numbers (B, *output_shape), one an output."""

    @abstractmethod
    def absolute(self) -> "Affine":
        """The layer of ``|W|`` and ``|b|``."""

    @abstractmethod
    def num_terms(self, input_shape: Shape) -> int:
        """At most so many roundings are in one output; 0 where it is an input as it was."""

    @property
    def bias(self) -> Tensor | None:
        """``b``, of a shape that meets an output's; None where it is zero."""
        return None

    @property
    def keeps_apart(self) -> bool:
        """Whether each output depends on one input at most, and no two on the same."""
        return False


@dataclass(frozen=True, eq=False)
class Dense(Affine):
    """A dense layer: weight (outputs, inputs) and offset (outputs,)."""

    weight: Tensor
    offset: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """See ``Elementary.forward``."""
        return F.linear(x, self.weight, self.offset)

    def linear(self, x: Tensor) -> Tensor:
        """See ``Affine.linear``."""
        return F.linear(x, self.weight)

    def transposed(self, a: Tensor, input_shape: Shape) -> Tensor:
        """See ``Affine.transposed``."""
        return a @ self.weight

    def absolute(self) -> "Dense":
        """See ``Affine.absolute``."""
        return Dense(self.weight.abs(), self.offset.abs())

    def num_terms(self, input_shape: Shape) -> int:
        """See ``Affine.num_terms``."""
        return self.weight.shape[1] + 1

    @property
    def bias(self) -> Tensor:
        """See ``Affine.bias``."""
        return self.offset

    def output_shape(self, input_shape: Shape) -> Shape:
        """See ``Elementary.output_shape``."""
        return (len(self.weight),)


@dataclass(frozen=True, eq=False)
class Convolution(Affine):
    """A convolution of images (B, channels, height, width).

    Attributes:
        weight: (filters, channels of a group, side, side).
        offset: (filters,); None where there is none.
        stride: pixels between two places of a filter.
        padding: zeros on each side of the image.
        groups: into which channels are parted.
    """

    weight: Tensor
    offset: Tensor | None = None
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def forward(self, x: Tensor) -> Tensor:
        """See ``Elementary.forward``."""
        return self._convolve(x, self.offset)

    def linear(self, x: Tensor) -> Tensor:
        """See ``Affine.linear``."""
        return self._convolve(x, None)

    def _convolve(self, x: Tensor, offset: Tensor | None) -> Tensor:
        return F.conv2d(x, self.weight, offset, self.stride, self.padding, groups=self.groups)

    def transposed(self, a: Tensor, input_shape: Shape) -> Tensor:
        """See ``Affine.transposed``."""
        rests = []  # rows and columns at the end that no filter has looked at
        for size, num_places, side in zip(
            input_shape[1:], a.shape[2:], self.weight.shape[2:], strict=True
        ):
            rests.append(size + 2 * self.padding - side - (num_places - 1) * self.stride)
        return F.conv_transpose2d(
            a, self.weight, None, self.stride, self.padding, rests, groups=self.groups
        )

    def absolute(self) -> "Convolution":
        """See ``Affine.absolute``."""
        offset = None if self.offset is None else self.offset.abs()
        return replace(self, weight=self.weight.abs(), offset=offset)

    def num_terms(self, input_shape: Shape) -> int:
        """See ``Affine.num_terms``."""
        return prod(self.weight.shape[1:]) + 1

    @property
    def bias(self) -> Tensor | None:
        """See ``Affine.bias``."""
        return None if self.offset is None else self.offset[:, None, None]


@dataclass(frozen=True, eq=False)
class AveragePool(Affine):
    """The averages of windows of images side by side; rests at the end are left out.

    Attributes:
        side: of a window; None is the whole image, of which one number a channel remains.
    """

    side: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """See ``Elementary.forward``."""
        return x.mean((2, 3)) if self.side is None else F.avg_pool2d(x, self.side)

    def linear(self, x: Tensor) -> Tensor:
        """See ``Affine.linear``."""
        return self.forward(x)

    def transposed(self, a: Tensor, input_shape: Shape) -> Tensor:
        """See ``Affine.transposed``."""
        _, height, width = input_shape
        if self.side is None:
            return (a / (height * width))[:, :, None, None].expand(-1, -1, height, width)

        spread = a / self.side**2
        for axis in (2, 3):
            spread = spread.repeat_interleave(self.side, axis)
        return pad_image(spread, height, width)

    def absolute(self) -> "AveragePool":
        """See ``Affine.absolute``."""
        return self

    def num_terms(self, input_shape: Shape) -> int:
        """See ``Affine.num_terms``."""
        side = self.side
        return prod(input_shape[1:]) + 1 if side is None else side**2 + 1


@dataclass(frozen=True, eq=False)
class MaxPool(Elementary):
    """The largest numbers of windows of images side by side; rests at the end are left out."""

    side: int

    def forward(self, x: Tensor) -> Tensor:
        """See ``Elementary.forward``."""
        return F.max_pool2d(x, self.side)

    def windows(self, x: Tensor) -> Tensor:
        """The windows of images (B, channels, height, width): (B, channels, h, side, w, side)."""
        height, width = (size // self.side for size in x.shape[2:])
        whole = x[:, :, : height * self.side, : width * self.side]
        return whole.reshape(*x.shape[:2], height, self.side, width, self.side)


@dataclass(frozen=True, eq=False)
class Flatten(Affine):
    """An image as one row of numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """See ``Elementary.forward``."""
        return x.flatten(1)

    def linear(self, x: Tensor) -> Tensor:
        """See ``Affine.linear``."""
        return x.flatten(1)

    def transposed(self, a: Tensor, input_shape: Shape) -> Tensor:
        """See ``Affine.transposed``."""
        return a.reshape(len(a), *input_shape)

    def absolute(self) -> "Flatten":
        """See ``Affine.absolute``."""
        return self

    @property
    def keeps_apart(self) -> bool:
        """See ``Affine.keeps_apart``."""
        return True

    def num_terms(self, input_shape: Shape) -> int:
        """See ``Affine.num_terms``."""
        return 0

    def output_shape(self, input_shape: Shape) -> Shape:
        """See ``Elementary.output_shape``."""
        return (prod(input_shape),)


@dataclass(frozen=True, eq=False)
class Scaling(Affine):
    """``gain x + shift``, each of a shape that meets an input's: how inputs are normalized."""

    gain: Tensor
    shift: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """See ``Elementary.forward``."""
        return x * self.gain + self.shift

    def linear(self, x: Tensor) -> Tensor:
        """See ``Affine.linear``."""
        return x * self.gain

    def transposed(self, a: Tensor, input_shape: Shape) -> Tensor:
        """See ``Affine.transposed``."""
        return a * self.gain

    def absolute(self) -> "Scaling":
        """See ``Affine.absolute``."""
        return Scaling(self.gain.abs(), self.shift.abs())

    @property
    def keeps_apart(self) -> bool:
        """See ``Affine.keeps_apart``."""
        return True

    def num_terms(self, input_shape: Shape) -> int:
        """See ``Affine.num_terms``.

        In ``(x - mean) / std`` input, mean, deviation, difference and ratio are rounded.
        """
        return 6

    @property
    def bias(self) -> Tensor:
        """See ``Affine.bias``."""
        return self.shift

    def output_shape(self, input_shape: Shape) -> Shape:
        """See ``Elementary.output_shape``."""
        return input_shape


@dataclass(frozen=True, eq=False)
class ZeroFlags(Affine):
    """A row of numbers with so many zeros behind: the flags of a table where nothing is missing."""

    num: int

    def forward(self, x: Tensor) -> Tensor:
        """See ``Elementary.forward``."""
        return F.pad(x, (0, self.num))

    def linear(self, x: Tensor) -> Tensor:
        """See ``Affine.linear``."""
        return F.pad(x, (0, self.num))

    def transposed(self, a: Tensor, input_shape: Shape) -> Tensor:
        """See ``Affine.transposed``."""
        return a[..., : a.shape[-1] - self.num]

    def absolute(self) -> "ZeroFlags":
        """See ``Affine.absolute``."""
        return self

    @property
    def keeps_apart(self) -> bool:
        """See ``Affine.keeps_apart``."""
        return True

    def num_terms(self, input_shape: Shape) -> int:
        """See ``Affine.num_terms``."""
        return 0


@dataclass(frozen=True, eq=False)
class Activation(Elementary):
    """What units make of their sums, by its name in ``ACTIVATIONS``."""

    name: str

    def forward(self, x: Tensor) -> Tensor:
        """See ``Elementary.forward``."""
        return ACTIVATIONS[self.name](x)

    def output_shape(self, input_shape: Shape) -> Shape:
        """See ``Elementary.output_shape``."""
        return input_shape


def pad_image(x: Tensor, height: int, width: int) -> Tensor:
    """Images (..., height, width) grown to these sides by zeros at their ends."""
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


def run_layers(layers: Sequence[Elementary], x: Tensor) -> Tensor:
    """Outputs of a chain of layers for a batch (B, *input_shape)."""
    for layer in layers:
        x = layer.forward(x)
    return x
