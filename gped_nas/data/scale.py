"""What a radius is a share of: the range of pictures, or the deviation of each column of a table.

It belongs to a dataset and travels with every student, so that ``epsilon 0.03`` means the same
wherever inputs are changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, FiniteFloat, NonNegativeFloat, model_validator
from torch import Tensor

from gped_nas.config import Config, parse
from gped_nas.data.normalization import column_spread
from gped_nas.data.rows import chunks
from gped_nas.errors import DataError

_BYTE = (0.0, 255.0)
_DIGITS = 4
"""Significant digits of a radius."""


@dataclass(frozen=True)
class ValueRange:
    """The smallest and the largest value that a picture can have.

    Attributes:
        low, high: in the dataset's own unit.
        is_seen: whether they are those of the training part, because nobody declared others.
    """

    low: float
    high: float
    is_seen: bool = False

    def unit(self, raw: Tensor) -> Tensor:
        """What a share of 1 is, of a shape that meets ``raw`` (N, *input_shape)."""
        return raw.new_full((), self.high - self.low)

    @property
    def bounds(self) -> tuple[float, float]:
        """Where inputs stay."""
        return self.low, self.high

    def describe(self, share: float) -> str:
        """A radius for people: ``0.03 (of 0..255: 7.65)``."""
        seen = ", as seen in training" if self.is_seen else ""
        radius = f"{share * (self.high - self.low):.{_DIGITS}g}"
        return f"{share:g} (of {self.low:g}..{self.high:g}{seen}: {radius})"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"low": self.low, "high": self.high, "is_seen": self.is_seen}


@dataclass(frozen=True)
class ColumnSpread:
    """The standard deviation of each column of a table in its training part; 0 of a constant one.

    A table has no bounds.
    """

    std: tuple[float, ...]

    def unit(self, raw: Tensor) -> Tensor:
        """What a share of 1 is, (D,)."""
        return raw.new_tensor(self.std)

    @property
    def bounds(self) -> tuple[float, float]:
        """Where inputs stay: anywhere."""
        return -np.inf, np.inf

    def describe(self, share: float) -> str:
        """A radius for people: ``0.1 (of each column's standard deviation)``."""
        return f"{share:g} (of each column's standard deviation)"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"std": list(self.std)}


Scale = ValueRange | ColumnSpread


def scale_of(x: Tensor, value_range: tuple[float, float] | None = None) -> Scale:
    """The scale of raw inputs.

    Args:
        x: (N, *input_shape) of the training part; no number is missing.
        value_range: of pictures, where the dataset declares one. That of bytes is 0 to 255, and of
            other numbers what is seen.
    """
    if x.dim() == 2:
        return ColumnSpread(column_spread(x))
    if value_range is not None:
        low, high = map(float, value_range)  # a declared range may be of whole numbers
        return ValueRange(low, high)
    if x.dtype == torch.uint8:
        return ValueRange(*_BYTE)

    low, high = _extremes(x)
    return ValueRange(low, high, is_seen=True)


def _extremes(x: Tensor) -> tuple[float, float]:
    """The smallest and the largest number; what lies on disk is read once."""
    extremes = [chunk.aminmax() for chunk in chunks(x)]
    lows, highs = zip(*extremes, strict=True)
    return float(min(lows)), float(max(highs))


def check_value_range(value_range: tuple[float, float], x: Tensor, where: str) -> None:
    """Raise ``DataError`` unless these can be the smallest and the largest value of inputs."""
    low, high = value_range
    if x.dim() == 2:
        raise DataError(
            f"{where}: found value_range and a table, expected pictures: a table's radius is a "
            "share of each column's standard deviation; remove it"
        )

    smallest, largest = _extremes(x)
    if not low <= smallest <= largest <= high or low == high:
        raise DataError(
            f"{where}: found value_range: [{low:g}, {high:g}] and inputs from {smallest:g} to "
            f"{largest:g}, expected a range that holds them; widen it"
        )


class _RangeFile(Config):
    low: FiniteFloat
    high: FiniteFloat
    is_seen: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> "_RangeFile":
        if self.low > self.high:
            raise ValueError(f"found low {self.low:g} above high {self.high:g}")
        return self


class _SpreadFile(Config):
    std: Annotated[tuple[NonNegativeFloat, ...], Field(strict=False, min_length=1)]


def parse_scale(data: Mapping[str, Any], where: str) -> Scale:
    """The scale that plain data describe.

    Raises:
        ConfigError: they describe none.
    """
    if "std" in data:
        return ColumnSpread(parse(_SpreadFile, data, where).std)
    file = parse(_RangeFile, data, where)
    return ValueRange(file.low, file.high, file.is_seen)
