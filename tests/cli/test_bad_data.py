"""Unusable arrays, missing data, imports that do not fit: told before anything is written."""

import pickle
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tests.cli.harness import Home, accepted, refused

NUM, DIMS, CLASSES = 60, 3, 3


def arrays(**changes: Any) -> dict[str, Any]:
    """A small dataset that can be used, with some arrays replaced; None removes one."""
    generator = np.random.default_rng(0)
    good = {
        "x_train": generator.normal(size=(NUM, DIMS)).astype(np.float32),
        "y_train": np.arange(NUM) % CLASSES,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def _with_nan() -> NDArray[Any]:
    x: NDArray[Any] = arrays()["x_train"].copy()
    x[7, 1] = np.nan
    return x


BAD_ARRAYS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "label out of range": (
        {"y_train": np.arange(NUM) % 4, "class_names": np.array(["a", "b", "c"])},
        ("y_train", "label 3", "0 to 2"),
    ),
    "real labels": (
        {"y_train": np.arange(NUM) / 2},
        ("y_train", "float64", "not whole", "dataset.task: regression"),
    ),
    "one class": ({"y_train": np.zeros(NUM, int)}, ("y_train", "1 class", "at least 2")),
    "one hot labels": (
        {"y_train": np.eye(3, dtype=int)[np.arange(NUM) % 3]},
        ("y_train", "(60, 3)", "(N,)"),
    ),
    "NaN": ({"x_train": _with_nan()}, ("x_train", "NaN", "(7, 1)")),
    "too few labels": ({"y_train": np.arange(NUM - 1) % 3}, ("y_train", "59 labels", "60 inputs")),
    "another test shape": (
        {"x_test": np.zeros((9, DIMS + 1), np.float32), "y_test": np.arange(9) % 3},
        ("x_test", "(4,)", "(3,)"),
    ),
    "another test dtype": (
        {"x_test": np.zeros((9, DIMS), np.uint8), "y_test": np.arange(9) % 3},
        ("x_test", "uint8", "float32"),
    ),
    "another pool shape": ({"x_pool": np.zeros((9, 5), np.float32)}, ("x_pool", "(5,)", "(3,)")),
    "no labels": ({"y_train": None}, ("y_train", "missing")),
    "a test part without labels": (
        {"x_test": np.zeros((9, DIMS), np.float32)},
        ("y_test", "missing"),
    ),
    "an array nobody knows": (
        {"x_trian": np.zeros((9, DIMS))},
        ("x_trian", "unknown", "'x_train'"),
    ),
    "objects": ({"class_names": np.array([1, "b", None], object)}, ("class_names", "plain array")),
    "words": ({"x_train": np.full((NUM, DIMS), "a")}, ("x_train", "integers or floats")),
    "half a character": (
        {"class_names": np.array(["\ud800", "b", "c"])},
        ("class_names", "surrogate"),
    ),
    "no examples": ({"x_train": np.zeros((0, DIMS))}, ("x_train", "empty")),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_that_cannot_be_used_are_named(home: Home, case: str) -> None:
    changes, says = BAD_ARRAYS[case]
    np.savez("mine.npz", **arrays(**changes))
    before = Path("mine.npz").read_bytes()
    setting = "dataset={name: npz, path: mine.npz}"
    refused(2, "run", home.space, "--out", home.out, "--set", setting, says=("mine.npz", *says))
    if case not in ("real labels", "NaN"):  # init takes a regression, and fills in what is missing
        refused(2, "init", "new.yaml", "--data", "mine.npz", says=("mine.npz", *says))
    assert not home.out.exists() and not home.cache.exists() and not Path("new.yaml").exists()
    assert Path("mine.npz").read_bytes() == before


def _truncated() -> bytes:
    np.savez("whole.npz", **arrays())
    return Path("whole.npz").read_bytes()[:500]


def _with_open_header() -> bytes:
    header = b"(" * 5000
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    array = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile("open.npz", "w") as archive:
        archive.writestr("x_train.npy", array)
        archive.writestr("y_train.npy", array)
    return Path("open.npz").read_bytes()


def _bomb() -> bytes:
    zeros = np.zeros((25 * 2**20, DIMS), np.uint8)
    np.savez_compressed("bomb.npz", **arrays(x_train=zeros))
    return Path("bomb.npz").read_bytes()


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trapped"),))


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("missing", "no such file"),
        ("truncated", "not a readable .npz"),
        ("pickled", "numpy.savez"),
        ("text", "npz"),
        ("header without an end", "numpy.savez"),
        ("bomb", "unfold"),
    ],
)
def test_a_file_that_is_no_npz_is_refused_and_never_unpickled(
    home: Home, case: str, says: str
) -> None:
    makers: dict[str, Callable[[], bytes]] = {
        "truncated": _truncated,
        "pickled": lambda: pickle.dumps(_Trap()),
        "header without an end": _with_open_header,
        "bomb": _bomb,
        "text": lambda: b"x,y\n1,2\n",
    }
    if case in makers:
        Path("mine.npz").write_bytes(makers[case]())
    setting = "dataset={name: npz, path: mine.npz}"
    refused(2, "run", home.space, "--out", home.out, "--set", setting, says=("mine.npz", says))
    assert not home.out.exists() and not home.cache.exists() and not Path("trapped").exists()


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_a_dataset_that_is_not_there_is_not_fetched(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "no-data"
    folder.mkdir()
    monkeypatch.setenv("GPED_DATA", str(folder))

    def no_network(*args: object, **kwargs: object) -> None:
        pytest.fail(f"it tried the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)

    says = (name, str(folder), "missing", "dataset.download=true")
    setting = f"dataset={{name: {name}}}"
    refused(5, "run", home.space, "--out", home.out, "--set", setting, says=says)
    assert not home.out.exists() and not home.cache.exists() and not list(folder.iterdir())


def weights(
    width: int = 8, samples: int = 5, inputs: int = 64, classes: int = 10
) -> dict[str, torch.Tensor]:
    """Stacked weights of networks with one hidden layer, named as in ``nn.Sequential``."""
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "0.weight": (width, inputs),
        "0.bias": (width,),
        "2.weight": (classes, width),
        "2.bias": (classes,),
    }
    return {
        name: torch.randn((samples, *shape), generator=generator) * 0.3
        for name, shape in shapes.items()
    }


def _importing(home: Home, path: str, *, out: Path) -> tuple[object, ...]:
    method = f"teacher.method={{name: import, path: {path}, at_chance: true}}"
    return ("run", home.space, "--out", out, "--set", method, "--n-trials", "1")


def test_an_import_that_fits_no_genotype_can_be_mended(home: Home) -> None:
    save_file(weights(width=6), "ensemble.safetensors")
    command = _importing(home, "ensemble.safetensors", out=home.out)
    refused(2, *command, says=("ensemble.safetensors", "(6, 64)", "(8, 64)", "teacher.genotype"))
    assert not home.study.joinpath("study.db").exists()
    accepted(*command, "--set", "teacher.genotype.width=6")


def _predictions(**changes: Any) -> dict[str, Any]:
    from sklearn.datasets import load_digits

    inputs = load_digits().images[:, None].astype(np.float32)
    prob = np.random.default_rng(0).dirichlet(np.ones(10), size=(2, len(inputs)))
    return {**{"inputs": inputs, "prob": prob}, **changes}


BAD_IMPORTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "missing": (None, ("no such file",)),
    "logits": (lambda: _predictions(prob=np.ones((2, 1797, 10))), ("sum to 1", "softmax")),
    "another number of classes": (
        lambda: _predictions(prob=np.ones((2, 1797, 9)) / 9),
        ("(2, 1797, 9)", "10"),
    ),
    "no inputs": (lambda: {"prob": np.ones((2, 5, 10)) / 10}, ("'inputs'",)),
    "no validation inputs": (
        lambda: _predictions(inputs=np.zeros((1797, 1, 8, 8), np.float32)),
        ("no predictions for 288", "validation"),
    ),
    "inputs of another shape": (
        lambda: _predictions(inputs=np.zeros((1797, 5), np.float32)),
        ("(1797, 5)", "8"),
    ),
    "objects": (lambda: {"inputs": np.array([None, 1], object)}, ("npz", "object")),
}


@pytest.mark.parametrize("case", BAD_IMPORTS)
def test_predictions_that_cannot_be_imported_leave_no_study(home: Home, case: str) -> None:
    make, says = BAD_IMPORTS[case]
    if make is not None:
        np.savez("ensemble.npz", **make())
    refused(2, *_importing(home, "ensemble.npz", out=home.out), says=("ensemble.npz", *says))
    refused(4, "status", home.study, says=("no such study",))
