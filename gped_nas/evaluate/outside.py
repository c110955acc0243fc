"""Out-of-distribution sets: inputs from outside, which a predictor should be unsure about.

| set                | inputs from outside                                                      |
|--------------------|--------------------------------------------------------------------------|
| ``noise``          | every number uniform over the range of the data; in tables over that of  |
|                    | each column in the training part                                         |
| ``rotated``        | the pictures turned by 90, 180 or 270 degrees, drawn for each; those     |
|                    | that are not square by 180                                               |
| a dataset          | its part of the same name, brought to shape and range by ``foreign``     |
| a file or a folder | half of its inputs for validation, the others for test                   |
| a condition        | the inputs themselves under it: ``permuted``, ``blur-2``, an attack      |

There are as many as there are inputs inside, or all where the set has fewer. They are drawn by the
seed, and are the same for every predictor, but for those of attacks. Inputs that the dataset itself
holds, in any of its parts, are no inputs from outside: they are left out.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import torch
from pydantic import Field, FiniteFloat, model_validator
from torch import Generator, Tensor

from gped_nas import rng
from gped_nas.config import Config
from gped_nas.data.base import Dataset, Part, load
from gped_nas.data.foreign import bring_alike, read_foreign
from gped_nas.data.pictures import Resize
from gped_nas.data.rows import chunks
from gped_nas.data.scale import ValueRange
from gped_nas.errors import ConfigError, DataError, EnvironmentProblem, RegistryError
from gped_nas.evaluate.conditions import Condition, Predictor, try_out
from gped_nas.evaluate.predictions import Labels
from gped_nas.io import canonical_json, sha256_file, sha256_text

DRAWN = ("noise", "rotated")
"""Sets that are drawn from the dataset itself."""
_PARTS: tuple[Part, Part] = ("validation", "test")
_DIRECTIONS = 16
_SAME = 0.01
"""Root mean square of a difference, as a share of the data's range, below which it is none."""
_KNOWN: WeakKeyDictionary[Dataset, dict[str, Tensor]] = WeakKeyDictionary()
"""Inputs that were read, by the dataset that they are outside of."""


