"""Shifts against closed forms, their severities, and what cannot be done to tables."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.scale import ColumnSpread, Scale, ValueRange
from gped_nas.errors import ConfigError
from gped_nas.evaluate.condition_names import parse_condition, parse_conditions

PICTURES = ("noise", "mask", "rotation", "blur", "contrast")
TABLES = ("noise", "mask")
BYTES = ValueRange(0, 255)


def changed(text: str, raw: Tensor, scale: Scale = BYTES) -> Tensor:
    nobody: Any = None
    generator = rng.generator(0, text)
    condition = parse_condition(text, "f")
    return condition.apply(raw, predictor=nobody, labels=nobody, generator=generator, scale=scale)


def pictures(num: int = 40, channels: int = 1, height: int = 8, width: int = 8) -> Tensor:
    """Random pictures of bytes with structure of every size."""
    noise = torch.rand((num, channels, height, width), generator=rng.generator(1, "pictures"))
    return (noise.cumsum(-1) / width * 255).clamp(0, 255).to(torch.uint8)


def test_noise_is_a_share_of_the_range_and_pictures_stay_in_it() -> None:
    gray = torch.full((50, 1, 20, 20), 128, dtype=torch.uint8)
    noise = (changed("noise-0.1", gray) - gray) / 255
    # 20,000 draws: their deviation is known to .5 %
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.003)

    ends = torch.tensor([0, 255], dtype=torch.uint8).expand(10, 1, 4, 2)
    noisy = changed("noise-0.3", ends)
    assert float(noisy.min()) == 0 and float(noisy.max()) == 255


def test_noise_of_a_table_is_a_share_of_each_column() -> None:
    raw = torch.zeros((20_000, 3))
    raw[0, 0] = torch.nan
    noisy = changed("noise-0.5", raw, ColumnSpread((2.0, 100.0, 0.0)))
    assert bool(noisy[0, 0].isnan()), "a number that is missing stays so"
    assert noisy[1:].std(0).tolist() == pytest.approx([1.0, 50.0, 0.0], rel=0.03)


def test_a_mask_is_a_black_square_whose_place_differs() -> None:
    white = torch.full((30, 2, 8, 6), 200, dtype=torch.uint8)
    masked = changed("mask-3", white)
    black = masked == 0
    assert torch.equal(black[:, 0], black[:, 1])
    assert black[:, 0].sum((1, 2)).tolist() == [9] * 30
    assert black[:, 0].any(2).sum(1).tolist() == [3] * 30
    assert len({tuple(rows.tolist()) for rows in black[:, 0].any(2)}) > 3

    # black is what is nearest to zero in the range of the data
    signed, high = white / 100 - 2, white / 100
    assert sorted(changed("mask-3", signed, ValueRange(-1, 1)).unique().tolist()) == [0]
    assert sorted(changed("mask-3", high, ValueRange(1, 3)).unique().tolist()) == [1, 2]


def test_a_mask_of_a_table_is_the_mean_of_some_columns_of_each_row() -> None:
    raw = torch.rand((50, 5), generator=rng.generator(0, "table"))
    raw[3, 2] = torch.nan
    masked = changed("mask-2", raw, ColumnSpread((1.0,) * 5))
    is_masked = (masked == raw.nanmean(0)) & (masked != raw)
    assert is_masked.sum(1).tolist() == [2] * 50
    assert bool(is_masked.any(0).all()), "all columns are masked somewhere"
    assert torch.equal(masked[~is_masked].nan_to_num(-1), raw[~is_masked].nan_to_num(-1))


def test_a_rotation_turns_around_the_center() -> None:
    raw = pictures(channels=3)
    assert torch.equal(changed("rotation-90", raw), raw.float().rot90(1, (2, 3)))
    wide = pictures(width=5)
    expected = wide.float().flip((2, 3))
    assert changed("rotation-180", wide).numpy() == pytest.approx(expected.numpy(), abs=1e-4)

    # a dot right of the center goes up, in pictures that are wide too
    dot = torch.zeros((1, 1, 9, 21))
    dot[0, 0, 4, 13] = 255
    turned = changed("rotation-90", dot)
    assert divmod(int(turned.argmax()), 21) == (1, 10)

    white = torch.full((1, 1, 9, 9), 255.0)
    assert float(changed("rotation-45", white)[0, 0, 0, 0]) == 0
    turned = changed("rotation-45", white, ValueRange(9, 255))[0, 0]
    assert (float(turned[0, 0]), float(turned[4, 4])) == (9, 255)


def test_a_blur_is_a_gaussian_of_so_many_pixels() -> None:
    dot = torch.zeros((1, 1, 31, 31))
    dot[0, 0, 15, 15] = 1.0
    offset = np.arange(31) - 15
    weight = np.exp(-(offset**2) / (2 * 1.5**2))
    expected = np.outer(weight, weight) / weight.sum() ** 2
    blurred = changed("blur-1.5", dot, ValueRange(0, 1))[0, 0].numpy()
    assert blurred == pytest.approx(expected, abs=1e-4)

    white = torch.full((1, 1, 8, 8), 255.0)
    assert changed("blur-3", white).numpy() == pytest.approx(white.numpy(), rel=1e-5)


def test_contrast_is_the_distance_from_the_mean_of_each_channel() -> None:
    raw = pictures(channels=2)
    mean = raw.float().mean((2, 3), keepdim=True)
    expected = mean + 0.25 * (raw - mean)
    assert changed("contrast-0.25", raw).numpy() == pytest.approx(expected.numpy(), abs=1e-4)
    assert changed("contrast-0", raw).flatten(2).std(2).max() < 1e-3


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("side", [8, 28])
def test_each_severity_goes_further(name: str, side: int) -> None:
    raw = pictures(height=side, width=side)
    distances = []
    for severity in range(1, 6):
        moved = changed(f"{name}-s{severity}", raw) - raw
        distances.append(float(moved.square().mean()))
    assert distances[0] > 1
    assert all(further > nearer for nearer, further in zip(distances, distances[1:], strict=False))


@pytest.mark.parametrize("name", TABLES)
def test_each_severity_of_a_table_goes_further(name: str) -> None:
    raw = torch.randn((500, 10), generator=rng.generator(2, "table"))
    distances = []
    for severity in range(1, 6):
        moved = changed(f"{name}-s{severity}", raw, ColumnSpread((1.0,) * 10)) - raw
        distances.append(float(moved.square().mean()))
    assert all(
        further > 1.2 * nearer for nearer, further in zip(distances, distances[1:], strict=False)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noise", "f: found 'noise', expected a number after 'noise-': standard deviation"),
        ("noise-0", "f: noise-0: std: found 0, expected greater than 0"),
        ("noise--0.1", "f: noise--0.1: std: found -0.1, expected greater than 0"),
        ("noise-s0", "f: noise-s0: severity: found 0, expected greater than or equal to 1"),
        ("mask-1.5", "f: mask-1.5: size: found 1.5, expected a valid integer"),
        ("rotation-361", "f: rotation-361: degrees: found 361, expected less than or equal to"),
        ("contrast-2", "f: contrast-2: share: found 2, expected less than or equal to 1"),
        ("blur-much", "f: found 'blur-much', expected a number after 'blur-': standard deviation"),
    ],
)
def test_a_shift_that_is_none_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_condition(text, "f")
    assert str(refused.value).startswith(message)


def test_a_number_or_a_severity_but_not_both() -> None:
    for settings, found in (({}, "neither"), ({"std": 0.1, "severity": 2}, "both")):
        with pytest.raises(ConfigError, match=f"f.mine: found {found} of std and severity, exp"):
            parse_conditions({"mine": {"name": "noise", **settings}}, "f")
    with pytest.raises(ConfigError, match=", or a severity from s1 to s5; write mask-s3, for"):
        parse_condition("mask-wide", "f")


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        *(
            (f"{name}-s1", (6,), "found inputs of shape (6,), expected pictures")
            for name in PICTURES[2:]
        ),
        ("mask-9", (1, 8, 20), "found size 9, expected at most 8 pixels, the shorter side"),
        ("mask-7", (6,), "found size 7, expected at most 6 columns; lower it"),
    ],
)
def test_what_cannot_be_done_to_such_inputs_is_told(
    text: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_condition(text, "f").check_shape(shape, "f: conditions")
    assert str(refused.value).startswith(f"f: conditions: condition '{text}': {message}")
