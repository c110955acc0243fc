"""Stdin, stdout and stderr as nobody can break them: closed, narrow in letters, or left.

A program may be started without them (``2>&-``, a daemon), with an encoding that lacks a letter, or
lose whoever listens. What is not heard is no reason to lose work.
"""

import contextlib
import io
import os
import sys

_LONGEST = 2000
"""Characters of a message; the rest is left out of its middle."""


def mend_streams() -> None:
    """Give every standard stream a place, and each letter that an encoding lacks a replacement."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # It gets the lowest descriptor that is free, so its own. Left free, the next file would
            # get it, here or in a child, and what a library writes to "stderr" would land there.
            nothing = open(os.devnull, "w" if descriptor else "r")  # noqa: SIM115
            os.set_inheritable(nothing.fileno(), True)
            setattr(sys, name, nothing)

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def tell(message: str) -> None:
    """One message on stderr, if anybody listens; see ``_printable``."""
    write_line(_printable(message))


def write_line(text: str) -> None:
    """A line on stderr as it is, if anybody listens."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        silence(2)


def _printable(message: str) -> str:
    """A message that fits a screen, with escapes for what a terminal would obey or cannot show.

    It may quote names and values of any length and content.
    """
    if len(message) > _LONGEST:
        num_kept = _LONGEST // 2
        num_left_out = len(message) - 2 * num_kept
        middle = f" ... ({num_left_out:,} characters left out) ... "
        message = message[:num_kept] + middle + message[-num_kept:]
    return "".join(_escape(character) for character in message)


def _escape(character: str) -> str:
    is_shown = character.isprintable() or character.isspace()
    is_obeyed = character in "\r\v\f\x1c\x1d\x1e\x1f\x85"
    if is_shown and not is_obeyed:
        return character
    return character.encode("unicode_escape").decode()


def tell_at_once(message: str) -> None:
    """As ``tell``, past all buffers: for what is said inside a signal handler."""
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), message.encode(errors="replace"))


def silence(descriptor: int) -> None:
    """Send what a stream still holds, and will be given, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
