"""Input policies for pictures (N, channels, height, width), one place or window an input.

They read normalized pictures, whatever range and layout the dataset has them in: 0 is the mean.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gped_nas.data.policies import draw_beta
from gped_nas.data.views import POLICIES, Answers, DrawnSettings, Policy, fits_pictures
from gped_nas.errors import ConfigError

_BATCH = 512
_HEIGHT, _WIDTH = -2, -1


class FlipSettings(DrawnSettings):
    """Settings of ``flip``: some of the pictures mirrored."""

    policy: Literal["flip"]
    direction: Literal["horizontal", "vertical", "both"] = Field(
        "horizontal", description="left to right, upside down, or each of them by itself"
    )
    probability: float = Field(0.5, gt=0, le=1, description="that a picture is mirrored")


_FLIPPED_AXES = {"horizontal": (_WIDTH,), "vertical": (_HEIGHT,), "both": (_WIDTH, _HEIGHT)}


def _flip(cfg: FlipSettings, x: Tensor, *, generator: torch.Generator, answers: Answers) -> Tensor:
    moved = x.clone()
    for axis in _FLIPPED_AXES[cfg.direction]:
        is_flipped_N = torch.rand(len(x), generator=generator) < cfg.probability
        moved[is_flipped_N] = moved[is_flipped_N].flip(axis)
    return moved


class ShiftSettings(DrawnSettings):
    """Settings of ``shift``: each picture moved by some pixels, another number each way."""

    policy: Literal["shift"]
    pixels: int = Field(2, ge=1, description="at most so far up, down, left and right")
    fill: Literal["edge", "reflect", "mean"] = Field(
        "edge",
        description="what comes in: the outermost pixels again, the picture mirrored, or the mean "
        "of the training pictures",
    )


def _shift(
    cfg: ShiftSettings, x: Tensor, *, generator: torch.Generator, answers: Answers
) -> Tensor:
    size = (len(x), 2)
    offset_N2 = torch.randint(-cfg.pixels, cfg.pixels + 1, size, generator=generator)
    height, width = x.shape[2:]
    rows = torch.arange(height) - offset_N2[:, :1]
    columns = torch.arange(width) - offset_N2[:, 1:]

    # a few at a time: of large inputs no more than two copies exist
    moved = torch.empty_like(x)
    for start in range(0, len(x), _BATCH):
        some = slice(start, start + _BATCH)
        row, column = rows[some, None, :, None], columns[some, None, None, :]
        batch = x[some].gather(2, _inside(row, height, cfg.fill).expand_as(x[some]))
        batch = batch.gather(3, _inside(column, width, cfg.fill).expand_as(batch))
        if cfg.fill == "mean":
            is_old = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            batch = batch * is_old
        moved[some] = batch
    return moved


def _inside(index: Tensor, side: int, fill: str) -> Tensor:
    """Indices of rows or columns, those outside [0, side) brought inside."""
    if fill == "reflect":
        index = index.abs()
        index = torch.where(index < side, index, 2 * (side - 1) - index)
    return index.clamp(0, side - 1)


class CropSettings(DrawnSettings):
    """Settings of ``crop``: a window of each picture, enlarged to the size of the picture.

    The window has the picture's proportions. How much smaller it is is uniform, and so is where it
    lies; it is enlarged by bilinear interpolation.
    """

    policy: Literal["crop"]
    pixels: int = Field(
        4, ge=1, description="the window's shorter side is smaller by at most so many"
    )


def _crop(cfg: CropSettings, x: Tensor, *, generator: torch.Generator, answers: Answers) -> Tensor:
    loss_N = cfg.pixels / min(x.shape[2:]) * torch.rand(len(x), generator=generator)
    center_N2 = (2 * torch.rand((len(x), 2), generator=generator) - 1) * loss_N[:, None]

    # from places in the picture, -1 to 1 each way, to places in the window
    window_N23 = torch.zeros((len(x), 2, 3))
    window_N23[:, 0, 0] = window_N23[:, 1, 1] = 1 - loss_N
    window_N23[:, :, 2] = center_N2

    moved = torch.empty_like(x)
    for start in range(0, len(x), _BATCH):
        some = slice(start, start + _BATCH)
        batch = x[some]
        grid = F.affine_grid(window_N23[some].to(x), list(batch.shape), align_corners=False)
        moved[some] = F.grid_sample(batch, grid, padding_mode="border", align_corners=False)
    return moved


class EraseSettings(DrawnSettings):
    """Settings of ``erase``: a square of each picture becomes the mean of the training pictures.

    Its center is uniform over the picture, so that a part of the square may lie outside.

    Source: DeVries & Taylor 2017, arXiv:1708.04552.
    """

    policy: Literal["erase"]
    pixels: int = Field(4, ge=1, description="side of the square")


def _erase(
    cfg: EraseSettings, x: Tensor, *, generator: torch.Generator, answers: Answers
) -> Tensor:
    length_N2 = torch.full((len(x), 2), cfg.pixels)
    return x.masked_fill(_box(x, length_N2, generator), 0)


class CutmixSettings(DrawnSettings):
    """Settings of ``cutmix``: a rectangle of each picture is taken from another picture.

    Its center is uniform over the picture, so that a part of it may lie outside.

    Source: Yun et al. 2019, arXiv:1905.04899; here labels are not mixed, the teacher predicts at
        the mixed picture.
    """

    policy: Literal["cutmix"]
    alpha: float = Field(
        1.0,
        gt=0,
        description="the share of the picture that stays is Beta(alpha, alpha) before the "
        "rectangle is cut off at the border",
    )


def _cutmix(
    cfg: CutmixSettings, x: Tensor, *, generator: torch.Generator, answers: Answers
) -> Tensor:
    partner = torch.randperm(len(x), generator=generator)
    share_N = draw_beta(cfg.alpha, len(x), generator)
    side_N1 = (1 - share_N).sqrt()[:, None]
    length_N2 = (side_N1 * torch.tensor(x.shape[2:])).round().long()

    taken = _box(x, length_N2, generator)
    moved = x[partner]
    return torch.where(taken, moved, x, out=moved)


def _box(x: Tensor, length_N2: Tensor, generator: torch.Generator) -> Tensor:
    """Which pixels (N, 1, H, W) lie in a rectangle of these sides around a random pixel."""
    inside = []
    for axis, side in enumerate(x.shape[2:]):
        length_N1 = length_N2[:, axis, None]
        first_N1 = torch.randint(side, (len(x), 1), generator=generator) - length_N1 // 2
        index = torch.arange(side)
        inside.append((index >= first_N1) & (index < first_N1 + length_N1))
    in_rows, in_columns = inside
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]


def _fits_pixels(
    cfg: ShiftSettings | CropSettings | EraseSettings, input_shape: tuple[int, ...]
) -> None:
    """Refuse what is no picture, or one that so many pixels are all of.

    Raises:
        ConfigError: it is one of these.
    """
    fits_pictures(cfg, input_shape)
    shorter = min(input_shape[1:])
    if cfg.pixels >= shorter:
        raise ConfigError(
            f"found pixels: {cfg.pixels} and pictures of {input_shape[1]} x {input_shape[2]}, "
            f"expected fewer than {shorter}; lower pixels"
        )


POLICIES.register("flip")(Policy(FlipSettings, _flip, keeps_label=True, check=fits_pictures))
POLICIES.register("shift")(Policy(ShiftSettings, _shift, keeps_label=True, check=_fits_pixels))
POLICIES.register("crop")(Policy(CropSettings, _crop, keeps_label=True, check=_fits_pixels))
POLICIES.register("erase")(Policy(EraseSettings, _erase, keeps_label=True, check=_fits_pixels))
POLICIES.register("cutmix")(Policy(CutmixSettings, _cutmix, check=fits_pictures))
