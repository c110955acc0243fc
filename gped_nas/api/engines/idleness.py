"""How much of their time workers waited for work."""

import time
from collections.abc import Callable


class Idleness:
    """Follows workers from when they are ready to when they leave.

    Time in which a worker starts, or is gone, counts as neither: nobody could have used it. A
    worker that has trained says how long that took. What is left until its answer was heard it was
    idle too.

    Args:
        num_workers: how many there are, by their place from 0.
        clock: in seconds.
    """

    def __init__(self, num_workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states = [""] * num_workers
        self._since = [0.0] * num_workers
        self._idle_s = self._ready_s = 0.0

    @property
    def share(self) -> float | None:
        """Idle seconds of all workers over seconds in which they were ready; None before any."""
        for worker in range(len(self._states)):
            self._turn(worker, self._states[worker])
        return self._idle_s / self._ready_s if self._ready_s > 0 else None

    def rest(self, worker: int, worked_s: float | None = None) -> None:
        """It has nothing to do from now.

        Args:
            worker: who.
            worked_s: how long it worked since ``work``; all the time by default.
        """
        elapsed_s = self._clock() - self._since[worker]
        if self._states[worker] == "busy" and worked_s is not None:
            self._idle_s += max(0.0, elapsed_s - worked_s)
        self._turn(worker, "idle")

    def work(self, worker: int) -> None:
        """It trains from now."""
        self._turn(worker, "busy")

    def leave(self, worker: int) -> None:
        """It is gone from now, or starts anew."""
        self._turn(worker, "")

    def _turn(self, worker: int, state: str) -> None:
        now = self._clock()
        seconds = now - self._since[worker]
        if self._states[worker]:
            self._ready_s += seconds
        if self._states[worker] == "idle":
            self._idle_s += seconds
        self._states[worker], self._since[worker] = state, now
