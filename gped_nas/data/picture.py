"""An input as a small PNG, written with the standard library alone.

Source: W3C, Portable Network Graphics (third edition), sections 5.3 and 11.2.
"""

import math
import struct
import zlib

import torch
from torch import Tensor

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPE = {1: 0, 3: 2}
MAX_SIDE = 32
"""Pixels; larger inputs are shown by every k-th pixel."""


def is_picture(input_shape: tuple[int, ...]) -> bool:
    """Whether inputs of this shape are gray or colored pictures: (1 or 3, height, width)."""
    return len(input_shape) == 3 and input_shape[0] in _COLOR_TYPE


def png(raw: Tensor, low: float, high: float) -> bytes:
    """A raw input (1 or 3, height, width) as a PNG file; ``low`` is black and ``high`` white."""
    step = math.ceil(max(raw.shape[1:]) / MAX_SIDE)
    span = high - low if high > low else 1.0
    shares = (raw[:, ::step, ::step].double() - low) / span
    pixels = (shares * 255).round().clamp(0, 255).to(torch.uint8)

    channels, height, width = pixels.shape
    lines = pixels.permute(1, 2, 0).reshape(height, width * channels).numpy()
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPE[channels], 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines), 9)  # filter 0: none
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
