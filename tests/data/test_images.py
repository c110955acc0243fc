"""Folders of image files: what is read, and every way in which they can be wrong."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from gped_nas.data.base import Dataset, Part, load
from gped_nas.data.images import list_pictures
from gped_nas.data.inputs import read_inputs
from gped_nas.data.pictures import PicturePreparation
from gped_nas.data.preparation import parse_preparation
from gped_nas.errors import DataError
from gped_nas.testing.datasets import DATASET_CHECKS, DatasetCase

CLASSES = ("cat", "dog")


def _picture(seed: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Image.Image:
    """A picture of noise, size (height, width)."""
    shape = size if mode == "L" else (*size, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def _fill(folder: Path, num: int = 10, **settings: Any) -> Path:
    """``num`` pictures a class."""
    for i, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for j in range(num):
            _picture(100 * i + j, **settings).save(folder / name / f"{j:02}.png")
    return folder


def _load(folder: Path, **settings: Any) -> Dataset:
    return load({"name": "images", "path": str(folder)} | settings, "a: dataset")


def _channel_first(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("check", DATASET_CHECKS, ids=lambda check: check.__name__)
def test_a_folder_keeps_the_promises_of_datasets(tmp_path: Path, check: Any) -> None:
    folder = _fill(tmp_path / "pets")
    check(DatasetCase({"name": "images", "path": str(folder)}))


def test_pictures_stay_bytes_and_are_carved_class_by_class(tmp_path: Path) -> None:
    dataset = _load(_fill(tmp_path / "pets"), test=0.2, validation=0.25)
    assert dataset.input_shape == (3, 6, 4)
    assert dataset.train.x.dtype == torch.uint8
    assert dataset.class_names == CLASSES
    assert [dataset.labels(part).tolist().count(0) for part in ("train", "validation", "test")] == [
        6,
        2,
        2,
    ]


def test_files_are_listed_as_torchvision_does(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "pets", 3)
    (folder / "dog" / "puppies").mkdir()
    _picture(7).save(folder / "dog" / "puppies" / "a.JPG")
    (folder / "dog" / ".hidden.png").write_text("no picture")
    files = list_pictures(folder)
    expected = [
        (path, label) for path, label in ImageFolder(folder).samples if ".hidden" not in path
    ]
    listed = files.parts["train"]
    assert [(str(p), n) for p, n in zip(listed.paths, listed.labels, strict=True)] == expected


def test_folders_of_parts_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, num in (("train", 8), ("Val", 2), ("test", 3)):
        _fill(tmp_path / "pets" / part, num)
    (tmp_path / "pets" / "pool").mkdir()
    _picture(9).save(tmp_path / "pets" / "pool" / "x.png")
    dataset = _load(tmp_path / "pets")
    assert [len(dataset.raw(p)) for p in ("train", "validation", "test", "unlabeled")] == [
        16,
        4,
        6,
        1,
    ]
    np.testing.assert_array_equal(dataset.test.x[3].numpy(), _channel_first(_picture(100)))
    assert dataset.labels("test").tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(dataset.unlabeled[0].numpy(), _channel_first(_picture(9)))


def test_gray_pictures_stay_gray_unless_it_is_said(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "pets", mode="L")
    assert _load(folder).input_shape == (1, 6, 4)
    assert _load(folder, color="rgb").input_shape == (3, 6, 4)
    _picture(0).save(folder / "cat" / "color.png")
    assert _load(folder).input_shape == (3, 6, 4)
    assert _load(folder, color="gray").input_shape == (1, 6, 4)


def test_crop_cuts_the_sides_and_stretch_keeps_them(tmp_path: Path) -> None:
    # Black, then white: cut at its sides, a picture twice as wide keeps its middle half.
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 4:] = 255
    pixels[:, :2] = 100  # cut off
    Image.fromarray(pixels).save(tmp_path / "x.png")

    settings: dict[str, Any] = {"height": 4, "width": 4, "color": "gray"}
    cropped = PicturePreparation(**settings, resize="crop").read(tmp_path / "x.png")
    np.testing.assert_array_equal(cropped, [[[0, 0, 255, 255]] * 4])
    stretched = PicturePreparation(**settings, resize="stretch").read(tmp_path / "x.png")
    assert stretched.shape == (1, 4, 4)
    assert stretched[0, 0, 0] > 50


def test_a_picture_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "pets")
    lying = _picture(5, (4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(folder / "cat" / "00.png", exif=exif)
    dataset = _load(folder)
    assert dataset.input_shape == (3, 6, 4)

    assert isinstance(dataset.preparation, PicturePreparation)
    upright = dataset.preparation.read(folder / "cat" / "00.png")
    np.testing.assert_array_equal(upright, np.rot90(_channel_first(lying), -1, axes=(1, 2)))


def test_a_student_is_asked_with_files_of_any_size(tmp_path: Path) -> None:
    dataset = _load(_fill(tmp_path / "pets"), size=[3, 5])
    assert dataset.input_shape == (3, 3, 5)
    assert dataset.preparation is not None
    again = parse_preparation(dataset.preparation.model_dump(mode="json"), "spec.json")

    _picture(3, (40, 30)).save(tmp_path / "q.bmp")
    read = read_inputs(tmp_path / "q.bmp", (3, 3, 5), dataset.normalization, again)
    assert read.shape == (1, 3, 3, 5)
    np.testing.assert_array_equal(read[0].numpy(), again.read(tmp_path / "q.bmp"))


def test_another_way_to_size_is_other_data(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "pets")
    cropped = _load(folder)
    stretched = _load(folder, resize="stretch")
    assert torch.equal(cropped.train.x, stretched.train.x)  # nothing was resized
    assert cropped.digest != stretched.digest


def test_files_that_are_no_pictures_are_told(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "pets")
    (folder / "cat" / "notes.txt").write_text("a tabby")
    (folder / "README.md").write_text("pets")
    (note,) = _load(folder).notes
    assert note == (
        "2 files are no picture in the folder of a class and not read, cat/notes.txt for example."
    )


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    folder = _fill(tmp_path / "pets")
    (folder / "cat" / "03.png").write_bytes(b"GIF89a")
    data = (folder / "dog" / "04.png").read_bytes()
    with pytest.raises(DataError, match=r"cat/03.png: not a readable image .* \(1 of 20 pictures"):
        _load(folder)

    # A picture that ends too early is whole as far as its first bytes say.
    _picture(3).save(folder / "cat" / "03.png")
    (folder / "dog" / "04.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"dog/04.png: not a readable image .* \(1 of 20 pictures"):
        _load(folder)


def _several_sizes(folder: Path) -> None:
    _picture(0, (9, 9)).save(folder / "cat" / "big.png")


def _deep(folder: Path) -> None:
    Image.fromarray(np.zeros((6, 4), np.uint16)).save(folder / "cat" / "00.png")


def _one_class(folder: Path) -> None:
    shutil.rmtree(folder / "cat")


def _empty_class(folder: Path) -> None:
    (folder / "fox").mkdir()


def _new_class_in_test(folder: Path) -> None:
    _fill(folder / "train", 3)
    _fill(folder / "test", 3)
    (folder / "test" / "cat").rename(folder / "test" / "fox")


BAD = {
    _several_sizes: r"pictures of 2 sizes, from 6 x 4 to 9 x 9 .*20 of 21 are 6 x 4.*dataset.size",
    _deep: r"00.png: found pixels of mode 'I;16', expected 8 bits",
    _one_class: "found 1 folders, expected one for each of at least 2 classes",
    _empty_class: "fox: found no picture, expected files that end with .png",
    _new_class_in_test: "fox: found a class that the training part does not have",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_folder_that_cannot_be_used_is_refused_with_what_to_do(
    tmp_path: Path, spoil: Any
) -> None:
    folder = _fill(tmp_path / "pets")
    spoil(folder)
    with pytest.raises(DataError, match=BAD[spoil]):
        _load(folder)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder .looked from"):
        _load(tmp_path / "none")


@pytest.mark.parametrize(("separator", "pattern"), [("_", "{}_{:02}.png"), ("/", "{}/{:02}.png")])
def test_names_say_which_pictures_belong_together(
    tmp_path: Path, separator: str, pattern: str
) -> None:
    """Each animal was pictured four times; an animal that lies in both classes is one group."""
    animals = ["ann", "bob", "cid", "dan", "eve"]
    for i, animal in enumerate(animals):
        for j in range(8):
            path = tmp_path / "pets" / CLASSES[j % 2] / pattern.format(animal, j)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4), 10 * i, np.uint8)).save(path)

    dataset = _load(tmp_path / "pets", groups=separator)
    seen = []
    parts: tuple[Part, ...] = ("train", "validation", "test")
    for part in parts:
        split = dataset.split(part)
        animal = split.x[:, 0, 0, 0].tolist()  # its gray
        assert split.group is not None
        assert len(set(zip(animal, split.group.tolist(), strict=True))) == len(set(animal))
        seen += [*set(animal)]
    assert sorted(seen) == [0, 10, 20, 30, 40]

    Image.new("L", (4, 4)).save(tmp_path / "pets" / "cat" / "stray.png")
    with pytest.raises(DataError, match=f"stray.png: found no '{separator}' behind.*; rename it"):
        _load(tmp_path / "pets", groups=separator)
