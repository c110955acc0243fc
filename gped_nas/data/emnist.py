"""The dataset ``emnist``: letters and digits of NIST, in six published partitions.

Files lie where torchvision puts them, ``EMNIST/raw/emnist-letters-train-images-idx3-ubyte`` and so
on below ``$GPED_DATA``, unpacked or as ``.gz``. Published pictures lie on their side: rows and
columns are exchanged here, so that they stand upright beside MNIST's.

Source: Cohen et al. 2017, arXiv:1702.05373.
"""

import string
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field

from gped_nas.config import parse
from gped_nas.data.base import DATASETS, Dataset, Split
from gped_nas.data.vision import (
    VisionSettings,
    built,
    data_root,
    provide,
    read_idx,
    reading,
    unpack,
)

Partition = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]

_MERGED = frozenset("cijklmopsuvwxyz")
"""Letters whose two cases look alike."""
_ALL = tuple(sorted(string.digits + string.ascii_letters))
_BY_MERGE = tuple(name for name in _ALL if name not in _MERGED)
_LETTERS = tuple(string.ascii_lowercase)
_DIGITS = tuple(string.digits)
CLASS_NAMES: dict[Partition, tuple[str, ...]] = {
    "byclass": _ALL,
    "bymerge": _BY_MERGE,
    "balanced": _BY_MERGE,
    "letters": _LETTERS,
    "digits": _DIGITS,
    "mnist": _DIGITS,
}


class EmnistSettings(VisionSettings):
    """Settings of ``emnist``."""

    partition: Partition = Field("balanced", description="which of the published partitions")


@DATASETS.register("emnist")
def load_emnist(settings: dict[str, object], where: str) -> Dataset:
    """uint8 inputs (1, 28, 28); 131,600 of 47 classes by default.

    Raises:
        ConfigError: settings it does not take.
        DataError: the files are corrupt.
        EnvironmentProblem: the files are missing or cannot be opened, or the download failed.
    """
    cfg = parse(EmnistSettings, settings, where)
    root = data_root()
    files = _files(root, cfg.partition)
    provide(cfg, files, lambda: _download(root, cfg.partition))

    with reading(files[0].parent, "EMNIST"), tempfile.TemporaryDirectory() as scratch:
        readable = unpack(root, files, Path(scratch))
        train, test = read_idx([readable / file.relative_to(root) for file in files])

    # letters are numbered from 1, all others from 0
    first = 1 if cfg.partition == "letters" else 0
    return built(
        cfg,
        _upright(train, first),
        _upright(test, first),
        CLASS_NAMES[cfg.partition],
        files[0].parent,
    )


def _files(root: Path, partition: Partition) -> list[Path]:
    """Pictures and labels of training, then of test."""
    folder = root / "EMNIST" / "raw"
    files = []
    for part in ("train", "test"):
        for kind in ("images-idx3", "labels-idx1"):
            files.append(folder / f"emnist-{partition}-{part}-{kind}-ubyte")
    return files


def _upright(split: Split, first: int) -> Split:
    return Split(split.x.transpose(2, 3).contiguous(), split.y - first)


def _download(root: Path, partition: Partition) -> None:
    from torchvision.datasets import EMNIST

    EMNIST(str(root), partition, download=True)
