"""Bars on a terminal or in a notebook: one over the whole run, one for its phase, others below."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from gped_nas.api.standing import PHASES, Standing

_HIDDEN = ("teacher", "predictions")
"""Stages that are phases of a run, too."""
_NAMES = {"students": "training steps"}
"""What a stage is called where the phase is called so."""
_WIDTH_S = 44
"""Columns that are left to words and numbers."""


class Bars:
    """Draws itself anew as it is told how far a run is.

    Args:
        progress: rich's, which is running.
    """

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._whole: Any = None
        self._phase: Any = None
        self._standing: Standing | None = None
        self._stages: dict[str, Any] = {}

    def report(self, what: str, done: int, total: int) -> None:
        """How far a stage is, see ``Session.progress``."""
        is_shown = self._standing is None or not what.startswith(_HIDDEN)
        if not is_shown:
            return
        name = _NAMES.get(what, what) if self._standing else what
        if name not in self._stages:
            self._stages[name] = self._progress.add_task(name, total=total, says="")
        self._progress.update(
            self._stages[name], completed=done, total=total, says=f"{done} of {total}"
        )

    def follow(self, standing: Standing) -> None:
        """How far the whole is, see ``Session.follow``."""
        if self._standing is None:
            num = len(PHASES)
            self._whole = self._progress.add_task(standing.study, total=num, says="")
            self._phase = self._progress.add_task(standing.phase, total=None, says="")
        elif self._standing.phase != standing.phase:
            for task in (self._phase, *self._stages.values()):
                self._progress.remove_task(task)
            self._stages.clear()
            # rich takes no total back from a task
            self._phase = self._progress.add_task(standing.phase, total=None, says="")

        self._standing = standing
        share = standing.done / standing.total if standing.total else 0.0
        self._progress.update(
            self._whole,
            completed=standing.number - 1 + share,
            says=f"{standing.number} of {len(PHASES)}",
        )
        self._progress.update(
            self._phase,
            description=standing.phase,
            completed=standing.done,
            total=standing.total or None,
            says=_says(standing),
        )


def _says(standing: Standing) -> str:
    if not standing.total:
        return ""
    text = f"{int(standing.done)} of {standing.total}"
    end = standing.end
    if end is None or standing.done >= standing.total:
        return text
    return f"{text}, {short_time(max(0.0, end - time.time()))} left"


def short_time(seconds: float) -> str:
    """A span of time in one unit: ``12 s``, ``3 min``, ``1.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def bars(run: str = "") -> Iterator[Bars]:
    """Bars on stderr while the block runs, or in the notebook's cell; gone after it.

    Args:
        run: the name of a run, which is drawn from the first moment.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console(stderr=not is_notebook())
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=24)),
        BarColumn(bar_width=max(6, min(30, console.width - _WIDTH_S))),
        TextColumn("{task.fields[says]}", table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        drawn = Bars(progress)
        if run:
            drawn.follow(Standing(run))
        yield drawn


def is_watched() -> bool:
    """Whether somebody looks at what is drawn: a terminal, or a notebook."""
    return sys.stderr.isatty() or is_notebook()


def is_notebook() -> bool:
    """Whether this is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"
