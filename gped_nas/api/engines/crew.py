"""What workers and the asker say to each other, whatever the workers are.

A worker is known by its place in the crew. It is started, says that it is ready, and then trains
one population after another. What it does in between nobody asks: it may die at any instant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gped_nas.search.ledger import Claim
from gped_nas.search.record import TrialRecord


@dataclass(frozen=True)
class Ready:
    """A worker can train.

    Attributes:
        place: where it runs, for people: ``process 2``, ``worker 1 on node7``.
        notes: what its user should know of its start.
    """

    place: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a worker is with its population: what ``Session.progress`` is told."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Records:
    """A worker trained its population.

    Attributes:
        records: one a claim, in order.
        seconds: what that took where it runs.
    """

    records: tuple[TrialRecord, ...]
    seconds: float


@dataclass(frozen=True)
class Raised:
    """A worker's population, or its start, ended with an error; the worker may live on."""

    error: BaseException


@dataclass(frozen=True)
class Died:
    """A worker is gone.

    Attributes:
        how: ``was killed by SIGKILL``.
    """

    how: str


Message = Ready | Progress | Records | Raised | Died


class Crew(Protocol):
    """Workers of one kind, by their place from 0."""

    @property
    def num_workers(self) -> int:
        """How many places there are."""
        ...

    def start(self, worker: int) -> None:
        """Begin to start a worker, in the place of one that is gone or was ended."""
        ...

    def send(self, worker: int, claims: Sequence[Claim]) -> None:
        """Hand a ready worker its population."""
        ...

    def messages(self, timeout_s: float) -> list[tuple[int, Message]]:
        """What workers said, waited for so long at most; of each in the order in which it spoke."""
        ...

    def end(self, worker: int) -> None:
        """End a worker at once, whatever it does; nothing is heard of it any more."""
        ...
