"""Small files in the formats of published datasets."""

import struct

import numpy as np

from gped_nas.io import Array

NUM_TRAIN, NUM_TEST = 20, 6


def random_pixels(num: int, shape: tuple[int, ...], seed: int) -> Array:
    """Random pictures of bytes, (num, *shape)."""
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


def idx_file(array: Array) -> bytes:
    """A file of idx: two zeros, 8 for uint8, the number of axes, each axis as big-endian int32."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
