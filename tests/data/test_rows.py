"""Rows that are read where they are used are the numbers of the tensor that they stand for."""

import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gped_nas.data import rows as rows_module
from gped_nas.data.file_rows import FileRows
from gped_nas.data.normalization import fit, fit_axis
from gped_nas.data.rows import Rows, chunks, in_batches, join, mapped, sha256_tensors
from gped_nas.errors import EnvironmentProblem
from gped_nas.io import sha256_arrays

SHAPES = {"table": (700, 5), "gray": (700, 4, 3), "color": (700, 4, 3, 2)}
DTYPES = ("|u1", "<f4", ">f8", "<i8")


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of more than 1,000 bytes is made at once."""
    monkeypatch.setattr(rows_module, "IN_MEMORY", 1000)


def _stored(path: Path, shape: tuple[int, ...], dtype: str = "|u1") -> tuple[Rows, Tensor]:
    """Rows of a file, channels last, and the tensor that they are."""
    array = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    path.write_bytes(b"head" + array.tobytes())
    whole = {2: array, 3: array[:, None], 4: np.moveaxis(array, -1, 1)}[array.ndim]
    tensor = torch.from_numpy(whole.astype(array.dtype.newbyteorder("=")).copy())
    source = FileRows(path, 4, array.dtype, shape, tensor.dtype, is_channels_last=True)
    return Rows(source), tensor


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", SHAPES)
def test_rows_of_a_file_are_its_array(tmp_path: Path, kind: str, dtype: str) -> None:
    rows, tensor = _stored(tmp_path / "x", SHAPES[kind], dtype)
    assert rows.shape == tensor.shape
    assert rows.dtype == tensor.dtype
    assert len(rows) == len(tensor)
    assert torch.equal(rows.read(), tensor)
    assert sha256_tensors(rows) == sha256_arrays(tensor.numpy())


PERMUTATION = torch.randperm(700, generator=torch.Generator().manual_seed(0))
INDICES: dict[str, Any] = {
    "one": 3,
    "from the end": -1,
    "slice": slice(10, 20),
    "steps": slice(None, None, 7),
    "none": slice(0, 0),
    "batch": PERMUTATION[:10],
    "twice": torch.tensor([5, 5, 699, 0]),
    "all": PERMUTATION,
    "list": [4, 2],
    "mask": PERMUTATION > 600,
    "two axes": (slice(2, 9), 1),
}


@pytest.mark.parametrize("index", INDICES)
def test_an_index_means_what_it_means_for_tensors(tmp_path: Path, index: str) -> None:
    rows, tensor = _stored(tmp_path / "x", SHAPES["color"])
    expected = tensor[INDICES[index]]
    chosen = rows[INDICES[index]]
    assert torch.equal(chosen, expected)
    assert isinstance(chosen, Rows) == (index == "all" or expected.numel() > 1000)


def test_an_index_beyond_the_end_is_refused_as_by_tensors(tmp_path: Path) -> None:
    rows, _ = _stored(tmp_path / "x", SHAPES["table"])
    with pytest.raises(IndexError):
        rows[700]


WHOLE: dict[str, Callable[[Tensor], Tensor]] = {
    "split": lambda x: torch.cat([part.float() for part in torch.split(x, 64)]),
    "split by method": lambda x: torch.cat([part.float() for part in x.split(64)]),
    "cat": lambda x: torch.cat([x, x[:3], x]),
    "index_select": lambda x: x.index_select(0, PERMUTATION),
    "cast": lambda x: x.to(torch.float64),
    "copy": lambda x: x.to(torch.float32, copy=True).sub_(1),
    "reduce": lambda x: x.amax(),
    "second argument": lambda x: torch.stack([torch.zeros(()), x.double().mean().float()]),
    "shuffled twice": lambda x: x[PERMUTATION][PERMUTATION],
    "mapped": lambda x: mapped(x, torch.Tensor.float),
    "joined": lambda x: join([x, x]),
    "chunks": lambda x: torch.cat(list(chunks(x))),
    "batches": lambda x: in_batches(lambda part: 2 * part.double(), x, 9),
}


@pytest.mark.parametrize("function", WHOLE)
def test_functions_say_the_same_of_rows(tmp_path: Path, function: str) -> None:
    rows, tensor = _stored(tmp_path / "x", SHAPES["color"])
    expected, actual = WHOLE[function](tensor), WHOLE[function](rows)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("function", ["cat", "cast", "shuffled twice", "mapped", "joined"])
def test_what_is_large_stays_rows(tmp_path: Path, function: str) -> None:
    rows, _ = _stored(tmp_path / "x", SHAPES["color"])
    assert isinstance(WHOLE[function](rows), Rows)
    assert all(isinstance(part, Rows) for part in torch.split(rows, 64))


def test_rows_go_to_another_process(tmp_path: Path) -> None:
    rows, tensor = _stored(tmp_path / "x", SHAPES["table"])
    again = pickle.loads(pickle.dumps(mapped(rows[PERMUTATION], torch.Tensor.float)))
    assert isinstance(again, Rows)
    assert torch.equal(again, tensor[PERMUTATION].float())


@pytest.mark.parametrize("kind", SHAPES)
def test_statistics_are_those_of_the_tensor(tmp_path: Path, kind: str) -> None:
    for dtype in DTYPES:
        rows, tensor = _stored(tmp_path / "x", SHAPES[kind], dtype)
        assert fit(rows) == fit(tensor)
        assert fit_axis(rows) == fit_axis(tensor)


def test_statistics_of_bytes_are_exact(tmp_path: Path) -> None:
    _, tensor = _stored(tmp_path / "x", SHAPES["color"])
    fitted = fit_axis(tensor)
    for channel in (0, 1):
        values = tensor[:, channel].flatten().tolist()
        mean = Fraction(sum(values), len(values))
        variance = Fraction(sum(value**2 for value in values), len(values)) - mean**2
        assert fitted.mean[channel] == float(mean)
        assert fitted.std[channel] == pytest.approx(float(variance) ** 0.5, rel=1e-14)
    assert fit_axis(torch.full((9, 2, 1, 1), 7, dtype=torch.uint8)).std == (1.0, 1.0)


def test_a_file_that_was_cut_is_one_message(tmp_path: Path) -> None:
    rows, _ = _stored(tmp_path / "x", SHAPES["table"])
    data = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(data[:-1])
    assert len(rows[:10]) == 10
    with pytest.raises(EnvironmentProblem, match="ends before its array of shape .700, 5."):
        rows.read()
    (tmp_path / "x").unlink()
    with pytest.raises(EnvironmentProblem, match="x"):
        rows.read()
