"""The two uncertainty dials: patches of zeros in every part, nested subsets of the labels."""

from dataclasses import replace

import pytest
import torch

from gped_nas.data.base import Dataset, load
from gped_nas.data.dials import DataConfig, patch, turn
from gped_nas.errors import ConfigError, DataError

WHERE = "a.yaml: data"
PARTS = ("train", "validation", "test", "unlabeled")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """The digits plus 300 unlabeled inputs, without a zero pixel: a zero is a patch's."""
    found = load({"name": "digits"})
    parts = {
        name: replace(found.split(name), x=found.split(name).x + 1)
        for name in ("train", "validation", "test")
    }
    return replace(found, **parts, unlabeled=found.test.x[:300] + 2)


def corners(x: torch.Tensor, side: int) -> torch.Tensor:
    """The upper left corner (N, 2) of each image's patch of zeros, checked to be a whole square and
    nothing else.
    """
    zero = (x == 0).all(1)
    assert torch.equal(zero, (x == 0).any(1))
    assert zero.sum((1, 2)).tolist() == [side * side] * len(x)
    rows, columns = zero.any(2).double(), zero.any(1).double()
    assert (rows.sum(1) == side).all() and (columns.sum(1) == side).all()
    return torch.stack([rows.argmax(1), columns.argmax(1)], 1)


def test_a_patch_by_hand() -> None:
    x = torch.arange(1, 25, dtype=torch.uint8).reshape(1, 2, 3, 4)
    # 3 x 4 pixels and side 2: rows 0..1 and columns 0..2 can be the corner; .6 * 2 = 1.2 is row 1,
    # .99 * 3 is column 2
    out = patch(x, 2, torch.tensor([[0.6, 0.99]], dtype=torch.float64))
    assert out[0, 0].tolist() == [[1, 2, 3, 4], [5, 6, 0, 0], [9, 10, 0, 0]]
    assert out[0, 1].tolist() == [[13, 14, 15, 16], [17, 18, 0, 0], [21, 22, 0, 0]]
    assert int(x.min()) == 1


@pytest.mark.parametrize("side", [1, 3, 8])
def test_every_input_of_every_part_has_its_patch(digits: Dataset, side: int) -> None:
    turned = turn(digits, DataConfig(mask=side), WHERE)
    for part in PARTS:
        before, after = digits.raw(part), turned.raw(part)  # type: ignore[arg-type]
        corners(after, side)
        assert after.dtype == before.dtype and torch.equal(after[after != 0], before[after != 0])
    assert torch.equal(turned.train.y, digits.train.y)
    x = turned.train.x.double()
    assert turned.normalization.mean == pytest.approx(float(x.mean()))
    assert turned.normalization.std == pytest.approx(float(x.std(correction=0)) or 1.0)
    assert f"{side} x {side} pixels" in turned.split_text


def test_places_are_uniform_and_fixed_for_each_image(digits: Dataset) -> None:
    """Side 3 in 8 x 8 leaves 6 x 6 corners: 1150 images fall on each with mean 31.9; chi-squared of
    35 degrees.
    """
    first, again = (turn(digits, DataConfig(mask=3), WHERE).train.x for _ in range(2))
    assert torch.equal(first, again)
    corner = corners(first, 3)
    counts = torch.bincount(corner[:, 0] * 6 + corner[:, 1], minlength=36).double()
    expected = len(first) / 36
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert (
        len(counts) == 36 and 35 - 4 * 70**0.5 < chi < 35 + 4 * 70**0.5
    )  # four standard errors of chi-squared
    other = corners(turn(digits, DataConfig(mask=3, seed=1), WHERE).train.x, 3)
    assert float((other == corner).all(1).double().mean()) < 0.1  # 1 in 36 by chance
    test = corners(turn(digits, DataConfig(mask=3), WHERE).test.x, 3)
    assert float((test[:200] == corner[:200]).all(1).double().mean()) < 0.15


def test_subsets_are_nested_and_the_whole_pool_stays(digits: Dataset) -> None:
    pool = sorted(row.tobytes() for row in digits.raw("distillation").numpy())
    kept: set[bytes] = set()
    for num in (50, 200, 1000):
        turned = turn(digits, DataConfig(subsample=num), WHERE)
        now = {row.tobytes() for row in turned.train.x.numpy()}
        assert len(turned.train) == num and kept <= now
        kept = now
        assert sorted(row.tobytes() for row in turned.raw("distillation").numpy()) == pool
        assert torch.equal(turned.unlabeled[-300:], digits.unlabeled)
        assert (
            torch.equal(turned.test.x, digits.test.x)
            and turned.normalization == digits.normalization
        )
        labels = {
            x.tobytes(): int(y) for x, y in zip(digits.train.x.numpy(), digits.train.y, strict=True)
        }
        assert all(
            labels[x.tobytes()] == int(y)
            for x, y in zip(turned.train.x.numpy(), turned.train.y, strict=True)
        )
    other = turn(digits, DataConfig(subsample=200, seed=1), WHERE)
    assert not {row.tobytes() for row in other.train.x.numpy()} <= kept


def test_images_keep_their_patch_when_labels_are_dropped(digits: Dataset) -> None:
    masked = turn(digits, DataConfig(mask=2), WHERE)
    both = turn(digits, DataConfig(mask=2, subsample=100), WHERE)
    assert torch.equal(both.test.x, masked.test.x)
    assert {row.tobytes() for row in both.train.x.numpy()} <= {
        row.tobytes() for row in masked.train.x.numpy()
    }


def test_the_digest_tells_settings_apart(digits: Dataset) -> None:
    configs = [
        DataConfig(),
        DataConfig(mask=2),
        DataConfig(mask=3),
        DataConfig(mask=2, seed=1),
        DataConfig(subsample=50),
        DataConfig(subsample=51),
        DataConfig(subsample=50, mask=2),
    ]
    digests = [turn(digits, cfg, WHERE).digest for cfg in configs]
    assert len(set(digests)) == len(configs) and digests[0] == digits.digest
    assert turn(digits, configs[1], WHERE).digest == digests[1]


def test_what_cannot_be_turned_is_refused(digits: Dataset) -> None:
    vectors = replace(digits, input_shape=(64,))
    one_class = replace(digits, train=replace(digits.train, y=torch.zeros_like(digits.train.y)))
    for dataset, cfg, error, message in (
        (digits, DataConfig(mask=9), ConfigError, r"data.mask: found 9, expected at most 8"),
        (
            vectors,
            DataConfig(mask=2),
            ConfigError,
            r"data.mask: dataset 'digits' holds inputs of shape \(64,\)",
        ),
        (
            digits,
            DataConfig(subsample=1150),
            ConfigError,
            "data.subsample: found 1150, expected fewer than the 1150",
        ),
        (
            one_class,
            DataConfig(subsample=9),
            DataError,
            "data.subsample: the 9 examples are all of one class",
        ),
    ):
        with pytest.raises(error, match=message):
            turn(dataset, cfg, WHERE)
