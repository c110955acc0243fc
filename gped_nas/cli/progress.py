"""What is told on stderr: a bar on a terminal, a line now and then elsewhere, and remarks."""

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from gped_nas.api.standing import PHASES, Standing
from gped_nas.cli.logs import is_json, log
from gped_nas.errors import AttackWarning, EnvironmentWarning, MovedWarning, UndigestedWarning
from gped_nas.spelling import SpellingWarning

LINE_SECONDS = 10.0
_IN_OUR_STYLE = (
    SpellingWarning,
    UndigestedWarning,
    EnvironmentWarning,
    MovedWarning,
    AttackWarning,
)

Loudness = Literal["quiet", "normal", "verbose"]
Report = Callable[[str, int, int], None]
"""``report(what, done, total)``: how far a stage is."""

loudness: ContextVar[Loudness] = ContextVar("loudness", default="normal")
"""How much the running command tells: ``--quiet``, ``--verbose`` or neither."""


@dataclass(frozen=True)
class Teller:
    """Tells how far a job is.

    Attributes:
        report: told how far a stage is.
        follow: told how far a whole run is.
    """

    report: Report
    follow: Callable[[Standing], None]


@contextlib.contextmanager
def progress(run: str = "") -> Iterator[Teller]:
    """A teller that draws itself while the block runs.

    Args:
        run: the name of a run, which is drawn from the first moment.
    """
    if loudness.get() == "quiet":
        yield Teller(lambda what, done, total: None, lambda standing: None)
    elif loudness.get() == "verbose":
        yield Teller(_stages(), _phases())
    elif sys.stderr.isatty() and not is_json():
        from gped_nas.api.bars import bars

        with bars(run) as drawn:
            yield Teller(drawn.report, drawn.follow)
    else:
        yield Teller(_lines(), _phases())


def _lines() -> Report:
    """A line whenever a stage has gone on for ``LINE_SECONDS`` since its last one."""
    last: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done <= 1 or what not in last:
            last[what] = now

        if now - last[what] >= LINE_SECONDS:
            last[what] = now
            say(f"{what}: {done} of {total}", "progress", what=what, done=done, total=total)

    return report


def _phases() -> Callable[[Standing], None]:
    """A line whenever a run enters a phase."""
    entered: list[str] = []

    def follow(standing: Standing) -> None:
        if standing.phase not in entered:
            entered.append(standing.phase)
            place = {"number": standing.number, "total": len(PHASES)}
            text = f"phase {standing.number} of {len(PHASES)}: {standing.phase}"
            say(text, "phase", study=standing.study, phase=standing.phase, **place)

    return follow


def _stages() -> Report:
    """As ``_lines``, and a line with the time when a stage ends."""
    lines, began = _lines(), dict[str, float]()

    def report(what: str, done: int, total: int) -> None:
        began.setdefault(what, time.monotonic())
        lines(what, done, total)

        if done >= total:
            seconds = round(time.monotonic() - began.pop(what), 3)
            text = f"{what}: all {total} in {seconds:.2f} s"
            say(text, "stage", what=what, total=total, seconds=seconds)

    return report


def say(message: str, event: str = "message", **fields: Any) -> None:
    """One line of log on stderr, unless the command is quiet; see ``cli.logs``."""
    if loudness.get() != "quiet":
        log(event, message, **fields)


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
            if not issubclass(category, _IN_OUR_STYLE) and not is_json():
                show_as_python(message, category, filename, lineno, file, line)
            elif str(message) not in seen:
                # Python forgets what it has shown whenever a filter changes.
                seen.add(str(message))
                text = f"gped-search: warning: {message}"
                say(text, "warning", category=category.__name__)

        warnings.showwarning = show
        yield
