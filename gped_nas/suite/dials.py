"""The paper's first experiment as a grid: teacher and students at masks and label subsets.

A setting turns one dial; the data as they are belong to both. What is measured at a setting is the
caller's business; each result is written when it is there, and one that lies there with the same
identity is not measured again.

Source: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110, section 4.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gped_nas.errors import ConfigError
from gped_nas.io import make_dir, read_sealed, warn_of_undigested, write_sealed


@dataclass(frozen=True)
class Setting:
    """One dial at one place; ``dial`` is None for the data as they are.

    Attributes:
        dial: the key of ``data:`` that is set.
        value: side of the patch in pixels, or number of labels.
    """

    dial: Literal["mask", "subsample"] | None = None
    value: int = 0

    @property
    def name(self) -> str:
        """A file name: ``mask-4``."""
        return f"{self.dial}-{self.value}" if self.dial else "as-it-is"

    @property
    def data(self) -> dict[str, int]:
        """What it adds to a space's ``data:``."""
        return {self.dial: self.value} if self.dial else {}


def settings(masks: Sequence[int], subsamples: Sequence[int]) -> list[Setting]:
    """The data as they are, then every mask, then every subset, each once.

    A mask of 0 is the data as they are.

    Raises:
        ConfigError: nothing to turn, or a negative number.
    """
    for option, values in (("--mask", masks), ("--subsample", subsamples)):
        if any(value < 0 for value in values):
            raise ConfigError(f"{option}: found {min(values)}, expected numbers of at least 0")

    turned = [Setting("mask", side) for side in sorted(set(masks) - {0})]
    turned += [Setting("subsample", num) for num in sorted(set(subsamples))]
    if not turned:
        raise ConfigError(
            "found nothing to turn, expected for example --mask 2,4 or --subsample 200,500"
        )
    return [Setting(), *turned]


def measure_all(
    grid: Sequence[Setting],
    measure: Callable[[Setting], dict[str, Any]],
    identities: Mapping[Setting, str],
    folder: Path,
) -> list[dict[str, Any]]:
    """The record of every setting, in order: ``{"dial", "value", "identity", ...}``.

    Args:
        grid: what to measure.
        measure: a setting to plain data.
        identities: of each setting the digest of all that decides what ``measure`` gives; a record
            with another one is measured anew.
        folder: where records are kept, one file a setting.
    """
    make_dir(folder)
    records = []
    for setting in grid:
        path = folder / f"{setting.name}.json"
        record: dict[str, Any] = {}
        if path.exists():
            record, is_sealed = read_sealed(path, "delete it to measure it again")
            if not is_sealed:
                warn_of_undigested(path)

        digest = identities[setting]
        if record.get("identity") != digest:
            point = {"dial": setting.dial, "value": setting.value, "identity": digest}
            record = {**point, **measure(setting)}
        write_sealed(path, record)
        records.append(record)

    return records
