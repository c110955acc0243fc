"""A folder that cannot be written, for root too."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# linux/capability.h
_VERSION_3 = 0x20080522
_OVERRIDE_PERMISSIONS = 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the permission to write from a folder and all in it.

    Root loses the power to write all the same.
    """
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & ~0o222)

    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()
    _call(libc.capget, header, before)

    # The first word is the effective set, of this thread alone.
    without_override = (ctypes.c_uint32 * 6)(*before)
    without_override[0] &= ~_OVERRIDE_PERMISSIONS
    _call(libc.capset, header, without_override)
    try:
        yield
    finally:
        _call(libc.capset, header, before)
        for path, mode in modes.items():
            path.chmod(mode)


def _call(function: "ctypes._NamedFuncPointer", *args: object) -> None:
    if function(*args):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
