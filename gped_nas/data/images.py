"""``images``: a dataset of the user's own, a folder of image files.

Either each folder in it is a class, and parts are carved; or it has the folders ``train``, and
``test`` and ``val`` where these parts are given, each with a folder a class. A folder ``pool``
beside ``train`` holds unlabeled pictures. Pictures may lie in folders below their class.

``groups`` is a text, and the name of a picture before it is its group: with ``_``, ``ann_1.png``
and ``ann_2.png`` are of the group ``ann``; with ``/``, ``ann/1.png`` and ``ann/2.png`` are.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from gped_nas.config import Config, parse
from gped_nas.data.base import DATASETS, Dataset, Split, build
from gped_nas.data.groups import number_groups
from gped_nas.data.normalization import Normalize
from gped_nas.data.pictures import ENDINGS, Color, PicturePreparation, Resize, look_at_picture
from gped_nas.data.splits import SplitRule
from gped_nas.errors import DataError
from gped_nas.io import Array, environment

_PARTS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid"),
    "test": ("test", "testing"),
    "pool": ("pool", "unlabeled"),
}
"""What folders of parts are called."""
_MOST_SHOWN = 5


class ImagesSettings(Config):
    """Settings of ``images``."""

    name: Literal["images"]
    path: str = Field(
        min_length=1, description="the folder; a relative path starts at the current directory"
    )
    size: PositiveInt | Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)] | None = (
        Field(
            None,
            description="side of all pictures, or [height, width], pixels; as they are if all have "
            "one size",
        )
    )
    resize: Resize = Field(
        "crop",
        description="how a picture comes to size: scaled until it covers it and cut at its sides, "
        "or stretched",
    )
    color: Color | None = Field(
        None, description="of all pictures; gray where every training picture is"
    )
    groups: str | None = Field(
        None,
        min_length=1,
        description="text in the name of each picture: those whose names are the same before it "
        "belong together; `/` for folders below the class",
    )
    validation: float = Field(
        0.1, gt=0, lt=1, description="fraction of the training part carved without a folder `val`"
    )
    test: float = Field(0.2, gt=0, lt=1, description="fraction carved without a folder `test`")
    seed: int = Field(0, ge=0, description="seed of the splits")
    split: SplitRule = Field("stratified", description="how parts are carved")
    normalize: Normalize = Field(
        "channels",
        description="what shares one mean and deviation: each of the channels, or the whole input",
    )


@DATASETS.register("images")
def load_images(settings: dict[str, object], where: str) -> Dataset:
    """The user's image files as a dataset of uint8 inputs (channels, height, width).

    Raises:
        ConfigError: settings it does not take.
        DataError: a folder or a picture cannot be used; names it and the way out.
        EnvironmentProblem: a file exists and cannot be opened.
    """
    cfg = parse(ImagesSettings, settings, where)
    folder = Path(cfg.path)
    files = list_pictures(folder)
    preparation = _prepare(files, cfg)

    groups = _groups(files, cfg)
    inputs = {part: _read(listed.paths, preparation) for part, listed in files.parts.items()}

    def split_of(part: str) -> Split:
        labels = torch.from_numpy(files.parts[part].labels)
        return Split(inputs[part], labels, groups.get(part))

    def part_or(part: str, fraction: float) -> Split | float:
        return split_of(part) if part in files.parts else fraction

    return build(
        cfg.name,
        split_of("train"),
        class_names=files.class_names,
        test=part_or("test", cfg.test),
        validation=part_or("val", cfg.validation),
        seed=cfg.seed,
        where=cfg.path,
        unlabeled=inputs.get("pool"),
        normalize=cfg.normalize,
        rule=cfg.split,
        preparation=preparation,
        notes=files.notes,
    )


@dataclass(frozen=True, eq=False)
class ListedPictures:
    """Image files of one part.

    Attributes:
        paths: (N,).
        labels: (N,) int64; none of unlabeled ones.
        names: (N,), paths from the folder of their class; none of unlabeled ones.
    """

    paths: tuple[Path, ...]
    labels: Array
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """The image files of a folder.

    Attributes:
        class_names: the names of the classes' folders, sorted.
        parts: ``train``, and ``val``, ``test`` and ``pool`` where they are there.
        notes: what lies there and is not read, one sentence each.
    """

    class_names: tuple[str, ...]
    parts: dict[str, ListedPictures]
    notes: tuple[str, ...]


def list_pictures(folder: Path) -> PictureFiles:
    """The image files of a folder, by part and class; none is opened.

    Raises:
        DataError: it is no folder of classes.
        EnvironmentProblem: it cannot be read.
    """
    with environment("read", folder):
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder (looked from {Path.cwd()}), expected a folder with one "
                "folder a class; check 'path' in the dataset's settings"
            )
        roots = _part_folders(folder)
        class_names = tuple(path.name for path in _folders(roots["train"]))
        if len(class_names) < 2:
            raise DataError(
                f"{roots['train']}: found {len(class_names)} folders, expected one for each of at "
                "least 2 classes; move the pictures of each class to a folder of its name"
            )

        others: list[Path] = []
        parts = {}
        for part, root in roots.items():
            if part == "pool":
                paths = _pictures_below(root, others)
                parts[part] = ListedPictures(tuple(paths), np.zeros(0, np.int64))
            else:
                parts[part] = _list_part(root, class_names, others)
        if roots["train"] != folder:
            others += _files(folder)

    return PictureFiles(class_names, parts, _describe_others(others, folder))


def _part_folders(folder: Path) -> dict[str, Path]:
    """The folder of each part that is there; the folder itself if it has none for training."""
    names = {path.name.lower(): path for path in _folders(folder)}
    roots: dict[str, Path] = {}
    for part, spellings in _PARTS.items():
        for spelling in spellings:
            if spelling in names:
                roots.setdefault(part, names[spelling])
    return roots if "train" in roots else {"train": folder}


def _list_part(root: Path, class_names: tuple[str, ...], others: list[Path]) -> ListedPictures:
    """The pictures of a part, class by class.

    Raises:
        DataError: a class without a picture in training, or one that training does not have.
    """
    place_of = {name: place for place, name in enumerate(class_names)}
    paths: list[Path] = []
    names: list[str] = []
    labels: list[int] = []
    for folder in _folders(root):
        if folder.name not in place_of:
            raise DataError(
                f"{folder}: found a class that the training part does not have, expected some of "
                f"{', '.join(class_names[:10])}; remove it or add training pictures"
            )
        pictures = _pictures_below(folder, others)
        if not pictures:
            raise DataError(
                f"{folder}: found no picture, expected files that end with {', '.join(ENDINGS)}; "
                "fill it or remove it"
            )
        paths += pictures
        names += [path.relative_to(folder).as_posix() for path in pictures]
        labels += [place_of[folder.name]] * len(pictures)

    others += _files(root)
    if not paths:
        raise DataError(f"{root}: found no picture, expected one folder a class; remove it")
    return ListedPictures(tuple(paths), np.array(labels, np.int64), tuple(names))


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, hidden ones left out, sorted by name."""
    inside = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    return sorted(inside, key=lambda path: path.name)


