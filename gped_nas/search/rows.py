"""A trial's row in the ledger, and what may happen to it.

The row is one attribute of the Optuna trial, ``gped:row``, always written whole and sealed with a
digest.

===============  ==========================  ================================================
from             verb                        to
===============  ==========================  ================================================
(asked)          ``claim``                   claimed
claimed          ``report``                  claimed; paused at the end of its budget
paused           ``promote``                 waiting
waiting          ``claim``                   claimed
claimed          ``finish``, by its owner    finished
paused, waiting  ``finish``, by the asker    finished
claimed          ``take_back``               waiting with a checkpoint; without, finished: lost
===============  ==========================  ================================================

``claim``, ``report``, ``promote`` and ``finish`` are functions from a row to the next one. They
read no clock and no storage, so that every order of events can be tried. What may not happen is
answered by a ``Refusal``, and the row stays as it is: the report of a worker whose claim was taken
back meanwhile, for example, or the second finish of a trial.

One process asks, takes back and promotes; its workers hold claims. ``now`` is always the storage's
clock, for the clocks of several machines differ.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gped_nas.search.document import Stored, seal
from gped_nas.search.owners import Owner

ROW = "gped:row"
LEASE_S = 900.0
"""A claim lives so long after the last sign of life of its owner."""


class Point(Stored):
    """What was measured of a trial on its way.

    Attributes:
        budget: training steps spent by then.
        metrics: by name.
    """

    budget: int
    metrics: dict[str, float]


class Row(Stored):
    """See the module.

    Attributes:
        version: of this model.
        state: see the module.
        owner: who holds the claim; None unless it is claimed.
        claimed: when the claim was made, seconds since the epoch by the storage's clock.
        renewed: the owner's last sign of life, likewise.
        until: training steps after which it pauses, earlier ones included; None for no end.
        budget: training steps spent so far.
        curve: what was reported, in order.
        checkpoint: where training can go on from, as its worker wrote it; empty for nowhere.
        record: the text of its ``TrialRecord``, once it finished; None for one that was lost.
        params: what was drawn; None before rows said so.
    """

    version: Literal[1] = 1
    state: Literal["claimed", "paused", "waiting", "finished"]
    owner: Owner | None = None
    claimed: float = 0.0
    renewed: float = 0.0
    until: int | None = None
    budget: int = 0
    curve: tuple[Point, ...] = ()
    checkpoint: str = ""
    record: str | None = None
    params: dict[str, str | int | float | bool | None] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data without what is as by default."""
        return {"version": self.version, **self.model_dump(mode="json", exclude_defaults=True)}

    def sealed(self) -> dict[str, Any]:
        """Plain data with its digest, as it is stored."""
        return seal(self.to_json(), ROW)

    def is_expired(self, now: float) -> bool:
        """Whether it is claimed and its owner gave no sign of life for a lease."""
        return self.state == "claimed" and now - self.renewed > LEASE_S


@dataclass(frozen=True)
class Refusal:
    """What was asked for may not happen, and nothing was changed.

    Attributes:
        reason: why, for people.
    """

    reason: str


def claim(row: Row | None, owner: Owner, now: float) -> Row | Refusal:
    """The row of a trial that ``owner`` works on from now.

    Args:
        row: None for a trial that was just asked for.
        owner: who works on it.
        now: by the storage's clock.
    """
    if row is None:
        row = Row(state="waiting")
    if row.state != "waiting":
        return Refusal(f"it is {_state_of(row)}")
    return _change(row, state="claimed", owner=owner, claimed=now, renewed=now)


def renew(row: Row, owner: Owner, now: float) -> Row | Refusal:
    """The row after a sign of life."""
    refusal = _refuse_stranger(row, owner)
    if refusal:
        return refusal
    return _change(row, renewed=now)


def report(
    row: Row,
    owner: Owner,
    now: float,
    *,
    budget: int,
    metrics: Mapping[str, float],
    checkpoint: str = "",
) -> Row | Refusal:
    """The row after its owner measured it on the way; it pauses at the end of its budget.

    Args:
        row: claimed by ``owner``.
        owner: who reports.
        now: by the storage's clock.
        budget: training steps spent, earlier ones included.
        metrics: what was measured, by name.
        checkpoint: where training can go on from; the last one by default.
    """
    refusal = _refuse_stranger(row, owner)
    if refusal:
        return refusal

    if budget <= row.budget:
        return Refusal(f"it reported {row.budget} steps before, found {budget}")
    for name, value in metrics.items():
        if not math.isfinite(value):
            return Refusal(f"its {name} is not finite")

    point = Point(budget=budget, metrics=dict(metrics))
    reported = _change(
        row,
        renewed=now,
        budget=budget,
        curve=(*row.curve, point),
        checkpoint=checkpoint or row.checkpoint,
    )
    if row.until is not None and budget >= row.until:
        return _change(reported, state="paused", owner=None)
    return reported


def promote(row: Row, until: int | None) -> Row | Refusal:
    """The row of a paused trial that may go on, once somebody claims it.

    Args:
        row: paused.
        until: training steps after which it pauses again, earlier ones included; None for no end.
    """
    if row.state != "paused":
        return Refusal(f"it is {_state_of(row)}")
    if until is not None and until <= row.budget:
        return Refusal(f"it has spent {row.budget} steps, found a budget of {until}")
    return _change(row, state="waiting", until=until)


def finish(row: Row, owner: Owner | None, record: str) -> Row | Refusal:
    """The row of a trial that ended.

    Args:
        row: claimed by ``owner``, or paused or waiting where that is None.
        owner: who worked on it; None for the asker, who may end what nobody works on.
        record: the text of its record.
    """
    if owner is not None:
        refusal = _refuse_stranger(row, owner)
        if refusal:
            return refusal
    elif row.state not in ("paused", "waiting"):
        return Refusal(f"it is {_state_of(row)}")

    return _change(row, state="finished", owner=None, record=record)


def take_back(row: Row) -> Row:
    """The row of a claim whose owner is gone.

    The trial waits if it can go on from a checkpoint, and is lost if it cannot.
    """
    state = "waiting" if row.checkpoint else "finished"
    return _change(row, state=state, owner=None)


def _refuse_stranger(row: Row, owner: Owner) -> Refusal | None:
    """Why ``owner`` may not change a row, if it may not."""
    if row.state == "claimed" and row.owner is not None and row.owner.name == owner.name:
        return None
    return Refusal(f"it is {_state_of(row)}")


def _state_of(row: Row) -> str:
    if row.state == "claimed":
        return "claimed by somebody else"
    if row.state == "finished":
        return "finished already"
    return f"{row.state}, its claim was taken back or given up"


def _change(row: Row, **changes: object) -> Row:
    return row.model_copy(update=changes)
