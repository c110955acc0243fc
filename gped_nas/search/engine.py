"""Who trains populations while the search loop asks and tells.

The loop hands over a population as soon as somebody is idle, and waits for the next one that is
finished. What becomes of a student follows from its population alone: no engine shows in a record.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gped_nas.search.ledger import Claim
from gped_nas.search.record import TrialRecord

DistilAndEvaluate = Callable[[Sequence[Claim]], Sequence[TrialRecord]]
"""Trains and measures genotypes together: one record each, ``complete`` or ``failed``, in order."""


@dataclass(frozen=True)
class Trained:
    """A population that is finished.

    Attributes:
        claims: its trials.
        records: of each, in their order.
    """

    claims: tuple[Claim, ...]
    records: tuple[TrialRecord, ...]


class Engine(Protocol):
    """Trains populations; several at the same time, where it has several workers."""

    @property
    def num_workers(self) -> int:
        """How many populations it trains at the same time."""
        ...

    @property
    def idle_share(self) -> float | None:
        """The share of their time for which workers had nothing to do; None where none can."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether somebody is idle: another population would begin at once."""
        ...

    def submit(self, claims: Sequence[Claim]) -> None:
        """Hand over a population; only while there is room."""
        ...

    def wait(self) -> Trained:
        """The next population that is finished, of those that were handed over.

        Raises:
            Interrupted: the session said stop; no population is trained any more.
            GpedError: whatever ends a search.
        """
        ...


class Local:
    """This process, which trains one population at a time while it is waited for.

    Args:
        distil_and_evaluate: trains and measures a population.
    """

    num_workers = 1
    idle_share = None

    def __init__(self, distil_and_evaluate: DistilAndEvaluate) -> None:
        self._distil_and_evaluate = distil_and_evaluate
        self._claims: tuple[Claim, ...] = ()

    @property
    def has_room(self) -> bool:
        """See ``Engine``."""
        return not self._claims

    def submit(self, claims: Sequence[Claim]) -> None:
        """See ``Engine``."""
        self._claims = tuple(claims)

    def wait(self) -> Trained:
        """See ``Engine``."""
        claims, self._claims = self._claims, ()
        return Trained(claims, tuple(self._distil_and_evaluate(claims)))
