"""Parts are carved from rows that the teacher has not seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gped_nas.data.base import Dataset, load
from gped_nas.data.seen import carving_unseen
from gped_nas.errors import DataError

N = 200
WHERE = "a.yaml: teacher.trained_on"


def rows_of(dataset: Dataset, part: Any) -> set[int]:
    """Numbers of the rows that a part holds: the only input says it."""
    return {int(value) for value in dataset.raw(part).flatten().tolist()}


def loaded(tmp_path: Path, trained_on: Any, *, given: tuple[str, ...] = (), **settings: Any) -> Any:
    arrays = {"x_train": np.arange(N, dtype=np.float64)[:, None], "y_train": np.arange(N) % 2}
    for part in given:
        arrays |= {f"x_{part}": 1_000.0 + np.arange(20)[:, None], f"y_{part}": np.arange(20) % 2}
    np.savez(tmp_path / "mine.npz", **arrays)  # type: ignore[arg-type]
    with carving_unseen(trained_on, WHERE):
        return load({"name": "npz", "path": str(tmp_path / "mine.npz"), **settings}, "dataset")


@pytest.mark.parametrize("split", ["random", "stratified"])
def test_validation_and_test_are_carved_from_unseen_rows(tmp_path: Path, split: str) -> None:
    dataset = loaded(tmp_path, 100, split=split)
    assert rows_of(dataset, "test") <= set(range(100, N))
    assert rows_of(dataset, "validation") <= set(range(100, N))
    assert len(rows_of(dataset, "test")) == round(0.2 * N)
    parts = [rows_of(dataset, part) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == N
    assert "of the 100 examples that the teacher has not seen" in dataset.split_text


def test_every_way_to_name_rows_names_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(100))
    np.save(tmp_path / "mask.npy", np.arange(N) < 100)
    ways = (100, tuple(range(100)), str(tmp_path / "rows.npy"), str(tmp_path / "mask.npy"))
    assert len({loaded(tmp_path, way).digest for way in ways}) == 1
    assert loaded(tmp_path, 100).digest != loaded(tmp_path, None).digest


def test_few_unseen_rows_are_shared_in_proportion(tmp_path: Path) -> None:
    dataset = loaded(tmp_path, N - 21)
    tested, validated = rows_of(dataset, "test"), rows_of(dataset, "validation")
    # 40 and 16 are asked for of 200: of 21 that is 15 and the other 6
    assert (len(tested), len(validated)) == (15, 6)
    assert tested | validated == set(range(N - 21, N))


def test_a_validation_part_that_was_seen_is_said(tmp_path: Path) -> None:
    dataset = loaded(tmp_path, "all", given=("test",))
    (note,) = dataset.notes
    assert "trained on all 200 examples that validation is carved from" in note
    assert "Give x_val and y_val" in note
    assert not loaded(tmp_path, "all", given=("test", "val")).notes
    assert not loaded(tmp_path, 150, given=("test",)).notes


def test_a_test_part_that_was_seen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no test part, and a teacher that was trained on all 200"):
        loaded(tmp_path, "all")


@pytest.mark.parametrize(
    ("trained_on", "message"),
    [
        (N + 1, "found the row 200, but there are 200 rows"),
        ((0, 200), "found the row 200"),
        ("missing.npy", "no such file"),
    ],
)
def test_rows_that_are_not_there_are_refused(tmp_path: Path, trained_on: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        loaded(tmp_path, trained_on)
    assert str(error.value).startswith(WHERE)


@pytest.mark.parametrize("array", [np.ones(3, bool), np.ones((2, 2), int), np.ones(3)])
def test_a_file_of_something_else_is_refused(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "rows.npy", array)
    with pytest.raises(DataError, match="expected "):
        loaded(tmp_path, str(tmp_path / "rows.npy"))


def test_nothing_changes_where_nothing_is_said(tmp_path: Path) -> None:
    dataset = loaded(tmp_path, None)
    assert "has not seen" not in dataset.split_text
    # nobody having seen anything is the same parts
    np.save(tmp_path / "none.npy", np.zeros(N, bool))
    assert loaded(tmp_path, str(tmp_path / "none.npy")).digest == dataset.digest
