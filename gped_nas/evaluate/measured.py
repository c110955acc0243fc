"""What was measured: one table of values with intervals and sizes, and its two public forms.

Inside the package a table is a mapping from ``Key`` to ``Measured``. Outside it is either

* three mappings by public name, ``metrics``, ``intervals`` and ``n``: in records and their JSON.
  A public name is ``metric``, ``metric@condition``, ``test_metric`` or ``test_metric@condition``;
  ``public_name`` makes it and ``parse_name`` reads it, and nothing else does either; or
* rows of one measure each, see ``rows``.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gped_nas.io import SCHEMA_VERSION

Direction = Literal["minimize", "maximize"]
Interval = tuple[float, float]

CLEAN = "clean"
"""The condition of inputs as they are."""
VALIDATION, TEST = "validation", "test"
_TEST_PREFIX = "test_"
_AT = "@"


@dataclass(frozen=True)
class Measured:
    """One number that was measured.

    Attributes:
        value: the metric's value; None where it is no finite number. A student's is one.
        low, high: ends of its 95 % interval; None where no interval is honest.
        n: number of examples behind it; None where an earlier version did not say.
        why: why there is no value, or no interval, for people; empty where there is one.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    why: str = ""

    @property
    def interval(self) -> Interval | None:
        """``(low, high)``, or None where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return self.low, self.high


@dataclass(frozen=True)
class PairedMeasured(Measured):
    """A difference of one number between two predictors, on the same examples.

    Attributes:
        p_value: of the exact test that both are equal, where the number is a share of examples;
            None otherwise.
    """

    value: float
    p_value: float | None = None


class Key(NamedTuple):
    """What was measured, under which condition of the inputs, on which part of the dataset."""

    metric: str
    condition: str = CLEAN
    part: str = VALIDATION


Measures = Mapping[Key, Measured]


def public_name(key: Key) -> str:
    """The key as users see it: ``nll``, ``nll@permuted``, ``test_nll``, ``test_nll@permuted``."""
    prefix = _TEST_PREFIX if key.part == TEST else ""
    suffix = "" if key.condition == CLEAN else _AT + key.condition
    return prefix + key.metric + suffix


@functools.lru_cache(maxsize=4096)
def parse_name(name: str) -> Key:
    """The key that ``public_name`` made the name of."""
    metric, _, condition = name.partition(_AT)
    part = TEST if metric.startswith(_TEST_PREFIX) else VALIDATION
    return Key(metric.removeprefix(_TEST_PREFIX), condition or CLEAN, part)


def is_metric_name(name: str) -> bool:
    """Whether a metric may be called so: its public names must lead back to it."""
    return bool(name) and _AT not in name and not name.startswith(_TEST_PREFIX)


def to_public(measures: Measures) -> dict[str, dict[str, Any]]:
    """A table as the mappings ``metrics``, ``intervals`` and ``n`` by public name.

    A measure without a value is None in ``metrics``, and one without an interval is not in
    ``intervals``; what it says of that is in ``why``, which is there only where something is said.
    """
    public: dict[str, dict[str, Any]] = {"metrics": {}, "intervals": {}, "n": {}}
    reasons = {}
    for key, measured in measures.items():
        name = public_name(key)
        public["metrics"][name] = measured.value
        if measured.interval is not None:
            public["intervals"][name] = list(measured.interval)
        if measured.n is not None:
            public["n"][name] = measured.n
        if measured.why:
            reasons[name] = measured.why

    return public | {"why": reasons} if reasons else public


def from_public(
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, Any] | None = None,
    n: Mapping[str, int] | None = None,
    why: Mapping[str, str] | None = None,
) -> dict[Key, Measured]:
    """The table of which ``to_public`` made these mappings; those of earlier versions too."""
    measures = {}
    for name, value in metrics.items():
        low, high = (intervals or {}).get(name) or (None, None)
        measures[parse_name(name)] = Measured(
            value=value,
            low=low,
            high=high,
            n=(n or {}).get(name),
            why=(why or {}).get(name, ""),
        )
    return measures


def finite_values(measures: Measures) -> dict[str, float]:
    """The values of a table by public name, without those that are no finite number."""
    values = {}
    for key, measured in measures.items():
        if measured.value is not None:
            values[public_name(key)] = measured.value
    return values


def by_name(measures: Measures) -> dict[str, Measured]:
    """The same table by public name."""
    return {public_name(key): measured for key, measured in measures.items()}


def rows(measures: Measures, *, predictor: str, task: str) -> list[dict[str, Any]]:
    """A table as rows of one measure each, for whatever prints measures as rows.

    Args:
        measures: of one predictor.
        predictor: who was measured: ``teacher``, or a student's or a method's name.
        task: what its labels are: ``classification`` or ``regression``, or a task's own name.

    Returns:
        Rows ``{schema_version, predictor, task, metric, condition, part, value, low, high, n}``.
        Where ``low`` and ``high`` are None, ``why`` says why no interval is honest, or why there is
        no value.
    """
    table = []
    for key, measured in measures.items():
        row = {
            "schema_version": SCHEMA_VERSION,
            "predictor": predictor,
            "task": task,
            **key._asdict(),
            "value": measured.value,
            "low": measured.low,
            "high": measured.high,
            "n": measured.n,
        }

        if measured.interval is None:
            row["why"] = measured.why or "no interval was made"
        table.append(row)
    return table
