"""The dataset ``omniglot``: characters of many alphabets, twenty drawings of each.

Files lie where torchvision puts them, below ``omniglot-py`` in ``$GPED_DATA``: the folder
``images_background``, or ``images_background.zip``, which is read as it is. Below it lies a folder
an alphabet, in that a folder a character, in that a PNG a drawing. There is no test part: one is
carved, with the same share of each character.

Source: Lake, Salakhutdinov & Tenenbaum 2015, "Human-level concept learning through probabilistic
program induction".
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from gped_nas.config import parse
from gped_nas.data.base import DATASETS, Dataset, Split, split_of
from gped_nas.data.splits import SplitRule
from gped_nas.data.vision import VisionSettings, built, data_root, provide, reading
from gped_nas.io import Array


class OmniglotSettings(VisionSettings):
    """Settings of ``omniglot``."""

    half: Literal["background", "evaluation"] = Field(
        "background", description="which of the two published halves: 30 or 20 alphabets"
    )
    test: float = Field(0.2, gt=0, lt=1, description="fraction carved for test")
    split: SplitRule = Field(
        "stratified",
        description="how parts are carved; stratified has the same fraction of each class",
    )
    ink: Literal["black", "white"] = Field(
        "black", description="color of the strokes; white ones on black are like MNIST's"
    )


@DATASETS.register("omniglot")
def load_omniglot(settings: dict[str, object], where: str) -> Dataset:
    """uint8 inputs (1, 105, 105), 0 or 255; 19,280 of 964 classes in the background half.

    Raises:
        ConfigError: settings it does not take.
        DataError: the files are corrupt.
        EnvironmentProblem: the files are missing or cannot be opened, or the download failed.
    """
    cfg = parse(OmniglotSettings, settings, where)
    root = data_root()
    folder = root / "omniglot-py" / f"images_{cfg.half}"
    provide(cfg, [folder], lambda: _download(root, cfg.half), is_there=_is_there)

    with reading(folder, "Omniglot"):
        class_names, examples = _read(folder)
    if cfg.ink == "white":
        examples = Split(255 - examples.x, examples.y)
    return built(cfg, examples, cfg.test, class_names, folder)


def _packed(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.zip")


def _is_there(folder: Path) -> bool:
    return folder.is_dir() or _packed(folder).is_file()


def _read(folder: Path) -> tuple[tuple[str, ...], Split]:
    """The names of classes, ``Latin/character01``, and all drawings.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: the files are not what they should be.
    """
    drawings = sorted(_unpacked(folder) if folder.is_dir() else _from_zip(_packed(folder)))
    class_names = tuple(sorted({character for character, _, _ in drawings}))
    if not class_names:
        raise ValueError("no drawing lies there")

    number = {name: i for i, name in enumerate(class_names)}
    labels = np.array([number[character] for character, _, _ in drawings])
    pixels = np.stack([_decode(data, name) for _, name, data in drawings])
    return class_names, split_of(pixels[:, None], labels)


def _unpacked(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Character, file name and content of each drawing in a folder."""
    for path in folder.glob("*/*/*.png"):
        yield f"{path.parent.parent.name}/{path.parent.name}", path.name, path.read_bytes()


def _from_zip(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """The same of the published archive."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            parts = name.split("/")
            if len(parts) == 4 and name.endswith(".png"):  # below the name of the half
                yield f"{parts[1]}/{parts[2]}", parts[3], archive.read(name)


def _decode(data: bytes, name: str) -> Array:
    """The pixels (105, 105) of a drawing."""
    from PIL import Image  # comes with torchvision; few runs need it

    with Image.open(io.BytesIO(data)) as image:
        pixels = np.array(image.convert("L"))
    if pixels.shape != (105, 105):
        raise ValueError(f"{name} has the shape {pixels.shape}, not (105, 105)")
    return pixels


def _download(root: Path, half: str) -> None:
    from torchvision.datasets import Omniglot

    Omniglot(str(root), background=half == "background", download=True)
