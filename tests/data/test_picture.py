"""Pictures against a decoder that is not ours."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from gped_nas.data.picture import MAX_SIDE, is_picture, png


def written(raw: torch.Tensor, low: float, high: float) -> Image.Image:
    """What Pillow makes of a picture of ours."""
    return Image.open(io.BytesIO(png(raw, low, high)))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_pillow_reads_what_is_written(channels: int, mode: str) -> None:
    numbers = np.random.default_rng(0).integers(0, 256, (channels, 5, 7)).astype(np.uint8)
    image = written(torch.from_numpy(numbers), 0.0, 255.0)
    assert (image.format, image.size, image.mode) == ("PNG", (7, 5), mode)
    pixels = np.asarray(image).reshape(5, 7, channels)
    assert (pixels == numbers.transpose(1, 2, 0)).all()


def test_numbers_are_spread_from_black_to_white_and_cut_beyond() -> None:
    raw = torch.tensor([[[-9.0, 0.0, 8.0, 16.0, 99.0]]])
    assert np.asarray(written(raw, 0.0, 16.0)).tolist() == [[0, 0, 128, 255, 255]]
    flat = torch.zeros(1, 1, 2)
    assert np.asarray(written(flat, 0.0, 0.0)).tolist() == [[0, 0]]


def test_a_large_picture_is_made_small() -> None:
    raw = torch.rand(3, 224, 100, generator=torch.Generator().manual_seed(0))
    assert max(written(raw, 0.0, 1.0).size) <= MAX_SIDE


def test_what_is_a_picture() -> None:
    assert is_picture((1, 8, 8)) and is_picture((3, 32, 32))
    assert not is_picture((64,)) and not is_picture((2, 8, 8))
