"""Data that somebody has in Python become files that a study can go on with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

import gped_nas as gn
from gped_nas.data import bring
from gped_nas.data.base import load
from gped_nas.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPED_CACHE", str(tmp_path / "cache"))


def _pictures(num: int = 40) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (num, 6, 5, 3), dtype=np.uint8)
    return x, np.arange(num) % 2


class _Files(Dataset[Any]):
    """Pictures as torchvision has them: an image and a class number, and names of classes."""

    classes = ("cat", "dog")

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self._x, self._y = x, y

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, place: int) -> Any:
        return Image.fromarray(self._x[place]), int(self._y[place])


X, Y = _pictures()
FIRST = torch.from_numpy(X.transpose(0, 3, 1, 2).copy())
KINDS: dict[str, Any] = {
    "arrays": (X, Y),
    "tensors": (FIRST, torch.from_numpy(Y)),
    "dataset": TensorDataset(FIRST, torch.from_numpy(Y)),
    "loader": DataLoader(TensorDataset(FIRST, torch.from_numpy(Y)), batch_size=7, shuffle=True),
    "images": _Files(X, Y),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_becomes_the_same_dataset(kind: str) -> None:
    settings = gn.as_dataset(KINDS[kind], test=KINDS[kind])
    dataset = load(settings, "a: dataset")
    assert torch.equal(dataset.test.x, FIRST)
    assert dataset.test.x.dtype == torch.uint8
    assert dataset.labels("test").tolist() == Y.tolist()
    assert dataset.class_names == (("cat", "dog") if kind == "images" else ("0", "1"))


def test_it_is_written_once_and_named_after_its_content(tmp_path: Path) -> None:
    first = gn.as_dataset((X, Y))
    assert gn.as_dataset((X.copy(), Y)) == first
    assert gn.as_dataset((X, 1 - Y)) != first
    assert gn.as_dataset((255 - X, Y)) != first
    names = sorted(path.name for path in (tmp_path / "cache" / "brought").iterdir())
    assert len(names) == 3
    assert not any(name.startswith(".") for name in names)

    told = gn.as_dataset((X, Y), folder=tmp_path / "mine", split="random")
    assert told == {**first, "path": str(tmp_path / "mine"), "split": "random"}


def test_arrays_by_name_bring_groups_and_parts() -> None:
    patients = [f"patient {i // 4}" for i in range(40)]
    arrays = {"x_train": X, "y_train": Y, "groups_train": patients, "class_names": ["cat", "dog"]}
    settings = gn.as_dataset({**arrays, "x_val": FIRST.permute(0, 2, 3, 1)[:8], "y_val": Y[:8]})
    dataset = load(settings, "a: dataset")
    assert torch.equal(dataset.validation.x, FIRST[:8])
    assert dataset.train.group is not None and dataset.test.group is not None
    assert not set(dataset.train.group.tolist()) & set(dataset.test.group.tolist())
    assert dataset.class_names == ("cat", "dog")
    same = gn.as_dataset({"x_train": X, "y_train": Y}, validation=(X[:8], Y[:8]))
    assert same["path"] != settings["path"]


def test_what_is_suggested_is_what_init_suggests(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(40, 3))
    lacking = np.where(table > 2, np.nan, table)
    kinds: dict[str, tuple[np.ndarray, np.ndarray]] = {
        "pictures": (X, Y),
        "gray": (X[..., 0], Y),
        "channels first": (FIRST.numpy(), Y),
        "table": (lacking, Y),
        "real labels": (table, table[:, 0]),
    }
    for kind, (x, y) in kinds.items():
        np.savez(tmp_path / "mine.npz", x_train=x, y_train=y)
        init = gn.as_dataset(tmp_path / "mine.npz")
        brought = gn.as_dataset((x, y))
        folder = gn.as_dataset(brought["path"])
        places = ("name", "path")
        said = [{k: v for k, v in s.items() if k not in places} for s in (init, brought, folder)]
        assert said[0] == said[1] == said[2], kind
        assert load(init).digest == load(brought).digest  # so that a study goes on with either


def test_a_memory_map_stays_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("first.npy", X.transpose(0, 3, 1, 2).astype(">i4"))
    settings = gn.as_dataset((np.load("x.npy", mmap_mode="r"), Y), folder="mine")
    assert settings["x_train"] == str(tmp_path / "x.npy")
    assert sorted(path.name for path in Path("mine").iterdir()) == ["y_train.npy"]
    copied = load(gn.as_dataset((X, Y)))
    assert load(settings).digest == copied.digest
    assert gn.as_dataset((np.load("x.npy", mmap_mode="r"), Y), folder="mine") == settings

    # what a map shows in another way is written
    changed = np.load("x.npy", mmap_mode="c")
    changed[:] = 255 - changed
    reversed_rows = np.load("x.npy", mmap_mode="r")[::-1]
    part = np.load("x.npy", mmap_mode="r")[:30]
    foreign = np.load("first.npy", mmap_mode="r")
    for x in (changed, reversed_rows, part, foreign):
        written = gn.as_dataset((x, Y[: len(x)]))
        assert "x_train" not in written
        assert np.array_equal(np.load(Path(written["path"], "x_train.npy")), x)


def test_what_is_there_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = gn.as_dataset((X, Y))

    def refuse(*_: Any) -> None:
        raise AssertionError("written again")

    monkeypatch.setattr(bring, "write_rows", refuse)
    monkeypatch.setattr(bring, "write_array", refuse)
    assert gn.as_dataset((X, Y)) == settings


def test_a_folder_of_other_data_is_refused(tmp_path: Path) -> None:
    settings = gn.as_dataset((X, Y), folder=tmp_path / "mine")
    assert gn.as_dataset((X, Y), folder=tmp_path / "mine") == settings
    with pytest.raises(DataError, match="found other data there.*; give another folder"):
        gn.as_dataset((X, 1 - Y), folder=tmp_path / "mine")


def test_a_pool_has_no_labels() -> None:
    for pool in (X[:7], (X[:7], Y[:7]), list(X[:7])):
        dataset = load(gn.as_dataset((X, Y), pool=pool), "a: dataset")
        assert torch.equal(dataset.unlabeled, FIRST[:7])


def test_tables_and_real_labels_are_taken() -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
    dataset = load(gn.as_dataset((x, x[:, 0]), task="regression"), "a: dataset")
    assert dataset.input_shape == (3,)
    assert dataset.train.x.dtype == torch.float64


def test_a_folder_of_files_is_taken(tmp_path: Path) -> None:
    settings = gn.as_dataset((X, Y), folder=tmp_path / "mine")
    told = gn.as_dataset(tmp_path / "mine", layout="channels_last")
    assert load(told, "a: dataset").digest == load(settings, "a: dataset").digest


def test_settings_are_returned_with_what_is_said() -> None:
    assert gn.as_dataset({"name": "digits"}, seed=3) == {"name": "digits", "seed": 3}


class _Drawing(TensorDataset):
    """A dataset whose transform draws."""

    def __getitem__(self, index: Any) -> Any:
        x, y = super().__getitem__(index)
        self.count = getattr(self, "count", 0) + 1
        return x + self.count, y


def _ragged() -> list[tuple[Tensor, int]]:
    return [(torch.zeros(3), 0), (torch.zeros(4), 1)]


BAD: dict[str, tuple[Any, str]] = {
    "nothing": ([], "train: found no example"),
    "one number": (3, "found int, expected .x, y. arrays, a mapping .* or a torch Dataset"),
    "no labels": (X, "found ndarray at place 0, expected .input, label. pairs"),
    "fewer labels": ((X, Y[:-1]), "found 39 labels for 40 inputs"),
    "no array": (([[1, 2], [3]], [0, 1]), "no array can be made of it"),
    "objects": ((np.array([object()]), [0]), "holds objects"),
    "text": ((np.array(["a", "b"]), [0, 1]), "x_train: found <U1, expected numbers"),
    "scalars": ((3, 4), "found one value, expected one an example"),
    "unknown name": ({"x_train": X, "y_trian": Y}, "y_trian: unknown array; did you mean"),
    "no first label": ({"x_train": X}, "y_train: missing"),
    "few groups": ({"x_train": X, "y_train": Y, "groups_train": Y[:3]}, "3 groups for 40 inputs"),
    "draws": (_Drawing(FIRST, torch.from_numpy(Y)), "two versions of its first example"),
    "ragged": (_ragged(), r"found an input \(4,\) of float32 at place 1, expected \(3,\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_data_that_cannot_be_taken_are_refused(tmp_path: Path, case: str) -> None:
    data, message = BAD[case]
    with pytest.raises(DataError, match=message):
        gn.as_dataset(data)
    assert list((tmp_path / "cache" / "brought").iterdir()) == []
