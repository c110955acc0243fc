"""Files that survive a kill: written whole or not at all, named by what they hold, never unpickled.

Every write goes to a temporary name beside its target, is flushed to disk, then renamed; the
directory is flushed after the rename. Arrays are plain ``.npy`` read as memory maps after their
header and exact size were checked.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import math
import os
import shutil
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gped_nas.errors import EnvironmentProblem, StreamError, UndigestedWarning

SCHEMA_VERSION = 1
"""Version of the public JSON: an element of a list has it, and an object at its top."""

Array = NDArray[Any]
_DTYPES = frozenset({"<f2", "<f4", "<f8", "<i8", "<i4", "|i1", "|u1"})
_MAX_JSON_BYTES = 4 * 2**20
_MAX_AXES, _LARGEST = 8, 2**62
_CHUNK = 2**22


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: the value holds a NaN or an infinity.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def sha256_text(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(data: Mapping[str, Any]) -> str:
    """SHA-256 of an object's canonical JSON without its own ``digest``, hexadecimal.

    Raises:
        ValueError: the object holds a NaN or an infinity.
    """
    rest = {name: value for name, value in data.items() if name != "digest"}
    return sha256_text(canonical_json(rest))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return _sha256(file)


def sha256_plain(path: Path) -> str:
    """SHA-256 of a file of our own making, hexadecimal.

    Raises:
        StreamError: it is not a plain file that can be read.
    """
    with open_plain(path) as file:
        return _sha256(file)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_CHUNK):
        digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """A file of our own making, opened for reading.

    It is neither a link nor a pipe or device, which could block for ever.

    Raises:
        StreamError: missing, no plain file, or it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)

        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StreamError(f"{path}: not a plain file; restore it or delete its folder")
            with open(fd, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise StreamError(f"{path}: missing; restore it or delete its folder") from None
    except OSError as error:
        raise StreamError(
            f"{path}: cannot be read: {error.strerror}; expected a plain file"
        ) from None


def sha256_arrays(*arrays: Array) -> str:
    """SHA-256 over dtype, shape and bytes of several arrays in order, hexadecimal."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def tree_bytes(folder: Path) -> int:
    """Bytes of all plain files in a folder and below; links are not followed."""
    if folder.is_symlink():
        return 0

    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # removed meanwhile, or not ours to look at
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                total += status.st_size
    return total


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
            f"{path}: cannot {action}: {reason}; check the path, its permissions and the free disk "
            "space"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    write_file(path, lambda file: file.write(data))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write canonical JSON with a final newline, whole or not at all."""
    write_text(path, canonical_json(value) + "\n")


def write_sealed(path: Path, data: Mapping[str, Any]) -> None:
    """Write an object as ``write_json`` does, with its own digest, for ``read_sealed``."""
    write_json(path, {**data, "digest": digest_of(data)})


def read_sealed(path: Path, remedy: str) -> tuple[dict[str, Any], bool]:
    """The object that ``write_sealed`` wrote, and whether it had a digest.

    Args:
        path: the file.
        remedy: end of a message, what to do about a damaged one.

    Raises:
        StreamError: it is not what was written.
    """
    try:
        data = read_json(path)
        digest = digest_of(data)
    except (StreamError, ValueError, AttributeError, RecursionError) as error:
        # what reads JSON names the file too, and has advice of its own
        why = str(error).removeprefix(f"{path}: ").partition("; ")[0]
        raise StreamError(f"{path}: damaged ({why[:200]}); {remedy}") from None

    if "digest" not in data:
        return data, False
    if data.pop("digest") != digest:
        raise StreamError(f"{path}: its content does not have the digest that it says; {remedy}")
    return data, True


def warn_of_undigested(path: Path) -> None:
    """Warn that a file is of before digests."""
    warnings.warn(
        f"a file of {path.parent.name}/ that was made before those carried digests is read "
        "unchecked; the command that made it adds the digest",
        UndigestedWarning,
        stacklevel=2,
    )


def write_array(path: Path, array: Array) -> str:
    """Write a ``.npy`` file whole or not at all and return its SHA-256."""
    array = np.asarray(array, order="C")
    header = npy_header(array.dtype.str, array.shape)
    body = array.reshape(-1).view(np.uint8).data

    def write(file: Any) -> None:
        file.write(header)
        file.write(body)

    write_file(path, write)
    return _sha256_npy(header, body)


def sha256_array(array: Array) -> str:
    """SHA-256 of the ``.npy`` file that ``write_array`` would write."""
    array = np.asarray(array, order="C")
    body = array.reshape(-1).view(np.uint8).data
    return _sha256_npy(npy_header(array.dtype.str, array.shape), body)


def _sha256_npy(header: bytes, body: memoryview) -> str:
    digest = hashlib.sha256(header)
    digest.update(body)
    return digest.hexdigest()


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of a ``.npy`` file of format 1.0, as numpy 2 writes it.

    Nothing else is ever parsed or accepted. numpy leaves room for the first axis to grow to 20
    digits and pads with spaces so that the data start at a multiple of 64 bytes.
    """
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    if shape:
        text += " " * (21 - len(str(shape[0])))

    # 10 bytes stand before the text, and a newline ends it
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def write_file(path: Path, write: Callable[[Any], object]) -> None:
    """Write a file whole or not at all; ``write`` is given it, open for bytes."""
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

        sync_dir(path.parent)  # so that the new name survives a power cut too


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left half written in a folder and below.

    Only for the one process that writes there.
    """
    with environment("clean", folder):
        for path in folder.rglob(".*.tmp"):
            path.unlink(missing_ok=True)


def remove_temporaries_of(path: Path) -> None:
    """Delete what killed writers left of one file; what a living process writes stays."""
    beginning, end = f".{path.name}.", ".tmp"
    with environment("clean", path.parent):
        entries = path.parent.iterdir() if path.parent.is_dir() else ()
        for entry in list(entries):
            if not (entry.name.startswith(beginning) and entry.name.endswith(end)):
                continue
            if is_left_by(entry.name.removeprefix(beginning).removesuffix(end)):
                entry.unlink(missing_ok=True)


def is_left_by(process: str) -> bool:
    """Whether a temporary named after a process is nobody's any more.

    It is where no process of this number runs here, or ours has it now. What is no number names no
    process, and stays.
    """
    if process == str(os.getpid()):
        return True
    if not (process.isascii() and process.isdigit()):
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # it runs, and is another user's
        return False
    return False


def make_dir(path: Path) -> Path:
    """Create a directory and its parents.

    Raises:
        EnvironmentProblem: it cannot be created or written.
    """
    with environment("create the directory", path):
        _make_parents(path)
        if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(13, "not writable")
    return path


def _make_parents(path: Path) -> None:
    """Make a directory and its parents; their names survive a power cut as what lies there does."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(PermissionError):  # a parent that may be entered and not listed
            sync_dir(folder.parent)


def seal_dir(building: Path, final: Path) -> None:
    """Rename a finished directory to its final name.

    One that is there already stays, and the new one is dropped.
    """
    with environment("seal", final):
        sync_dir(building)
        _make_parents(final.parent)
        if final.exists():
            shutil.rmtree(building)
        else:
            os.rename(building, final)
        sync_dir(final.parent)


def exchange(a: Path, b: Path) -> bool:
    """Give two folders each other's name at one instant.

    Returns:
        Whether they have; false where system or file system does not know how.
    """
    libc = ctypes.CDLL(None)
    names = os.fsencode(a), os.fsencode(b)
    if hasattr(libc, "renameat2"):  # Linux
        here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        return bool(libc.renameat2(here, names[0], here, names[1], both) == 0)
    if hasattr(libc, "renamex_np"):  # macOS
        return bool(libc.renamex_np(*names, 2) == 0)  # RENAME_SWAP
    return False


def read_json(path: Path) -> Any:
    """Read a JSON file of our own making.

    Raises:
        StreamError: missing, no plain file, too large, not JSON, or a key appears twice.
    """
    with open_plain(path) as file:
        data = file.read(_MAX_JSON_BYTES + 1)
    if len(data) > _MAX_JSON_BYTES:
        raise StreamError(
            f"{path}: larger than {_MAX_JSON_BYTES} bytes, so not written by this tool"
        )

    try:
        value = json.loads(
            data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates
        )
        if rb"\u" in data:
            # Half a surrogate pair is JSON, but can be printed and written nowhere.
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise StreamError(
            f"{path}: not valid JSON ({error}); restore the file or delete its folder"
        ) from None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key appears twice")
    return mapping


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def map_array(path: Path, *, dtype: str, shape: tuple[int, ...]) -> Array:
    """Map a ``.npy`` file read-only, if its header and size are those of the expected array.

    Headers are compared byte for byte.

    Raises:
        StreamError: missing, no plain file, of another dtype or shape, truncated or extended.
    """
    if dtype not in _DTYPES:
        raise StreamError(f"{path}: dtype {dtype!r} is not allowed in a stream")

    itemsize = np.dtype(dtype).itemsize
    is_negative = min(shape, default=0) < 0
    is_too_long = max(shape, default=0) * itemsize > _LARGEST
    if len(shape) > _MAX_AXES or is_negative or is_too_long:
        raise StreamError(
            f"{path}: no array has the shape {str(shape)[:60]}; delete its folder to rebuild it"
        )

    header = npy_header(dtype, shape)
    count = math.prod(shape)
    expected_size = len(header) + itemsize * count
    with open_plain(path) as file:
        actual_header = file.read(len(header))
        size = os.fstat(file.fileno()).st_size
    if actual_header != header or size != expected_size:
        raise StreamError(
            f"{path}: found {size} bytes and the header {actual_header[10:].rstrip()!r}, expected "
            f"{expected_size} bytes of {dtype}{shape}; the file is corrupt, delete its folder to "
            "rebuild"
        )

    if count == 0:  # an empty file body cannot be mapped
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=len(header), shape=shape)


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[int]:
    """Hold an exclusive lock that the operating system drops when the holder dies.

    It gives the file's descriptor, which can be read and written.

    Args:
        path: the lock file; it is left in place.
        wait: wait for another holder, or fail at once.

    Raises:
        EnvironmentProblem: another process holds it and ``wait`` is false, or the file cannot be
            made.
    """
    while True:
        with environment("lock", path):
            _make_parents(path.parent)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)

        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise EnvironmentProblem(
                    f"{path.parent}: another process is working here; wait for it or stop it first"
                ) from None
            except OSError as error:
                raise EnvironmentProblem(
                    f"{path}: cannot be locked: {error.strerror or error}; the file system has no "
                    "locks: choose a folder on a local disk, with --out for studies and GPED_CACHE "
                    "for streams"
                ) from None

            # a file that was removed while we waited locks nothing: try again with the new one
            if _is_still_there(fd, path):
                yield fd
                return
        finally:
            os.close(fd)


def _is_still_there(fd: int, path: Path) -> bool:
    """Whether the locked file is the one of that name: its folder may have been removed."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a process holds ``lock(path)``; the file is neither made nor followed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks here: nobody holds one
        return False
    finally:
        os.close(fd)
    return False
