"""The two uncertainty dials: patches of zeros in every part, nested subsets of the labels."""

from dataclasses import replace

import pytest
import torch

from gped_nas.data.base import Dataset, Part, load
from gped_nas.data.dials import DataConfig, ImbalanceConfig, patch, turn
from gped_nas.errors import ConfigError, DataError

WHERE = "a.yaml: data"
PARTS: tuple[Part, ...] = ("train", "validation", "test", "unlabeled")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """The digits plus 300 unlabeled inputs, without a zero pixel: a zero is a patch's."""
    dataset = load({"name": "digits"})
    parts = {}
    for name in ("train", "validation", "test"):
        split = dataset.split(name)
        parts[name] = replace(split, x=split.x + 1)
    return replace(dataset, **parts, unlabeled=dataset.test.x[:300] + 2)


def corners(x: torch.Tensor, side: int) -> torch.Tensor:
    """The upper left corner (N, 2) of each image's patch of zeros.

    The zeros are checked to be a whole square and nothing else.
    """
    zero = (x == 0).all(1)
    assert torch.equal(zero, (x == 0).any(1))
    assert zero.sum((1, 2)).tolist() == [side * side] * len(x)

    rows = zero.any(2).double()
    columns = zero.any(1).double()
    assert (rows.sum(1) == side).all() and (columns.sum(1) == side).all()
    return torch.stack([rows.argmax(1), columns.argmax(1)], 1)


def byte_rows(x: torch.Tensor) -> list[bytes]:
    """Inputs as something that a set can hold."""
    return [row.tobytes() for row in x.numpy()]


def test_a_patch_by_hand() -> None:
    x = torch.arange(1, 25, dtype=torch.uint8).reshape(1, 2, 3, 4)
    # 3 x 4 pixels and side 2: rows 0..1 and columns 0..2 can be the corner;
    # .6 * 2 = 1.2 is row 1, and .99 * 3 = 2.97 is column 2
    out = patch(x, 2, torch.tensor([[0.6, 0.99]], dtype=torch.float64))
    assert out[0, 0].tolist() == [[1, 2, 3, 4], [5, 6, 0, 0], [9, 10, 0, 0]]
    assert out[0, 1].tolist() == [[13, 14, 15, 16], [17, 18, 0, 0], [21, 22, 0, 0]]
    assert int(x.min()) == 1


@pytest.mark.parametrize("side", [1, 3, 8])
def test_every_input_of_every_part_has_its_patch(digits: Dataset, side: int) -> None:
    turned = turn(digits, DataConfig(mask=side), WHERE)
    for part in PARTS:
        before, after = digits.raw(part), turned.raw(part)
        corners(after, side)
        assert after.dtype == before.dtype
        assert torch.equal(after[after != 0], before[after != 0])

    assert torch.equal(turned.train.y, digits.train.y)
    x = turned.train.x.double()
    assert turned.normalization.mean == pytest.approx(float(x.mean()))
    assert turned.normalization.std == pytest.approx(float(x.std(correction=0)) or 1.0)
    assert f"{side} x {side} pixels" in turned.split_text


def test_places_are_uniform_and_fixed_for_each_image(digits: Dataset) -> None:
    """Side 3 in 8 x 8 leaves 6 x 6 corners; 1150 images fall on each with mean 31.9."""
    turned = turn(digits, DataConfig(mask=3), WHERE)
    again = turn(digits, DataConfig(mask=3), WHERE)
    assert torch.equal(turned.train.x, again.train.x)

    # chi-squared of 35 degrees of freedom has variance 70: four standard errors
    corner = corners(turned.train.x, 3)
    counts = torch.bincount(corner[:, 0] * 6 + corner[:, 1], minlength=36).double()
    expected = len(corner) / 36
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert len(counts) == 36
    assert 35 - 4 * 70**0.5 < chi < 35 + 4 * 70**0.5

    # by chance, 1 in 36 is the same
    other_seed = corners(turn(digits, DataConfig(mask=3, seed=1), WHERE).train.x, 3)
    assert float((other_seed == corner).all(1).double().mean()) < 0.1
    test = corners(turned.test.x, 3)
    assert float((test[:200] == corner[:200]).all(1).double().mean()) < 0.15


