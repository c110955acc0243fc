"""Arrays that stay in their file, because they are large: what is known of them without reading."""

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from gped_nas.data import rows
from gped_nas.data.archives import torch_dtype
from gped_nas.data.file_rows import FileRows, torch_of
from gped_nas.data.rows import Rows
from gped_nas.io import Array

_LOCAL_HEADER = "<4s5H3I2H"
"""Of a zip's member: the last two numbers are the lengths of its name and of its extra field."""


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, in C order.

    Attributes:
        path: the file.
        offset: bytes before its first number.
        dtype, shape: as numpy's.
    """

    path: Path
    offset: int
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def rows(self, *, is_channels_last: bool) -> Rows:
        """Its rows as a tensor that is read where it is used, channel first."""
        dtype = torch_of(torch_dtype(self.dtype))
        return Rows(
            FileRows(self.path, self.offset, self.dtype, self.shape, dtype, is_channels_last)
        )


AnyArray = Array | StoredArray


def in_memory(array: AnyArray) -> Array:
    """The numbers of an array, read if they lie in its file."""
    if isinstance(array, StoredArray):
        num = int(np.prod(array.shape))
        read = np.fromfile(array.path, array.dtype, num, offset=array.offset)
        return read.reshape(array.shape)
    return array


def load_npy(path: Path) -> AnyArray:
    """The array of an ``.npy``; one of numbers that is large stays in its file.

    Raises:
        ValueError: and others of ``archives.UNREADABLE``: it is none, or holds objects.
    """
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(mapped, np.memmap):
        raise ValueError("it holds several arrays, expected one")
    is_large = mapped.nbytes > rows.IN_MEMORY and mapped.dtype.kind in "iuf"
    if is_large and mapped.flags.c_contiguous:
        return StoredArray(path, int(mapped.offset), mapped.dtype, mapped.shape)
    return np.array(mapped)


def find_member(path: Path, name: str) -> StoredArray | None:
    """A large array of numbers in an archive that lies there as it is; None if it is not so.

    Args:
        path: the ``.npz``.
        name: of the array.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        member = archive.getinfo(f"{name}.npy")
        is_plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
        if not is_plain or member.file_size <= rows.IN_MEMORY:
            return None

        file.seek(member.header_offset)
        header = struct.unpack(_LOCAL_HEADER, file.read(struct.calcsize(_LOCAL_HEADER)))
        file.seek(header[-2] + header[-1], 1)
        version = npy_format.read_magic(file)
        if version == (1, 0):
            shape, is_fortran, dtype = npy_format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, is_fortran, dtype = npy_format.read_array_header_2_0(file)
        else:
            return None

        if is_fortran or dtype.kind not in "iuf":
            return None
        return StoredArray(path, file.tell(), dtype, shape)
