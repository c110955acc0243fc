"""One trial, one record, one JSON: what a study remembers of a student."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import TypeAdapter

from gped_nas.io import canonical_json

State = Literal["complete", "pruned", "infeasible", "duplicate", "failed", "running"]
FINISHED: frozenset[str] = frozenset({"complete", "pruned", "infeasible", "duplicate"})
"""States that count towards ``--n-trials``; failed ones are bounded by ``max_failures`` instead."""


@dataclass(frozen=True)
class TrialRecord:
    """What a study remembers of one trial.

    Attributes:
        trial: Optuna's trial number.
        state: see ``FINISHED``; ``infeasible`` may carry metrics when a constraint broke only after
            training.
        reason: why it is not complete, for people; empty when it is.
        genotype: ``Genotype.to_json()``.
        metrics: validation metrics by name; test ones, once made, are called ``test_...``.
        intervals: 95 % interval (low, high) of each metric that has one, under the metric's name.
        n: number of examples behind each metric.
        costs: ``macs, flops, params, storage_bytes`` of the network that is left after pruning.
        layers: one row a layer that is left: ``{"layer", "kind", "inputs", "outputs", "params"}``.
        layers_drawn: the same before pruning.
        extra: what cards show: ``reliability`` (list of ``{"confidence", "accuracy", "count"}``),
            ``macs_by_operator``, ``dead_units``, ``seed``, ``loss`` (list of ``[step, value]``).
        seconds: this student's share of the kernel's time, then evaluation.
        created: seconds since the epoch when it was told.
    """

    trial: int
    state: State
    genotype: Mapping[str, Any]
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)
    costs: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[Mapping[str, Any], ...] = ()
    layers_drawn: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    created: float = 0.0

    def value(self, name: str) -> float:
        """A metric or cost by name.

        Raises:
            KeyError: this record has no such number.
        """
        return float(self.metrics[name] if name in self.metrics else self.costs[name])

    def replace(self, **changes: Any) -> "TrialRecord":
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Plain data, keys as the attributes."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data["layers"], data["layers_drawn"] = list(self.layers), list(self.layers_drawn)
        data["intervals"] = {k: list(v) for k, v in self.intervals.items()}
        return data

    def dumps(self) -> str:
        """Canonical JSON text.

        Raises:
            ValueError: a number is not finite; such a student is a failed record.
        """
        return canonical_json(self.to_json())

    @staticmethod
    def loads(text: object) -> "TrialRecord":
        """The record of a text that ``dumps`` wrote.

        Raises:
            ValueError: it is no such text: not JSON, not finite, or of other keys and types.
        """
        if not isinstance(text, str):
            raise ValueError(f"found a {type(text).__name__}, expected text")
        try:
            record = _READER.validate_python(json.loads(text))
        except RecursionError:
            raise ValueError("nested too deeply") from None
        record.dumps()  # refuses what is not finite
        return record


_READER = TypeAdapter(TrialRecord)
