"""What records say to a proposer: which trainings were made, what came of them, which are open."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gped_nas.models.base import Genotype
from gped_nas.models.labels import COUNTED_COSTS
from gped_nas.search.proposing.candidates import Key, key_of
from gped_nas.search.record import TrialRecord
from gped_nas.search.space import SearchSpace
from gped_nas.search.trials import is_its_fault

_MEASURED_STATES = ("complete", "infeasible")


@dataclass(frozen=True)
class Training:
    """One training and what it came to.

    Attributes:
        key: what it follows from.
        genotype: that was trained; its storage type is one of those that it was told in.
        record: of its student, in the cheapest storage type that was told.
        values: objectives, constraints and costs of that student; empty of a training that failed,
            and of a genotype that was refused without one.
    """

    key: Key
    genotype: Genotype
    record: TrialRecord
    values: Mapping[str, float]

    @property
    def is_running(self) -> bool:
        """Whether it has not come to an end."""
        return self.record.state == "running"

    @property
    def is_failed(self) -> bool:
        """Whether it came to nothing by a fault of its own."""
        return self.record.state == "failed"


def trainings_of(records: Sequence[TrialRecord], space: SearchSpace) -> list[Training]:
    """The trainings of records, in the order in which they began.

    What was interrupted was not trained, and may be drawn again.
    """
    by_key: dict[Key, TrialRecord] = {}
    for record in records:
        if not _is_telling(record):
            continue
        key = key_of(record.genotype, space)
        if key not in by_key or _says_more(record, by_key[key]):
            by_key[key] = record

    trainings = []
    for key, record in by_key.items():
        values = _values_of(record, space) if _is_measured(record) else {}
        trainings.append(Training(key, _genotype_of(_hashable(record)), record, values))
    return trainings


def _is_telling(record: TrialRecord) -> bool:
    if "family" not in record.genotype or record.state == "duplicate":
        return False
    return record.state != "failed" or is_its_fault(record.reason)


def _is_measured(record: TrialRecord) -> bool:
    return record.state in _MEASURED_STATES and bool(record.measures)


def _says_more(record: TrialRecord, earlier: TrialRecord) -> bool:
    """Whether another trial of the same training is the one to learn from."""
    if not _is_measured(earlier) or not _is_measured(record):
        return _is_measured(record)
    return record.costs["storage_bytes"] < earlier.costs["storage_bytes"]


def _values_of(record: TrialRecord, space: SearchSpace) -> dict[str, float]:
    """What a proposer asks of a student; without what has no finite value."""
    values = {}
    for name in dict.fromkeys((*space.goal_names, *COUNTED_COSTS)):
        measured = record.measured(name)
        value = record.costs.get(name) if measured is None else measured.value
        if value is not None and math.isfinite(value):
            values[name] = float(value)
    return values


def _hashable(record: TrialRecord) -> Key:
    entries = []
    for name, value in record.genotype.items():
        entries.append((name, tuple(value) if isinstance(value, list) else value))
    return tuple(entries)


@functools.lru_cache(maxsize=16_384)
def _genotype_of(values: Key) -> Genotype:
    """The genotype of a record; records are asked again for each population."""
    return Genotype.from_json(dict(values))
