"""Datasets of pictures as torchvision reads them: MNIST and its like, CIFAR and SVHN.

Their names are ``mnist``, ``fashion_mnist``, ``kmnist``, ``cifar10``, ``cifar100`` and ``svhn``;
``emnist``, ``omniglot`` and ``stl10`` have files of their own beside this one.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from gped_nas.data.normalization import Normalize
from gped_nas.data.splits import SplitRule
from gped_nas.errors import DataError, EnvironmentProblem
from gped_nas.io import environment


class VisionSettings(Config):
    """Settings of a dataset that torchvision reads."""

    name: str
    validation: float = Field(
        0.1, gt=0, lt=1, description="fraction of the training part carved for validation"
    )
    seed: int = Field(0, ge=0, description="seed of the split")
    split: SplitRule = Field(
        "random",
        description="how validation is carved; stratified has the same fraction of each class",
    )
    normalize: Normalize = Field(
        "whole",
        description="what shares one mean and deviation: the whole input, or each of the channels",
    )
    download: bool = Field(False, description="fetch the files if they are missing")


def data_root() -> Path:
    """The folder of downloaded datasets.

    It is ``$GPED_DATA``, or ``data`` in ``$GPED_CACHE`` or in the user cache.
    """
    if root := os.environ.get("GPED_DATA"):
        return Path(root).expanduser()
    cache = os.environ.get("GPED_CACHE") or platformdirs.user_cache_dir("gped-nas")
    return Path(cache) / "data"


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

    provide(cfg, files, lambda: _download(class_name, root))

    train, test, class_names = _read(class_name, root, files)
    return built(cfg, train, test, class_names, files[0].parent)


def built(
    cfg: VisionSettings,
    train: Split,
    test: Split | float,
    class_names: tuple[str, ...],
    folder: Path,
) -> Dataset:
    """The dataset of examples that were read, split and normalized as the settings say.

    Args:
        cfg: the settings.
        train: to carve validation from.
        test: the source's own part, or the fraction to carve.
        class_names: one a class.
        folder: of the files, for messages.

    Raises:
        DataError: see ``build``.
    """
    return build(
        cfg.name,
        train,
        class_names=class_names,
        test=test,
        validation=cfg.validation,
        seed=cfg.seed,
        where=str(folder),
        normalize=cfg.normalize,
        rule=cfg.split,
    )


def provide(
    cfg: VisionSettings,
    files: list[Path],
    download: Callable[[], None],
    is_there: Callable[[Path], bool] | None = None,
) -> None:
    """Make sure that all files are there.

    Args:
        cfg: whether they may be downloaded.
        files: below ``data_root``.
        download: fetches them.
        is_there: whether a file is; as itself or packed by default.

    Raises:
        EnvironmentProblem: they are missing or cannot be looked at, or the download failed.
    """
    root = data_root()
    with environment("read", root):
        missing = [file for file in files if not (is_there or _is_there)(file)]
    if not missing:
        return
    if not cfg.download:
        raise EnvironmentProblem(
            f"dataset '{cfg.name}': {missing[0]} is missing ({len(missing)} of {len(files)} files "
            "are); add `--set dataset.download=true`, put the files there, or point GPED_DATA (now "
            f"{root}) at them"
        )

    try:
        download()
    except (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError) as error:
        raise EnvironmentProblem(
            f"dataset '{cfg.name}': the download to {root} failed: {_reason(error)}; check the "
            "network and the folder, or put the files there by hand"
        ) from error


@contextmanager
def reading(folder: Path, class_name: str) -> Iterator[None]:
    """Say of whatever goes wrong inside which files are to blame.

    Args:
        folder: of the files.
        class_name: torchvision's.

    Raises:
        DataError: the files are not what they should be.
        EnvironmentProblem: the operating system refused.
    """
    try:
        yield
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


def _source(class_name: str) -> Any:
    """A class of torchvision; what is read by ``idx`` does without."""
    from torchvision import datasets

    return getattr(datasets, class_name)


def _files(class_name: str, root: Path) -> list[Path]:
    """The files that a torchvision class reads."""
    if class_name in idx.CLASS_NAMES:
        return [root / class_name / "raw" / name for name in idx.FILES]

    source = _source(class_name)
    if hasattr(source, "split_list"):  # SVHN
        return [root / source.split_list[part][1] for part in ("train", "test")]

    names = [name for name, _ in source.train_list + source.test_list]
    names.append(source.meta["filename"])
    return [root / source.base_folder / name for name in names]


def _open(class_name: str, root: Path, part: str, *, download: bool) -> Any:
    source = _source(class_name)
    if hasattr(source, "split_list"):  # SVHN
        return source(str(root), download=download, split=part)
    return source(str(root), download=download, train=part == "train")


def _download(class_name: str, root: Path) -> None:
    for part in ("train", "test"):
        _open(class_name, root, part, download=True)


def _read(class_name: str, root: Path, files: list[Path]) -> tuple[Split, Split, tuple[str, ...]]:
    """The training and test examples of a dataset, and the names of its classes.

    Raises:
        DataError: the files are not what they should be.
        EnvironmentProblem: the operating system refused.
    """
    with reading(files[0].parent, class_name), tempfile.TemporaryDirectory() as scratch:
        readable = unpack(root, files, Path(scratch))
        if class_name in idx.CLASS_NAMES:
            train, test = read_idx([readable / file.relative_to(root) for file in files])
            return train, test, idx.CLASS_NAMES[class_name]

        opened_train = _open(class_name, readable, "train", download=False)
        opened_test = _open(class_name, readable, "test", download=False)
        class_names = tuple(getattr(opened_train, "classes", "0123456789"))
        return _examples(opened_train), _examples(opened_test), class_names


def read_idx(files: list[Path]) -> tuple[Split, Split]:
    """The training and test examples of four files in the order of ``idx.FILES``."""
    train_images, train_labels, test_images, test_labels = files
    train = split_of(idx.read(train_images, 3)[:, None], idx.read(train_labels, 1))
    test = split_of(idx.read(test_images, 3)[:, None], idx.read(test_labels, 1))
    return train, test


def unpack(root: Path, files: list[Path], scratch: Path) -> Path:
    """``root``, or ``scratch`` with all files unpacked where some lie there as published."""
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


def _is_there(file: Path) -> bool:
    return file.is_file() or _packed(file).is_file()


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
