"""A box file: the set T of inputs that a question is about, and the region S of safe answers.

```yaml
inputs:
  age: [30, 40]             # from 30 to 40, in the unit of the user's table
  income: 52000             # this number
  height: {low: 1.5}        # up to what training data show
  color: [red, blue]        # of a column of text: one of these
safe: class is never refused
```

A column that is left out is free within what training data show. Columns without names are numbered
from 0. Of pictures, ``inputs: [0, 30]`` bounds all pixels, and ``inputs: box.npz``, also of a
table, is a file with the arrays ``low`` and ``high``. ``safe`` is a line or a list of lines, see
``region``; without it, a class must stay what it is in the middle, and nothing is asked of a real
label but where it lies. ``parts`` is how many parts a box is split into at most.

Columns of text become several numbers. Each choice of texts is a box of its own, so that a network
is never asked about half a category.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from gped_nas.config import Config, parse, read_yaml
from gped_nas.data.archives import UNREADABLE, check_archive, reason_of
from gped_nas.data.base import Dataset
from gped_nas.data.columns import Column, TableColumns
from gped_nas.data.rows import chunks
from gped_nas.errors import ConfigError, DataError, listed, nearest
from gped_nas.evaluate.certify.region import Region, parse_region
from gped_nas.evaluate.certify.splitting import MOST_PARTS, Boxes
from gped_nas.io import Array, environment

_MOST_CHOICES = 256
"""Choices of texts, each of which is a box of its own."""
_ENDS = ("low", "high")


class BoxSettings(Config):
    """What a box file holds."""

    inputs: Any = Field(
        None,
        description="bounds of columns, of all pixels, or a file of arrays; all columns are free "
        "if nothing is said",
    )
    safe: Annotated[
        tuple[str, ...],
        Field(strict=False, description="the answers that are safe: a line, or several"),
    ] = ()
    parts: int = Field(MOST_PARTS, ge=1, description="parts that the box is split into, at most")

    @field_validator("safe", mode="before")
    @classmethod
    def _one_line_is_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


@dataclass(frozen=True, eq=False)
class BoxQuestion:
    """What a box file asks.

    Attributes:
        name: of the file, for people.
        boxes: of raw inputs; together they are the set T.
        region: the safe answers S; None where none are said.
        most_parts: that the boxes are split into, together.
        notes: what a reader must know, one sentence each.
    """

    name: str
    boxes: Boxes
    region: Region | None
    most_parts: int
    notes: tuple[str, ...] = ()


def read_box(file: str | Path | Mapping[str, Any], dataset: Dataset) -> BoxQuestion:
    """The question of a box file, or of the same settings in a mapping.

    Args:
        file: its path or its content.
        dataset: what its columns, classes and units are of.

    Raises:
        ConfigError: an unknown or impossible setting, an unknown column or class, reversed bounds,
            a number that is not finite or outside the range of pictures.
        DataError: a file of arrays cannot be used.
        EnvironmentProblem: a file exists and cannot be read.
    """
    if isinstance(file, Mapping):
        where, folder, name, settings = "box", Path(), "box", dict(file)
    else:
        path = Path(file)
        where, folder, name = str(path), path.parent, path.name
        settings = read_yaml(path, "box file")

    cfg = parse(BoxSettings, settings, where)
    reader = _Reader(dataset, f"{where}: inputs", folder)
    boxes = reader.boxes(cfg.inputs)
    region = None
    if cfg.safe:
        region = parse_region(cfg.safe, dataset.class_names, f"{where}: safe")
    if len(boxes) > cfg.parts:
        raise ConfigError(
            f"{where}: parts: found {cfg.parts}, expected at least {len(boxes)}, one for each "
            "choice of categories; raise it, or name fewer categories"
        )
    return BoxQuestion(name, boxes, region, cfg.parts, tuple(reader.notes))


class _Reader:
    """Reads bounds of inputs.

    Args:
        dataset: whose inputs.
        where: file and key, for messages.
        folder: where files that it names lie.
    """

    def __init__(self, dataset: Dataset, where: str, folder: Path) -> None:
        self._dataset, self._where, self._folder = dataset, where, folder
        self.notes: list[str] = []

    def boxes(self, inputs: Any) -> Boxes:
        """The boxes of what the file has under ``inputs``."""
        if isinstance(inputs, str):
            return self._checked(*self._arrays(inputs))

        is_table = len(self._dataset.raw_shape) == 1
        if is_table and (inputs is None or isinstance(inputs, Mapping)):
            return self._of_columns({str(key): entry for key, entry in (inputs or {}).items()})

        shape = self._dataset.raw_shape
        if is_table:
            raise ConfigError(
                f"{self._where}: found {inputs!r:.60}, expected bounds by column; write "
                f"{{{_columns(self._dataset)[0].name}: [0, 1]}}, for example"
            )
        if isinstance(inputs, Mapping) or inputs is None:
            raise ConfigError(
                f"{self._where}: found {inputs!r:.60}, expected bounds of pictures of shape "
                f"{shape}; write [0, 30] for all pixels, or a file with the arrays low and high"
            )
        low, high = self._ends(inputs, self._where, self._dataset.scale.bounds)
        full = torch.ones(shape, dtype=torch.float64)
        return self._checked(low * full, high * full)

    # -- tables

    def _of_columns(self, entries: Mapping[str, Any]) -> Boxes:
        """One box for each choice of texts."""
        columns = _columns(self._dataset)
        names = [column.name for column in columns]
        for name in entries:
            if name not in names:
                raise ConfigError(f"{self._where}: unknown column '{name}'{nearest(name, names)}")

        lows, highs = _seen(self._dataset)
        choices: list[list[tuple[list[float], list[float]]]] = []
        place = 0
        for column in columns:
            width = len(column.labels)
            where = f"{self._where}: {column.name}"
            if column.categories is None:
                seen = lows[place], highs[place]
                entry = entries.get(column.name, list(seen))
                low, high = self._ends(entry, where, seen)
                self._note_beyond(column.name, (low, high), seen)
                choices.append([([low], [high])])
            else:
                texts = self._texts(entries.get(column.name), column, where)
                choices.append([(_one_hot(text, column),) * 2 for text in texts])
            place += width

        self._check_number(choices)
        corners = list(product(*choices))
        lower = [list(chain(*(ends[0] for ends in corner))) for corner in corners]
        upper = [list(chain(*(ends[1] for ends in corner))) for corner in corners]
        exact = torch.float64
        return Boxes(torch.tensor(lower, dtype=exact), torch.tensor(upper, dtype=exact))

    def _texts(self, entry: Any, column: Column, where: str) -> list[str]:
        """The categories that a column may have."""
        assert column.categories is not None
        if entry is None:
            return list(column.categories)
        entries = entry if isinstance(entry, list | tuple) else [entry]
        texts = [_text(each) for each in entries]
        for text in texts:
            if text not in column.categories:
                raise ConfigError(f"{where}: found '{text}'{nearest(text, column.categories)}")
        if not texts:
            raise ConfigError(f"{where}: found no category; name one, or leave the column out")
        return list(dict.fromkeys(texts))

    def _check_number(self, choices: Sequence[Sequence[object]]) -> None:
        number = math.prod(len(each) for each in choices)
        if number > _MOST_CHOICES:
            raise ConfigError(
                f"{self._where}: found {number:,} choices of categories, each of which is a box, "
                f"expected at most {_MOST_CHOICES}; name the categories of some columns"
            )

    def _note_beyond(self, name: str, ends: tuple[float, float], seen: tuple[float, float]) -> None:
        """Say where a box reaches further than training data."""
        if ends[0] < seen[0] or ends[1] > seen[1]:
            self.notes.append(
                f"column '{name}': the box reaches from {ends[0]:g} to {ends[1]:g}, training data "
                f"from {seen[0]:g} to {seen[1]:g}: beyond them nobody has looked"
            )

    # -- numbers

    def _ends(self, entry: Any, where: str, default: tuple[float, float]) -> tuple[float, float]:
        """Low and high of a number, of two, or of ``{low: 1, high: 2}``, one of which may lack."""
        low: Any
        high: Any
        if isinstance(entry, Mapping):
            for key in entry:
                if key not in _ENDS:
                    raise ConfigError(f"{where}: unknown key '{key}'{nearest(key, _ENDS)}")
            low, high = entry.get("low", default[0]), entry.get("high", default[1])
        elif isinstance(entry, list | tuple) and len(entry) == 2:
            low, high = entry
        else:
            low = high = entry

        for end in (low, high):
            if isinstance(end, str) or not isinstance(end, int | float | np.number):
                raise ConfigError(
                    f"{where}: found {end!r:.60}, expected a number; write [low, high], or one "
                    "number that it is"
                )
            if not math.isfinite(end):
                raise ConfigError(f"{where}: found {end}, expected a finite number; write a bound")
        if low > high:
            raise ConfigError(
                f"{where}: found the bounds {low:g} and {high:g}, expected the lower one first; "
                "swap them"
            )
        return float(low), float(high)

    # -- arrays

    def _arrays(self, name: str) -> tuple[Tensor, Tensor]:
        """The arrays ``low`` and ``high`` of a file."""
        path = self._folder / name
        arrays = _read_arrays(path)
        missing = [end for end in _ENDS if end not in arrays]
        if missing:
            raise DataError(
                f"{path}: found the arrays {listed(sorted(arrays)) or 'none'}, expected low and "
                f"high; add {missing[0]}"
            )

        ends = []
        for end in _ENDS:
            array, shape = arrays[end], self._dataset.raw_shape
            is_one_channel = shape[0] == 1 and array.shape == shape[1:]
            if array.dtype.kind not in "biuf" or not (array.shape == shape or is_one_channel):
                raise DataError(
                    f"{path}: {end}: found {array.dtype} of shape {array.shape}, expected numbers "
                    f"of shape {shape}, as the dataset's inputs"
                )
            ends.append(torch.from_numpy(array.astype(np.float64).reshape(shape)))
        return ends[0], ends[1]

    def _checked(self, low: Tensor, high: Tensor) -> Boxes:
        """One box, whose bounds are finite, in order, and in the range of pictures."""
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise ConfigError(
                f"{self._where}: found numbers that are NaN or infinite, expected finite ones; "
                "write bounds"
            )
        if bool((low > high).any()):
            place = tuple((low > high).nonzero()[0].tolist())
            raise ConfigError(
                f"{self._where}: found low {float(low[place]):g} above high "
                f"{float(high[place]):g} at {list(place)}, expected the lower one first; swap them"
            )
        least, most = self._dataset.scale.bounds
        if float(low.min()) < least or float(high.max()) > most:
            raise ConfigError(
                f"{self._where}: found numbers from {float(low.min()):g} to "
                f"{float(high.max()):g}, but inputs have values from {least:g} to {most:g}; "
                "keep the box inside"
            )
        return Boxes(low[None], high[None])


def _columns(dataset: Dataset) -> Sequence[Column]:
    """The columns of a table, which are numbered where they have no names."""
    if isinstance(dataset.preparation, TableColumns):
        return dataset.preparation.columns
    return [Column(name=str(number)) for number in range(dataset.raw_shape[0])]


def _seen(dataset: Dataset) -> tuple[list[float], list[float]]:
    """The least and the greatest number of each column in the training part; of those there."""
    lows, highs = [], []
    for chunk in chunks(dataset.train.x):
        numbers = chunk.double()
        is_missing = numbers.isnan()
        lows.append(numbers.masked_fill(is_missing, math.inf).amin(0))
        highs.append(numbers.masked_fill(is_missing, -math.inf).amax(0))
    return torch.stack(lows).amin(0).tolist(), torch.stack(highs).amax(0).tolist()


def _one_hot(text: str, column: Column) -> list[float]:
    return [float(text == category) for category in cast(tuple[str, ...], column.categories)]


def _text(entry: Any) -> str:
    """A category as columns have it: a whole number has no decimal point."""
    is_whole = isinstance(entry, float) and entry.is_integer()
    return str(int(entry)) if is_whole else str(entry)


def _read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz``."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an .npz with the arrays low and high")
    with environment("read", path):
        path.open("rb").close()
    try:
        with path.open("rb") as file:
            check_archive(file, path)
            archive = np.load(file, allow_pickle=False)
            return {name: archive[name] for name in archive.files if name in _ENDS}
    except (*UNREADABLE, AttributeError) as error:
        raise DataError(
            f"{path}: not a readable .npz ({reason_of(error)}); write it again with numpy.savez"
        ) from None
