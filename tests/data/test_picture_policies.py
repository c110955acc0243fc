"""What the input policies for pictures do, looked at pixel by pixel."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gped_nas.data.base import load
from gped_nas.data.views import parse_view
from gped_nas.errors import ConfigError

HEIGHT, WIDTH = 7, 6
DRAWN = 400
"""Pictures; a share of 1/2 among them has standard error 0.025."""


def pictures() -> Tensor:
    """Pictures of two channels in which each pixel has another value, none of them 0."""
    one = torch.arange(2.0 * HEIGHT * WIDTH).view(2, HEIGHT, WIDTH)
    return one + 1 + 1000 * torch.arange(DRAWN).view(-1, 1, 1, 1)


def moved(**settings: Any) -> Tensor:
    return parse_view(settings, "a.yaml: views[0]", 0).move(pictures())


@pytest.mark.parametrize(
    ("direction", "axes"), [("horizontal", [(3,)]), ("vertical", [(2,)]), ("both", [(3,), (2,)])]
)
def test_flip_mirrors_each_picture_or_leaves_it(direction: str, axes: list[tuple[int]]) -> None:
    x = pictures()
    possible = [x, *(x.flip(axis) for axis in axes)]
    if direction == "both":
        possible.append(x.flip((2, 3)))
    is_like = torch.stack(
        [
            (moved(policy="flip", direction=direction) == other).flatten(1).all(1)
            for other in possible
        ]
    )
    assert bool((is_like.sum(0) == 1).all())
    for share in is_like.float().mean(1).tolist():
        assert share == pytest.approx(1 / len(possible), abs=0.1)


def test_flip_of_probability_one_mirrors_all() -> None:
    assert torch.equal(moved(policy="flip", probability=1.0), pictures().flip(3))


def test_flips_of_other_probabilities_are_as_many() -> None:
    is_flipped = (moved(policy="flip", probability=0.9) != pictures()).flatten(1).any(1)
    assert float(is_flipped.float().mean()) == pytest.approx(0.9, abs=0.06)


def shifted_by_hand(picture: Tensor, down: int, right: int, fill: str) -> Tensor:
    """A picture moved by whole pixels, one pixel after the other."""
    out = torch.zeros_like(picture)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            source = [row - down, column - right]
            is_outside = False
            for axis, side in enumerate((HEIGHT, WIDTH)):
                place = source[axis]
                is_outside |= not 0 <= place < side
                if fill == "reflect":
                    place = -place if place < 0 else place
                    place = 2 * (side - 1) - place if place >= side else place
                source[axis] = min(max(place, 0), side - 1)
            if not (is_outside and fill == "mean"):
                out[:, row, column] = picture[:, source[0], source[1]]
    return out


@pytest.mark.parametrize("fill", ["edge", "reflect", "mean"])
def test_shift_moves_by_whole_pixels_and_fills_as_asked(fill: str) -> None:
    x, out = pictures(), moved(policy="shift", pixels=2, fill=fill)
    offsets = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    counts = dict.fromkeys(offsets, 0)
    for picture, result in zip(x, out, strict=True):
        matches = [
            offset
            for offset in offsets
            if torch.equal(result, shifted_by_hand(picture, *offset, fill))
        ]
        assert len(matches) == 1
        counts[matches[0]] += 1
    # each of 25 is drawn 16 times on average, with standard deviation 3.9
    assert min(counts.values()) >= 2 and max(counts.values()) <= 34


def test_crop_enlarges_a_window_that_lies_in_the_picture() -> None:
    """Of a ramp, a window is a ramp that is flatter and stays within the ends of the first."""
    ramp = torch.arange(float(HEIGHT)).view(1, 1, HEIGHT, 1).expand(DRAWN, 1, HEIGHT, WIDTH)
    view = parse_view({"policy": "crop", "pixels": 3}, "a.yaml: views[0]", 0)
    out = view.move(ramp.contiguous())

    # between pixels that no border touches: 1 - 3 / 6 at the least, 1 at the most
    slope = out[:, 0, 4, 2] - out[:, 0, 3, 2]
    assert float(slope.min()) == pytest.approx(0.5, abs=0.02)
    assert float(slope.max()) == pytest.approx(1.0, abs=0.02)
    assert float(out.min()) >= 0 and float(out.max()) <= HEIGHT - 1

    # the middle row lies within the rows that a window of this size can be centered at
    middle = out[:, 0, HEIGHT // 2, 2] - (HEIGHT - 1) / 2
    largest = (1 - slope) * HEIGHT / 2
    assert bool((middle.abs() <= largest + 0.01).all())
    assert float(middle.min()) < -1 and float(middle.max()) > 1


def test_crop_that_loses_no_pixel_would_be_the_picture() -> None:
    nearly = moved(policy="crop", pixels=1)
    assert nearly.shape == pictures().shape and not torch.equal(nearly, pictures())


def test_erase_sets_a_square_to_the_mean() -> None:
    out = moved(policy="erase", pixels=3)
    is_erased = (out == 0).all(1)
    assert torch.equal(torch.where(is_erased[:, None], torch.zeros(()), pictures()), out)
    centers = set()
    for erased in is_erased:
        rows, columns = erased.any(1).nonzero().flatten(), erased.any(0).nonzero().flatten()
        assert torch.equal(erased, erased.any(1)[:, None] & erased.any(0)[None, :])
        assert 2 <= len(rows) <= 3 and 2 <= len(columns) <= 3
        centers.add((int(rows[0]), int(columns[0]), len(rows), len(columns)))
    # around each pixel, at the border too
    assert len(centers) == HEIGHT * WIDTH


def test_cutmix_takes_a_rectangle_from_another_picture() -> None:
    """Of side s = sqrt(u), u uniform, the border leaves s - s^2 / 4 on average along each axis.

    The share taken is thus E (sqrt(u) - u / 4)^2 = 1/2 - 1/5 + 1/48 = 0.321. The standard error of
    the mean over 400 pictures is 0.012; whole pixels add about as much again.
    """
    x, out = pictures(), moved(policy="cutmix")
    shares = []
    for picture, result in zip(x, out, strict=True):
        is_taken = (result != picture).any(0)
        shares.append(float(is_taken.float().mean()))
        if not is_taken.any():
            continue
        assert torch.equal(is_taken, is_taken.any(1)[:, None] & is_taken.any(0)[None, :])
        partner = x[int(result[0][is_taken][0] // 1000)]
        assert torch.equal(result, torch.where(is_taken, partner, picture))
    assert sum(shares) / len(shares) == pytest.approx(0.321, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"policy": "flip"},
            r"policy 'flip', dataset 'diabetes': found inputs of shape \(10,\), expected pictures "
            r"\(channels, height, width\); take noise or mixup",
        ),
        ({"policy": ["noise", "cutmix"]}, r"policy 'cutmix', dataset 'diabetes'"),
    ],
)
def test_tables_are_refused(settings: dict[str, Any], message: str) -> None:
    view = parse_view(settings, "a.yaml: views[1]", 0)
    with pytest.raises(ConfigError, match=r"a.yaml: views\[1\]: " + message):
        view.check(load({"name": "diabetes"}), "a.yaml: views[1]")


@pytest.mark.parametrize("policy", ["shift", "crop", "erase"])
def test_pixels_are_fewer_than_a_picture_has(policy: str) -> None:
    digits = load({"name": "digits"})
    parse_view({"policy": policy, "pixels": 7}, "a.yaml", 0).check(digits, "a.yaml")
    with pytest.raises(ConfigError, match="found pixels: 8 and pictures of 8 x 8, expected fewer"):
        parse_view({"policy": policy, "pixels": 8}, "a.yaml", 0).check(digits, "a.yaml")
