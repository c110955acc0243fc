"""How far a run is: told to its session, and to other processes through the lock that it holds.

The text of the study folder's lock file is a JSON object, ``Standing``, written over in place. It
read without care for half a write: who cannot read it says less. The operating system drops the
lock of a process that is killed and leaves the text, so a text without a holder is of a run that
ended before its time. A run that comes to its end clears it. Where the study lies in a database
outside the folder, the database has the text too, written every ten seconds, for other machines.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

LOCK = "lock"
DATA, TEACHER, PREDICTIONS, STUDENTS, REFERENCES = PHASES = (
    "data",
    "teacher",
    "predictions",
    "students",
    "references",
)
"""The phases of a run, in order; the report is written at the end of the last one."""
STUDY = "study.json"
_UNITS = {TEACHER: "posterior samples", STUDENTS: "trials"}
_WRITE_S = 1.0
_SHARE_S = 10.0
_LONGEST = 4096
"""Bytes of the text that are read."""


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Attributes:
        study: its name.
        phase: one of ``PHASES``.
        done, total: of the phase: posterior samples, predicted samples, trials, or what else there
            is to count; a total of 0 is not known yet.
        first: ``done`` when the phase began.
        entered: when the phase began, seconds since the epoch.
        updated: when this was written, likewise.
        states: number of trials by their state.
        num_finished: how many of them count: neither repeats nor a student in other storage types.
        workers: how many populations are trained at the same time.
        idle_share: the share of their time for which workers had nothing to do; None where this
            process trains.
    """

    study: str
    phase: str = DATA
    done: float = 0.0
    total: int = 0
    first: float = 0.0
    entered: float = 0.0
    updated: float = 0.0
    states: dict[str, int] = field(default_factory=dict)
    num_finished: int = 0
    workers: int = 1
    idle_share: float | None = None

    @property
    def number(self) -> int:
        """The number of the phase, from 1."""
        return PHASES.index(self.phase) + 1

    @property
    def words(self) -> str:
        """How far the phase is: ``12 of 48 trials``; empty where nothing is counted."""
        if not self.total:
            return ""
        return f"{int(self.done)} of {self.total} {_UNITS.get(self.phase, '')}".rstrip()

    @property
    def place(self) -> str:
        """``students, 4 of 5``."""
        return f"{self.phase}, {self.number} of {len(PHASES)}"

    @property
    def per_second(self) -> float | None:
        """How many a second were done in this phase; None before there is a first one."""
        seconds, num = self.updated - self.entered, self.done - self.first
        return num / seconds if num > 0 and seconds > 0 else None

    @property
    def end(self) -> float | None:
        """When the phase will have ended at this rate, seconds since the epoch; None if unknown."""
        rate = self.per_second
        return None if rate is None else self.updated + (self.total - self.done) / rate


def find_folder(study: str, out: Path) -> Path:
    """The folder of a study by its name or folder, whether or not it is there."""
    folder = Path(study)
    return folder if (folder / LOCK).is_file() or (folder / STUDY).is_file() else out / study


def parse_standing(data: Any) -> Standing | None:
    """A standing from plain data; None where it is of another version, or none at all."""
    try:
        standing = Standing(**data)
        assert standing.phase in PHASES
    except (TypeError, AssertionError):
        return None
    return standing


def read_standing(folder: Path) -> tuple[Standing | None, bool]:
    """What the last run in a study's folder wrote, and whether a run is at work there.

    None where it wrote nothing, came to its end, or cannot be read.
    """
    from gped_nas.io import is_locked

    path = folder / LOCK
    is_held = is_locked(path)
    try:
        with open(path, "rb") as file:
            data = json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return None, is_held
    return parse_standing(data), is_held


