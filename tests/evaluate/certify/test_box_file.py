"""Box files: what their bounds mean in a dataset's own inputs, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gped_nas.data.base import Dataset, load
from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.certify.box_file import BoxQuestion, read_box
from tests.data.tables import make_dataset

ROWS = """age,height,color,zip,label
20,1.5,red,1010,no
30,1.6,blue,8010,yes
40,1.7,red,1010,no
50,1.8,blue,8010,yes
60,1.9,red,1010,no
70,2.0,green,8010,yes
"""


@pytest.fixture
def table(tmp_path: Path) -> Dataset:
    """Numbers, a column of text, and one of numbers that are categories; all of it is training."""
    path = tmp_path / "people.csv"
    path.write_text(ROWS)
    settings = {"name": "csv", "path": str(path), "label": "label", "categories": ["zip"]}
    settings |= {"test_path": str(path), "validation_path": str(path)}
    return load(settings)


@pytest.fixture
def pictures() -> Dataset:
    """Bytes of one channel."""
    x = np.arange(20 * 4, dtype=np.uint8).reshape(20, 1, 2, 2)
    return make_dataset(x, "whole")


@pytest.fixture
def unnamed() -> Dataset:
    """A table whose columns have no names; its numbers are 0 to 39."""
    return make_dataset(np.arange(40.0).reshape(20, 2), "columns")


def ask(dataset: Dataset, inputs: Any, **others: Any) -> BoxQuestion:
    """What a box file asks of it."""
    return read_box({"inputs": inputs, **others}, dataset)


def test_bounds_are_in_the_units_of_the_users_file(table: Dataset) -> None:
    question = ask(table, {"age": [25, 35.1], "height": 1.75, "color": "blue", "zip": 1010})
    # age, height, color=blue, green, red, zip=1010, 8010
    assert question.boxes.low.tolist() == [[25, 1.75, 1, 0, 0, 1, 0]]
    assert question.boxes.high.tolist() == [[35.1, 1.75, 1, 0, 0, 1, 0]]
    assert question.notes == ()


def test_what_is_left_out_is_free_within_training_data(table: Dataset) -> None:
    question = ask(table, {"height": {"low": 1.7}, "color": "red", "zip": "8010"})
    assert question.boxes.low.tolist() == [[20, 1.7, 0, 0, 1, 0, 1]]
    assert question.boxes.high.tolist() == [[70, 2.0, 0, 0, 1, 0, 1]]


def test_each_choice_of_texts_is_a_box(table: Dataset) -> None:
    question = ask(table, {"age": 20, "height": 1.5, "color": ["green", "red"]})
    assert question.boxes.low.tolist() == [
        [20, 1.5, 0, 1, 0, 1, 0],
        [20, 1.5, 0, 1, 0, 0, 1],
        [20, 1.5, 0, 0, 1, 1, 0],
        [20, 1.5, 0, 0, 1, 0, 1],
    ]
    assert len(ask(table, None).boxes) == 6
    # no box reaches from one category to another
    assert torch.equal(question.boxes.low, question.boxes.high)


def test_it_says_where_a_box_is_beyond_training_data(table: Dataset) -> None:
    (note,) = ask(table, {"age": [10, 30]}).notes
    assert note.startswith("column 'age': the box reaches from 10 to 30, training data from 20")


def test_columns_without_names_are_numbered(unnamed: Dataset) -> None:
    low, high = unnamed.train.x[:, 0].min(), unnamed.train.x[:, 0].max()
    question = ask(unnamed, {1: [3, 5]})
    assert question.boxes.low.tolist() == [[float(low), 3.0]]
    assert question.boxes.high.tolist() == [[float(high), 5.0]]


def test_one_pair_bounds_all_pixels(pictures: Dataset) -> None:
    question = ask(pictures, [10, 30])
    assert question.boxes.low.shape == (1, 1, 2, 2)
    assert question.boxes.low.unique().tolist() == [10]
    assert question.boxes.high.unique().tolist() == [30]


def test_arrays_lie_beside_the_box_file(pictures: Dataset, tmp_path: Path) -> None:
    low = np.array([[0, 1], [2, 3]])
    np.savez(tmp_path / "ends.npz", low=low, high=(low + 0.5)[None])
    (tmp_path / "box.yaml").write_text("inputs: ends.npz\nsafe: class is a\nparts: 7\n")
    question = read_box(tmp_path / "box.yaml", pictures)
    assert question.boxes.low.tolist() == [[[[0, 1], [2, 3]]]]
    assert question.boxes.high.tolist() == [[[[0.5, 1.5], [2.5, 3.5]]]]
    assert question.region is not None
    assert (question.name, question.region.text, question.most_parts) == (
        "box.yaml",
        "class is a",
        7,
    )


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"age": [40, 30]}, "age: found the bounds 40 and 30, expected the lower one first"),
        ({"ago": [40, 50]}, "unknown column 'ago'; did you mean 'age'?"),
        ({"age": [30, float("nan")]}, "age: found nan, expected a finite number"),
        ({"age": [30, float("inf")]}, "age: found inf, expected a finite number"),
        ({"age": "old"}, "age: found 'old', expected a number"),
        ({"age": [1, 2, 3]}, "age: found [1, 2, 3], expected a number"),
        ({"age": {"lo": 3}}, "age: unknown key 'lo'; did you mean 'low'?"),
        ({"age": {"low": 80}}, "age: found the bounds 80 and 70, expected the lower one first"),
        ({"color": "rde"}, "color: found 'rde'; did you mean 'red'?"),
        ({"color": []}, "color: found no category; name one"),
        ([20, 30], "found [20, 30], expected bounds by column; write {age: [0, 1]}"),
    ],
)
def test_bounds_of_a_table_are_checked(table: Dataset, inputs: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(table, inputs)
    assert str(caught.value).startswith(f"box: inputs: {words}")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([-1, 30], "found numbers from -1 to 30, but inputs have values from 0 to 255"),
        ([0, 256], "found numbers from 0 to 256, but inputs have values from 0 to 255"),
        ([30, 10], "found the bounds 30 and 10, expected the lower one first"),
        ({"0": [1, 2]}, "found {'0': [1, 2]}, expected bounds of pictures of shape (1, 2, 2)"),
        (None, "found None, expected bounds of pictures of shape (1, 2, 2)"),
    ],
)
def test_bounds_of_pictures_are_checked(pictures: Dataset, inputs: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(pictures, inputs)
    assert str(caught.value).startswith(f"box: inputs: {words}")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        ([[0, 1], [2, 3]], [[1, 0], [3, 4]], "found low 1 above high 0 at [0, 0, 1], expected"),
        ([[0, 1], [2, 3]], [[1, np.nan], [3, 4]], "found numbers that are NaN or infinite"),
        ([[0, 1], [2, 3]], [[1, 2], [3, 256]], "found numbers from 0 to 256, but inputs have"),
    ],
)
def test_bounds_in_arrays_are_checked(
    pictures: Dataset, tmp_path: Path, low: Any, high: Any, words: str
) -> None:
    np.savez(tmp_path / "ends.npz", low=low, high=high)
    with pytest.raises(ConfigError) as caught:
        ask(pictures, str(tmp_path / "ends.npz"))
    assert str(caught.value).startswith(f"box: inputs: {words}")


def test_files_that_hold_no_bounds_are_refused(pictures: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "ends.npz"
    with pytest.raises(DataError, match="no such file; expected an .npz with the arrays low"):
        ask(pictures, str(path))
    path.write_text("low")
    with pytest.raises(DataError, match="not a readable .npz"):
        ask(pictures, str(path))
    np.savez(path, low=np.zeros((2, 2)))
    with pytest.raises(DataError, match="found the arrays low, expected low and high; add high"):
        ask(pictures, str(path))
    np.savez(path, low=np.zeros(4), high=np.ones(4))
    with pytest.raises(DataError, match=r"low: found float64 of shape \(4,\), expected numbers of"):
        ask(pictures, str(path))


def test_one_array_is_no_channel_of_several(tmp_path: Path) -> None:
    colors = make_dataset(np.zeros((20, 3, 2, 2), dtype=np.uint8), "whole")
    columns = make_dataset(np.arange(40.0).reshape(20, 2), "columns")
    for dataset, shape in ((colors, (2, 2)), (columns, ())):
        np.savez(tmp_path / "ends.npz", low=np.zeros(shape), high=np.ones(shape))
        with pytest.raises(DataError, match=r"low: found float64 of shape .* expected numbers of"):
            ask(dataset, str(tmp_path / "ends.npz"))


def test_settings_are_checked(table: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="box: saef: unknown key; did you mean 'safe'"):
        read_box({"saef": "class is no"}, table)
    with pytest.raises(ConfigError, match="box: safe: found the class 'maybe'"):
        ask(table, None, safe="class is maybe")
    with pytest.raises(ConfigError, match="box: parts: found 2, expected at least 6, one for each"):
        ask(table, None, parts=2)
    with pytest.raises(ConfigError, match=r"missing.yaml: no such file; expected a YAML box file"):
        read_box(tmp_path / "missing.yaml", table)


def test_too_many_choices_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "letters.csv"
    names = [f"t{number}" for number in range(17)]
    rows = [f"{name},{name},{number % 2}" for number, name in enumerate(names)]
    path.write_text("first,second,label\n" + "\n".join(rows))
    settings = {"name": "csv", "path": str(path), "label": "label"}
    letters = load({**settings, "test_path": str(path), "validation_path": str(path)})
    with pytest.raises(ConfigError, match="found 289 choices of categories, each of which is a"):
        ask(letters, None)
    assert len(ask(letters, {"first": names[:2]}).boxes) == 34
