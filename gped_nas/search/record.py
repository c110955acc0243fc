"""One trial, one record, one JSON: what a study remembers of a student."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter

from gped_nas.evaluate.measured import (
    Key,
    Measured,
    Measures,
    finite_values,
    from_public,
    parse_name,
    to_public,
)
from gped_nas.io import SCHEMA_VERSION, canonical_json
from gped_nas.spelling import as_today

State = Literal["complete", "pruned", "infeasible", "duplicate", "failed", "running"]
Above = tuple[float, float, float] | None
"""A predictor's metric less the guess's, and the ends of the 95 % interval of the difference; None
where the guess has no finite value."""
FINISHED: frozenset[str] = frozenset({"complete", "pruned", "infeasible", "duplicate"})
"""States that count towards ``--n-trials``, see ``TrialRecord.is_counted``; failed trials are
bounded by ``max_failures`` instead."""


@dataclass(frozen=True)
class TrialRecord:
    """What a study remembers of one trial.

    Attributes:
        trial: Optuna's trial number.
        state: see ``FINISHED``; ``infeasible`` may carry metrics when a constraint broke only after
            training.
        reason: why it is not complete, for people; empty when it is.
        genotype: ``Genotype.to_json()``.
        measures: what was measured of its student; test measures come once they are made.
        costs: ``macs, flops, params, storage_bytes`` of the network that is left after pruning;
            where latency is asked for, ``latency_ms`` and ``latency_p95_ms`` too.
        layers: one row a layer that is left: ``{"layer", "kind", "inputs", "outputs", "params"}``.
        layers_drawn: the same before pruning.
        extra: what cards show: ``reliability`` (list of ``{"confidence", "accuracy", "count"}``),
            ``macs_by_operator``, ``dead_units``, ``seed``, ``loss`` (list of ``[step, value]``),
            ``latency`` (``repeats`` and ``blocks_ms``) where it was measured.
        above_guess: by quality objective, its paired difference to the guess on validation, see
            ``search.guess``; empty where it was not compared.
        draws: by quality objective, its values on bootstrap draws of validation, see
            ``search.draws``; empty where it has no student, or of an earlier version.
        seconds: this student's share of the kernel's time, then evaluation.
        created: seconds since the epoch when it was told.
        spec_sha256: the digest in its student's ``spec.json``; empty where no student was kept, or
            before specs had one.
        variant_of: the trial whose student this is, stored in another type; None for a student that
            was trained for this trial.
        repeat_of: the trial that answers a genotype that was drawn again; None of any other, and of
            repeats in studies that counted them.
        variants: the same student in other storage types, on the way from who measured it to the
            ledger, which makes trials of them; never stored here.
        is_sealed: whether its digest was read with it; not so before records had one.
        is_outside: of a record that is told as its trial ends, whether it is outside the region of
            interest; a region may change, so that it is not stored.
    """

    trial: int
    state: State
    genotype: Mapping[str, Any]
    reason: str = ""
    measures: Measures = field(default_factory=dict)
    costs: Mapping[str, int | float] = field(default_factory=dict)
    layers: tuple[Mapping[str, Any], ...] = ()
    layers_drawn: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    above_guess: Mapping[str, Above] = field(default_factory=dict)
    draws: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    created: float = 0.0
    spec_sha256: str = ""
    variant_of: int | None = None
    repeat_of: int | None = None
    variants: "tuple[TrialRecord, ...]" = field(default=(), compare=False)
    is_sealed: bool = field(default=True, compare=False)
    is_outside: bool = field(default=False, compare=False)

    @property
    def is_counted(self) -> bool:
        """Whether it is a finished trial: neither a variant nor a repeat of another one."""
        return self.state in FINISHED and self.variant_of is None and self.repeat_of is None

    @property
    def trained_in(self) -> int:
        """The trial that its student was trained for."""
        return self.trial if self.variant_of is None else self.variant_of

    @property
    def metrics(self) -> dict[str, float]:
        """Finite values by public name: ``nll``, ``nll@permuted``, ``test_nll``, ..."""
        return finite_values(self.measures)

    def measured(self, name: str) -> Measured | None:
        """The measure of a public name; None where it was not made."""
        return self.measures.get(parse_name(name))

    @property
    def values(self) -> dict[str, float]:
        """Metrics and costs by name."""
        return {**self.metrics, **self.costs}

    def value(self, name: str) -> float:
        """A metric or cost by name.

        Raises:
            KeyError: this record has no such number.
        """
        measured = self.measured(name)
        value = self.costs[name] if measured is None else measured.value
        if value is None:
            raise KeyError(name)
        return float(value)

    @property
    def origin(self) -> str:
        """Whose student it has where it was not trained for it, for people; else empty."""
        if self.variant_of is None:
            return ""
        return f"student of trial {self.variant_of}, stored as {self.genotype['storage_dtype']}"

    def replace(self, **changes: Any) -> "TrialRecord":
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Plain data: keys as the attributes, measures as ``metrics``, ``intervals`` and ``n``.

        Draws are for programs, and ``dumps`` alone writes them.
        """
        relations = {}
        if self.variant_of is not None:
            relations["variant_of"] = self.variant_of
        if self.repeat_of is not None:
            relations["repeat_of"] = self.repeat_of

        return {
            "schema_version": SCHEMA_VERSION,
            "trial": self.trial,
            "state": self.state,
            "genotype": self.genotype,
            "reason": self.reason,
            **to_public(self.measures),
            "costs": self.costs,
            "layers": list(self.layers),
            "layers_drawn": list(self.layers_drawn),
            "extra": self.extra,
            "above_guess": self.above_guess,
            "seconds": self.seconds,
            "created": self.created,
            "spec_sha256": self.spec_sha256,
            **relations,
        }

    def dumps(self) -> str:
        """Canonical JSON text.

        Raises:
            ValueError: a number is not finite; such a student is a failed record.
        """
        draws = {"draws": self.draws} if self.draws else {}
        return canonical_json({**self.to_json(), **draws})

    @staticmethod
    def loads(text: object) -> "TrialRecord":
        """The record of a text that ``dumps`` wrote.

        Raises:
            ValueError: it is no such text: not JSON, not finite, or of other keys and types.
        """
        if not isinstance(text, str):
            raise ValueError(f"found a {type(text).__name__}, expected text")
        try:
            data = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
            file = _READER.validate_python(data)
        except RecursionError:
            raise ValueError("nested too deeply") from None

        if file.schema_version > SCHEMA_VERSION:
            raise ValueError(f"of schema version {file.schema_version}, expected {SCHEMA_VERSION}")

        return file.record()


