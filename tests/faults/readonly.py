"""A folder that cannot be written, for root too."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_VERSION_3, _OVERRIDE_PERMISSIONS = (
    0x20080522,
    0b110,
)  # linux/capability.h: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the permission to write from a folder and all in it, and from root the power to write
    all the same.
    """
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & ~0o222)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    before, less = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.capget, header, before)
    less[:] = before[:]
    less[0] &= ~_OVERRIDE_PERMISSIONS  # the first word is the effective set, of this thread alone
    _call(libc.capset, header, less)
    try:
        yield
    finally:
        _call(libc.capset, header, before)
        for path, mode in modes.items():
            path.chmod(mode)


def _call(function: "ctypes._NamedFuncPointer", *args: object) -> None:
    if function(*args):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
