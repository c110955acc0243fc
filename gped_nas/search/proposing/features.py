"""Genotypes as points of a space in which near ones learn alike.

A number is an input, on a log scale where it spans a factor of eight; a word is an input a word.
All are standardized as random genotypes of the space spread, so that a length of one means the same
for each. The value of a layer that is not there is the mean of the others: it says nothing, since
the number of layers is an input too. What only repeats an earlier input is left out, such as the
width of the second layer where all layers have one width. So is the storage type, in which a
student is stored and not trained.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gped_nas.models.base import Genotype

Floats = NDArray[np.float64]
Place = tuple[str, int]
"""A genotype value and the layer in it; -1 for a value that is no list."""

FAMILY = "family"
_LOG_FROM = 8.0
"""The ratio of the largest to the least value from which a number is on a log scale."""


def places_of(genotype: Genotype) -> dict[Place, Any]:
    """Every entry of a genotype that its training depends on, by its place."""
    places: dict[Place, Any] = {(FAMILY, -1): genotype.family}
    for name, value in genotype.values:
        if name == "storage_dtype":
            continue
        if isinstance(value, tuple):
            places |= {(name, layer): entry for layer, entry in enumerate(value)}
        else:
            places[name, -1] = value
    return places


@dataclass(frozen=True)
class _Column:
    """One input of the process.

    Attributes:
        place: whose value it is.
        word: of a place of words, the one that this column is 1 for; None of a number.
        least: of a number on a log scale, the least positive value; 0 of one on a linear scale.
        mean, std: of the values of random genotypes.
    """

    place: Place
    word: str | None = None
    least: float = 0.0
    mean: float = 0.0
    std: float = 1.0

    def raw(self, places: Mapping[Place, Any]) -> float:
        """The value before it is standardized; NaN of a place that is not there."""
        if self.word is not None:
            return float(str(places.get(self.place, "")) == self.word)
        value: Any = places.get(self.place)
        if not _is_number(value):
            return math.nan
        if not self.least:
            return float(value)
        # zero lies as far below the least value as a factor of ten
        return math.log10(max(float(value), self.least / 10))


class Features:
    """The inputs of genotypes.

    Args:
        sample: genotypes drawn from the space at random; they say which inputs there are.
    """

    def __init__(self, sample: Sequence[Genotype]) -> None:
        self._sample = [places_of(genotype) for genotype in sample]
        self._columns: list[_Column] = []

        places = dict.fromkeys(place for drawn in self._sample for place in drawn)
        for place in places:
            values = [drawn[place] for drawn in self._sample if place in drawn]
            for column in _columns_of(place, values):
                self._keep(column)

    @property
    def places(self) -> tuple[Place, ...]:
        """What the inputs are of, in order."""
        return tuple(column.place for column in self._columns)

    def of(self, genotypes: Sequence[Genotype]) -> Floats:
        """The inputs (N, D) of genotypes; D is at least one."""
        rows_NP = [places_of(genotype) for genotype in genotypes]
        inputs_ND = np.zeros((len(genotypes), max(1, len(self._columns))))
        for d, column in enumerate(self._columns):
            raw_N = np.array([column.raw(places) for places in rows_NP])
            inputs_ND[:, d] = np.nan_to_num((raw_N - column.mean) / column.std)
        return inputs_ND

    def _keep(self, column: _Column) -> None:
        """Take a column that says something, and something that no earlier one says."""
        raw_N = np.array([column.raw(places) for places in self._sample])
        is_there = ~np.isnan(raw_N)
        std = raw_N[is_there].std() if is_there.any() else 0.0
        if std < 1e-12:
            return

        for earlier in self._columns:
            if earlier.word is None and column.word is None:
                other_N = np.array([earlier.raw(places) for places in self._sample])
                differences = (raw_N - other_N)[is_there]
                if np.ptp(differences) < 1e-9:
                    return
        mean = float(raw_N[is_there].mean())
        self._columns.append(_Column(column.place, column.word, column.least, mean, float(std)))


def _columns_of(place: Place, values: Sequence[Any]) -> list[_Column]:
    """The columns of a place, by the values that it has."""
    if not all(_is_number(value) for value in values):
        words = sorted({str(value) for value in values})
        return [_Column(place, word) for word in words]

    positive = [float(value) for value in values if value > 0]
    is_wide = bool(positive) and max(positive) >= _LOG_FROM * min(positive)
    is_log = min(values) >= 0 and is_wide
    return [_Column(place, least=min(positive) if is_log else 0.0)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
