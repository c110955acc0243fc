"""Tables of the user's own: what is read, and every way in which a file can be wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from gped_nas.data.base import Dataset, load
from gped_nas.data.columns import Column, TableColumns
from gped_nas.data.inputs import read_inputs
from gped_nas.data.preparation import parse_preparation
from gped_nas.errors import ConfigError, DataError, DataWarning
from gped_nas.testing.datasets import DATASET_CHECKS, DatasetCase

COLORS = ("red", "green", "blue")


def _frame(num: int = 60) -> pd.DataFrame:
    """Sixty flowers: two numbers, a color, and a species."""
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "length": draw.normal(10, 2, num).round(2),
            "count": draw.integers(0, 9, num),
            "color": draw.choice(COLORS, num),
            "species": draw.choice(["ash", "beech"], num),
        }
    )


def _load(path: Path, **settings: Any) -> Dataset:
    name = "parquet" if path.suffix == ".parquet" else "csv"
    return load({"name": name, "path": str(path), "label": "species"} | settings, "a: dataset")


def _written(tmp_path: Path, text: str, **settings: Any) -> Dataset:
    path = tmp_path / "t.csv"
    path.write_text(text)
    return _load(path, **settings)


@pytest.mark.parametrize("check", DATASET_CHECKS, ids=lambda check: check.__name__)
def test_a_table_keeps_the_promises_of_datasets(tmp_path: Path, check: Any) -> None:
    _frame().to_csv(tmp_path / "t.csv", index=False)
    check(DatasetCase({"name": "csv", "path": str(tmp_path / "t.csv"), "label": "species"}))


def test_numbers_stay_and_text_becomes_one_number_a_category(tmp_path: Path) -> None:
    frame = _frame()
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.iloc[:10].to_csv(tmp_path / "test.csv", index=False)
    dataset = _load(tmp_path / "t.csv", test_path=str(tmp_path / "test.csv"))

    assert dataset.preparation is not None
    labels = ("length", "count", "color=blue", "color=green", "color=red")
    assert dataset.preparation.labels == labels
    assert dataset.class_names == ("ash", "beech")
    expected = np.zeros((10, 5))
    expected[:, :2] = frame[["length", "count"]][:10]
    for row, color in enumerate(frame["color"][:10]):
        expected[row, 2 + sorted(COLORS).index(color)] = 1
    np.testing.assert_array_equal(dataset.test.x.numpy(), expected)
    assert dataset.test.y.tolist() == [int(name == "beech") for name in frame["species"][:10]]


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    frame = _frame()
    frame["color"] = frame["color"].astype("category")
    frame["count"] = frame["count"].astype("Int16")
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    assert _load(tmp_path / "t.parquet").digest == _load(tmp_path / "t.csv").digest


@pytest.mark.parametrize(
    ("writing", "settings"),
    [
        ({"sep": ";", "decimal": ","}, {"separator": ";", "decimal": ","}),
        ({"sep": "\t"}, {"separator": "\t"}),
        ({"encoding": "latin-1"}, {"encoding": "latin-1"}),
        ({"encoding": "utf-8-sig"}, {}),
    ],
)
def test_a_table_may_be_written_in_many_ways(
    tmp_path: Path, writing: dict[str, str], settings: dict[str, str]
) -> None:
    frame = _frame().replace("green", "grün")
    frame.to_csv(tmp_path / "plain.csv", index=False)
    frame.to_csv(tmp_path / "t.csv", index=False, **writing)  # type: ignore[call-overload]
    dataset = _load(tmp_path / "t.csv", **settings)
    assert dataset.digest == _load(tmp_path / "plain.csv").digest

    # A student is asked with a file that is written as its training file was.
    assert dataset.preparation is not None
    again = parse_preparation(dataset.preparation.model_dump(mode="json"), "spec.json")
    raw = read_inputs(tmp_path / "t.csv", (5,), dataset.normalization, again)
    assert raw.shape == (60, 5)


def test_other_categories_are_other_data(tmp_path: Path) -> None:
    frame = _frame()
    frame.to_csv(tmp_path / "t.csv", index=False)
    first = _load(tmp_path / "t.csv")
    frame.replace("red", "rose").to_csv(tmp_path / "t.csv", index=False)
    renamed = _load(tmp_path / "t.csv")
    assert torch.equal(first.train.x, renamed.train.x)
    assert first.digest != renamed.digest


def test_rows_without_a_label_are_unlabeled_inputs(tmp_path: Path) -> None:
    frame = _frame()
    frame.loc[5:14, "species"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    dataset = _load(tmp_path / "t.csv")
    np.testing.assert_array_equal(dataset.unlabeled[:, 0].numpy(), frame["length"][5:15])
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 50


def test_missing_text_is_a_category(tmp_path: Path) -> None:
    frame = _frame()
    frame.loc[3, "color"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    dataset = _load(tmp_path / "t.csv", test_path=str(tmp_path / "t.csv"))
    assert dataset.preparation is not None
    assert dataset.preparation.labels[-1] == "color=(missing)"
    assert dataset.test.x[3, 2:].tolist() == [0, 0, 0, 1]
    assert dataset.test.x[:, 5].sum() == 1


def test_numbers_are_categories_where_it_is_said(tmp_path: Path) -> None:
    _frame().to_csv(tmp_path / "t.csv", index=False)
    dataset = _load(tmp_path / "t.csv", categories=["count"], drop=["color"])
    assert dataset.preparation is not None
    assert dataset.preparation.labels == ("length", *(f"count={i}" for i in range(9)))


def test_real_labels_are_read(tmp_path: Path) -> None:
    frame = _frame()
    frame.to_csv(tmp_path / "t.csv", index=False)
    path = str(tmp_path / "t.csv")
    dataset = _load(tmp_path / "t.csv", label="length", task="regression", test_path=path)
    np.testing.assert_array_equal(dataset.labels("test"), frame["length"])


def test_a_column_that_numbers_the_rows_is_told(tmp_path: Path) -> None:
    frame = _frame()
    frame.insert(0, "id", np.random.default_rng(0).permutation(60) + 1000)
    frame.to_csv(tmp_path / "t.csv", index=False)
    (note,) = _load(tmp_path / "t.csv").notes
    assert note == (
        "Column 'id' holds a whole number of its own in each row: if it is an identifier, leave it "
        "out with dataset.drop: [id]."
    )
    assert _load(tmp_path / "t.csv", drop=["id"]).notes == ()


def test_a_far_number_is_told_with_its_column(tmp_path: Path) -> None:
    frame = _frame()
    frame.loc[[0, 30], "length"] = -999
    frame.to_csv(tmp_path / "t.csv", index=False)
    (note,) = _load(tmp_path / "t.csv").notes
    assert note.startswith("Column 'length' holds")


def test_an_unknown_category_is_none_of_them_and_told() -> None:
    columns = TableColumns(columns=(Column(name="color", categories=("blue", "red")),))
    table = {"color": np.array(["red", "pink", "blue", "pink"], dtype=object)}
    message = "q.csv: column 'color': 2 of 4 rows have a text that no training example has, 'pink'"
    with pytest.warns(DataWarning, match=message):
        numbers = columns.numbers(table, "q.csv")
    assert numbers.tolist() == [[0, 1], [0, 0], [1, 0], [0, 0]]


HEAD = "length,count,color,species\n"
ROWS = "1.5,2,red,ash\n2.5,3,blue,beech\n" * 10
BAD: dict[str, tuple[str, str]] = {
    "no rows": (HEAD, "found no rows"),
    "empty": ("", "not a readable CSV file"),
    "semicolons": (
        (HEAD + ROWS).replace(",", ";"),
        'separated by semicolons: set dataset.separator: ";"',
    ),
    "no names": (
        "1,2,3,4\n" * 20,
        "found numbers in the first line, expected the names of the columns",
    ),
    "twice": (HEAD.replace("count", "length") + ROWS, "found two columns 'length'"),
    "ragged": (HEAD + ROWS + "1,2,red,ash,7\n", "Expected 4 fields in line 22, saw 5"),
    "long rows": (HEAD + ROWS.replace("\n", ",9\n"), "more values than the first line has names"),
    "decimal commas": (
        HEAD + '"1,5",2,red,ash\n"2,5",3,blue,beech\n' * 10,
        "column 'length': found text like '1,5', .* set dataset.decimal: \",\"",
    ),
    "dates": (
        HEAD + ROWS.replace("red", "2024-01-31").replace("blue", "2023-12-01"),
        "column 'color': found dates like '2023-12-01', .* dataset.drop: .color.",
    ),
    "names": (
        HEAD + "".join(f"1.5,2,person {i},ash\n2.5,1,human {i},beech\n" for i in range(80)),
        "column 'color': found 160 different texts in 160 rows, which looks like an identifier",
    ),
    "nothing": (HEAD + ROWS.replace("red", "").replace("blue", ""), "'color': found no value"),
    "missing numbers": (
        HEAD + ROWS + ",2,red,ash\n",
        "found missing numbers in 1 of 21 rows .1 in 'length'., expected a number in each",
    ),
    "infinite": (HEAD + ROWS + "inf,2,red,ash\n", "column 'length': found inf in row 20"),
    "one class": (HEAD + ROWS.replace("beech", "ash"), "found 1 class in 20 examples"),
    "no label": (HEAD.replace("species", "kind") + ROWS, "dataset.label: found no column 'spec"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_cannot_be_used_is_refused_with_what_to_do(tmp_path: Path, case: str) -> None:
    text, message = BAD[case]
    with pytest.raises(DataError, match=message):
        _written(tmp_path, text)


def test_bytes_of_another_encoding_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes((HEAD + ROWS).replace("red", "grün").encode("latin-1"))
    with pytest.raises(DataError, match="found bytes that are not utf-8 .*; set dataset.encoding"):
        _load(tmp_path / "t.csv")
    with pytest.raises(DataError, match="found 'klingon', which Python does not know"):
        _load(tmp_path / "t.csv", encoding="klingon")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop": ["colour"]}, "dataset.drop: found no column 'colour'; did you mean 'color'"),
        ({"categories": ["x"]}, "dataset.categories: found no column 'x'"),
        ({"drop": ["length", "count", "color"]}, "found no column besides the label 'species'"),
        ({"task": "regression"}, "column 'species': found text, 'ash' for example"),
        ({"label": "length"}, "numbers that are not whole, expected classes"),
        ({"test_path": "no.csv"}, "no.csv: no such file"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        _written(tmp_path, HEAD + ROWS, **settings)


def test_a_setting_of_csv_is_none_of_parquet(tmp_path: Path) -> None:
    _frame().to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match="separator: unknown key"):
        _load(tmp_path / "t.parquet", separator=";")


def test_a_parquet_file_that_is_none_and_one_with_dates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("length,count")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        _load(tmp_path / "t.parquet")

    frame = _frame()
    frame["day"] = pd.Timestamp("2024-01-31")
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'day': found dates"):
        _load(tmp_path / "t.parquet")


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    _frame().to_csv(tmp_path / "t.csv", index=False)
    _frame().rename(columns={"count": "number"}).to_csv(tmp_path / "test.csv", index=False)
    message = "test.csv: found no column 'count', expected the columns of the training file"
    with pytest.raises(DataError, match=message):
        _load(tmp_path / "t.csv", test_path=str(tmp_path / "test.csv"))
