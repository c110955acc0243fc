"""Stdin, stdout and stderr as nobody can break them: closed, narrow in letters, or left.

A program may be started without them (``2>&-``, a daemon), with an encoding that lacks a letter, or
lose whoever listens. What is not heard is no reason to lose work.
"""

import contextlib
import io
import os
import sys


def mend_streams() -> None:
    """Give every standard stream a place, and each letter that an encoding lacks a replacement."""
    _occupy()
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _occupy() -> None:
    """Open what is closed of the descriptors 0, 1 and 2.

    The next file that is opened would get one of them, and what a library writes to "stderr" would
    land in it.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def tell(message: str) -> None:
    """One line on stderr, if anybody listens."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        silence(2)


def tell_at_once(message: str) -> None:
    """As ``tell``, past all buffers: for what is said inside a signal handler."""
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), message.encode(errors="replace"))


def silence(descriptor: int) -> None:
    """Send what a stream still holds, and will be given, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
