"""Whether a teacher does much better on validation than on test, as one that has seen it would.

Both parts are other examples, so the difference is that of two independent numbers. Its interval is
made of theirs: the ends lie as far from the difference as the two nearer ends together, by
Pythagoras. Here they are widened to 99 %, since every study is asked.

Source: Zou & Donner 2008, Statistics in Medicine 27, 1693-1702 (MOVER); for shares it is Newcombe's
1998 interval.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gped_nas.evaluate.measured import TEST, Key, Measured
from gped_nas.report import words
from gped_nas.search.goals import MetricWords
from gped_nas.search.snapshot import Reference

JUDGED = ("accuracy", "balanced_accuracy", "nll", "rmse")
"""Metrics that are looked at, in the order in which they are told."""
SMALLEST = 0.03
"""A gap below that share of the value on test is told by nobody, whatever its interval."""
_TO_99 = 2.575829 / 1.959964


@dataclass(frozen=True)
class Gap:
    """How much better a teacher is on validation than on test.

    Attributes:
        metric: what was measured.
        validation, test: the values.
        value: the gap; positive where validation is better.
        low, high: ends of its 99 % interval.
        n_validation, n_test: numbers of examples.
    """

    metric: str
    validation: float
    test: float
    value: float
    low: float
    high: float
    n_validation: int | None
    n_test: int | None


def gap_of(teacher: Reference, metrics: Mapping[str, MetricWords]) -> Gap | None:
    """The first gap that is no noise; None where there is none, or nothing was measured on test."""
    for metric in JUDGED:
        on_validation = teacher.measures.get(Key(metric))
        on_test = teacher.measures.get(Key(metric, part=TEST))
        told = metrics.get(metric)
        if on_validation is None or on_test is None or told is None:
            continue

        sign = 1 if told.direction == "maximize" else -1
        gap = _difference(metric, on_validation, on_test, sign)
        if gap is not None and gap.low > 0 and gap.value > SMALLEST * abs(gap.test):
            return gap
    return None


def describe_gap(teacher: Reference, metrics: Mapping[str, MetricWords]) -> str:
    """The warning about such a teacher, one sentence; empty where there is nothing to tell."""
    gap = gap_of(teacher, metrics)
    if gap is None:
        return ""

    name = {"nll": "NLL", "rmse": "RMSE"}.get(gap.metric, words.spaced(gap.metric))
    both = [words.metric(value, gap.metric) for value in (gap.validation, gap.test)]
    ends = [words.difference(end, gap.metric).replace("−", "-") for end in (gap.low, gap.high)]
    value = words.difference(gap.value, gap.metric).replace("−", "-")
    return (
        f"The teacher is much better on validation than on test: {name} {both[0]} against "
        f"{both[1]}, a gap of {value} (99 % interval [{ends[0]}, {ends[1]}], n = "
        f"{words.count(gap.n_validation)} and {words.count(gap.n_test)}). It has probably seen the "
        "validation examples, and students were chosen there: give x_val and y_val that it has "
        "not seen, or say in teacher.trained_on what it has."
    )


def _difference(metric: str, first: Measured, second: Measured, sign: int) -> Gap | None:
    """The first less the second with its 99 % interval, positive where the first is better."""
    if first.value is None or second.value is None:
        return None
    if first.interval is None or second.interval is None:
        return None

    value = sign * (first.value - second.value)
    (first_low, first_high), (second_low, second_high) = first.interval, second.interval
    if sign < 0:  # smaller is better: mirror both
        first_low, first_high = -first_high, -first_low
        second_low, second_high = -second_high, -second_low

    below = math.hypot(sign * first.value - first_low, second_high - sign * second.value)
    above = math.hypot(first_high - sign * first.value, sign * second.value - second_low)
    return Gap(
        metric=metric,
        validation=first.value,
        test=second.value,
        value=value,
        low=value - _TO_99 * below,
        high=value + _TO_99 * above,
        n_validation=first.n,
        n_test=second.n,
    )
