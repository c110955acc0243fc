"""Pictures against a decoder that is not ours."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from gped_nas.data.picture import MAX_SIDE, is_picture, png


@pytest.mark.parametrize("channels", [1, 3])
def test_pillow_reads_what_is_written(channels: int) -> None:
    raw = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (channels, 5, 7)).astype(np.uint8)
    )
    image = Image.open(io.BytesIO(png(raw, 0.0, 255.0)))
    assert (image.format, image.size, image.mode) == ("PNG", (7, 5), {1: "L", 3: "RGB"}[channels])
    pixels = np.asarray(image).reshape(5, 7, channels)
    assert (pixels == raw.permute(1, 2, 0).numpy()).all()


def test_numbers_are_spread_from_black_to_white_and_cut_beyond() -> None:
    raw = torch.tensor([[[-9.0, 0.0, 8.0, 16.0, 99.0]]])
    assert np.asarray(Image.open(io.BytesIO(png(raw, 0.0, 16.0)))).tolist() == [
        [0, 0, 128, 255, 255]
    ]
    assert np.asarray(Image.open(io.BytesIO(png(torch.zeros(1, 1, 2), 0.0, 0.0)))).tolist() == [
        [0, 0]
    ]


def test_a_large_picture_is_made_small() -> None:
    image = Image.open(
        io.BytesIO(
            png(torch.rand(3, 224, 100, generator=torch.Generator().manual_seed(0)), 0.0, 1.0)
        )
    )
    assert max(image.size) <= MAX_SIDE


def test_what_is_a_picture() -> None:
    assert is_picture((1, 8, 8)) and is_picture((3, 32, 32))
    assert not is_picture((64,)) and not is_picture((2, 8, 8))
