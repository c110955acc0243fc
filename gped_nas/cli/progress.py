"""What is told on stderr: a bar on a terminal, a line now and then elsewhere, and remarks."""

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Literal, TextIO

from gped_nas.cli.streams import tell
from gped_nas.errors import EnvironmentWarning, MovedWarning, UndigestedWarning
from gped_nas.spelling import SpellingWarning

LINE_SECONDS = 10.0
_IN_OUR_STYLE = (SpellingWarning, UndigestedWarning, EnvironmentWarning, MovedWarning)

Loudness = Literal["quiet", "normal", "verbose"]
Report = Callable[[str, int, int], None]
"""``report(what, done, total)``: how far a stage is."""

loudness: ContextVar[Loudness] = ContextVar("loudness", default="normal")
"""How much the running command tells: ``--quiet``, ``--verbose`` or neither."""


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """A ``report(what, done, total)`` that draws itself while the block runs."""
    if loudness.get() == "quiet":
        yield lambda what, done, total: None
    elif loudness.get() == "verbose":
        yield _stages()
    elif sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _lines()


@contextlib.contextmanager
def _bars() -> Iterator[Report]:
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


def _lines() -> Report:
    """A line whenever a stage has gone on for ``LINE_SECONDS`` since its last one."""
    last: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done <= 1 or what not in last:
            last[what] = now

        if now - last[what] >= LINE_SECONDS:
            last[what] = now
            say(f"{what}: {done} of {total}")

    return report


def _stages() -> Report:
    """As ``_lines``, and a line with the time when a stage ends."""
    lines, began = _lines(), dict[str, float]()

    def report(what: str, done: int, total: int) -> None:
        began.setdefault(what, time.monotonic())
        lines(what, done, total)

        if done >= total:
            say(f"{what}: all {total} in {time.monotonic() - began.pop(what):.2f} s")

    return report


def say(message: str) -> None:
    """One line of log on stderr, unless the command is quiet."""
    if loudness.get() != "quiet":
        tell(message)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Old names of settings and old files are told of in the command's own style meanwhile."""
    seen: set[str] = set()

    with warnings.catch_warnings():
        show_as_python = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, _IN_OUR_STYLE):
                show_as_python(message, category, filename, lineno, file, line)
            elif str(message) not in seen:
                # Python forgets what it has shown whenever a filter changes.
                seen.add(str(message))
                say(f"gped-search: warning: {message}")

        warnings.showwarning = show
        yield
