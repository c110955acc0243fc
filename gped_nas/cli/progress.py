"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_SECONDS = 10.0


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A ``progress(what, done, total)`` that draws itself while the block runs."""
    if sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _lines()


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def _lines() -> Callable[[str, int, int], None]:
    last: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done <= 1 or what not in last:
            last[what] = now
        if now - last[what] >= LINE_SECONDS:
            last[what] = now
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

    return report


def say(message: str) -> None:
    """One line of log on stderr."""
    print(message, file=sys.stderr, flush=True)
