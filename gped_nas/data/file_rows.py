"""Rows of an array that lies in a file; see ``rows``.

They are read by position, not mapped: pages of a map would count as the process's own memory, and
a file that was cut meanwhile would end the process instead of raising an error.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas.errors import EnvironmentProblem
from gped_nas.io import Array, environment

_GAP, _SPAN = 2**16, 2**23
"""Bytes between two wanted rows up to which all are read together, and most that are."""


@dataclass(frozen=True)
class FileRows:
    """Rows of an array in a file, in C order.

    Attributes:
        path: the file.
        offset: bytes before the array.
        array_dtype: of the file, in any byte order.
        array_shape: of the file.
        dtype: what torch gets.
        is_channels_last: whether rows (height, width, channels) become (channels, height, width).
    """

    path: Path
    offset: int
    array_dtype: "np.dtype[Any]"
    array_shape: tuple[int, ...]
    dtype: torch.dtype
    is_channels_last: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        num, *row = self.array_shape
        if len(row) == 2:
            return (num, 1, *row)
        if len(row) == 3 and self.is_channels_last:
            return (num, row[2], row[0], row[1])
        return self.array_shape

    @property
    def is_in_memory(self) -> bool:
        return False

    def read(self, index_B: Tensor) -> Tensor:
        array = self._read_array(index_B.numpy())
        if len(self.array_shape) == 3:
            array = array[:, None]
        if len(self.array_shape) == 4 and self.is_channels_last:
            array = array.transpose(0, 3, 1, 2)

        native = array.astype(_numpy_dtype(self.dtype), copy=False)
        return torch.from_numpy(np.ascontiguousarray(native))

    def _read_array(self, index_B: Array) -> Array:
        """The rows at ``index_B`` as they lie in the file."""
        row_shape = self.array_shape[1:]
        row_bytes = int(np.prod(row_shape, dtype=np.int64)) * self.array_dtype.itemsize
        out = np.empty((len(index_B), row_bytes), np.uint8)

        with environment("read", self.path):
            file = os.open(self.path, os.O_RDONLY)
            try:
                for places in _spans(index_B, row_bytes):
                    first, last = int(index_B[places[0]]), int(index_B[places[-1]])
                    span = self._pread(file, first * row_bytes, (last - first + 1) * row_bytes)
                    out[places] = span.reshape(-1, row_bytes)[index_B[places] - first]
            finally:
                os.close(file)
        return out.view(self.array_dtype).reshape(len(index_B), *row_shape)

    def _pread(self, file: int, start: int, size: int) -> Array:
        buffer = np.empty(size, np.uint8)
        view = memoryview(buffer.data)
        done = 0
        while done < size:
            num = os.preadv(file, [view[done:]], self.offset + start + done)
            if not num:
                raise EnvironmentProblem(
                    f"{self.path}: ends before its array of shape {self.array_shape}; it was "
                    "changed while it was read, put it back"
                )
            done += num
        return buffer


def _spans(index_B: Array, row_bytes: int) -> Iterator[Array]:
    """Places in ``index_B``, in the order of the file, that are read together."""
    if not len(index_B):
        return
    order = np.argsort(index_B, kind="stable")
    ordered = index_B[order]
    is_far = np.diff(ordered) * row_bytes > _GAP + row_bytes
    for group in np.split(order, np.flatnonzero(is_far) + 1):
        # A span holds more rows than are wanted: it is cut where it becomes long.
        distance = (index_B[group] - index_B[group[0]]) * max(1, row_bytes)
        pieces = np.split(group, np.flatnonzero(np.diff(distance // _SPAN)) + 1)
        yield from pieces


def torch_of(dtype: "np.dtype[Any]") -> torch.dtype:
    """The dtype of torch that one of numpy's is."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _numpy_dtype(dtype: torch.dtype) -> "np.dtype[Any]":
    return torch.empty(0, dtype=dtype).numpy().dtype