def test_subsets_are_nested_and_the_whole_pool_stays(digits: Dataset) -> None:
    pool = sorted(byte_rows(digits.raw("distillation")))
    labels = dict(zip(byte_rows(digits.train.x), digits.train.y.tolist(), strict=True))
    smaller: set[bytes] = set()

    for num in (50, 200, 1000):
        turned = turn(digits, DataConfig(subsample=num), WHERE)
        subset = byte_rows(turned.train.x)
        assert len(turned.train) == num
        assert smaller <= set(subset)
        smaller = set(subset)

        assert [labels[row] for row in subset] == turned.train.y.tolist()
        assert sorted(byte_rows(turned.raw("distillation"))) == pool
        assert torch.equal(turned.unlabeled[-300:], digits.unlabeled)
        assert torch.equal(turned.test.x, digits.test.x)
        assert turned.normalization == digits.normalization

    other_seed = turn(digits, DataConfig(subsample=200, seed=1), WHERE)
    assert not set(byte_rows(other_seed.train.x)) <= smaller


@pytest.mark.parametrize(
    "cfg",
    [
        DataConfig(subsample=50),
        DataConfig(imbalance=ImbalanceConfig(classes=("3",), keep=0.1)),
        DataConfig(calibration_share=0.5),
    ],
)
def test_what_a_source_tells_of_itself_stays(digits: Dataset, cfg: DataConfig) -> None:
    told = replace(digits, notes=("Its teacher has seen validation.",))
    assert turn(told, cfg, WHERE).notes[0] == told.notes[0]


def test_images_keep_their_patch_when_labels_are_dropped(digits: Dataset) -> None:
    masked = turn(digits, DataConfig(mask=2), WHERE)
    both = turn(digits, DataConfig(mask=2, subsample=100), WHERE)
    assert torch.equal(both.test.x, masked.test.x)
    assert set(byte_rows(both.train.x)) <= set(byte_rows(masked.train.x))


def test_the_digest_tells_settings_apart(digits: Dataset) -> None:
    configs = [
        DataConfig(),
        DataConfig(mask=2),
        DataConfig(mask=3),
        DataConfig(mask=2, seed=1),
        DataConfig(subsample=50),
        DataConfig(subsample=51),
        DataConfig(subsample=50, mask=2),
        DataConfig(imbalance=ImbalanceConfig(classes=(3, 7), keep=0.01)),
        DataConfig(imbalance=ImbalanceConfig(classes=(3, 7), keep=0.02)),
        DataConfig(imbalance=ImbalanceConfig(classes=(3,), keep=0.01)),
        DataConfig(calibration_share=0.5),
        DataConfig(calibration_share=0.5, seed=1),
        DataConfig(calibration_share=0.25),
    ]
    digests = [turn(digits, cfg, WHERE).digest for cfg in configs]
    assert len(set(digests)) == len(configs) and digests[0] == digits.digest
    assert turn(digits, configs[1], WHERE).digest == digests[1]


def test_a_mask_that_does_not_fit_is_refused(digits: Dataset) -> None:
    with pytest.raises(ConfigError, match="data.mask: found 9, expected at most 8"):
        turn(digits, DataConfig(mask=9), WHERE)

    vectors = replace(digits, input_shape=(64,))
    message = r"data.mask: dataset 'digits' holds inputs of shape \(64,\)"
    with pytest.raises(ConfigError, match=message):
        turn(vectors, DataConfig(mask=2), WHERE)


def test_a_subset_that_is_none_or_of_one_class_is_refused(digits: Dataset) -> None:
    message = "data.subsample: found 1150, expected fewer than the 1150"
    with pytest.raises(ConfigError, match=message):
        turn(digits, DataConfig(subsample=1150), WHERE)

    one_class = replace(digits, train=replace(digits.train, y=torch.zeros_like(digits.train.y)))
    message = "data.subsample: the 9 examples are all of one class"
    with pytest.raises(DataError, match=message):
        turn(one_class, DataConfig(subsample=9), WHERE)


def _unbalanced(digits: Dataset, keep: float, *classes: int | str, seed: int = 0) -> Dataset:
    rare = ImbalanceConfig(classes=classes, keep=keep)
    return turn(digits, DataConfig(imbalance=rare, seed=seed), WHERE)


