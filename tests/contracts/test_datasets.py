"""Every dataset that is there without files keeps the promises that ``gped_nas.testing`` checks."""

from collections.abc import Callable

import pytest

from gped_nas.data.base import DATASETS, load
from gped_nas.errors import ConfigError, EnvironmentProblem
from gped_nas.testing.datasets import DATASET_CHECKS, DatasetCase

FILES = {"npz", "npy", "csv", "parquet", "images"}
VISION = {"mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"}
VISION |= {"stl10", "omniglot", "emnist"}
FROM_FILES = FILES | VISION
"""Datasets that need a user's files; tests/data writes some and loads them."""
NAMES = [name for name in DATASETS if name not in FROM_FILES]


@pytest.mark.parametrize("check", DATASET_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_keeps_its_promises(name: str, check: Callable[[DatasetCase], None]) -> None:
    check(DatasetCase({"name": name}))


@pytest.mark.parametrize("name", sorted(FROM_FILES))
def test_what_needs_files_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("GPED_DATA", str(tmp_path_factory.mktemp("no data")))
    with pytest.raises((ConfigError, EnvironmentProblem)):
        load({"name": name})
