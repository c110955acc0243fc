"""Splitting, normalizing and digesting a source's examples."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gped_nas.data.base import DATASETS, Dataset, Split, build, load, split_of
from gped_nas.data.splits import carve
from gped_nas.errors import ConfigError, DataError, RegistryError


def _numbered(total: int, start: int = 0) -> Split:
    """Examples whose only input is their own number, with two classes in turn."""
    numbers = np.arange(start, start + total)
    return split_of(numbers[:, None], numbers % 2)


def _build(source: Split, **changes: Any) -> Dataset:
    arguments: dict[str, Any] = {
        "class_names": ("even", "odd"),
        "test": 0.2,
        "validation": 0.25,
        "seed": 0,
        "where": "here",
    }
    return build("numbers", source, **(arguments | changes))


def _built(total: int = 40, **changes: object) -> Dataset:
    return _build(_numbered(total), **changes)


def _members(split: Split) -> set[int]:
    return set(split.x[:, 0].tolist())


@given(
    total=st.integers(4, 200),
    fractions=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)).map(sorted),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_larger_fraction_contains_the_smaller_as_prefix(
    total: int, fractions: list[float], seed: int
) -> None:
    source = _numbered(total)
    if not all(0 < round(total * fraction) < total for fraction in fractions):
        return

    low, high = fractions
    small, small_rest = carve(source, low, seed=seed, part="validation", where="here")
    large, large_rest = carve(source, high, seed=seed, part="validation", where="here")
    assert torch.equal(large.x[: len(small)], small.x)
    assert _members(large_rest) <= _members(small_rest)

    assert sorted(_members(small) | _members(small_rest)) == list(range(total))
    assert len(small) + len(small_rest) == total
    for split in (small, small_rest):
        assert torch.equal(split.y, split.x[:, 0] % 2)


def test_parts_are_disjoint_and_complete() -> None:
    dataset = _built(40)
    parts = [_members(dataset.split(part)) for part in ("train", "validation", "test")]
    # 40 * 0.2 = 8 for testing, 32 * 0.25 = 8 for validation, 24 left.
    assert [len(part) for part in parts] == [24, 8, 8]
    assert set.union(*parts) == set(range(40))


def test_validation_size_leaves_the_test_part_alone() -> None:
    small, large = _built(validation=0.1), _built(validation=0.5)
    assert torch.equal(small.test.x, large.test.x)
    assert _members(small.validation) < _members(large.validation)


def test_given_test_part_is_kept_whole_and_in_order() -> None:
    test = _numbered(7, start=100)
    dataset = _built(20, test=test)
    assert torch.equal(dataset.test.x, test.x) and torch.equal(dataset.test.y, test.y)
    assert len(dataset.train) + len(dataset.validation) == 20


def test_split_is_told_with_sizes() -> None:
    assert _built(40, seed=3).split_text == (
        "test: 8 of 40 examples, carved with seed 3; validation: 8 of the 32 examples left, "
        "carved with seed 3; train: the other 24; unlabeled: 0 inputs"
    )
    assert "test: 7 examples, as the source gives them" in _built(test=_numbered(7)).split_text


def test_distillation_is_train_followed_by_unlabeled_inputs() -> None:
    pool = torch.tensor([[500], [501]])
    dataset = _built(unlabeled=pool)
    assert torch.equal(dataset.raw("distillation"), torch.cat([dataset.train.x, pool]))
    assert torch.equal(_built().raw("distillation"), _built().train.x)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"test": 0.3},
        {"validation": 0.3},
        {"class_names": ("even", "odd", "neither")},
        {"unlabeled": torch.tensor([[7]])},
        {"test": _numbered(8)},
    ],
)
def test_digest_changes_with_the_split(changes: dict[str, object]) -> None:
    assert _built().digest == _built().digest
    assert _built(**changes).digest != _built().digest


@pytest.mark.parametrize("part", ["train", "test", "pool"])
def test_digest_changes_with_one_byte(part: str) -> None:
    def digest(changed: bool) -> str:
        train = _numbered(20)
        test = _numbered(6)
        pool = torch.arange(5)[:, None]
        inputs = {"train": train.x, "test": test.x, "pool": pool}[part]
        inputs[3] ^= int(changed)
        return _build(train, test=test, unlabeled=pool).digest

    assert digest(True) != digest(False)


def test_digest_changes_with_one_label() -> None:
    x = np.arange(20)[:, None]
    y = np.arange(20) % 2
    digests = set()
    for label in (0, 1):
        y[4] = label
        digests.add(_build(split_of(x, y)).digest)
    assert len(digests) == 2


def test_normalization_is_fitted_on_train_only() -> None:
    dataset = _built(40, unlabeled=torch.tensor([[10**6]]))
    train = dataset.train.x.double()
    assert dataset.normalization.mean == pytest.approx(float(train.mean()), rel=1e-12)
    assert dataset.normalization.std == pytest.approx(float(train.std(unbiased=False)), rel=1e-12)
    assert dataset.inputs("train").dtype == torch.float32
    assert abs(float(dataset.inputs("train").mean())) < 1e-6


def test_normalization_over_several_chunks_is_exact() -> None:
    # 10 000 examples of 0 and 1 in turn, shuffled by carving: a bit that is 1 with probability p
    # has variance p (1 - p)
    bits = (np.arange(10_000) % 2).astype(np.uint8)
    dataset = _build(split_of(bits[:, None], bits), test=0.05, validation=0.05)
    p = float(dataset.train.y.double().mean())
    assert dataset.normalization.mean == pytest.approx(p, rel=1e-12)
    assert dataset.normalization.std == pytest.approx((p * (1 - p)) ** 0.5, rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_constant_inputs_become_zero(value: float) -> None:
    x = np.full((20, 3), value)
    dataset = _build(split_of(x, np.arange(20) % 2))
    assert float(dataset.inputs("train").abs().max()) < 1e-3


def test_small_units_are_scaled_up() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3)) * 1e-9
    dataset = _build(split_of(x, np.arange(200) % 2))
    assert float(dataset.inputs("train").std(unbiased=False)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 0], "here: y_train: found 3 labels for 10 inputs"),
        ([0] * 10, "here: y_train: found 1 class in 10 examples"),
        ([0, 1] * 4 + [2, 1], "here: y_train: found the label 2, expected labels from 0 to 1"),
        ([0, 1] * 4 + [-1, 1], "here: y_train: found the label -1, expected labels from 0 to 1"),
    ],
)
def test_wrong_labels_are_refused(labels: list[int], message: str) -> None:
    source = Split(torch.zeros(10, 2), torch.tensor(labels))
    with pytest.raises(DataError, match=message):
        _build(source)


def test_label_of_the_test_part_out_of_range_is_refused() -> None:
    test = Split(torch.zeros(2, 1, dtype=torch.int64), torch.tensor([0, 2]))
    with pytest.raises(DataError, match="y_test: found the label 2"):
        _built(test=test)


@pytest.mark.parametrize(
    ("total", "part", "changes"),
    [
        (3, "validation", {"test": 0.4, "validation": 0.1}),
        (4, "test", {"test": 0.05}),
        (4, "test", {"test": 0.95}),
    ],
)
def test_empty_part_is_refused(total: int, part: str, changes: dict[str, float]) -> None:
    with pytest.raises(DataError, match=f"here: {part}: .* change the fraction '{part}'"):
        _built(total, **changes)


def test_digits_have_the_documented_shape_and_sizes() -> None:
    dataset = load({"name": "digits"})
    assert dataset.input_shape == (1, 8, 8)
    assert dataset.class_names == tuple("0123456789") and dataset.num_classes == 10
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1150, 288, 359)
    assert dataset.train.x.dtype == torch.uint8 and int(dataset.train.x.max()) == 16
    assert dataset.digest == load({"name": "digits"}).digest


def test_loading_draws_from_no_global_generator() -> None:
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    load({"name": "digits", "seed": 5})
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_every_dataset_has_a_name_to_be_found_by() -> None:
    of_torchvision = {"mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"}
    of_torchvision |= {"emnist", "omniglot", "stl10"}
    assert {"digits", "npz", *of_torchvision} <= set(DATASETS)


@pytest.mark.parametrize(
    ("settings_", "error", "message"),
    [
        ({}, ConfigError, "a.yaml: dataset: name: found None, expected the name of a dataset"),
        ({"name": 3}, ConfigError, "name: found 3"),
        ([], ConfigError, "found \\[\\], expected a mapping"),
        (
            {"name": "digist"},
            RegistryError,
            "a.yaml: dataset: name: unknown dataset 'digist'; did you mean 'digits'",
        ),
        ({"name": "digits", "sed": 1}, ConfigError, "sed: unknown key; did you mean 'seed'"),
        ({"name": "digits", "validation": 0.0}, ConfigError, "validation: found 0.0"),
        ({"name": "digits", "validation": 1.0}, ConfigError, "validation: found 1.0"),
        ({"name": "digits", "test": "0.2"}, ConfigError, "test: found the text '0.2'"),
        ({"name": "digits", "seed": -1}, ConfigError, "seed: found -1"),
    ],
)
def test_wrong_settings_are_refused(settings_: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load(settings_, "a.yaml: dataset")


@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=4),
    fraction=st.floats(0.05, 0.9),
    seed=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_stratified_parts_have_their_share_of_each_class(
    counts: list[int], fraction: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    source = split_of(np.arange(len(labels))[:, None], labels)
    carved, rest = carve(source, fraction, seed=seed, part="test", where="here", rule="stratified")
    assert _members(carved) | _members(rest) == set(range(len(labels)))
    assert len(carved) + len(rest) == len(labels)

    for label, count in enumerate(counts):
        num = int((carved.y == label).sum())
        assert num == min(max(round(count * fraction), 1), count - 1)


def test_a_larger_stratified_part_contains_the_smaller() -> None:
    source = _numbered(60)
    small, _ = carve(source, 0.2, seed=0, part="test", where="here", rule="stratified")
    large, _ = carve(source, 0.5, seed=0, part="test", where="here", rule="stratified")
    assert _members(small) < _members(large)


def test_four_examples_of_a_class_reach_every_part() -> None:
    labels = np.array([0] * 48 + [1] * 48 + [2] * 4)
    source = split_of(np.arange(100)[:, None], labels)
    names = ("a", "b", "c")
    for seed in range(20):
        dataset = _build(source, class_names=names, validation=0.1, rule="stratified", seed=seed)
        assert dataset.notes == ()
        assert all(2 in dataset.labels(part) for part in ("train", "validation", "test"))


def test_a_part_without_a_class_is_noted() -> None:
    source = split_of(np.arange(10)[:, None], np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]))
    test = split_of(np.arange(10, 12)[:, None], np.array([1, 1]))
    dataset = _build(source, test=test, rule="stratified")
    assert dataset.notes == ("The test part has no example of 1 of 2 classes: even.",)


def test_real_labels_are_not_stratified() -> None:
    source = split_of(np.arange(10)[:, None], np.linspace(0, 1, 10))
    with pytest.raises(DataError, match="split: stratified .*; set split: random"):
        _build(source, class_names=(), rule="stratified")