class OutsideSettings(Config):
    """Settings of a set under a name of the user's; one of the first three is given."""

    path: str | None = Field(
        default=None,
        min_length=1,
        description="an .npz or .npy of inputs, a folder of pictures, or of a table a file like "
        "that of the training data; a relative path starts at the current directory",
    )
    dataset: dict[str, Any] | None = Field(
        default=None, description="settings of a dataset, name included"
    )
    condition: dict[str, Any] | str | None = Field(
        default=None, description="a condition, by its text or by its settings, name included"
    )
    resize: Resize = Field(
        default="crop",
        description="how pictures come to size: scaled until they cover it and cut at their sides, "
        "or stretched",
    )
    value_range: Annotated[tuple[FiniteFloat, FiniteFloat] | None, Field(strict=False)] = Field(
        default=None,
        description="smallest and largest value that pictures of a file can have; 0 and 255 of "
        "bytes, and what is seen of other numbers, if not said",
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> "OutsideSettings":
        given = [key for key in ("path", "dataset", "condition") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"found {found}, expected one of path, dataset and condition")
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError("value_range: expected the smallest value first, then a larger one")
        return self


@dataclass(frozen=True, eq=False)
class Inside:
    """The inputs that those from outside are told apart from.

    Attributes:
        dataset: whose they are.
        part: of it.
        raw: they themselves, (N, *input_shape), raw: all of the part, or some.
        labels: theirs, (N,).
        seed: root of all that is drawn.
    """

    dataset: Dataset
    part: Part
    raw: Tensor
    labels: Labels
    seed: int


@dataclass(frozen=True)
class Outside:
    """An out-of-distribution set; ``outside_names`` reads it from a space.

    Attributes:
        name: as in a space: ``fashion_mnist``, ``pgd-0.1``, or the user's own name for it.
        settings: of a dataset or a file, or under a name of the user's; None where the name alone
            says everything.
        condition: what it is of the inputs themselves; None of a set of its own.
        is_listed: whether a space lists it, so that every score is recorded of it; else it is one
            that an objective or a constraint names.
    """

    name: str
    settings: OutsideSettings | None = None
    condition: Condition | None = None
    is_listed: bool = False

    @property
    def is_drawn(self) -> bool:
        """Whether it is one of ``DRAWN``."""
        return self.settings is None and self.condition is None

    def to_json(self) -> str | dict[str, Any]:
        """As a space lists it."""
        if self.settings is None or self.settings.dataset == {"name": self.name}:
            return self.name
        given = self.settings.model_dump(mode="json", exclude_none=True)
        if self.settings.condition is not None:
            return {self.name: {"condition": given["condition"]}}
        return {self.name: given}

    def key(self) -> list[Any]:
        """Plain data that its inputs follow from beside the dataset: files by their content.

        Raises as ``inputs``.
        """
        settings = self.settings
        if settings is None or self.condition is not None:
            return [self.to_json()]
        rule = [settings.resize, settings.value_range]
        return [self.name, rule, self._digest(settings)]

    def _digest(self, settings: OutsideSettings) -> str:
        """Of the files that its inputs are of."""
        if settings.dataset is not None:
            return _load(canonical_json(settings.dataset), f"ood: {self.name}").digest

        path = Path(str(settings.path))
        if not path.is_dir():
            return sha256_file(path) if path.is_file() else ""
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return sha256_text(" ".join(f"{file.name} {sha256_file(file)}" for file in files))

    def check(self, dataset: Dataset, seed: int, where: str) -> None:
        """Refuse a set that is none beside this dataset, before any work.

        Args:
            dataset: whose inputs are inside.
            seed: as in ``Inside``.
            where: file and key of the set, for messages.

        Raises:
            ConfigError, DataError: see ``inputs``.
            EnvironmentProblem: its files are missing or cannot be read.
        """
        try:
            if self.condition is not None:
                self._check_is_changed(self.condition)
                try_out(self.condition, dataset, f"ood '{self.name}'")
            elif self.is_drawn:
                self._check_drawn(dataset)
            else:
                for part in _PARTS:
                    self._stored(dataset, part, len(dataset.split(part)), seed)
        except (ConfigError, DataError, EnvironmentProblem, RegistryError) as error:
            raise type(error)(f"{where}: {error}") from None

    def inputs(self, inside: Inside, predictor: Predictor) -> Tensor:
        """Raw inputs from outside, (M, *input_shape), float32 in the dataset's own range.

        Args:
            inside: what they are told apart from; M is at most as many.
            predictor: who tells, whom an attack asks.

        Raises:
            ConfigError: such inputs cannot be changed so, or the set is the data itself.
            DataError: its inputs cannot be brought to shape, or are the dataset's own; or a
                condition made inputs that cannot be used.
            EnvironmentProblem: its files are missing or cannot be read.
        """
        if self.condition is not None:
            self._check_is_changed(self.condition)
            return self.condition.apply(
                inside.raw,
                predictor=predictor,
                labels=inside.labels,
                generator=rng.generator(inside.seed, "condition", self.condition.name, inside.part),
                scale=inside.dataset.scale,
            )
        if not self.is_drawn:
            return self._stored(inside.dataset, inside.part, len(inside.raw), inside.seed)

        self._check_drawn(inside.dataset)
        generator = rng.generator(inside.seed, "ood", self.name, inside.part)
        if self.name == "noise":
            return _noise(inside, generator)
        return _rotated(inside.raw.float(), generator)

    def _check_is_changed(self, condition: Condition) -> None:
        if condition.kind == "clean":
            raise ConfigError(
                f"ood '{self.name}': found the data itself, expected inputs from outside; take "
                "another set"
            )

    def _check_drawn(self, dataset: Dataset) -> None:
        if self.name == "rotated" and len(dataset.raw_shape) != 3:
            raise ConfigError(
                f"ood 'rotated': found inputs of shape {dataset.raw_shape}, expected pictures; "
                "take noise or permuted"
            )

    def _stored(self, dataset: Dataset, part: Part, most: int, seed: int) -> Tensor:
        """Inputs of a dataset, a file or a folder, at most so many; they are read once."""
        key = canonical_json([self.to_json(), self._stamp(), part, most, seed])
        known = _KNOWN.setdefault(dataset, {})
        if key not in known:
            raw = self._read(dataset, part, most, seed)
            known[key] = _from_outside(raw, dataset, f"ood '{self.name}'")[:most]
        return known[key]

    def _stamp(self) -> list[int]:
        """What changes where a file is written anew."""
        path = None if self.settings is None else self.settings.path
        if path is None or not Path(path).exists():
            return []
        stat = Path(path).stat()
        return [stat.st_mtime_ns, stat.st_size]

    def _read(self, dataset: Dataset, part: Part, most: int, seed: int) -> Tensor:
        """Twice as many of them, brought to the dataset's shape and range."""
        settings = self.settings
        assert settings is not None, "a text of a dataset has settings too"
        where = f"ood '{self.name}'"
        generator = rng.generator(seed, "ood", self.name)
        if settings.dataset is not None:
            source = _load(canonical_json(settings.dataset), f"ood: {self.name}")
            candidates = source.raw(part)
            order = torch.randperm(len(candidates), generator=generator)[: 2 * most]
            return bring_alike(
                candidates[order], source.scale, dataset, where, resize=settings.resize
            )

        scale = None if settings.value_range is None else ValueRange(*settings.value_range)
        everything = read_foreign(Path(str(settings.path)), dataset, settings.resize, scale)
        order = torch.randperm(len(everything), generator=generator)
        num_validation = len(order) // 2
        half = order[num_validation:] if part == "test" else order[:num_validation]
        return everything[half[: 2 * most]]


@functools.lru_cache(maxsize=4)
def _load(settings: str, where: str) -> Dataset:
    """The dataset of these settings, as canonical JSON."""
    return load(json.loads(settings), where)


def _noise(inside: Inside, generator: Generator) -> Tensor:
    """Inputs whose numbers are uniform over the range of the data."""
    drawn = torch.rand(inside.raw.shape, generator=generator)
    scale = inside.dataset.scale
    if isinstance(scale, ValueRange):
        return scale.low + drawn * (scale.high - scale.low)

    low = high = None
    for chunk in chunks(inside.dataset.train.x):
        rows = chunk.float()
        least = rows.nan_to_num(nan=torch.inf).amin(0)
        most = rows.nan_to_num(nan=-torch.inf).amax(0)
        low = least if low is None else torch.minimum(low, least)
        high = most if high is None else torch.maximum(high, most)
    assert low is not None and high is not None, "there are training examples"
    return low + drawn * (high - low)


def _rotated(raw: Tensor, generator: Generator) -> Tensor:
    """Pictures turned by quarters, another number of them for each."""
    if raw.shape[2] != raw.shape[3]:
        return raw.rot90(2, (2, 3))

    quarters = torch.randint(1, 4, (len(raw),), generator=generator)
    turned = raw.clone()
    for number in (1, 2, 3):
        some = quarters == number
        turned[some] = raw[some].rot90(number, (2, 3))
    return turned


def _from_outside(raw: Tensor, dataset: Dataset, where: str) -> Tensor:
    """The inputs that a dataset does not hold itself, or next to.

    Raises:
        DataError: it holds half of them, or there are none.
    """
    if not len(raw):
        raise DataError(f"{where}: found no inputs, expected some; take another set")

    is_own = _is_held(raw, dataset)
    num_own = int(is_own.sum())
    if 2 * num_own >= len(raw):
        raise DataError(
            f"{where}: found {num_own} of {len(raw)} inputs that dataset '{dataset.name}' holds "
            "itself, expected inputs from outside; take another set"
        )
    return raw[~is_own]


def _is_held(raw: Tensor, dataset: Dataset) -> Tensor:
    """Which inputs (M, *input_shape) are in a part of a dataset, but for rounding and scaling.

    The nearest input is looked for by a few random sums of numbers, and then compared whole.
    """
    unit = dataset.scale.unit(raw.float()).clamp_min(1e-12)
    generator = rng.generator(0, "ood", "directions")
    direction_DF = torch.randn((raw[0].numel(), _DIRECTIONS), generator=generator)
    direction_DF /= raw[0].numel() ** 0.5

    rows_MD = (raw.float() / unit).flatten(1).nan_to_num()
    sums_MF = rows_MD @ direction_DF
    nearest = torch.full((len(raw),), torch.inf)
    for part in (*_PARTS, "distillation"):
        for chunk in chunks(dataset.raw(part)):
            own_ND = (chunk.float() / unit).flatten(1).nan_to_num()
            place_M = torch.cdist(sums_MF, own_ND @ direction_DF).argmin(1)
            distance_M = (rows_MD - own_ND[place_M]).square().mean(1).sqrt()
            nearest = torch.minimum(nearest, distance_M)
    return nearest < _SAME


def detection_labels(num_inside: int, num_outside: int, *, is_real: bool) -> Labels:
    """Labels of predictions of inputs inside and then outside: 0 and 1.

    Args:
        num_inside, num_outside: N and M.
        is_real: whether the predictions are of real labels, whose labels are real too.
    """
    labels = torch.cat([torch.zeros(num_inside), torch.ones(num_outside)])
    return (labels.double() if is_real else labels.long()).numpy()
