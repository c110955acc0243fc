"""Missing numbers of a table: filled in with medians and flagged, by every form of a student."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gped_nas.data import rows
from gped_nas.data.base import Dataset, load
from gped_nas.data.normalization import AxisNormalization, ImputingNormalization
from gped_nas.data.sources import suggest_settings
from gped_nas.errors import DataError

nan = float("nan")


def _arrays() -> dict[str, np.ndarray]:
    """Two columns, whose second lacks every third number; the label is whether it does."""
    draw = np.random.default_rng(0)
    x = draw.normal(5, 2, size=(150, 2))
    is_missing = np.arange(150) % 3 == 0
    x[is_missing, 1] = nan
    return {"x_train": x, "y_train": is_missing.astype(int)}


def _loaded(tmp_path: Path, arrays: dict[str, np.ndarray], **settings: Any) -> Dataset:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    rules = {"normalize": "columns", "missing": "impute", **settings}
    return load({"name": "npz", "path": str(path), **rules})


def test_a_median_stands_for_it_and_a_flag_says_so() -> None:
    columns = AxisNormalization((1.0, 10.0), (2.0, 5.0))
    normalization = ImputingNormalization(columns, fill=(3.0, 20.0), flagged=(1,))
    raw = torch.tensor([[5.0, 15.0], [5.0, nan], [nan, 15.0]])
    # (5 - 1) / 2 = 2, (15 - 10) / 5 = 1, (20 - 10) / 5 = 2, (3 - 1) / 2 = 1
    expected = torch.tensor([[2.0, 1.0, 0.0], [2.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    assert torch.equal(normalization(raw), expected)
    assert torch.equal(normalization(raw.double()), expected)

    back = normalization.invert(expected)
    assert back[0].tolist() == [5.0, 15.0]
    assert back[1, 0] == 5 and back[1].isnan().tolist() == [False, True]


def test_medians_are_those_of_training(tmp_path: Path) -> None:
    dataset = _loaded(tmp_path, _arrays())
    normalization = dataset.normalization
    assert isinstance(normalization, ImputingNormalization)
    known = dataset.train.x[:, 1][~dataset.train.x[:, 1].isnan()]
    assert normalization.fill[1] == float(np.median(known.numpy()))
    assert normalization.flagged == (1,)
    assert dataset.input_shape == (3,) and dataset.raw_shape == (2,)
    inputs = dataset.inputs("train")
    assert inputs.shape[1] == 3 and bool(inputs.isfinite().all())
    assert torch.equal(inputs[:, 2].long(), dataset.train.y)
    assert any("1 of 2 columns lack numbers, column 1 most" in note for note in dataset.notes)


def test_the_setting_is_part_of_the_digest(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    whole = {"x_train": draw.normal(size=(60, 2)), "y_train": np.arange(60) % 2}
    imputed = _loaded(tmp_path, whole)
    refused = _loaded(tmp_path, whole, missing="refuse")
    assert imputed.digest != refused.digest
    assert torch.equal(imputed.inputs("train"), refused.inputs("train"))


def test_init_imputes_where_numbers_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **_arrays())
    assert suggest_settings(path, {})["missing"] == "impute"
    monkeypatch.setattr(rows, "IN_MEMORY", 1000)  # so that the inputs stay in their file
    assert suggest_settings(path, {})["missing"] == "impute"
    table = tmp_path / "mine.csv"
    table.write_text("a,b,kind\n1,2,x\n,3,y\n")
    assert suggest_settings(table, {"label": "kind"})["missing"] == "impute"


@pytest.mark.parametrize(
    ("change", "settings", "says"),
    [
        ({}, {"missing": "refuse"}, "NaN.*; set dataset.missing: impute, remove"),
        ({}, {"normalize": "whole"}, "missing: impute and normalize: whole"),
        ({"x_train": np.full((150, 2), nan)}, {}, "column 0: found no number"),
        ({"x_train": np.full((150, 2), np.inf)}, {}, "infinite.*; remove"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(
    tmp_path: Path, change: dict[str, np.ndarray], settings: dict[str, str], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        _loaded(tmp_path, {**_arrays(), **change}, **settings)
