"""Numbers that stand for "missing" are told, and plain tables are passed over in silence."""

import numpy as np
import pytest
import torch

from gped_nas.data.normalization import Normalize
from gped_nas.data.outliers import describe_outliers
from tests.data.tables import make_dataset


def _table(kind: str) -> np.ndarray:
    draw = np.random.default_rng(0)
    draws = {
        "normal": draw.normal(size=(2000, 3)),
        "heavy": draw.standard_t(3, size=(2000, 3)),
        "income": np.exp(draw.normal(10, 1, size=(2000, 3))),
        "counts": draw.poisson(0.02, size=(2000, 3)),
        "constant": np.full((2000, 3), 7.0),
    }
    return np.asarray(draws[kind], np.float64)


@pytest.mark.parametrize("kind", ["normal", "heavy", "income", "counts", "constant"])
def test_plain_columns_are_passed_over(kind: str) -> None:
    assert describe_outliers(torch.from_numpy(_table(kind))) == ()


@pytest.mark.parametrize("code", [-999.0, 1e9, -1e9])
def test_a_code_for_missing_is_told_with_its_column_and_share(code: float) -> None:
    x = _table("normal")
    x[::100, 1] = code
    (note,) = describe_outliers(torch.from_numpy(x))
    assert f"Column 1 holds 20 of 2000 numbers that are far from the others, {code:g}" in note


def test_many_columns_are_counted() -> None:
    x = np.random.default_rng(0).normal(size=(200, 9))
    x[3] = 1e6
    notes = describe_outliers(torch.from_numpy(x))
    assert len(notes) == 6 and notes[-1] == "So do 4 more columns."


@pytest.mark.parametrize(("normalize", "num"), [("columns", 1), ("whole", 0)])
def test_a_dataset_with_columns_carries_the_note(normalize: Normalize, num: int) -> None:
    x = _table("normal")
    x[::50, 2] = -1e9
    dataset = make_dataset(x, normalize)
    assert len(dataset.notes) == num
