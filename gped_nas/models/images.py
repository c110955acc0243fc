"""What families of images share: a check of inputs, and the layout convolutions are fast in."""

import torch
from torch import Tensor

from gped_nas.errors import ConfigError


def image_of(family: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of an input.

    Raises:
        ConfigError: the inputs are no images.
    """
    if len(input_shape) != 3:
        raise ConfigError(
            f"family: found {family}, which reads images (channels, height, width), for inputs of "
            f"shape {tuple(input_shape)}; use mlp, or data of images"
        )
    channels, height, width = input_shape
    return channels, height, width


def channels_last(x: Tensor) -> Tensor:
    """The same images (B, C, H, W), the channels of a pixel side by side in memory.

    On one thread it halves the time of a training step of small images, most of it in pooling and
    in the first convolution. With a single channel torch takes both layouts for the same, so that
    asking for this one by name would change nothing and convolutions would go on in the slow one:
    only strides that are written anew help.
    """
    pixels_first = x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
    return pixels_first.permute(0, 3, 1, 2)
