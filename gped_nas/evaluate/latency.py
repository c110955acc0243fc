"""How long predictors take to answer: the median and the 95th percentile of repeated calls.

What other programs do at the same time adds to a call and takes nothing from it. So calls are
timed in blocks, those of several predictors in turn, and the median is that of the block with the
smallest one: a busy second then costs a block, and what is compared had the same seconds. Blocks
are added until the two fastest ones of a predictor agree within 3 %. The 95th
percentile is of all calls, since a server's slow answers are what it is asked for.

Before each block a predictor answers a few times without being timed. The number of threads is
fixed, Python's collector waits, and where one thread computes, a block keeps to one core.
"""

import contextlib
import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from gped_nas import device as devices
from gped_nas.config import Config

Runtime = Literal["onnx", "torch"]
Clock = Callable[[], float]
"""Seconds from anywhere, such as ``time.perf_counter``."""
Call = Callable[[], object]
"""Answers one batch; it returns when the answer is there."""

BLOCKS, MOST_BLOCKS = 5, 25
"""Five of each predictor, and then more until its two fastest ones agree, at most so many."""
_AGREEMENT = 0.03
WARM_UP = 10
"""Untimed calls of each predictor before the first block."""
_REFRESHING = 2
"""Untimed calls before each further block: the others have used the caches."""
_BLOCK_S = 0.01
_MOST_CALLS = 1_000
"""A block ends after so many calls, or once it has taken so long and has its share of repeats."""


class LatencyConfig(Config):
    """How students are timed, where their latency is asked for."""

    runtime: Runtime = Field(
        default="onnx", description="who computes: ONNX Runtime, or torch as in this package"
    )
    batch: int = Field(default=1, ge=1, le=65_536, description="inputs of a call")
    threads: int = Field(default=1, ge=1, le=1024, description="threads that compute")
    repeats: int = Field(default=30, ge=30, le=100_000, description="timed calls, at least")


@dataclass(frozen=True)
class Latency:
    """Seconds of a call.

    Attributes:
        median_s: of the block with the smallest median.
        p95_s: the 95th percentile of all calls.
        repeats: how many calls were timed.
        blocks_s: the median of each block, in the order of time.
    """

    median_s: float
    p95_s: float
    repeats: int
    blocks_s: tuple[float, ...] = ()

    @property
    def spread(self) -> float:
        """By what share the slowest block's median is above the fastest one's."""
        return max(self.blocks_s, default=self.median_s) / self.median_s - 1

    def times(self, factor: float) -> "Latency":
        """The latency of so many calls, one after another."""
        return Latency(
            self.median_s * factor,
            self.p95_s * factor,
            self.repeats,
            tuple(block * factor for block in self.blocks_s),
        )


def time_calls(
    calls: Sequence[Call],
    *,
    threads: int = 1,
    repeats: int = 30,
    clock: Clock = time.perf_counter,
) -> list[Latency]:
    """The latency of each call, all of them timed in turn; see the module.

    Args:
        calls: what is timed.
        threads: that torch computes with; runtimes of their own have their own number.
        repeats: timed calls of each, at least.
        clock: what time it is.
    """
    seconds: list[list[list[float]]] = [[] for _ in calls]
    with _undisturbed(threads):
        for call in calls:
            for _ in range(WARM_UP):
                call()

        for block in range(MOST_BLOCKS):
            unsettled = [i for i, blocks in enumerate(seconds) if not _is_settled(blocks)]
            if not unsettled:
                break
            with _on_one_core(threads, block):
                for i in unsettled:
                    blocks = seconds[i]
                    blocks.append(_time_block(calls[i], math.ceil(repeats / BLOCKS), clock))
    return [summarize(blocks) for blocks in seconds]


def _is_settled(blocks: Sequence[Sequence[float]]) -> bool:
    """Whether the two fastest of enough blocks agree, so that a third would hardly be faster."""
    if len(blocks) < BLOCKS:
        return False
    fastest, second, *_ = sorted(float(np.median(block)) for block in blocks)
    return second <= fastest * (1 + _AGREEMENT)


def _time_block(call: Call, repeats: int, clock: Clock) -> list[float]:
    """Seconds of each call of a block."""
    for _ in range(_REFRESHING):
        call()

    seconds: list[float] = []
    began = clock()
    while len(seconds) < _MOST_CALLS:
        before = clock()
        call()
        after = clock()
        seconds.append(after - before)
        if len(seconds) >= repeats and after - began >= _BLOCK_S:
            break
    return seconds


def summarize(blocks: Sequence[Sequence[float]]) -> Latency:
    """The latency that these seconds of calls give.

    Args:
        blocks: seconds of each call, by block.
    """
    medians = tuple(float(np.median(block)) for block in blocks)
    calls = np.concatenate([np.asarray(block, np.float64) for block in blocks])
    return Latency(min(medians), float(np.quantile(calls, 0.95)), len(calls), medians)


@contextlib.contextmanager
def _undisturbed(threads: int) -> Iterator[None]:
    """Inside the block torch has so many threads, and Python's collector waits."""
    before, collects = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if collects:
            gc.enable()


@contextlib.contextmanager
def _on_one_core(threads: int, block: int) -> Iterator[None]:
    """Inside the block this thread keeps to one core, another one in each block in turn.

    Several threads share the cores as they like, and so does one where the system pins none.
    """
    if threads > 1 or not hasattr(os, "sched_setaffinity"):
        yield
        return

    cores = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, {cores[block % len(cores)]})
    except OSError:  # not allowed here
        yield
        return
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def machine(runtime: Runtime, device: torch.device | None = None) -> dict[str, Any]:
    """What a latency holds for: processor, instruction sets, cores and versions, as plain data.

    Args:
        runtime: who computes.
        device: where torch computes; the processor by default.
    """
    facts: dict[str, Any] = {
        "processor": devices.processor(),
        "machine": os.uname().machine,
        "instructions": list(devices.instruction_sets()),
        "cores": devices.usable_cores(),
        "torch": str(torch.__version__),
    }
    if runtime == "onnx":
        import onnxruntime

        facts["onnxruntime"] = onnxruntime.__version__
    if device is not None and device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def differences(measured_on: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """In what two machines differ, in words; empty where a latency of one holds for the other."""
    rows = []
    for name in {**measured_on, **here}:
        before, now = measured_on.get(name), here.get(name)
        if before != now:
            rows.append(f"{name} {_words(now)} instead of {_words(before)}")
    return rows


def _words(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
