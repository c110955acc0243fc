"""The dataset ``stl10``: color pictures of ten classes, 5,000 for training and 8,000 for test.

Files lie where torchvision puts them, ``stl10_binary/train_X.bin`` and so on below ``$GPED_DATA``.
They are read without torchvision, which insists on the 2.6 GB of unlabeled pictures too.

A file of pictures has 3 x 96 x 96 bytes each: channels, then columns, then rows. A file of labels
has a byte each, from 1 to 10.

Source: Coates, Ng & Lee 2011, "An analysis of single-layer networks in unsupervised feature
learning".
"""

from pathlib import Path

import numpy as np

from gped_nas.config import parse
from gped_nas.data.base import DATASETS, Dataset, Split, split_of
from gped_nas.data.vision import VisionSettings, built, data_root, provide, reading

_SHAPE = (3, 96, 96)


@DATASETS.register("stl10")
def load_stl10(settings: dict[str, object], where: str) -> Dataset:
    """13,000 uint8 inputs (3, 96, 96) of ten classes.

    Raises:
        ConfigError: settings it does not take.
        DataError: the files are corrupt.
        EnvironmentProblem: the files are missing or cannot be opened, or the download failed.
    """
    cfg = parse(VisionSettings, settings, where)
    root = data_root()
    folder = root / "stl10_binary"
    names = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
    provide(cfg, [folder / name for name in names], lambda: _download(root))

    with reading(folder, "STL10"):
        class_names = tuple((folder / "class_names.txt").read_text().split())
        train = _read(folder, "train")
        test = _read(folder, "test")
    return built(cfg, train, test, class_names, folder)


def _read(folder: Path, part: str) -> Split:
    """The examples of a part.

    Raises:
        OSError: a file cannot be read.
        ValueError: the file of pictures is not whole.
    """
    pixels = np.fromfile(folder / f"{part}_X.bin", np.uint8)
    if not len(pixels) or len(pixels) % np.prod(_SHAPE):
        raise ValueError(f"{part}_X.bin holds {len(pixels)} bytes, not whole pictures of 27,648")
    by_column = pixels.reshape(-1, *_SHAPE)

    labels = np.fromfile(folder / f"{part}_y.bin", np.uint8).astype(np.int64) - 1
    return split_of(by_column.transpose(0, 1, 3, 2), labels)


def _download(root: Path) -> None:
    from torchvision.datasets import STL10

    STL10(str(root), download=True)
