"""Shifts: conditions that move inputs away from the training data, and ask nobody.

Each has a setting in its own unit, and severities 1 to 5 that fit inputs of any size:

| name       | setting                                              | severities 1 to 5            |
|------------|------------------------------------------------------|------------------------------|
| `noise`    | std of normal noise, share of the data's range       | .08, .12, .18, .26, .38      |
| `mask`     | side of the square that is set to zero, pixels       | 1/8 to 5/8 of the side       |
| `rotation` | degrees counterclockwise                             | 15, 30, 45, 60, 90           |
| `blur`     | std of a Gaussian, pixels                            | .4, .6, .7, .8, 1            |
| `contrast` | share of the contrast that is left                   | .4, .3, .2, .1, .05          |

The side is the shorter one of a picture; of one above 90 pixels, a blur is 1, 2, 3, 4 or 6 of 224
shares of it where that is more. In tables, the noise of a column is a share of its
standard deviation (.1, .2, .4, .7, 1), and a mask sets so many columns of each row to their mean
(.1 to .5 of the columns); the others are refused.

Source: Hendrycks & Dietterich 2019, arXiv:1903.12261 (severities of noise, contrast and blur);
Ovadia et al. 2019, arXiv:1906.02530 (rotation); Vadera, Jalaian & Marlin 2020, arXiv:2005.08110
(mask).
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.config import Config
from gped_nas.data.dials import patch
from gped_nas.data.scale import Scale
from gped_nas.errors import ConfigError
from gped_nas.evaluate.conditions import add_condition

_BATCH = 512
_SEVERITY = "1 to 5, in place of the setting above"
_NOISE_OF_PICTURES = (0.08, 0.12, 0.18, 0.26, 0.38)
_NOISE_OF_TABLES = (0.1, 0.2, 0.4, 0.7, 1.0)
_MASK_OF_PICTURES = (1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8)
_MASK_OF_TABLES = (0.1, 0.2, 0.3, 0.4, 0.5)
_ROTATION = (15.0, 30.0, 45.0, 60.0, 90.0)
_BLUR_OF_SMALL = (0.4, 0.6, 0.7, 0.8, 1.0)
_BLUR_OF_LARGE = (1 / 224, 2 / 224, 3 / 224, 4 / 224, 6 / 224)
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)


class _ShiftSettings(Config):
    """One setting in its own unit, or a severity."""

    main: ClassVar[str]

    @model_validator(mode="after")
    def _has_one_of_both(self) -> "_ShiftSettings":
        main, severity = self.main, getattr(self, "severity", None)
        if (getattr(self, main) is None) == (severity is None):
            both = "both" if severity is not None else "neither"
            raise ValueError(f"found {both} of {main} and severity, expected one of them")
        return self

    def amount(self, by_severity: Sequence[float]) -> float:
        """The setting in its own unit.

        Args:
            by_severity: what it is at severities 1 to 5.
        """
        severity = getattr(self, "severity", None)
        value: float = getattr(self, self.main) if severity is None else by_severity[severity - 1]
        return value


def is_picture(input_shape: tuple[int, ...]) -> bool:
    """Whether inputs are pictures (channels, height, width)."""
    return len(input_shape) == 3


def needs_pictures(settings: Config | None, input_shape: tuple[int, ...]) -> None:
    """What ``Condition.check`` is where inputs must be pictures.

    Raises:
        ConfigError: they are not.
    """
    if not is_picture(input_shape):
        raise ConfigError(
            f"found inputs of shape {input_shape}, expected pictures (channels, height, width); "
            "take noise or mask, which are for tables too"
        )


def _shorter_side(raw: Tensor) -> int:
    return min(raw.shape[2:])


def black_of(scale: Scale) -> float:
    """Zero, or what is nearest to it in the range of the data."""
    low, high = scale.bounds
    return min(max(0.0, low), high)


class NoiseSettings(_ShiftSettings):
    """Settings of ``noise``."""

    main = "std"
    std: float | None = Field(
        default=None,
        gt=0,
        description="standard deviation, a share of the data's range, in tables of each column's "
        "standard deviation",
    )
    severity: int | None = Field(default=None, ge=1, le=5, description=_SEVERITY)


@add_condition("noise", "normal noise", settings=NoiseSettings, main="std")
def noise(raw: Tensor, *, settings: NoiseSettings, scale: Scale, generator: Generator) -> Tensor:
    """The inputs with normal noise on every number; pictures stay in their range."""
    std = settings.amount(_NOISE_OF_PICTURES if is_picture(raw.shape[1:]) else _NOISE_OF_TABLES)
    drawn = torch.randn(raw.shape, generator=generator).to(raw)
    low, high = scale.bounds
    return raw.add_(std * scale.unit(raw) * drawn).clamp_(low, high)


class MaskSettings(_ShiftSettings):
    """Settings of ``mask``."""

    main = "size"
    size: int | None = Field(
        default=None,
        ge=1,
        description="side of the square, pixels, in tables the number of columns of each row",
    )
    severity: int | None = Field(default=None, ge=1, le=5, description=_SEVERITY)

    def size_of(self, most: int, shares: Sequence[float]) -> int:
        """How many pixels or columns, of ``most``."""
        return int(self.amount([max(1, round(share * most)) for share in shares]))


def _fits_mask(settings: MaskSettings, input_shape: tuple[int, ...]) -> None:
    """See ``Condition.check``."""
    if settings.size is None:
        return
    most, what = input_shape[0], "columns"
    if is_picture(input_shape):
        most, what = min(input_shape[1:]), "pixels, the shorter side of the pictures"
    if settings.size > most:
        raise ConfigError(f"found size {settings.size}, expected at most {most} {what}; lower it")


@add_condition("mask", "a part is masked", settings=MaskSettings, main="size", check=_fits_mask)
def mask(raw: Tensor, *, settings: MaskSettings, scale: Scale, generator: Generator) -> Tensor:
    """Pictures with a black square, rows of tables with some columns at their mean.

    The place is uniform over those where the whole square fits, another one for each input.
    """
    if not is_picture(raw.shape[1:]):
        return _mask_columns(raw, settings.size_of(raw.shape[1], _MASK_OF_TABLES), generator)

    side = settings.size_of(_shorter_side(raw), _MASK_OF_PICTURES)
    corner_N2 = torch.rand((len(raw), 2), generator=generator, dtype=torch.float64)
    black = black_of(scale)
    return patch(raw.sub_(black), side, corner_N2).add_(black)


def _mask_columns(raw: Tensor, num: int, generator: Generator) -> Tensor:
    """Rows (N, D) with so many columns of each at the mean of that column."""
    flat = raw.flatten(1)
    chosen = torch.rand(flat.shape, generator=generator).argsort(1)[:, :num].to(raw.device)
    is_masked = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True)
    return torch.where(is_masked, flat.nanmean(0), flat).view_as(raw)


class RotationSettings(_ShiftSettings):
    """Settings of ``rotation``."""

    main = "degrees"
    degrees: float | None = Field(
        default=None, ge=-360, le=360, description="degrees, counterclockwise"
    )
    severity: int | None = Field(default=None, ge=1, le=5, description=_SEVERITY)


@add_condition(
    "rotation", "rotated", settings=RotationSettings, main="degrees", check=needs_pictures
)
def rotation(raw: Tensor, *, settings: RotationSettings, scale: Scale) -> Tensor:
    """The pictures turned around their centers, black where nothing is; bilinear."""
    degrees_N = torch.full((len(raw),), settings.amount(_ROTATION))
    return rotated_by(raw, degrees_N, black_of(scale))


def rotated_by(raw: Tensor, degrees_N: Tensor, fill: float) -> Tensor:
    """Pictures (N, channels, height, width), each turned counterclockwise around its center.

    Args:
        raw: float32.
        degrees_N: how far.
        fill: what stands where nothing is.
    """
    height, width = raw.shape[2:]
    angle_N = degrees_N.double().deg2rad()
    cos, sin = angle_N.cos(), angle_N.sin()

    # from places in the turned picture, -1 to 1 each way, to places in the given one
    turn_N23 = torch.zeros((len(raw), 2, 3), dtype=torch.float64)
    turn_N23[:, 0, 0], turn_N23[:, 0, 1] = cos, -sin * height / width
    turn_N23[:, 1, 0], turn_N23[:, 1, 1] = sin * width / height, cos

    turned = torch.empty_like(raw)
    for start in range(0, len(raw), _BATCH):
        some = slice(start, start + _BATCH)
        batch = raw[some].double() - fill
        grid = F.affine_grid(turn_N23[some].to(batch), list(batch.shape), align_corners=False)
        turned[some] = (F.grid_sample(batch, grid, align_corners=False) + fill).to(raw)
    return turned


class BlurSettings(_ShiftSettings):
    """Settings of ``blur``."""

    main = "std"
    std: float | None = Field(
        default=None, gt=0, le=1000, description="standard deviation of the Gaussian, pixels"
    )
    severity: int | None = Field(default=None, ge=1, le=5, description=_SEVERITY)


@add_condition("blur", "blurred", settings=BlurSettings, main="std", check=needs_pictures)
def blur(raw: Tensor, *, settings: BlurSettings) -> Tensor:
    """The pictures convolved with a Gaussian; the outermost pixels go on beyond the edge."""
    from scipy.ndimage import gaussian_filter  # slow to import

    by_severity = []
    for pixels, share in zip(_BLUR_OF_SMALL, _BLUR_OF_LARGE, strict=True):
        by_severity.append(max(pixels, share * _shorter_side(raw)))
    std = settings.amount(by_severity)
    blurred = gaussian_filter(raw.cpu().numpy(), (0, 0, std, std), mode="nearest")
    return torch.from_numpy(blurred).to(raw)


class ContrastSettings(_ShiftSettings):
    """Settings of ``contrast``."""

    main = "share"
    share: float | None = Field(
        default=None, ge=0, le=1, description="share of the contrast that is left"
    )
    severity: int | None = Field(default=None, ge=1, le=5, description=_SEVERITY)


@add_condition(
    "contrast", "less contrast", settings=ContrastSettings, main="share", check=needs_pictures
)
def contrast(raw: Tensor, *, settings: ContrastSettings) -> Tensor:
    """The pictures, each channel of each moved towards its mean."""
    mean = raw.mean(dim=(2, 3), keepdim=True)
    return mean + settings.amount(_CONTRAST) * (raw - mean)
