"""Arrays of the user's own that stay in their file: they are the same data as in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gped_nas.data import rows as rows_module
from gped_nas.data.base import Dataset, load
from gped_nas.data.memory import describe_memory
from gped_nas.data.rows import Rows
from gped_nas.errors import ConfigError, DataError
from gped_nas.testing.datasets import DATASET_CHECKS, DatasetCase

Arrays = dict[str, np.ndarray]


def _arrays(shape: tuple[int, ...] = (200, 5, 4, 3), dtype: str = "|u1") -> Arrays:
    """Pictures of two classes, with a part of each kind."""
    draw = np.random.default_rng(0)

    def pictures(num: int) -> np.ndarray:
        return draw.integers(0, 256, (num, *shape[1:])).astype(dtype)

    return {
        "x_train": pictures(shape[0]),
        "y_train": draw.integers(0, 2, shape[0]),
        "x_val": pictures(40),
        "y_val": draw.integers(0, 2, 40),
        "x_pool": pictures(50),
        "class_names": np.array(["cat", "dog"]),
    }


def _save(folder: Path, arrays: Arrays) -> Path:
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def _load(folder: Path, **settings: Any) -> Dataset:
    return load({"name": "npy", "path": str(folder)} | settings, "a: dataset")


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of more than 1,000 bytes is made at once, and no more than 64 rows."""
    monkeypatch.setattr(rows_module, "IN_MEMORY", 1000)
    monkeypatch.setattr(rows_module, "_CHUNK_ROWS", 64)


@pytest.mark.parametrize("check", DATASET_CHECKS, ids=lambda check: check.__name__)
def test_files_keep_the_promises_of_datasets(
    tmp_path: Path, small_memory: None, check: Any
) -> None:
    arrays = _arrays((200, 6))
    arrays["x_train"] = arrays["x_train"].astype("<f8")
    arrays["x_val"] = arrays["x_val"].astype("<f8")
    arrays["x_pool"] = arrays["x_pool"].astype("<f8")
    folder = _save(tmp_path / "mine", arrays)
    check(DatasetCase({"name": "npy", "path": str(folder), "normalize": "whole"}))


CASES = {
    "bytes": ((200, 5, 4, 3), "|u1", "channels"),
    "gray": ((200, 5, 4), "|u1", "channels"),
    "floats": ((200, 5, 4, 3), "<f4", "channels"),
    "big-endian": ((200, 6), ">f8", "columns"),
    "whole": ((200, 5, 4, 3), "|u1", "whole"),
}


@pytest.mark.parametrize("case", CASES)
def test_large_arrays_are_the_data_that_they_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    shape, dtype, normalize = CASES[case]
    arrays = _arrays(shape, dtype)
    settings = {"normalize": normalize, "split": "stratified"}
    folder = _save(tmp_path / "mine", arrays)
    np.savez(tmp_path / "mine.npz", **arrays)  # type: ignore[arg-type]
    packed = {"name": "npz", "path": str(tmp_path / "mine.npz")} | settings
    in_memory = load(packed, "a: dataset")

    monkeypatch.setattr(rows_module, "IN_MEMORY", 1000)
    for stored in (_load(folder, **settings), load(packed, "a: dataset")):
        if normalize != "whole" or stored.name == "npy":
            assert isinstance(stored.train.x, Rows)
        assert stored.digest == in_memory.digest
        assert stored.normalization == in_memory.normalization
        for part in ("train", "validation", "test", "unlabeled", "distillation"):
            assert torch.equal(stored.raw(part), in_memory.raw(part))
            assert torch.equal(stored.inputs(part), in_memory.inputs(part))
            assert stored.inputs(part).dtype == torch.float32


