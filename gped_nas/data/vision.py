"""``mnist``, ``fashion_mnist``, ``kmnist``, ``cifar10``, ``cifar100``, ``svhn``, as torchvision
reads them.

Files lie where torchvision puts them, under ``$GPED_DATA`` or the folder ``data`` of the cache
(``$GPED_CACHE`` or the platform's user cache): ``MNIST/raw/train-images-idx3-ubyte``,
``cifar-10-batches-py/data_batch_1``, ``train_32x32.mat`` and so on; idx files may be left as the
published ``.gz``. Nothing is downloaded unless ``download`` is set.
"""

import gzip
import os
import shutil
import tarfile
import tempfile
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from pydantic import Field

from gped_nas.config import Config, parse
from gped_nas.data import idx
from gped_nas.data.base import DATASETS, Dataset, Split, build, split_of
from gped_nas.errors import DataError, EnvironmentProblem
from gped_nas.io import environment


class VisionSettings(Config):
    """Settings of a dataset that torchvision reads."""

    name: str
    validation: float = Field(
        0.1, gt=0, lt=1, description="fraction of the training part carved for validation"
    )
    seed: int = Field(0, ge=0, description="seed of the split")
    download: bool = Field(False, description="fetch the files if they are missing")


def data_root() -> Path:
    """The folder of downloaded datasets: ``$GPED_DATA``, or ``data`` in ``$GPED_CACHE`` or the user
    cache.
    """
    if root := os.environ.get("GPED_DATA"):
        return Path(root).expanduser()
    return Path(os.environ.get("GPED_CACHE") or platformdirs.user_cache_dir("gped-nas")) / "data"


def _load(class_name: str, settings: dict[str, object], where: str) -> Dataset:
    """Parse the settings, make sure that the files are there, read and split them.

    Raises:
        ConfigError: settings it does not take.
        DataError: the files are corrupt.
        EnvironmentProblem: the files are missing or cannot be opened, or the download failed.
    """
    cfg = parse(VisionSettings, settings, where)
    root = data_root()
    files = _files(class_name, root)
    with environment("read", root):
        missing = [file for file in files if not file.is_file() and not _packed(file).is_file()]
    if missing and cfg.download:
        _download(class_name, root, cfg.name)
    elif missing:
        raise EnvironmentProblem(
            f"dataset '{cfg.name}': {missing[0]} is missing ({len(missing)} of {len(files)} files "
            "are); "
            "add `--set dataset.download=true`, put the files there, or point GPED_DATA (now "
            f"{root}) at them"
        )
    train, test, class_names = _read(class_name, root, files)
    return build(
        cfg.name,
        train,
        class_names=class_names,
        test=test,
        validation=cfg.validation,
        seed=cfg.seed,
        where=str(files[0].parent),
    )


def _source(class_name: str) -> Any:
    """A class of torchvision; what is read by ``idx`` does without."""
    from torchvision import datasets

    return getattr(datasets, class_name)


def _files(class_name: str, root: Path) -> list[Path]:
    """The files that a torchvision class reads."""
    if class_name in idx.CLASS_NAMES:
        return [root / class_name / "raw" / name for name in idx.FILES]
    source = _source(class_name)
    if hasattr(source, "split_list"):
        return [root / source.split_list[part][1] for part in ("train", "test")]
    names = [name for name, _ in source.train_list + source.test_list] + [source.meta["filename"]]
    return [root / source.base_folder / name for name in names]


def _open(class_name: str, root: Path, part: str, *, download: bool) -> Any:
    source = _source(class_name)
    which = {"split": part} if hasattr(source, "split_list") else {"train": part == "train"}
    return source(str(root), download=download, **which)


def _download(class_name: str, root: Path, name: str) -> None:
    try:
        for part in ("train", "test"):
            _open(class_name, root, part, download=True)
    except (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError) as error:
        raise EnvironmentProblem(
            f"dataset '{name}': the download to {root} failed: {_reason(error)}; check the network "
            "and the "
            "folder, or put the files there by hand"
        ) from error


def _read(class_name: str, root: Path, files: list[Path]) -> tuple[Split, Split, tuple[str, ...]]:
    """The training and test examples of a dataset, and the names of its classes."""
    folder = files[0].parent
    try:
        with tempfile.TemporaryDirectory() as scratch:
            readable = _unpacked(root, files, Path(scratch))
            if class_name in idx.CLASS_NAMES:
                images, labels, test_images, test_labels = (
                    idx.read(readable / file.relative_to(root), num_axes)
                    for file, num_axes in zip(files, (3, 1, 3, 1), strict=True)
                )
                given = (
                    split_of(images[:, None], labels),
                    split_of(test_images[:, None], test_labels),
                )
                return *given, idx.CLASS_NAMES[class_name]
            train, test = (
                _open(class_name, readable, part, download=False) for part in ("train", "test")
            )
        return _examples(train), _examples(test), tuple(getattr(train, "classes", "0123456789"))
    except Exception as error:  # the readers of idx, pickle and .mat files share no class of errors
        if isinstance(error, OSError) and error.errno:  # the operating system's, not a reader's
            raise EnvironmentProblem(
                f"{folder}: cannot be read: {error.strerror}; check its permissions and the "
                "temporary folder"
            ) from None
        raise DataError(
            f"{folder}: the files are not what {class_name} should hold ({_reason(error)}); "
            "delete them and get them again with `--set dataset.download=true`"
        ) from error


def _unpacked(root: Path, files: list[Path], scratch: Path) -> Path:
    """``root``, or ``scratch`` with all the files unpacked when some lie there as the published
    ``.gz``.
    """
    if all(file.is_file() for file in files):
        return root
    for file in files:
        target = scratch / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            shutil.copyfile(file, target)
        else:
            with gzip.open(_packed(file)) as packed, target.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
    return scratch


def _packed(file: Path) -> Path:
    return file.with_name(f"{file.name}.gz")


def _examples(opened: Any) -> Split:
    """The raw inputs of an open torchvision dataset, channel first, and its labels."""
    if hasattr(opened, "labels"):  # SVHN is channel first already
        return split_of(opened.data, opened.labels)
    return split_of(opened.data.transpose(0, 3, 1, 2), np.asarray(opened.targets))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# mnist, fashion_mnist and kmnist: 70 000 uint8 inputs (1, 28, 28) of ten classes; cifar10 and
# cifar100: 60 000 color pictures (3, 32, 32) of ten and a hundred; svhn: 99 289 digits of house
# numbers (3, 32, 32) of ten.
for _name, _class_name in {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}.items():
    DATASETS.register(_name)(partial(_load, _class_name))
