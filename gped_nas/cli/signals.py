"""Ctrl-C and SIGTERM: the first finishes the step and records, the second stops now."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from gped_nas.errors import Interrupted


@contextlib.contextmanager
def stoppable(how_to_go_on: str) -> Iterator[Callable[[], bool]]:
    """A ``should_stop`` that turns true at the first SIGINT or SIGTERM.

    Args:
        how_to_go_on: the command that resumes, told when the job ends early.

    Raises:
        Interrupted: the job ended early; exit code 130 for SIGINT, 143 for SIGTERM.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if received:
            os.write(sys.stderr.fileno(), f"\n{name} again: stopping now\n".encode())
            os._exit(128 + number)
        received.append(number)
        os.write(
            sys.stderr.fileno(),
            f"\n{name}: finishing the current step; once more to stop now\n".encode(),
        )

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    except Interrupted as error:
        number = received[0] if received else signal.SIGINT
        raise Interrupted(
            f"{error}\nnothing finished is lost; go on with: {how_to_go_on}", 128 + number
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