class Follower:
    """Follows one run through its phases.

    Args:
        study: its name.
        file: descriptor of the lock file, which is held.
        told: called with every standing.
    """

    def __init__(self, study: str, file: int, told: Callable[[Standing], None]) -> None:
        self.now = Standing(study)
        self._file = file
        self._told = told
        self._written = 0.0
        self._num_bytes = 0
        self._at_once = 0
        self._share: Callable[[dict[str, Any] | None], None] | None = None
        self._shared = 0.0
        self.clear()

    def share(self, write: Callable[[dict[str, Any] | None], None]) -> None:
        """Hand it on from now to those who do not see the folder: plain data, None at the end."""
        self._share = write
        self._share_soon()

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self._tell(self._begin(phase), writes=True)

    def _begin(self, phase: str) -> Standing:
        now = time.time()
        begun = replace(self.now, phase=phase, done=0.0, total=0, first=0.0)
        return replace(begun, entered=now, updated=now)

    def enter_students(
        self, states: Mapping[Any, int], finished: int, total: int, at_once: int
    ) -> None:
        """Begin the phase of students.

        Args:
            states: number of trials by their state.
            finished: how many of them count.
            total: finished trials wanted.
            at_once: students that are trained together.
        """
        self._at_once = at_once
        begun = self._begin(STUDENTS)
        counted = replace(begun, done=finished, first=finished, num_finished=finished)
        counted = replace(counted, total=total, states=dict(states))
        self._tell(counted, writes=True)

    def beside(self, progress: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
        """``progress``, which this hears too."""

        def both(what: str, done: int, total: int) -> None:
            self.hear(what, done, total)
            progress(what, done, total)

        return both

    def hear(self, what: str, done: int, total: int) -> None:
        """What a session's ``progress`` is told; it is written down once a second at most."""
        if self.now.phase in (TEACHER, PREDICTIONS):
            self._advance(done, total)
        elif self.now.phase == STUDENTS and total:
            # students are trained together: a share of their steps is the same share of each
            finished = self.now.num_finished
            num = min(self._at_once, self.now.total - finished)
            self._advance(finished + num * done / total, self.now.total)

    def note_workers(self, num: int, idle_share: float | None) -> None:
        """So many workers train, which had nothing to do for this share of their time."""
        self.now = replace(self.now, workers=num, idle_share=idle_share)

    def end_trial(self, state: str, finished: int) -> None:
        """A trial ended; so many are finished."""
        states = {**self.now.states, state: self.now.states.get(state, 0) + 1}
        now = replace(self.now, done=finished, num_finished=finished, states=states)
        now = replace(now, updated=time.time())
        self._tell(now, writes=True)

    def clear(self) -> None:
        """The run begins, or came to its end: nothing is left to say."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
        self._num_bytes = 0
        if self._share is not None:
            self._share(None)

    def _advance(self, done: float, total: int) -> None:
        now = time.time()
        is_new = total != self.now.total or done < self.now.done
        if is_new and self.now.total:  # the next view, or the samples of another method
            self.now = replace(self.now, entered=now)
        first = done if is_new else self.now.first
        standing = replace(self.now, done=done, total=total, first=first, updated=now)
        self._tell(standing, writes=time.monotonic() - self._written >= _WRITE_S)

    def _tell(self, standing: Standing, *, writes: bool) -> None:
        if standing.phase != self.now.phase:
            self._shared = 0.0  # a new phase is told at once
        self.now = standing
        self._told(standing)
        if writes:
            self._write()
            self._share_soon()

    def _write(self) -> None:
        """Write it down, as long as the longest so far: no end of an older one is ever left."""
        self._written = time.monotonic()
        text = json.dumps(asdict(self.now)).encode()
        self._num_bytes = max(self._num_bytes, len(text))
        # A full disk: the run goes on without telling.
        with contextlib.suppress(OSError):
            os.pwrite(self._file, text.ljust(self._num_bytes), 0)

    def _share_soon(self) -> None:
        """Hand it on, unless that was done a moment ago."""
        if self._share is None or time.monotonic() - self._shared < _SHARE_S:
            return
        self._shared = time.monotonic()
        self._share(asdict(self.now))
