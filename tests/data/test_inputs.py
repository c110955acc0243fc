"""Files of inputs for a quick look: every layout of an input, and a clear word on all others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gped_nas.data.base import Normalization
from gped_nas.data.inputs import read_inputs
from gped_nas.errors import DataError

GRAY, COLOR, VECTOR = (1, 4, 5), (3, 4, 5), (7,)
BYTES = Normalization(100.0, 70.0)


def values(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)


@pytest.mark.parametrize(
    ("stored", "expected", "num"),
    [
        ((4, 5), GRAY, 1),
        ((1, 4, 5), GRAY, 1),
        ((6, 4, 5), GRAY, 6),
        ((6, 1, 4, 5), GRAY, 6),
        ((6, 4, 5, 1), GRAY, 6),
        ((3, 4, 5), COLOR, 1),
        ((2, 3, 4, 5), COLOR, 2),
        ((7,), VECTOR, 1),
        ((2, 7), VECTOR, 2),
    ],
)
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_arrays_of_one_input_or_several_keep_their_numbers(
    tmp_path: Path, stored, expected, num, ending
) -> None:
    path = tmp_path / f"x{ending}"
    array = values(*stored)
    if ending == ".npy":
        np.save(path, array)
    else:
        np.savez(path, x=array, labels=np.zeros(3))

    read = read_inputs(path, expected, BYTES)
    assert read.dtype == torch.float32
    assert torch.equal(read, torch.from_numpy(array).float().reshape(num, *expected))


@pytest.mark.parametrize("stored", [(4, 5, 3), (2, 4, 5, 3)])
def test_channels_may_come_last(tmp_path: Path, stored) -> None:
    array = values(*stored)
    np.save(tmp_path / "x.npy", array)
    expected = torch.from_numpy(np.moveaxis(array, -1, -3).copy()).float().reshape(-1, *COLOR)
    assert torch.equal(read_inputs(tmp_path / "x.npy", COLOR, BYTES), expected)


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 3, 4, 5), (2, 2, 1, 4, 5), ()])
def test_another_shape_is_told(tmp_path: Path, shape) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape))
    message = r"x.npy: found shape \(.*\), expected \(N, 1, 4, 5\) or \(1, 4, 5\)"
    with pytest.raises(DataError, match=message):
        read_inputs(tmp_path / "x.npy", GRAY, BYTES)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 5), np.nan), "NaN"),
        (np.full((4, 5), 1e300), "beyond float32"),
        (np.zeros((4, 5), complex), "dtype complex128"),
        (np.full((4, 5), "a"), "dtype <U1"),
        (np.full((4, 5), True), "dtype bool"),
    ],
)
def test_numbers_that_are_none_are_told(tmp_path: Path, array, message) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message):
        read_inputs(tmp_path / "x.npy", GRAY, BYTES)


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([{"a": 1}], dtype=object))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match=f"{name}: not a readable"):
            read_inputs(tmp_path / name, GRAY, BYTES)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.png", "x.jpg"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x93NUMPY\x01\x00\xff\xff", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"]
)
def test_garbage_is_told_by_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: not a readable"):
        read_inputs(tmp_path / name, GRAY, BYTES)


def test_a_file_that_is_not_there_or_of_another_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no.npy: no such file"):
        read_inputs(tmp_path / "no.npy", GRAY, BYTES)

    message = r"found the ending '.txt', expected one of .npy, .npz, .png"
    with pytest.raises(DataError, match=message):
        read_inputs(tmp_path / "x.txt", GRAY, BYTES)

    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(DataError, match="found the arrays a, b, expected one, or one called 'x'"):
        read_inputs(tmp_path / "two.npz", GRAY, BYTES)


def test_an_image_is_made_gray_or_colored_and_keeps_its_pixels(tmp_path: Path) -> None:
    gray_file = tmp_path / "gray.png"
    color_file = tmp_path / "color.png"
    Image.fromarray(values(4, 5)).save(gray_file)
    Image.fromarray(values(4, 5, 3)).save(color_file)

    gray = torch.from_numpy(values(4, 5)).float()
    assert torch.equal(read_inputs(gray_file, GRAY, BYTES)[0, 0], gray)
    as_color = read_inputs(gray_file, COLOR, BYTES)
    assert as_color.shape == (1, 3, 4, 5)
    assert torch.equal(as_color[0, 2], gray)

    color = torch.from_numpy(values(4, 5, 3)).float()
    assert torch.equal(read_inputs(color_file, COLOR, BYTES)[0], color.permute(2, 0, 1))
    luma = color @ torch.tensor([0.299, 0.587, 0.114])
    assert (read_inputs(color_file, GRAY, BYTES)[0, 0] - luma).abs().max() <= 1


def test_an_image_is_not_resized(tmp_path: Path) -> None:
    Image.fromarray(values(5, 4)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="found 4 x 5 pixels, expected 5 x 4; it is not resized"):
        read_inputs(tmp_path / "x.png", GRAY, BYTES)


def test_an_image_in_another_range_than_the_data_is_told(tmp_path: Path) -> None:
    """Digits run from 0 to 16: mean 4.9, standard deviation 6.0; 255 is 41 of these away."""
    Image.fromarray(values(4, 5)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="values from 0 to 255.* mean 4.9 and standard deviation 6"):
        read_inputs(tmp_path / "x.png", GRAY, Normalization(4.9, 6.0))


def test_an_image_for_a_student_of_vectors_or_of_deep_pixels_is_told(tmp_path: Path) -> None:
    Image.fromarray(values(4, 5)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"takes inputs of shape \(7,\), not images"):
        read_inputs(tmp_path / "x.png", VECTOR, BYTES)

    Image.fromarray(values(4, 5).astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="mode 'I;16', expected 8 bits"):
        read_inputs(tmp_path / "deep.png", GRAY, BYTES)
