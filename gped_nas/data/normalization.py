"""How raw numbers become a network's: ``(raw - mean) / std``, fitted on the training part.

Mean and deviation are one pair for the whole input, or one for each column of a table and each
channel of pictures. They travel with every student, so that a student takes inputs and gives labels
in the dataset's own range.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gped_nas.data.rows import chunks
from gped_nas.errors import DataError

Floats = NDArray[np.float64]
Normalize = Literal["whole", "columns", "channels"]
"""What shares one mean and one deviation: the whole input, each column, each channel."""
Missing = Literal["refuse", "impute"]
"""What becomes of NaN in a table: see ``ImputingNormalization``."""

_CHUNK = 4096
_FAR = 1e3
_WIDE = frozenset({torch.float64, torch.int32, torch.int64})
"""Dtypes that may hold more digits than float32."""
_LEAST_STEPS = 256
"""Float32 numbers that a deviation must span, so that a student can tell inputs apart."""


@dataclass(frozen=True)
class Normalization:
    """One mean and one standard deviation for all numbers."""

    mean: float
    std: float

    def __call__(self, raw: Tensor) -> Tensor:
        """Normalized float32 numbers of the shape of ``raw``."""
        if raw.dtype in _WIDE and self.is_far:
            return _normalize_wide(raw, self.mean, self.std)

        # in place: large inputs exist once
        normalized = raw.to(torch.float32, copy=True)
        return normalized.sub_(self.mean).div_(self.std)

    @property
    def is_far(self) -> bool:
        """Whether the mean must be taken off before numbers are cast to float32.

        Numbers near zero are cast first, so that studies made before there was a choice keep their
        bits.
        """
        return abs(self.mean) > _FAR * self.std

    def invert(self, normalized: Tensor) -> Tensor:
        """Raw numbers, of the dtype of ``normalized``."""
        return normalized * self.std + self.mean

    def to_json(self) -> dict[str, float | list[float]]:
        """Plain data."""
        return {"mean": self.mean, "std": self.std}

    def describe(self) -> str:
        """The rule as text."""
        return f"(input - {self.mean:g}) / {self.std:g}"


@dataclass(frozen=True)
class AxisNormalization:
    """A mean and a standard deviation for each column of (N, D), or channel of (N, C, H, W)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, raw: Tensor) -> Tensor:
        """Normalized float32 numbers of the shape of ``raw``, (N, D) or (N, C, H, W)."""
        mean, std = self._along(raw)
        if raw.dtype in _WIDE:
            return _normalize_wide(raw, mean, std)

        # in place: large inputs exist once
        normalized = raw.to(torch.float32, copy=True)
        return normalized.sub_(mean.float()).div_(std.float())

    def invert(self, normalized: Tensor) -> Tensor:
        """Raw numbers, of the dtype of ``normalized``."""
        mean, std = self._along(normalized)
        return (normalized * std + mean).to(normalized.dtype)

    def to_json(self) -> dict[str, float | list[float]]:
        """Plain data."""
        return {"mean": list(self.mean), "std": list(self.std)}

    def describe(self) -> str:
        """The rule as text."""
        return (
            f"(input - mean) / std with {len(self.mean)} means and deviations, one for each column "
            "or channel, in spec.json"
        )

    def _along(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and deviations, float64, of a shape that meets the second axis of ``x``."""
        shape = (len(self.mean), *[1] * (x.dim() - 2))
        mean = torch.tensor(self.mean, dtype=torch.float64, device=x.device)
        std = torch.tensor(self.std, dtype=torch.float64, device=x.device)
        return mean.view(shape), std.view(shape)


@dataclass(frozen=True)
class ImputingNormalization:
    """As ``AxisNormalization`` of a table some of whose numbers are missing.

    A missing number is NaN. The median of its column stands for it, and a further column says where
    numbers were missing, 1 or 0, for each column that lacked some in training.

    Attributes:
        columns: of what is there and what was filled in.
        fill: the medians of the training part, one a column.
        flagged: the columns that have a further one.
    """

    columns: AxisNormalization
    fill: tuple[float, ...]
    flagged: tuple[int, ...]

    @property
    def mean(self) -> tuple[float, ...]:
        """One a column of the table."""
        return self.columns.mean

    @property
    def std(self) -> tuple[float, ...]:
        """One a column of the table."""
        return self.columns.std

    def __call__(self, raw: Tensor) -> Tensor:
        """Normalized float32 numbers (N, D + flags) of raw ones (N, D)."""
        normalized = self.columns(self.fill_in(raw))
        if not self.flagged:
            return normalized
        flags = raw.isnan()[:, list(self.flagged)].to(torch.float32)
        return torch.cat([normalized, flags], dim=1)

    def fill_in(self, raw: Tensor) -> Tensor:
        """Raw numbers (N, D) with medians where some were missing."""
        fill = torch.tensor(self.fill, dtype=raw.dtype, device=raw.device)
        return torch.where(raw.isnan(), fill, raw)

    def invert(self, normalized: Tensor) -> Tensor:
        """Raw numbers (N, D); NaN where a flag, if there are any, says that one was missing."""
        num_columns = len(self.fill)
        raw = self.columns.invert(normalized[:, :num_columns])
        flags = normalized[:, num_columns:]
        for place, column in enumerate(self.flagged if flags.shape[1] else ()):
            raw[flags[:, place] > 0.5, column] = torch.nan
        return raw

    def to_json(self) -> dict[str, float | list[float]]:
        """Plain data."""
        flagged: list[float] = list(self.flagged)
        return {**self.columns.to_json(), "fill": list(self.fill), "flagged": flagged}

    def describe(self) -> str:
        """The rule as text."""
        return (
            f"{self.columns.describe()}; NaN is a missing number: the column's median stands for "
            f"it, and {len(self.flagged)} columns have a further one that says so"
        )


AnyNormalization = Normalization | AxisNormalization | ImputingNormalization


def _normalize_wide(raw: Tensor, mean: Tensor | float, std: Tensor | float) -> Tensor:
    """Float32 numbers of which mean and deviation were taken off in float64."""
    normalized = torch.empty(raw.shape, dtype=torch.float32, device=raw.device)
    for start in range(0, len(raw), _CHUNK):
        rows = slice(start, start + _CHUNK)
        normalized[rows] = (raw[rows].double() - mean) / std
    return normalized


def fit(x: Tensor) -> Normalization:
    """Mean and standard deviation over all numbers of ``x`` (N, *input_shape).

    The standard deviation is 1 if all numbers are equal. Sums are in float64 and in a fixed order,
    so that the result does not depend on the number of threads.
    """
    mean = sum(float(chunk.sum(dtype=np.float64)) for chunk in _chunks(x)) / x.numel()
    squares = (np.square(chunk - np.float64(mean)).sum() for chunk in _chunks(x))
    variance = sum(float(square) for square in squares) / x.numel()
    std = variance**0.5

    largest = max(float(np.abs(chunk.astype(np.float64)).max()) for chunk in _chunks(x))
    is_spread = std > _rounding_of(x.dtype) * largest
    return Normalization(mean, std if is_spread else 1.0)


def fit_axis(x: Tensor) -> AxisNormalization:
    """Mean and standard deviation of each column of (N, D), or each channel of (N, C, H, W).

    As ``fit`` otherwise.
    """
    mean, std, largest = _moments_of_bytes(x) if x.dtype == torch.uint8 else _moments(x)
    is_spread = std > _rounding_of(x.dtype) * largest
    return AxisNormalization(tuple(mean.tolist()), tuple(np.where(is_spread, std, 1.0).tolist()))


def column_spread(x: Tensor) -> tuple[float, ...]:
    """The standard deviation of each column of (N, D), as ``fit_axis``; 0 where it is constant."""
    _, std, largest = _moments(x)
    is_spread = std > _rounding_of(x.dtype) * largest
    return tuple(np.where(is_spread, std, 0.0).tolist())


def fit_imputing(x: Tensor, name: str) -> ImputingNormalization:
    """Medians of what is there in each column of (N, D), and means and deviations with these.

    Args:
        x: raw training inputs.
        name: file and array, for messages.

    Raises:
        DataError: a column holds no number.
    """
    table = x.double().numpy()
    is_missing = np.isnan(table)
    empty = np.flatnonzero(is_missing.all(axis=0))
    if len(empty):
        raise DataError(
            f"{name}: column {empty[0]}: found no number in {len(table)} training examples, "
            "expected some; leave the column out"
        )

    fill = np.nanmedian(table, axis=0)
    filled = torch.from_numpy(np.where(is_missing, fill, table)).to(x.dtype)
    flagged = np.flatnonzero(is_missing.any(axis=0))
    return ImputingNormalization(fit_axis(filled), tuple(fill.tolist()), tuple(flagged.tolist()))


def refit(normalization: AnyNormalization, x: Tensor) -> AnyNormalization:
    """One of the same kind, fitted on other inputs."""
    return fit(x) if isinstance(normalization, Normalization) else fit_axis(x)


def may_be_of_bytes(normalization: AnyNormalization) -> bool:
    """Whether training inputs may have been whole numbers from 0 to 255.

    Those from 0 to 1 or from -1 to 1 deviate by less than 1, and standardized ones have mean 0.
    """
    mean, std = float(np.mean(normalization.mean)), float(np.mean(normalization.std))
    return std > 1 and 0.05 * std < mean < 255


def _rounding_of(dtype: torch.dtype) -> float:
    """The relative spread below which numbers of a dtype differ by rounding alone."""
    return 1e-14 if dtype == torch.float64 else 1e-6


def _moments(x: Tensor, *, is_whole: bool = False) -> tuple[Floats, Floats, Floats]:
    """Mean, standard deviation and largest magnitude over all axes but the second, float64.

    Of the whole they are one number each.
    """
    num_axes = 1 if is_whole else x.shape[1]
    count = x.numel() / num_axes
    mean = sum(rows.sum(axis=1) for rows in _rows(x, num_axes)) / count
    variance = (
        sum(np.square(rows - mean[:, None]).sum(axis=1) for rows in _rows(x, num_axes)) / count
    )
    largest = np.max([np.abs(rows).max(axis=1) for rows in _rows(x, num_axes)], axis=0)
    return mean, np.sqrt(variance), largest


def _moments_of_bytes(x: Tensor) -> tuple[Floats, Floats, Floats]:
    """As ``_moments``, from how often each byte occurs: sums of whole numbers, which are exact."""
    counts = np.zeros((x.shape[1], 256), np.int64)
    for chunk in chunks(x):
        for axis, values in enumerate(chunk.unbind(1)):
            counts[axis] += torch.bincount(values.flatten(), minlength=256).numpy()

    total = x.numel() // x.shape[1]
    byte_values = np.arange(256)
    mean = counts @ byte_values / total
    variance = (counts * np.square(byte_values - mean[:, None])).sum(axis=1) / total
    largest = np.where(counts > 0, byte_values, 0).max(axis=1).astype(np.float64)
    return mean, np.sqrt(variance), largest


def _chunks(x: Tensor) -> Iterator[NDArray[Any]]:
    """A few thousand examples at a time, the same ones wherever they lie."""
    for start in range(0, len(x), _CHUNK):
        yield x[start : start + _CHUNK].numpy()


def _rows(x: Tensor, num_axes: int) -> Iterator[Floats]:
    """A row for each column or channel of some examples at a time, or one row, float64."""
    for chunk in chunks(x):
        numbers = chunk.double().numpy()
        if num_axes > 1:
            numbers = np.moveaxis(numbers, 1, 0)
        yield numbers.reshape(num_axes, -1)


def check_float32_shows(x: Tensor, normalize: Normalize, name: str) -> None:
    """Refuse inputs that differ by less than float32 can show: students take float32.

    Args:
        x: raw training inputs, (N, D) or (N, C, H, W).
        normalize: what shares one mean and one deviation.
        name: file and array, for messages.

    Raises:
        DataError: a column, a channel or the whole lies too far from zero for its spread.
    """
    if x.dtype not in _WIDE | {torch.float32}:
        return

    mean, std, largest = _moments(x, is_whole=normalize == "whole")
    for index in range(len(mean)):
        is_constant = std[index] <= 1e-14 * largest[index]
        least = _LEAST_STEPS * float(np.spacing(np.float32(largest[index])))
        if std[index] < least and not is_constant:
            which = f"column {index}, " if len(mean) > 1 else ""
            raise DataError(
                f"{name}: {which}numbers around {mean[index]:.7g} with a standard deviation of "
                f"{std[index]:.3g}, expected at least {least:.2g}, which float32 can show; "
                "subtract an offset from them first: a student takes float32 inputs"
            )
