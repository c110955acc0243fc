"""Datasets whose labels are real numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gped_nas.data.base import load
from gped_nas.data.synthetic import exact_posterior
from gped_nas.errors import DataError


def test_diabetes_is_split_and_normalized_on_its_training_part() -> None:
    dataset = load({"name": "diabetes"})
    assert (dataset.task, dataset.num_outputs, dataset.input_shape) == ("regression", 1, (10,))
    with pytest.raises(DataError, match="'diabetes': found labels that are real numbers, expected"):
        _ = dataset.num_classes
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 442

    labels = dataset.normalized_labels("train").double()
    assert abs(float(labels.mean())) < 1e-6
    assert float(labels.std(unbiased=False)) == pytest.approx(1, abs=1e-6)
    assert dataset.labels("test").dtype == np.float64
    assert dataset.labels("test").min() >= 25


def test_the_linear_posterior_is_that_of_normal_equations() -> None:
    dataset = load(
        {"name": "linear_gaussian", "num_inputs": 3, "num_examples": 5000, "noise_std": 0.2}
    )
    x, y = dataset.train.x, dataset.train.y
    posterior = exact_posterior(x, y, precision=1e-9, noise_std=0.2)
    features = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)
    solution = torch.linalg.lstsq(features, y[:, None]).solution[:, 0]
    assert torch.allclose(posterior.mean, solution, atol=1e-6)

    # 1000 standard normals: their variance has standard error .045
    mean, variance = posterior.predictive(dataset.test.x)
    errors = (dataset.test.y - mean) / variance.sqrt()
    assert abs(float(errors.var()) - 1) < 4 * 0.045


def test_own_arrays_may_have_real_labels(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {"x_train": generator.normal(size=(40, 3)), "y_train": generator.normal(size=40)}
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    dataset = load({"name": "npz", "path": str(path), "task": "regression"})
    assert dataset.task == "regression" and dataset.class_names == ()
    with pytest.raises(DataError, match="task: regression"):
        load({"name": "npz", "path": str(path)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.full(40, np.nan)}, "NaN or infinite"),
        ({"y_train": np.full(40, 2.0)}, "found 1 value in"),
        ({"y_train": np.zeros((40, 2))}, r"expected \(N,\)"),
        ({"y_train": np.array(["a"] * 40)}, "expected real numbers"),
        ({"class_names": np.array(["a", "b"])}, "has no classes"),
    ],
)
def test_own_arrays_whose_labels_are_not_real_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    arrays = {"x_train": np.arange(120.0).reshape(40, 3), "y_train": np.arange(40.0)}
    path = tmp_path / "mine.npz"
    np.savez(path, **{**arrays, **changes})
    with pytest.raises(DataError, match=message):
        load({"name": "npz", "path": str(path), "task": "regression"})
