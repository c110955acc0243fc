"""Where the tests of this folder run: on a GPU where there is one, else on what stands for it.

On the CPU the same bodies run with fewer and smaller cases, so that none rots between two cards:
walks go through Triton's interpreter, batches are found by a counter as on a device, what a GPU
records is run again, and whatever a GPU would wait for is refused as it is dispatched. Whole
trainings take the products of the graph there: interpreted walks take a second a step.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gped_nas.distill import kernel, replay, team
from gped_nas.distill.replay import ScheduledStep
from tests.distill.test_replay import WAITS

IS_CARD = torch.cuda.is_available()
DEVICE = torch.device("cuda" if IS_CARD else "cpu")
Case = TypeVar("Case")


def cases(of_card: Sequence[Case], elsewhere: Sequence[Case]) -> Sequence[Case]:
    """What a test goes through: all of it on a card, a few elsewhere."""
    return of_card if IS_CARD else elsewhere


class RepeatedStep:
    """``Replay`` without a GPU: a step that was recorded is the step run again."""

    def __init__(self, step: ScheduledStep) -> None:
        self._step = step
        self._num_plain = 0
        self._graph: object | None = None

    def __call__(self) -> list[Tensor]:
        """One step."""
        if self._num_plain < replay.WARM_UP:
            self._num_plain += 1
        else:
            self._graph = self._graph or object()
        return self._step()


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Let the CPU take the path of a GPU."""
    patch.setattr(kernel, "finds_its_batches", lambda device: True)
    patch.setattr(replay, "Replay", RepeatedStep)
    patch.setattr(team, "Replay", RepeatedStep)


class _Refusing(TorchDispatchMode):
    """Refuses what a GPU would wait for, unless it is allowed for a moment."""

    is_allowed = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        if name in WAITS and not self.is_allowed:
            raise RuntimeError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    """Inside the block, what waits for the device raises."""
    if not IS_CARD:
        with _Refusing():
            yield
        return

    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def waits_allowed() -> Iterator[None]:
    """Inside the block, which lies in one of ``no_waits``, anything may wait."""
    if not IS_CARD:
        before, _Refusing.is_allowed = _Refusing.is_allowed, True
        try:
            yield
        finally:
            _Refusing.is_allowed = before
        return

    torch.cuda.set_sync_debug_mode("default")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("error")