def test_rare_classes_lose_training_examples_and_nothing_else_changes(digits: Dataset) -> None:
    turned = _unbalanced(digits, 0.1, "3", 7)
    before, after = digits.train.y.bincount(), turned.train.y.bincount()
    expected = before.clone()
    for label in (3, 7):
        expected[label] = round(int(before[label]) * 0.1)
    assert after.tolist() == expected.tolist()

    assert turned.validation is digits.validation and turned.test is digits.test
    assert turned.unlabeled is digits.unlabeled and turned.normalization == digits.normalization
    # the rest keeps its order, and no input of the dropped ones is left
    rows, kept = byte_rows(digits.train.x), byte_rows(turned.train.x)
    places = [rows.index(row) for row in kept]
    assert places == sorted(places) and len(set(places)) == len(kept)
    assert "0.1 of class '3', '7' (seed 0)" in turned.split_text


def test_a_larger_share_of_a_rare_class_holds_every_smaller_one(digits: Dataset) -> None:
    few = set(byte_rows(_unbalanced(digits, 0.1, 3).train.x))
    more = set(byte_rows(_unbalanced(digits, 0.3, 3).train.x))
    assert few < more
    assert few != set(byte_rows(_unbalanced(digits, 0.1, 3, seed=1).train.x))
    assert int((_unbalanced(digits, 0.0001, 3).train.y == 3).sum()) == 1, "at least one"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (10, r"a.yaml: data.imbalance.classes: found 10, expected 0 to 9"),
        ("threee", r"imbalance.classes: found 'threee'; expected one of: 0, 1"),
    ],
)
def test_a_rare_class_that_is_none_is_refused(
    digits: Dataset, name: int | str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _unbalanced(digits, 0.1, name)


def test_real_labels_have_no_rare_class() -> None:
    with pytest.raises(ConfigError, match="labels are real numbers, expected classes; remove it"):
        _unbalanced(load({"name": "diabetes"}), 0.1, 3)


def test_a_calibration_part_is_carved_out_of_validation_alone(digits: Dataset) -> None:
    turned = turn(digits, DataConfig(calibration_share=0.25), WHERE)
    assert digits.held_out == ("validation", "test")
    assert turned.held_out == ("validation", "test", "calibration")
    assert (len(turned.validation), len(turned.split("calibration"))) == (216, 72)
    both = torch.cat([turned.validation.x, turned.raw("calibration")])
    assert sorted(byte_rows(both)) == sorted(byte_rows(digits.validation.x))
    assert turned.train is digits.train and turned.test is digits.test
    assert "calibration: 72 of the 288 validation examples (seed 0)" in turned.split_text

    larger = turn(digits, DataConfig(calibration_share=0.5), WHERE)
    assert set(byte_rows(turned.raw("calibration"))) < set(byte_rows(larger.raw("calibration")))
    other = turn(digits, DataConfig(calibration_share=0.25, seed=1), WHERE)
    assert not torch.equal(other.raw("calibration"), turned.raw("calibration"))


def test_a_calibration_part_has_the_share_of_each_class_of_a_stratified_split() -> None:
    dataset = load({"name": "digits"})
    stratified = replace(dataset, split_rule="stratified")
    turned = turn(stratified, DataConfig(calibration_share=0.5), WHERE)
    counts = turned.split("calibration").y.bincount()
    expected = [round(int(num) * 0.5) for num in dataset.validation.y.bincount()]
    assert counts.tolist() == expected


def test_a_calibration_part_keeps_groups_together(digits: Dataset) -> None:
    group = torch.arange(288) // 8
    grouped = replace(digits, validation=replace(digits.validation, group=group))
    turned = turn(grouped, DataConfig(calibration_share=0.5), WHERE)
    carved, rest = turned.split("calibration").group, turned.validation.group
    assert carved is not None and rest is not None
    assert len(carved) == 144 and not set(carved.tolist()) & set(rest.tolist())


def test_who_asks_for_no_calibration_part_has_none(digits: Dataset) -> None:
    with pytest.raises(DataError, match="no calibration part; set data: {calibration_share: 0.5}"):
        digits.split("calibration")


def test_later_settings_are_written_only_where_they_are_given() -> None:
    assert DataConfig(mask=2).to_json() == {"mask": 2, "subsample": None, "seed": 0}
    given = DataConfig(calibration_share=0.5, imbalance=ImbalanceConfig(classes=(3,), keep=0.1))
    assert DataConfig.model_validate(given.to_json()) == given
