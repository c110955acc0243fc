"""Examples that belong together stay together where parts are carved."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from gped_nas.data.base import Dataset, load
from gped_nas.data.groups import choose_groups, number_groups
from gped_nas.errors import DataError

PARTS = ("train", "validation", "test")


def _arrays(num_groups: int = 20, size: int = 6) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    num = num_groups * size
    group = draw.permutation(np.repeat(np.arange(num_groups), size))
    return {
        "x_train": draw.normal(size=(num, 3)),
        "y_train": (group % 4 == 0).astype(int),
        "groups_train": np.array([f"p{number}" for number in group]),
    }


def _loaded(tmp_path: Path, **arrays: np.ndarray) -> Dataset:
    np.savez(tmp_path / "mine.npz", **arrays)
    return load({"name": "npz", "path": str(tmp_path / "mine.npz"), "split": "stratified"})


def test_no_group_is_in_two_parts(tmp_path: Path) -> None:
    dataset = _loaded(tmp_path, **_arrays())
    groups = {}
    for part in PARTS:
        group = dataset.split(part).group
        assert group is not None
        groups[part] = set(group.tolist())
    for first, second in combinations(PARTS, 2):
        assert not groups[first] & groups[second]
    assert set().union(*groups.values()) == set(range(20))
    assert "groups kept together" in dataset.split_text


def test_classes_are_as_even_as_groups_allow(tmp_path: Path) -> None:
    # a fifth of 20 groups is 4, and of the 5 groups of the rare class it is 1: that can be had
    dataset = _loaded(tmp_path, **_arrays())
    assert len(dataset.test) == 24
    assert int((dataset.test.y == 1).sum()) == 6


def test_rows_of_a_group_stay_with_their_inputs(tmp_path: Path) -> None:
    arrays = _arrays()
    arrays["x_train"][:, 0] = [int(name[1:]) for name in arrays["groups_train"]]
    dataset = _loaded(tmp_path, **arrays)
    names = sorted(set(arrays["groups_train"].tolist()))
    for part in PARTS:
        split = dataset.split(part)
        assert split.group is not None
        spelled = [int(names[number][1:]) for number in split.group.tolist()]
        assert spelled == split.x[:, 0].int().tolist()


def test_a_class_in_one_group_alone_is_not_carved() -> None:
    group = torch.arange(10).repeat_interleave(5)
    stratum = (group == 3).long()
    nothing = torch.zeros(50, dtype=torch.bool)
    carved = choose_groups(group, stratum, 0.2, nothing)
    assert set(group[carved].tolist()) == {0, 1}


def test_one_group_at_least_is_taken_and_one_is_left() -> None:
    group = torch.tensor([0] * 50 + [1] * 50)
    nothing = torch.zeros(100, dtype=torch.bool)
    carved = choose_groups(group, torch.zeros(100, dtype=torch.int64), 0.01, nothing)
    assert set(group[carved].tolist()) == {0}
    carved = choose_groups(group, torch.zeros(100, dtype=torch.int64), 0.99, nothing)
    assert len(set(group[carved].tolist())) == 1


def test_groups_with_an_example_that_was_seen_are_left() -> None:
    group = torch.arange(10).repeat_interleave(5)
    seen = torch.zeros(50, dtype=torch.bool)
    seen[0] = seen[5] = True
    carved = choose_groups(group, torch.zeros(50, dtype=torch.int64), 0.2, seen)
    assert set(group[carved].tolist()) == {2, 3}


def test_a_test_part_that_shares_groups_is_told(tmp_path: Path) -> None:
    arrays = _arrays()
    x, y = arrays["x_train"][:10], arrays["y_train"][:10]
    theirs = np.array(["p1"] * 4 + ["new"] * 6)
    dataset = _loaded(tmp_path, **arrays, x_test=x, y_test=y, groups_test=theirs)
    note = next(note for note in dataset.notes if "share" in note)
    assert "share 1 groups, of which are 4 of the 10 test examples" in note


def test_a_table_names_the_column(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    path = tmp_path / "mine.csv"
    rows = [f"{draw.normal():.2f},{'ab'[i % 2]},p{i % 15}" for i in range(120)]
    path.write_text("\n".join(["length,kind,patient", *rows]) + "\n")
    settings = {"name": "csv", "path": str(path), "label": "kind", "groups": "patient"}
    dataset = load(dict(settings))
    assert dataset.input_shape == (1,)
    train, test = dataset.train.group, dataset.test.group
    assert train is not None and test is not None
    assert not set(train.tolist()) & set(test.tolist())
    with pytest.raises(DataError, match="no column 'patent'; did you mean 'patient'"):
        load({**settings, "groups": "patent"})


def test_groups_are_numbered_alike_in_all_parts() -> None:
    numbers = number_groups({"a": np.array(["x", "z"]), "b": np.array(["y", "z"])}, "mine")
    assert numbers["a"].tolist() == [0, 2] and numbers["b"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"groups_train": np.arange(119)}, "groups_train: found 119 groups for 120 inputs"),
        ({"groups_train": np.full(120, np.nan)}, "groups_train: found float64 that are missing"),
        ({"groups_train": np.zeros((120, 2))}, r"groups_train: found shape \(120, 2\)"),
        ({"groups_train": np.zeros(120, int)}, "in 1 groups that are kept together is 0"),
        ({"groups_test": np.zeros(3, int)}, "x_test: missing beside groups_test"),
    ],
)
def test_groups_that_cannot_be_used_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        _loaded(tmp_path, **{**_arrays(), **changes})
