"""An engine of several workers, any of which may die, hang or have too little memory.

A population goes to whoever is idle. What a worker that died had in hand is trained again, whole,
so that its students become what they would have become. A population that costs a second worker its
life, or that does not fit into a worker's memory, is halved; one student that does so alone fails.
The asker holds the claims and knows of none of this: each trial ends once.

A worker that cannot work, for its disk is full or its stream is another one, is left out with a
warning while others go on.
"""

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gped_nas.api.engines.crew import Crew, Died, Message, Progress, Raised, Ready, Records
from gped_nas.api.engines.idleness import Idleness
from gped_nas.errors import (
    DataError,
    EnvironmentProblem,
    EnvironmentWarning,
    Interrupted,
    StreamError,
)
from gped_nas.search.engine import Trained
from gped_nas.search.ledger import Claim
from gped_nas.search.planning import failed
from gped_nas.search.record import TrialRecord

POLL_S = 0.1
_RESTARTS = 5
"""A worker that died so often without having trained anything is left out."""
_LEAVES_OUT = (EnvironmentProblem, DataError, StreamError, OSError)
"""What one worker may lack and another one have: room on its disk, the data, a driver, a stream."""


@dataclass(eq=False)
class Task:
    """Students that one worker trains together.

    Attributes:
        claims: their trials.
        deaths: workers that died with these students in hand.
    """

    claims: tuple[Claim, ...]
    deaths: int = 0


@dataclass(eq=False)
class _Place:
    """One place of the crew.

    Attributes:
        state: ``starting``, ``idle``, ``busy`` or ``out``.
        name: for people.
        task: what it trains.
        began: when it was given that, by ``time.monotonic``.
        starts: how often it was started since it last trained anything.
    """

    state: str = "starting"
    name: str = ""
    task: Task | None = None
    began: float = 0.0
    starts: int = 1


@dataclass(eq=False)
class _Population:
    """A population on its way: records are put together as its tasks end."""

    claims: tuple[Claim, ...]
    records: dict[int, TrialRecord] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        return len(self.records) == len(self.claims)


