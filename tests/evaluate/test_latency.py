"""Timing: what is timed, in which order, and what is made of it; on a clock that the calls turn."""

import gc
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gped_nas.evaluate.latency import (
    BLOCKS,
    MOST_BLOCKS,
    Latency,
    LatencyConfig,
    differences,
    machine,
    summarize,
    time_calls,
)


class Clock:
    """A clock that stands still until a call turns it."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def __call__(self):
        return self.now

    def takes(self, name, seconds):
        """A call that takes so long; ``seconds`` may be a function of how often it was called."""
        times = iter(range(10**9))

        def call():
            self.log.append(name)
            index = next(times)
            self.now += seconds(index) if callable(seconds) else seconds

        return call


def test_a_call_of_one_length_has_that_latency():
    clock = Clock()
    (latency,) = time_calls([clock.takes("a", 0.002)], repeats=30, clock=clock)
    assert latency.median_s == pytest.approx(0.002)
    assert latency.p95_s == pytest.approx(0.002)
    assert latency.repeats == 30
    assert latency.spread == pytest.approx(0.0)


def test_short_calls_are_timed_until_a_block_has_its_time():
    clock = Clock()
    (latency,) = time_calls([clock.takes("a", 0.0001)], repeats=30, clock=clock)
    assert latency.repeats == pytest.approx(BLOCKS * 100, abs=BLOCKS)


def test_a_clock_that_stands_still_ends_all_the_same():
    (latency,) = time_calls([lambda: None], repeats=30, clock=lambda: 0.0)
    assert latency.median_s == 0.0


def test_first_calls_are_not_timed():
    clock = Clock()
    slow_at_first = clock.takes("a", lambda index: 1.0 if index < 10 else 0.005)
    (latency,) = time_calls([slow_at_first], clock=clock)
    assert latency.p95_s == pytest.approx(0.005)


def test_predictors_are_timed_in_turn():
    clock = Clock()
    time_calls([clock.takes("a", 0.01), clock.takes("b", 0.01)], repeats=30, clock=clock)
    runs = [clock.log[0]]
    for name in clock.log:
        if name != runs[-1]:
            runs.append(name)
    assert runs == ["a", "b"] * (1 + BLOCKS)  # warming up, then every block


def test_a_busy_block_does_not_move_the_median_and_shows_in_the_tail():
    clock = Clock()
    calls_before = 10 + 2 + 6 + 2  # warm-up, the first block, and the second one's beginning
    busy = range(calls_before, calls_before + 6)
    call = clock.takes("a", lambda index: 0.02 if index in busy else 0.005)
    (latency,) = time_calls([call], repeats=30, clock=clock)
    assert latency.median_s == pytest.approx(0.005)
    assert latency.p95_s == pytest.approx(0.02)
    assert latency.spread == pytest.approx(3.0)


def test_a_busy_machine_is_timed_until_two_blocks_agree():
    num_first = 10 + 7 * (
        2 + 6
    )  # warm-up, and seven blocks of two untimed calls and six timed ones

    def seconds(index):
        block = max(0, index - 10) // 8
        return 0.004 if index >= num_first else 0.05 * 1.5**-block

    clock = Clock()
    call, calm = clock.takes("a", seconds), clock.takes("b", 0.01)
    latency, other = time_calls([call, calm], repeats=30, clock=clock)
    assert latency.median_s == pytest.approx(0.004)
    assert len(latency.blocks_s) == 9
    assert len(other.blocks_s) == BLOCKS, "who has settled is timed no more"


def test_a_machine_that_never_rests_is_timed_so_often_and_no_more():
    clock = Clock()
    (latency,) = time_calls([clock.takes("a", lambda index: 0.5 * 1.02**-index)], clock=clock)
    assert len(latency.blocks_s) == MOST_BLOCKS


@given(st.lists(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=9), min_size=1, max_size=6))
def test_the_figures_are_those_of_sorted_calls(blocks):
    latency = summarize(blocks)

    medians = []
    for block in blocks:
        ordered = sorted(block)
        half = len(ordered) // 2
        medians.append(
            ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
        )
    assert latency.median_s == pytest.approx(min(medians))

    everything = sorted(seconds for block in blocks for seconds in block)
    place = 0.95 * (len(everything) - 1)
    low, share = int(place), place - int(place)
    above = everything[min(low + 1, len(everything) - 1)]
    assert latency.p95_s == pytest.approx(everything[low] * (1 - share) + above * share)
    assert latency.p95_s >= latency.median_s * (1 - 1e-9) or len(everything) < 4
    assert latency.repeats == len(everything)


def test_timing_leaves_threads_collector_and_cores_as_they_were():
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    clock = Clock()
    seen = set()

    def call():
        clock.now += 0.01
        seen.add((torch.get_num_threads(), gc.isenabled(), len(os.sched_getaffinity(0))))
        if len(clock.log) > 20:
            raise ValueError("broken")
        clock.log.append("a")

    with pytest.raises(ValueError, match="broken"):
        time_calls([call], threads=1, clock=clock)
    assert seen <= {(1, False, len(cores)), (1, False, 1)}
    assert (1, False, 1) in seen
    assert torch.get_num_threads() == threads
    assert gc.isenabled()
    assert os.sched_getaffinity(0) == cores


def test_several_calls_take_as_many_times_as_long():
    latency = Latency(0.001, 0.002, 30, (0.001, 0.0015))
    assert latency.times(25) == Latency(0.025, 0.05, 30, (0.025, 0.0375))


def test_a_machine_says_what_differs():
    here = machine("onnx")
    assert here["onnxruntime"] and here["torch"] and here["cores"] >= 1
    assert "onnxruntime" not in machine("torch")
    assert differences(here, dict(here)) == []

    other = {**here, "processor": "Z80", "instructions": []}
    (first, second) = differences(other, here)
    assert first == f"processor {here['processor']} instead of Z80"
    assert second.endswith("instead of none")


def test_settings_are_those_of_a_fair_timing():
    cfg = LatencyConfig()
    assert (cfg.runtime, cfg.batch, cfg.threads, cfg.repeats) == ("onnx", 1, 1, 30)
    with pytest.raises(ValueError, match="repeats"):
        LatencyConfig(repeats=29)