def _refuse_constant(name: str) -> float:
    raise ValueError(f"found {name}, expected a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"found {text[:40]}, expected a finite number")
    return value


@dataclass(frozen=True)
class _RecordFile:
    """Layout of a record's JSON; a text of the first versions says no ``schema_version``."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    trial: int
    state: State
    genotype: Mapping[str, Any]
    schema_version: int = 0
    reason: str = ""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    n: Mapping[str, int] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, int | float] = field(default_factory=dict)
    layers: tuple[Mapping[str, Any], ...] = ()
    layers_drawn: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    above_guess: Mapping[str, Above] = field(default_factory=dict)
    draws: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    created: float = 0.0
    spec_sha256: str = ""
    variant_of: int | None = None
    repeat_of: int | None = None

    def record(self) -> TrialRecord:
        measures: dict[Key, Measured] = from_public(self.metrics, self.intervals, self.n, self.why)
        extra = dict(self.extra)
        if "recipe" in extra:
            extra["recipe"] = as_today(extra["recipe"])

        return TrialRecord(
            trial=self.trial,
            state=self.state,
            genotype=self.genotype,
            reason=self.reason,
            measures=measures,
            costs=self.costs,
            layers=self.layers,
            layers_drawn=self.layers_drawn,
            extra=extra,
            above_guess=self.above_guess,
            draws=self.draws,
            seconds=self.seconds,
            created=self.created,
            spec_sha256=self.spec_sha256,
            variant_of=self.variant_of,
            repeat_of=self.repeat_of,
        )


_READER = TypeAdapter(_RecordFile)
