"""Which settings of a dataset suit a file, a table or a folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gped_nas.data.sources import suggest_settings
from gped_nas.errors import DataError

PICTURES = np.zeros((20, 9, 8, 3), np.uint8)
LABELS = np.arange(20) % 2


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (np.zeros((20, 3)), LABELS, {"split": "stratified", "normalize": "columns"}),
        (np.zeros((20, 3)), LABELS + 0.5, {"task": "regression", "normalize": "columns"}),
        (np.zeros((20, 3)), LABELS.astype(float), {"split": "stratified", "normalize": "columns"}),
        (
            PICTURES,
            LABELS,
            {"split": "stratified", "normalize": "channels", "layout": "channels_last"},
        ),
        (
            PICTURES.transpose(0, 3, 1, 2),
            LABELS,
            {"split": "stratified", "normalize": "channels", "layout": "channels_first"},
        ),
    ],
)
def test_arrays(tmp_path: Path, x: Any, y: Any, expected: dict[str, str]) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=x, y_train=y)
    assert suggest_settings(path, {}) == {"name": "npz", "path": str(path), **expected}


@pytest.mark.parametrize(
    ("labels", "is_real"),
    [
        (np.arange(400) * 7 % 300 + 25, True),  # as those of diabetes: whole, many, with gaps
        (np.arange(400) % 80, False),  # eighty classes of five examples, counted
        (np.arange(400) % 80 + 1, False),
        (np.arange(400) % 5 * 10, False),
    ],
)
def test_whole_numbers_are_classes_or_measured(
    tmp_path: Path, labels: np.ndarray, is_real: bool
) -> None:
    if is_real:
        labels = labels[labels % 3 != 0]
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=np.zeros((len(labels), 2)), y_train=labels)
    assert (suggest_settings(path, {}).get("task") == "regression") is is_real


def test_what_is_said_wins(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=np.zeros((20, 3)), y_train=LABELS)
    settings = suggest_settings(path, {"split": "random", "seed": 3})
    assert (settings["split"], settings["seed"]) == ("random", 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("length,kind\n1.5,a\n2,b\n", {}),
        ("length;kind\n1,5;a\n2;b\n", {"separator": ";", "decimal": ","}),
        ("length;kind\n1.5;a\n2;b\n", {"separator": ";"}),
        ("length\tkind\n1.5\ta\n2\tb\n", {"separator": "\t"}),
    ],
)
def test_how_a_table_is_written_is_found_out(
    tmp_path: Path, text: str, expected: dict[str, str]
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    settings = suggest_settings(path, {"label": "kind"})
    assert settings == {"name": "csv", "path": str(path), "label": "kind", **expected}


def test_a_label_of_a_usual_name_need_not_be_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("length,Target\n1,0.5\n2,0.25\n")
    settings = suggest_settings(path, {})
    assert (settings["label"], settings["task"]) == ("Target", "regression")


def test_a_table_without_a_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("length,kind\n1.5,a\n2,b\n")
    with pytest.raises(DataError, match=r"columns length, kind.*; give --label COLUMN"):
        suggest_settings(path, {})
    with pytest.raises(DataError, match="no column 'kund'; did you mean 'kind'"):
        suggest_settings(path, {"label": "kund"})


def test_a_folder_holds_images(tmp_path: Path) -> None:
    assert suggest_settings(tmp_path, {"size": 8}) == {
        "name": "images",
        "path": str(tmp_path),
        "size": 8,
    }
