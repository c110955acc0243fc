"""What a radius is a share of: the range of pictures, the deviation of each column of a table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gped_nas.data.base import load
from gped_nas.data.dials import DataConfig, turn
from gped_nas.data.scale import ColumnSpread, ValueRange, parse_scale
from gped_nas.errors import ConfigError, DataError


def _npz(path: Path, x: Any, **settings: object) -> dict[str, object]:
    np.savez(path, x_train=x, y_train=np.arange(len(x)) % 2)
    return {"name": "npz", "path": str(path), **settings}


def test_digits_have_values_from_0_to_16() -> None:
    scale = load({"name": "digits"}).scale

    assert scale == ValueRange(0, 16)
    assert scale.bounds == (0, 16)
    assert scale.describe(0.03) == "0.03 (of 0..16: 0.48)"
    assert float(scale.unit(torch.zeros(2, 1, 8, 8))) == 16


def test_bytes_have_values_from_0_to_255_whatever_was_seen(tmp_path: Path) -> None:
    x = np.full((20, 4, 4), 7, np.uint8)
    x[::2, 0, 0] = 9
    assert load(_npz(tmp_path / "a.npz", x)).scale == ValueRange(0, 255)
    assert ValueRange(0, 255).describe(0.03) == "0.03 (of 0..255: 7.65)"


def test_other_pictures_have_what_training_shows_unless_it_is_declared(tmp_path: Path) -> None:
    x = np.linspace(-0.5, 2, 20 * 16).reshape(20, 4, 4).astype(np.float32)
    dataset = load(_npz(tmp_path / "a.npz", x))
    seen = ValueRange(float(dataset.train.x.min()), float(dataset.train.x.max()), is_seen=True)
    assert dataset.scale == seen
    assert "as seen in training" in seen.describe(0.1)

    declared = load(_npz(tmp_path / "a.npz", x, value_range=[-1, 3]))
    assert declared.scale == ValueRange(-1, 3)
    assert declared.digest == dataset.digest  # what students learn is the same


@pytest.mark.parametrize(
    ("shape", "value_range", "message"),
    [
        ((20, 4, 4), [0, 1], r"found value_range: \[0, 1\] and inputs from 0"),
        ((20, 4, 4), [5, 0], "expected a range that holds them"),
        ((20, 4), [0, 2], "found value_range and a table, expected pictures"),
    ],
)
def test_a_range_that_cannot_be_is_refused(
    tmp_path: Path, shape: tuple[int, ...], value_range: list[float], message: str
) -> None:
    x = np.linspace(0, 2, int(np.prod(shape))).reshape(shape)
    with pytest.raises(DataError, match=message):
        load(_npz(tmp_path / "a.npz", x, value_range=value_range))


def test_a_table_has_the_deviation_of_each_column_and_no_bounds(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3)) * [1, 10, 0] + [0, 5, 2]
    dataset = load(_npz(tmp_path / "a.npz", x, normalize="columns"))

    expected = dataset.train.x.numpy().std(axis=0)
    assert isinstance(dataset.scale, ColumnSpread)
    assert dataset.scale.std == pytest.approx(expected.tolist())
    assert dataset.scale.std[2] == 0  # nobody can say what is far in a constant column
    assert dataset.scale.bounds == (-np.inf, np.inf)
    assert dataset.scale.describe(0.1) == "0.1 (of each column's standard deviation)"


def test_missing_numbers_do_not_hide_a_columns_deviation(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    x[::5, 1] = np.nan
    settings = _npz(tmp_path / "a.npz", x, normalize="columns", missing="impute")
    scale = load(settings).scale
    assert isinstance(scale, ColumnSpread)
    assert np.isfinite(scale.std).all()


def test_dials_leave_the_scale_alone(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(80, 3))
    dataset = load(_npz(tmp_path / "a.npz", x, normalize="columns"))
    assert turn(dataset, DataConfig(subsample=10), "here").scale == dataset.scale

    digits = load({"name": "digits"})
    assert turn(digits, DataConfig(mask=4), "here").scale == digits.scale


@pytest.mark.parametrize(
    "scale", [ValueRange(0, 16), ValueRange(-1, 2.5, is_seen=True), ColumnSpread((0.0, 3.5))]
)
def test_a_scale_is_read_as_it_was_written(scale: Any) -> None:
    assert parse_scale(json.loads(json.dumps(scale.to_json())), "here") == scale


@pytest.mark.parametrize(
    "data", [{}, {"low": 2.0, "high": 1.0}, {"std": []}, {"std": [-1.0]}, {"low": 0.0, "hi": 1.0}]
)
def test_what_is_no_scale_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="here"):
        parse_scale(data, "here")
