"""Ctrl-C, SIGTERM and SIGHUP: the first finishes the step and records, the second stops now."""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from gped_nas.cli.logs import log_at_once
from gped_nas.errors import Interrupted

_IMPORTER = "<frozen importlib._bootstrap>"
_STORAGE = "$GPED_STORAGE"
"""What stands for a storage URL in a command that is told."""


@contextlib.contextmanager
def end_imports_at_once() -> Iterator[None]:
    """Ctrl-C during an import ends the process; elsewhere it is Python's ``KeyboardInterrupt``.

    Some libraries swallow it while they are imported, and go on with a half of themselves. At that
    time there is nothing to save.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            text = "gped-search: interrupted; run the same command again"
            log_at_once("error", text, exit_code=128 + number)
            os._exit(128 + number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTER:
            return True
        frame = frame.f_back
    return False


def as_given() -> str:
    """The command that is running, to be given again.

    A storage URL may hold a password and is left to the environment.
    """
    words: list[str] = []
    for given in sys.argv[1:]:
        option, mark, _ = given.partition("=")
        if words[-1:] == ["--storage"]:
            words.append(_STORAGE)
        elif option == "--storage" and mark:
            words += [option, _STORAGE]
        else:
            words.append(shlex.quote(given))
    return " ".join(["gped-search", *words])


@contextlib.contextmanager
def stoppable(how_to_go_on: str = "") -> Iterator[Callable[[], bool]]:
    """A ``should_stop`` that turns true at the first SIGINT, SIGTERM or SIGHUP.

    SIGHUP is left ignored where it was so from the start: that is what ``nohup`` asks for.

    Args:
        how_to_go_on: the command that resumes, told when the job ends early; the one that is
            running by default.

    Raises:
        Interrupted: the job ended early; exit code 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if received:
            log_at_once("signal", f"\n{name} again: stopping now", signal=name)
            os._exit(128 + number)
        received.append(number)
        text = f"\n{name}: finishing the current step; once more to stop now"
        log_at_once("signal", text, signal=name)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: bool(received)
    except Interrupted as error:
        number = received[0] if received else signal.SIGINT
        raise Interrupted(
            f"{error}\nnothing finished is lost; go on with: {how_to_go_on or as_given()}",
            128 + number,
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