def _files(folder: Path) -> list[Path]:
    """The plain files in a folder, hidden ones left out."""
    return [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]


def _pictures_below(folder: Path, others: list[Path]) -> list[Path]:
    """Image files in a folder and below, sorted; other files are added to ``others``."""
    pictures = []
    for place, _, names in sorted(os.walk(folder, followlinks=True)):
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in ENDINGS and name[0] != ".":
                pictures.append(path)
            elif name[0] != ".":
                others.append(path)
    return pictures


def _describe_others(others: list[Path], folder: Path) -> tuple[str, ...]:
    if not others:
        return ()
    example = others[0].relative_to(folder)
    files = "1 file is" if len(others) == 1 else f"{len(others)} files are"
    return (f"{files} no picture in the folder of a class and not read, {example} for example.",)


def _groups(files: PictureFiles, cfg: ImagesSettings) -> dict[str, Tensor]:
    """Group numbers (N,) of each labeled part; none where nothing is said.

    Raises:
        DataError: the name of a picture does not say its group.
    """
    if cfg.groups is None:
        return {}
    groups = {}
    for part, listed in files.parts.items():
        if part == "pool":
            continue
        for path, name in zip(listed.paths, listed.names, strict=True):
            if name.find(cfg.groups) < 1:
                raise DataError(
                    f"{path}: found no '{cfg.groups}' behind the name of a group, expected names "
                    f"like group{cfg.groups}1.png; rename it, or change dataset.groups"
                )
        groups[part] = np.array([name.partition(cfg.groups)[0] for name in listed.names])
    return number_groups(groups, cfg.path)


def _prepare(files: PictureFiles, cfg: ImagesSettings) -> PicturePreparation:
    """What all pictures become.

    Raises:
        DataError: pictures are damaged, or of several sizes where none is said.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    are_gray = []
    damaged = []
    for part, listed in files.parts.items():
        for path in listed.paths:
            try:
                size, is_gray = look_at_picture(path)
            except DataError as error:
                damaged.append(str(error))
                continue
            sizes[size] += 1
            if part == "train":
                are_gray.append(is_gray)

    _refuse_damaged(damaged, sum(sizes.values()) + len(damaged))
    color = cfg.color or ("gray" if all(are_gray) else "rgb")
    if cfg.size is None:
        _check_one_size(sizes, cfg.path)
        height, width = next(iter(sizes))
    else:
        height, width = cfg.size if isinstance(cfg.size, tuple) else (cfg.size, cfg.size)
    return PicturePreparation(height=height, width=width, color=color, resize=cfg.resize)


def _check_one_size(sizes: Counter[tuple[int, int]], path: str) -> None:
    if len(sizes) > 1:
        (common, num), *_ = sizes.most_common(1)
        smallest, largest = min(sizes), max(sizes)
        raise DataError(
            f"{path}: found pictures of {len(sizes)} sizes, from {_by(smallest)} to {_by(largest)} "
            f"(height x width; {num} of {sum(sizes.values())} are {_by(common)}), expected one; "
            "set dataset.size to the side that all are brought to, 32 for example"
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _read(paths: tuple[Path, ...], preparation: PicturePreparation) -> Tensor:
    """The pictures as uint8 (N, channels, height, width).

    Raises:
        DataError: some are damaged.
    """
    pixels = np.empty((len(paths), *preparation.shape), np.uint8)
    damaged = []
    for index, path in enumerate(paths):
        try:
            pixels[index] = preparation.read(path)
        except DataError as error:
            damaged.append(str(error))
    _refuse_damaged(damaged, len(paths))
    return torch.from_numpy(pixels)


def _refuse_damaged(damaged: list[str], total: int) -> None:
    """Refuse pictures of which some cannot be read; the message names the first ones."""
    if damaged:
        more = f" and {len(damaged) - _MOST_SHOWN} more" if len(damaged) > _MOST_SHOWN else ""
        listed = ", ".join(message.rstrip(";") for message in damaged[:_MOST_SHOWN])
        raise DataError(
            f"{listed}{more} ({len(damaged)} of {total} pictures); remove them or save them again"
        )
