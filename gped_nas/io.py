"""Files that survive a kill: written whole or not at all, named by what they hold, never unpickled.

Every write goes to a temporary name beside its target, is flushed to disk, then renamed; the directory is
flushed after the rename. Arrays are plain ``.npy`` read as memory maps after their header and exact size were
checked.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import tokenize
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from gped_nas.errors import EnvironmentProblem, StreamError

Array = NDArray[Any]
_DTYPES = frozenset({"<f2", "<f4", "<f8", "<i8", "<i4", "|i1", "|u1"})
_MAX_JSON_BYTES = 16 * 2**20
NPY_ERRORS = (
    ValueError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    OverflowError,
    MemoryError,
    RecursionError,
    EOFError,
    UserWarning,
)
"""What numpy raises or warns of when the header of a ``.npy`` file is not one that numpy wrote."""
_CHUNK = 2**22


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: the value holds a NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_text(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def sha256_arrays(*arrays: Array) -> str:
    """SHA-256 over dtype, shape and bytes of several arrays in order, hexadecimal."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def sync_dir(path: Path) -> None:
    """Flush a directory's entries, so that a rename in it survives a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def environment(action: str, path: Path) -> Iterator[None]:
    """Turn an operating-system refusal inside the block into one clear message.

    Raises:
        EnvironmentProblem: the file system refused (permission, no space, not a directory).
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise EnvironmentProblem(
            f"{path}: cannot {action}: {reason}; check the path, its permissions and the free disk space"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    _write(path, lambda file: file.write(data))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write canonical JSON with a final newline, whole or not at all."""
    write_text(path, canonical_json(value) + "\n")


def write_array(path: Path, array: Array) -> str:
    """Write a ``.npy`` file whole or not at all and return its SHA-256."""
    array = np.asarray(array, order="C")
    buffer = io.BytesIO()
    npy_format.write_array_header_1_0(buffer, npy_format.header_data_from_array_1_0(array))
    header, body = buffer.getvalue(), array.reshape(-1).view(np.uint8).data

    def write(file: Any) -> None:
        file.write(header)
        file.write(body)

    _write(path, write)
    digest = hashlib.sha256(header)
    digest.update(body)
    return digest.hexdigest()


def _write(path: Path, write: Callable[[Any], object]) -> None:
    with environment("write", path):
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_dir(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left half written in a folder and below; for the one process that writes there."""
    with environment("clean", folder):
        for path in folder.rglob(".*.tmp"):
            path.unlink(missing_ok=True)


def make_dir(path: Path) -> Path:
    """Create a directory and its parents.

    Raises:
        EnvironmentProblem: it cannot be created or written.
    """
    with environment("create the directory", path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "not writable")
    return path


def seal_dir(building: Path, final: Path) -> None:
    """Rename a finished directory to its final name; one that is there already stays, the new is dropped."""
    with environment("seal", final):
        sync_dir(building)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            shutil.rmtree(building)
        else:
            os.rename(building, final)
        sync_dir(final.parent)


def read_json(path: Path) -> Any:
    """Read a JSON file of our own making.

    Raises:
        StreamError: missing, too large, or not JSON.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise StreamError(f"{path}: larger than {_MAX_JSON_BYTES} bytes, so not written by this tool")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise StreamError(f"{path}: missing") from None
    except OSError as error:
        raise StreamError(f"{path}: cannot be read: {error.strerror}; expected a plain file") from None
    except (ValueError, RecursionError) as error:
        raise StreamError(f"{path}: not valid JSON ({error}); restore the file or delete its folder") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def map_array(path: Path, *, dtype: str, shape: tuple[int, ...]) -> Array:
    """Map a ``.npy`` file read-only after checking header and exact size against what is expected.

    Raises:
        StreamError: missing, a link, of another dtype or shape, truncated or extended.
    """
    if dtype not in _DTYPES:
        raise StreamError(f"{path}: dtype {dtype!r} is not allowed in a stream")
    if path.is_symlink() or not path.is_file():
        raise StreamError(f"{path}: missing, or not a plain file; run `gped-search teacher verify`")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            if npy_format.read_magic(file) != (1, 0):
                raise ValueError("npy format version is not 1.0")
            found_shape, fortran, found_dtype = npy_format.read_array_header_1_0(file, max_header_size=4096)
            offset = file.tell()
        size = path.stat().st_size
    except (OSError, *NPY_ERRORS) as error:
        raise StreamError(f"{path}: not a readable npy file ({error})") from None
    expected = offset + np.dtype(dtype).itemsize * math.prod(shape)
    if fortran or found_dtype.str != dtype or tuple(found_shape) != shape or size != expected:
        raise StreamError(
            f"{path}: found {found_dtype.str}{tuple(found_shape)} in {size} bytes, "
            f"expected {dtype}{shape} in {expected} bytes; the file is corrupt, delete its folder to rebuild"
        )
    try:
        if math.prod(shape) == 0:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    except (ValueError, OverflowError) as error:
        raise StreamError(f"{path}: no array has the shape {shape} ({error})") from None


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold an exclusive lock that the operating system drops when the holder dies.

    Args:
        path: the lock file; it is left in place.
        wait: wait for another holder, or fail at once.

    Raises:
        EnvironmentProblem: another process holds it and ``wait`` is false, or the file cannot be made.
    """
    with environment("lock", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise EnvironmentProblem(
                f"{path.parent}: another process is working here; wait for it or stop it first"
            ) from None
        yield
    finally:
        os.close(fd)