def test_the_memory_that_inputs_take_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = _arrays((1000, 32, 32, 4))
    folder = _save(tmp_path / "mine", {name: arrays[name] for name in ("x_train", "y_train")})
    # 4 KiB an input: 3.9 MiB; of 1,000 examples 720 are for training, as float32 four times as many
    in_memory = "3.9 MiB as they are, up to 11.2 MiB a view as float32"
    assert describe_memory(_load(folder)) == in_memory

    # nothing above 1 MiB at once: validation's 80 inputs are held, 1.2 MiB as float32 is too much
    monkeypatch.setattr(rows_module, "IN_MEMORY", 2**20)
    on_disk = "1.1 MiB as they are, up to 0.0 KiB a view as float32; 2.8 MiB stay in their file"
    assert describe_memory(_load(folder)) == on_disk


def test_what_is_said_by_default_suits_the_inputs(tmp_path: Path) -> None:
    table = _load(_save(tmp_path / "table", _arrays((200, 6))))
    assert len(table.normalization.to_json()["mean"]) == 6  # type: ignore[arg-type]
    pictures = _load(_save(tmp_path / "pictures", _arrays()))
    assert len(pictures.normalization.to_json()["mean"]) == 3  # type: ignore[arg-type]
    assert "class by class" in pictures.split_text

    y = np.random.default_rng(0).normal(size=200)
    real = _save(tmp_path / "real", {"x_train": _arrays((200, 6))["x_train"], "y_train": y})
    assert _load(real, task="regression").task == "regression"


def test_files_may_lie_anywhere(tmp_path: Path) -> None:
    arrays = _arrays()
    folder = _save(tmp_path / "mine", arrays)
    (folder / "x_train.npy").rename(tmp_path / "pictures.npy")
    (folder / "x_pool.npy").unlink()
    dataset = _load(folder, x_train=str(tmp_path / "pictures.npy"))
    assert len(dataset.unlabeled) == 0
    files = {name: str(folder / f"{name}.npy") for name in ("y_train", "x_val", "y_val")}
    files["class_names"] = str(folder / "class_names.npy")
    alone = {"name": "npy", "x_train": str(tmp_path / "pictures.npy"), **files}
    assert load(alone, "a: dataset").digest == dataset.digest


def _rename(folder: Path) -> None:
    (folder / "x_pool.npy").rename(folder / "x_pol.npy")


def _remove(folder: Path) -> None:
    (folder / "y_train.npy").unlink()


def _pickle(folder: Path) -> None:
    np.save(folder / "x_train.npy", np.array([{}, 3]), allow_pickle=True)


def _damage(folder: Path) -> None:
    (folder / "x_train.npy").write_bytes(b"\x93NUMPY\x01\x00")


def _cut(folder: Path) -> None:
    data = (folder / "x_train.npy").read_bytes()
    (folder / "x_train.npy").write_bytes(data[:-100])


def _not_a_number(folder: Path) -> None:
    x = np.load(folder / "x_train.npy").astype("float32")
    x[150, 2, 1, 0] = np.nan
    np.save(folder / "x_train.npy", x)


def _channels_first(folder: Path) -> None:
    np.save(folder / "x_train.npy", np.load(folder / "x_train.npy").reshape(200, 3, 4, 5))


BAD = {
    _rename: "x_pol: unknown array; did you mean 'x_pool'",
    _remove: "y_train: missing",
    _pickle: "x_train.npy: not a readable .npy",
    _damage: "x_train.npy: not a readable .npy",
    _cut: "x_train.npy: not a readable .npy",
    _not_a_number: r"x_train: found 1 values that are NaN.* the first at index .150, ",
    _channels_first: "looks channel first",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_files_that_cannot_be_used_are_refused(
    tmp_path: Path, small_memory: None, spoil: Any
) -> None:
    folder = _save(tmp_path / "mine", _arrays())
    spoil(folder)
    with pytest.raises(DataError, match=BAD[spoil]):
        _load(folder)


def test_settings_that_name_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found neither path nor x_train"):
        load({"name": "npy"}, "a: dataset")
    with pytest.raises(DataError, match="no such folder"):
        _load(tmp_path / "none")
    with pytest.raises(DataError, match="none.npy: no such file"):
        _load(_save(tmp_path / "mine", _arrays()), x_test="none.npy", y_test="none.npy")