class Pool:
    """Trains populations on a crew of workers; see ``search.engine.Engine``.

    Args:
        crew: the workers; they are started with the first population.
        limit_s: seconds a student may take; None for no limit.
        progress: told how far the population is, where there is one worker.
        alive: called all along while it is waited.
        should_stop: asked all along.
    """

    def __init__(
        self,
        crew: Crew,
        *,
        limit_s: float | None = None,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
        alive: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._crew, self._limit_s, self._progress = crew, limit_s, progress
        self._alive, self._should_stop = alive, should_stop
        self._places = [_Place() for _ in range(crew.num_workers)]
        self._tasks: deque[Task] = deque()
        self._populations: list[_Population] = []
        self._idleness = Idleness(crew.num_workers)
        self._is_started = False

    @property
    def num_workers(self) -> int:
        """See ``Engine``."""
        return sum(place.state != "out" for place in self._places)

    @property
    def idle_share(self) -> float | None:
        """See ``Engine``."""
        return self._idleness.share

    @property
    def has_room(self) -> bool:
        """See ``Engine``; a worker that is still starting has room too."""
        num_free = sum(place.state in ("starting", "idle") for place in self._places)
        return len(self._tasks) < num_free

    def submit(self, claims: Sequence[Claim]) -> None:
        """See ``Engine``."""
        if not self._is_started:
            self._is_started = True
            for worker in range(self._crew.num_workers):
                self._crew.start(worker)
        self._populations.append(_Population(tuple(claims)))
        self._tasks.append(Task(tuple(claims)))
        self._hand_out()

    def wait(self) -> Trained:
        """See ``Engine``.

        Raises:
            Interrupted: the session said stop.
            EnvironmentProblem, DataError: no worker is left that can work.
            GpedError: whatever training raised.
        """
        while True:
            for population in self._populations:
                if population.is_finished:
                    self._populations.remove(population)
                    records = [population.records[claim.number] for claim in population.claims]
                    return Trained(population.claims, tuple(records))

            self._alive()
            if self._should_stop():
                self.close()
                raise Interrupted("stopped while distilling; run the same command again to go on")
            for worker, message in self._crew.messages(POLL_S):
                self._hear(worker, message)
            self._end_late()
            self._hand_out()

    def close(self) -> None:
        """End all workers."""
        for worker, place in enumerate(self._places):
            if place.state != "out":
                self._crew.end(worker)
                self._idleness.leave(worker)
                place.state = "out"

    # -- what workers say

    def _hear(self, worker: int, message: Message) -> None:
        place = self._places[worker]
        if isinstance(message, Ready):
            place.state, place.name = "idle", message.place
            for note in message.notes:
                warnings.warn(f"{message.place}: {note}", EnvironmentWarning, stacklevel=2)
            self._idleness.rest(worker)
        elif isinstance(message, Progress):
            if len(self._places) == 1:
                self._progress(message.what, message.done, message.total)
        elif isinstance(message, Records):
            place.starts = 0
            self._free(worker, message.seconds)
            self._take(message.records)
        elif isinstance(message, Raised):
            self._hear_error(worker, message.error)
        else:
            self._hear_death(worker, message)

    def _hear_error(self, worker: int, error: BaseException) -> None:
        """A worker could not do what it was asked for."""
        place = self._places[worker]
        if isinstance(error, MemoryError) and place.task is not None:
            # It lives, and has let go of what it held.
            self._split(self._free(worker), f"out of memory: {error or 'no more said'}")
        elif isinstance(error, _LEAVES_OUT) or place.state == "starting":
            self._leave_out(worker, error)
        else:
            raise error

    def _hear_death(self, worker: int, death: Died) -> None:
        place = self._places[worker]
        task, place.task = place.task, None
        self._idleness.leave(worker)
        if task is not None:
            task.deaths += 1
            if task.deaths == 1:
                self._tasks.appendleft(task)
            else:
                self._split(task, f"its process {death.how}")

        place.starts += 1
        if place.starts > _RESTARTS:
            problem = f"its process {death.how}, {_RESTARTS} times in turn before it had trained"
            self._leave_out(worker, EnvironmentProblem(f"{problem}; free memory, or use fewer"))
            return
        place.state = "starting"
        self._crew.start(worker)

    def _leave_out(self, worker: int, error: BaseException) -> None:
        """Go on without a worker; its task goes to another one.

        Raises:
            The error: no other worker is left.
        """
        place = self._places[worker]
        task, place.task, place.state = place.task, None, "out"
        self._crew.end(worker)
        self._idleness.leave(worker)
        if self.num_workers == 0:
            raise error
        if task is not None:
            self._tasks.appendleft(task)

        name = place.name or f"worker {worker + 1}"
        warnings.warn(f"{name} is left out: {error}", EnvironmentWarning, stacklevel=2)

    # -- tasks

    def _hand_out(self) -> None:
        """Give tasks to whoever is idle."""
        for worker, place in enumerate(self._places):
            if place.state == "idle" and self._tasks:
                place.state, place.task = "busy", self._tasks.popleft()
                place.began = time.monotonic()
                self._idleness.work(worker)
                self._crew.send(worker, place.task.claims)

    def _free(self, worker: int, worked_s: float | None = None) -> Task:
        """The task of a worker that is done with it."""
        place = self._places[worker]
        task, place.task, place.state = place.task, None, "idle"
        assert task is not None, "it had one"
        self._idleness.rest(worker, worked_s)
        return task

    def _take(self, records: Sequence[TrialRecord]) -> None:
        """Note the records of a task."""
        for population in self._populations:
            numbers = {claim.number for claim in population.claims}
            for record in records:
                if record.trial in numbers:
                    population.records[record.trial] = record

    def _split(self, task: Task, reason: str) -> None:
        """Try a task in halves; one student fails for this reason."""
        claims = task.claims
        if len(claims) == 1:
            self._take([failed(claims[0], reason)])
            return
        middle = len(claims) // 2
        for part in (claims[middle:], claims[:middle]):
            self._tasks.appendleft(Task(part, deaths=1))

    def _end_late(self) -> None:
        """End workers whose students took too long; each of these is tried alone."""
        if self._limit_s is None:
            return
        for worker, place in enumerate(self._places):
            task = place.task
            if task is None:
                continue
            if time.monotonic() - place.began <= self._limit_s * len(task.claims):
                continue

            self._crew.end(worker)
            self._idleness.leave(worker)
            place.task, place.state = None, "starting"
            self._crew.start(worker)
            if len(task.claims) > 1:
                self._tasks.extendleft(Task((claim,)) for claim in reversed(task.claims))
            else:
                limit = f"search.student_timeout={self._limit_s:g} seconds"
                reason = f"took longer than {limit}; was ended"
                self._take([failed(task.claims[0], reason)])
