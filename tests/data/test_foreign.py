"""Inputs of another source, brought to shape and range: against Pillow, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gped_nas import rng
from gped_nas.data.base import Dataset, Split, build
from gped_nas.data.foreign import bring_alike, read_foreign
from gped_nas.data.scale import ColumnSpread, ValueRange
from gped_nas.errors import DataError

BYTES = ValueRange(0, 255)


def dataset(*shape: int, **settings: Any) -> Dataset:
    """Twenty random inputs of a shape, in bytes where nothing else is said."""
    raw = torch.rand((20, *shape), generator=rng.generator(0, "data"))
    if len(shape) == 3 and "value_range" not in settings:
        raw = (255 * raw).to(torch.uint8)
    examples = Split(raw, torch.arange(20) % 2)
    return build(
        "mine",
        examples,
        class_names=("a", "b"),
        test=0.2,
        validation=0.2,
        seed=0,
        where="mine",
        **settings,
    )


def pictures(channels: int, height: int, width: int) -> Tensor:
    """Smooth pictures of bytes."""
    raw = torch.rand((6, channels, 4, 4), generator=rng.generator(1, "pictures"))
    large = torch.nn.functional.interpolate(raw, (height, width), mode="bilinear")
    return (255 * large).to(torch.uint8)


def as_pillow(raw: Tensor) -> Image.Image:
    """One picture (channels, height, width) of bytes."""
    pixels = raw.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if len(raw) == 1 else pixels)


def test_colors_become_gray_as_pillow_makes_them_and_gray_becomes_three_channels() -> None:
    colored = pictures(3, 8, 8)
    gray = bring_alike(colored, BYTES, dataset(1, 8, 8), "set")
    expected = [np.asarray(as_pillow(each).convert("L"), np.float32) for each in colored]
    assert gray.shape == (6, 1, 8, 8) and gray.dtype == torch.float32
    assert gray[:, 0].numpy() == pytest.approx(np.stack(expected), abs=1)

    again = bring_alike(pictures(1, 8, 8), BYTES, dataset(3, 8, 8), "set")
    assert torch.equal(again, pictures(1, 8, 8).float().expand(-1, 3, -1, -1))


@pytest.mark.parametrize(("height", "width"), [(28, 28), (20, 31), (31, 20), (5, 9)])
def test_pictures_come_to_size_as_pillow_brings_them(height: int, width: int) -> None:
    raw, mine, linear = pictures(1, height, width), dataset(1, 8, 8), Image.Resampling.BILINEAR
    stretched = bring_alike(raw, BYTES, mine, "set", "stretch")
    for picture, inputs in zip(raw, stretched, strict=True):
        expected = np.asarray(as_pillow(picture).resize((8, 8), linear), np.float32)
        assert inputs[0].numpy() == pytest.approx(expected, abs=1)

    cropped = bring_alike(raw, BYTES, mine, "set")
    for picture, inputs in zip(raw, cropped, strict=True):
        expected = np.asarray(ImageOps.fit(as_pillow(picture), (8, 8), method=linear), np.float32)
        # Pillow cuts before it scales, at fractions of pixels
        assert float(np.abs(inputs[0].numpy() - expected).mean()) < 6


def test_the_ends_of_one_range_become_the_ends_of_the_other() -> None:
    raw = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 1, 3, 3)
    signed = dataset(1, 3, 3, value_range=(-1.0, 1.0))
    assert bring_alike(raw, BYTES, signed, "set")[0, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])

    # what is beyond its own range is no picture of the dataset's either
    shares = torch.tensor([-0.5, 0.5, 1.5]).expand(1, 1, 3, 3)
    brought = bring_alike(shares, ValueRange(0, 1), dataset(1, 3, 3), "set")
    assert brought[0, 0, 0].tolist() == [0, 127.5, 255]


def test_rows_of_a_table_stay_as_they_are() -> None:
    rows = torch.arange(12.0).view(4, 3).double()
    brought = bring_alike(rows, ColumnSpread((1.0,) * 3), dataset(3), "set")
    assert torch.equal(brought, rows.float())


@pytest.mark.parametrize(
    ("raw", "shape", "message"),
    [
        (torch.zeros(4, 5), (3,), "set: found inputs of shape (5,), expected (3,): only pictures"),
        (torch.zeros(4, 64), (1, 8, 8), "set: found inputs of shape (64,), expected (1, 8, 8)"),
        (torch.zeros(4, 1, 8, 8), (3,), "set: found inputs of shape (1, 8, 8), expected (3,)"),
        (torch.zeros(4, 4, 8, 8), (1, 8, 8), "set: found pictures of 4 channels, expected 1"),
        (torch.full((4, 3), torch.nan), (3,), "set: holds numbers that are NaN or infinite"),
        (torch.full((4, 1, 8, 8), torch.inf), (1, 8, 8), "set: holds numbers that are NaN or inf"),
    ],
)
def test_what_cannot_be_brought_there_is_told(
    raw: Tensor, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DataError) as refused:
        bring_alike(raw, BYTES, dataset(*shape), "set")
    assert str(refused.value).startswith(message)


def test_files_hold_pictures_in_every_layout(tmp_path: Path) -> None:
    raw, mine = pictures(3, 8, 8), dataset(3, 8, 8)
    arrays = {
        "first.npy": raw.numpy(),
        "last.npy": raw.permute(0, 2, 3, 1).numpy(),
    }
    for name, array in arrays.items():
        np.save(tmp_path / name, array)
        assert torch.equal(read_foreign(tmp_path / name, mine), raw.float())

    np.savez(tmp_path / "many.npz", x_train=np.zeros((2, 3, 8, 8)), x_test=raw.numpy())
    assert torch.equal(read_foreign(tmp_path / "many.npz", mine), raw.float())

    # gray pictures without a channel, of reals: their range is what is seen, or what is said
    shares = raw[:, 0].numpy() / np.float32(255)
    np.save(tmp_path / "gray.npy", shares)
    seen = read_foreign(tmp_path / "gray.npy", dataset(1, 8, 8))
    assert (float(seen.min()), float(seen.max())) == (0, 255)
    told = read_foreign(tmp_path / "gray.npy", dataset(1, 8, 8), scale=ValueRange(0, 1))
    assert told[:, 0].numpy() == pytest.approx(raw[:, 0].numpy(), abs=1e-3)


def test_a_folder_of_pictures_is_read_with_those_below_it(tmp_path: Path) -> None:
    raw = pictures(3, 8, 8)
    for i, picture in enumerate(raw):
        file = tmp_path / f"{i % 2}" / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        as_pillow(picture).save(file)
    read = read_foreign(tmp_path, dataset(3, 8, 8))
    assert torch.equal(read, raw[[0, 2, 4, 1, 3, 5]].float())


def test_rows_of_a_file_are_those_of_the_dataset(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(6.0).reshape(2, 3))
    assert read_foreign(tmp_path / "rows.npy", dataset(3)).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("nowhere.npz", (1, 8, 8), "nowhere.npz: no such file"),
        ("empty", (1, 8, 8), "empty: found no picture in this folder, expected files that end"),
        ("empty", (3,), "empty: found a folder, expected inputs of shape (3,)"),
        ("flat.npy", (1, 8, 8), "flat.npy: found an array (4, 64) of float64, expected pictures"),
        ("text.npy", (1, 8, 8), "text.npy: found an array (2, 3, 3) of <U1, expected pictures"),
        ("two.npz", (1, 8, 8), "two.npz: found the arrays a, b, expected one, or one called 'x' o"),
        ("flat.npy", (3,), "flat.npy: found shape (4, 64), expected (N, 3)"),
        ("broken.npz", (1, 8, 8), "broken.npz: not a readable .npz"),
    ],
)
def test_a_file_that_holds_none_is_named(
    tmp_path: Path, name: str, shape: tuple[int, ...], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "flat.npy", np.zeros((4, 64)))
    np.save(tmp_path / "text.npy", np.full((2, 3, 3), "a"))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(DataError) as refused:
        read_foreign(tmp_path / name, dataset(*shape))
    assert message in str(refused.value)
