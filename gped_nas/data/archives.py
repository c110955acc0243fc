"""Users' arrays on disk: what reading them raises, which are refused unread, torch's dtypes."""

import lzma
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gped_nas.errors import DataError

UNREADABLE = (
    ValueError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    OverflowError,
    MemoryError,
    RecursionError,
    EOFError,
    UserWarning,
    KeyError,
    OSError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What numpy and zipfile raise or warn of on files that are none of theirs, truncated, corrupt,
encrypted or lie on size."""

_TORCH_DTYPES = frozenset(
    {"uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"}
)
_LARGEST_ARCHIVE = 2**38
"""Bytes that the arrays of a user's archive may declare, together: 256 GiB."""
_LARGEST_RATIO, _SMALL = 500, 2**26
"""How far an archive of more than 64 MiB may unfold: constant arrays reach 1,000 times."""


def reason_of(error: BaseException) -> str:
    """Why a file is no readable archive; numpy takes whatever it does not know for a pickle."""
    is_unknown = "pickled (object) data" in str(error)
    return "neither an archive nor an array" if is_unknown else str(error)


def torch_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same dtype in native byte order, or float64 where torch lacks it.

    It lacks wide unsigned integers and long doubles.
    """
    native = dtype.newbyteorder("=")
    return native if native.name in _TORCH_DTYPES else np.dtype(np.float64)


def check_archive(file: BinaryIO, path: Path) -> None:
    """Refuse an archive that unfolds to far more than it holds, before any of it is read.

    Args:
        file: a user's ``.npz``, at its beginning, where it is left; what is no archive passes.
        path: its name, for messages.

    Raises:
        DataError: its parts declare too many bytes, or too many for its size.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
    except UNREADABLE:  # damaged, or no archive: the reader says so
        return
    finally:
        file.seek(0)

    unfolded = sum(part.file_size for part in parts)
    packed = sum(part.compress_size for part in parts)
    is_bomb = unfolded > _SMALL and unfolded > _LARGEST_RATIO * packed
    if is_bomb or unfolded > _LARGEST_ARCHIVE:
        raise DataError(
            f"{path}: its arrays unfold from {packed:,} to {unfolded:,} bytes, expected at most "
            f"{_LARGEST_RATIO} times as many; write it again with numpy.savez, not "
            "numpy.savez_compressed, if the arrays are your own"
        )
