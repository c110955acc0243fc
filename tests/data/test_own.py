"""The user's own .npz files: what is read, and every way in which a file can be wrong."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy_format

from gped_nas.data.base import Dataset, load
from gped_nas.errors import DataError, EnvironmentProblem, GpedError

Arrays = dict[str, Any]


def _good() -> Arrays:
    """Twenty vectors of three numbers, two classes."""
    return {"x_train": np.arange(60.0).reshape(20, 3), "y_train": np.arange(20) % 2}


def _with(**changes: object) -> Arrays:
    return {name: value for name, value in (_good() | changes).items() if value is not None}


def _load(path: Path, **changes: object) -> Dataset:
    return load({"name": "npz", "path": str(path)} | changes, "a.yaml: dataset")


def _loaded(tmp_path: Path, arrays: Arrays, **changes: object) -> Dataset:
    np.savez(tmp_path / "mine.npz", **arrays)
    return _load(tmp_path / "mine.npz", **changes)


@pytest.mark.parametrize(
    ("shape", "input_shape"),
    [
        ((20, 3), (3,)),
        ((20, 5, 4), (1, 5, 4)),
        ((20, 5, 4, 3), (3, 5, 4)),
        ((20, 3, 4, 3), (3, 3, 4)),
    ],
)
def test_inputs_become_channel_first(
    tmp_path: Path, shape: tuple[int, ...], input_shape: tuple[int, ...]
) -> None:
    x = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    dataset = _loaded(tmp_path, _with(x_train=x, x_test=x, y_test=np.arange(20) % 2))
    assert dataset.input_shape == input_shape
    assert dataset.test.x.is_contiguous()

    def place_of(index: tuple[int, ...]) -> tuple[int, ...]:
        """Where a number of the user's array must be in the dataset's."""
        if len(shape) == 2:
            return index
        example, row, column, *channel = index
        return (example, channel[0] if channel else 0, row, column)

    for index in np.ndindex(*shape):
        assert int(dataset.test.x[place_of(index)]) == int(x[index])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("u1", torch.uint8),
        ("i2", torch.int16),
        (">i4", torch.int32),
        ("i8", torch.int64),
        ("f2", torch.float16),
        (">f4", torch.float32),
        ("f8", torch.float64),
        ("u2", torch.float64),
        ("u8", torch.float64),
        ("g", torch.float64),
    ],
)
def test_dtypes_keep_their_values(tmp_path: Path, dtype: str, expected: torch.dtype) -> None:
    x = np.arange(60).reshape(20, 3).astype(dtype)
    dataset = _loaded(tmp_path, _with(x_train=x, x_test=x, y_test=np.arange(20) % 2))
    assert dataset.test.x.dtype == expected
    assert dataset.test.x.tolist() == np.arange(60).reshape(20, 3).tolist()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i8", ">i2", "u8"])
def test_integer_labels_of_any_width_are_taken(tmp_path: Path, dtype: str) -> None:
    dataset = _loaded(tmp_path, _with(y_train=(np.arange(20) % 2).astype(dtype)))
    assert dataset.train.y.dtype == torch.int64 and dataset.num_classes == 2


def test_optional_arrays_are_used(tmp_path: Path) -> None:
    test = {"x_test": np.full((4, 3), 7.0), "y_test": np.array([0, 1, 1, 0])}
    pool = np.full((6, 3), 9.0)
    names = np.array(["cat", "dog", "emu"])
    dataset = _loaded(tmp_path, _with(**test, x_pool=pool, class_names=names))
    assert dataset.class_names == ("cat", "dog", "emu")
    assert dataset.test.x.tolist() == test["x_test"].tolist()
    assert dataset.test.y.tolist() == [0, 1, 1, 0]
    assert dataset.unlabeled.tolist() == pool.tolist()
    assert len(dataset.train) + len(dataset.validation) == 20


def test_a_class_in_the_test_part_alone_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    test = {"x_test": np.zeros((2, 3)), "y_test": np.array([0, 2])}
    with pytest.raises(DataError, match="y_test: found the label 2, which no example of y_train"):
        _loaded(tmp_path, _with(**test))

    dataset = _loaded(tmp_path, _with(**test, class_names=np.array(["a", "b", "c"])))
    assert "The train part has no example of 1 of 3 classes: c." in dataset.notes
    assert "The test part has no example of 1 of 3 classes: b." in dataset.notes


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        ([1, 2, 4], ("1", "2", "4"), [0, 1, 2]),
        ([1, -1], ("-1", "1"), [1, 0]),
        ([0, 10**15], ("0", "1000000000000000"), [0, 1]),
        ([0.0, 1.0, 2.0], ("0", "1", "2"), [0, 1, 2]),
        ([[2], [1], [0]], ("0", "1", "2"), [2, 1, 0]),
        ([False, True], ("0", "1"), [0, 1]),
        (["oak", "ash", "elm"], ("ash", "elm", "oak"), [2, 0, 1]),
    ],
)
def test_labels_of_many_kinds_are_classes_in_order(
    tmp_path: Path, labels: list[object], names: tuple[str, ...], numbers: list[int]
) -> None:
    y = np.array(labels * 8)
    x = np.zeros((len(y), 2))
    dataset = _loaded(tmp_path, {"x_train": x, "y_train": y, "x_test": x, "y_test": y})
    assert dataset.class_names == names
    assert dataset.labels("test").tolist() == numbers * 8


def test_text_labels_take_the_order_of_the_names(tmp_path: Path) -> None:
    text = np.array(["oak", "ash"] * 10)
    names = np.array(["oak", "ash", "elm"])
    dataset = _loaded(
        tmp_path, _with(y_train=text, x_test=np.zeros((2, 3)), y_test=text[:2], class_names=names)
    )
    assert dataset.class_names == ("oak", "ash", "elm")
    assert dataset.labels("test").tolist() == [0, 1]


def test_a_validation_part_of_ones_own_is_taken_whole(tmp_path: Path) -> None:
    x = np.full((6, 3), 5.0)
    dataset = _loaded(tmp_path, _with(x_val=x, y_val=np.array([1, 0] * 3)))
    assert torch.equal(dataset.raw("validation"), torch.from_numpy(x))
    assert dataset.labels("validation").tolist() == [1, 0] * 3
    assert (len(dataset.train), len(dataset.test)) == (16, 4)
    assert "validation: 6 examples, as the source gives them" in dataset.split_text


@pytest.mark.parametrize(
    ("shape", "layout", "input_shape"),
    [
        ((20, 13, 12, 12), "channels_first", (13, 12, 12)),
        ((20, 3, 8, 8), "channels_first", (3, 8, 8)),
        ((20, 4, 4, 8), "channels_last", (8, 4, 4)),
    ],
)
def test_the_layout_can_be_said(
    tmp_path: Path, shape: tuple[int, ...], layout: str, input_shape: tuple[int, ...]
) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    dataset = _loaded(tmp_path, _with(x_train=x), layout=layout)
    assert dataset.input_shape == input_shape


def test_a_layout_of_what_has_no_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="layout: channels_first, expected pictures.*remove layout"):
        _loaded(tmp_path, _good(), layout="channels_first")


def test_test_part_is_carved_where_there_is_none(tmp_path: Path) -> None:
    dataset = _loaded(tmp_path, _good(), test=0.3, validation=0.5)
    # 20 * 0.3 = 6 for testing; half of the other 14 for validation.
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (7, 7, 6)
    parts = [dataset.raw(part) for part in ("train", "validation", "test")]
    assert sorted(torch.cat(parts).tolist()) == np.arange(60.0).reshape(20, 3).tolist()


def test_relative_path_starts_at_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _loaded(tmp_path, _good())
    monkeypatch.chdir(tmp_path)
    assert load({"name": "npz", "path": "mine.npz"}).digest == whole.digest


def _object_array() -> Arrays:
    return _with(x_train=np.array([[1.0], "a"] * 10, dtype=object))


def _changed(index: tuple[int, int], value: float) -> Arrays:
    x = np.arange(60.0).reshape(20, 3)
    x[index] = value
    x[19, 2] = np.nan
    return _with(x_train=x)


BAD_ARRAYS: dict[str, tuple[Arrays, str]] = {
    "pickled inputs": (_object_array(), "x_train: cannot be read .*Object arrays"),
    "pickled names": (
        _with(class_names=np.array(["a", "b"], dtype=object)),
        "class_names: cannot be read",
    ),
    "unknown array": (_with(x_tran=np.zeros(3)), "x_tran: unknown array; did you mean 'x_train'"),
    "no x_train": (_with(x_train=None), "x_train: missing; found y_train"),
    "no y_train": (_with(y_train=None), "y_train: missing; found x_train"),
    "no arrays": ({}, "x_train: missing; found no arrays"),
    "x_test alone": (_with(x_test=np.zeros((4, 3))), "y_test: missing beside x_test"),
    "y_test alone": (_with(y_test=np.zeros(4, int)), "x_test: missing beside y_test"),
    "more labels than names": (
        _with(y_train=np.arange(20) % 3, class_names=np.array(["a", "b"])),
        "y_train: found the label 2, expected labels from 0 to 1",
    ),
    "test label beyond the names": (
        _with(x_test=np.zeros((2, 3)), y_test=np.array([0, 2]), class_names=np.array(["a", "b"])),
        "y_test: found the label 2, expected labels from 0 to 1",
    ),
    "negative with names": (
        _with(y_train=np.arange(20) % 2 - 1, class_names=np.array(["a", "b"])),
        "y_train: found the label -1",
    ),
    "one-hot labels": (
        _with(y_train=np.eye(2, dtype=int)[np.arange(20) % 2]),
        r"y_train: found shape \(20, 2\).*argmax",
    ),
    "real labels": (
        _with(y_train=np.arange(20) / 2),
        "y_train: found dtype float64 .*not whole.*task: regression",
    ),
    "infinite labels": (
        _with(y_train=np.where(np.arange(20) > 3, np.inf, 0.0)),
        "y_train: found dtype float64 .*not whole",
    ),
    "labels that are measured": (
        {"x_train": np.zeros((60, 3)), "y_train": np.arange(60) ** 2},
        "y_train: found 60 different labels in 60 examples.*task: regression",
    ),
    "dates for labels": (
        _with(y_train=np.arange(20).astype("M8[s]")),
        "y_train: found dtype datetime64",
    ),
    "text that no name is": (
        _with(y_train=np.array(["a", "c"] * 10), class_names=np.array(["a", "b"])),
        "y_train: found the label c, which class_names does not have",
    ),
    "text beside numbers": (
        _with(x_test=np.zeros((2, 3)), y_test=np.array(["0", "1"])),
        "y_test: found dtype <U1, expected numbers as in y_train",
    ),
    "x_val alone": (_with(x_val=np.zeros((4, 3))), "y_val: missing beside x_val"),
    "validation of another shape": (
        _with(x_val=np.zeros((2, 4)), y_val=np.array([0, 1])),
        r"x_val: found inputs \(4,\) of float64",
    ),
    "too few labels": (_with(y_train=np.arange(19) % 2), "y_train: found 19 labels for 20 inputs"),
    "too many test labels": (
        _with(x_test=np.zeros((2, 3)), y_test=np.array([0, 1, 0])),
        "y_test: found 3 labels for 2 inputs",
    ),
    "one class": (_with(y_train=np.zeros(20, int)), "y_train: found 1 class in 20 examples"),
    "nan": (
        _changed((3, 1), np.nan),
        r"x_train: found 2 values that are NaN.*first at index \(3, 1\)",
    ),
    "infinite": (_changed((0, 0), -np.inf), r"x_train: found 2 values .*first at index \(0, 0\)"),
    "beyond float32": (
        _changed((2, 0), 1e300),
        r"x_train: found 2 values .*first at index \(2, 0\)",
    ),
    "nan in pool": (_with(x_pool=np.full((1, 3), np.nan)), "x_pool: found 3 values that are NaN"),
    "nan in test": (
        _with(x_test=np.full((1, 3), np.nan), y_test=np.array([0])),
        "x_test: found 3 values that are NaN",
    ),
    "test of another shape": (
        _with(x_test=np.zeros((2, 4)), y_test=np.array([0, 1])),
        r"x_test: found inputs \(4,\) of float64, expected \(3,\) of float64",
    ),
    "test of another dtype": (
        _with(x_test=np.zeros((2, 3), np.uint8), y_test=np.array([0, 1])),
        r"x_test: found inputs \(3,\) of uint8, expected \(3,\) of float64",
    ),
    "pool of another shape": (
        _with(x_pool=np.zeros((2, 3, 3))),
        r"x_pool: found inputs \(1, 3, 3\)",
    ),
    "pool of another dtype": (
        _with(x_pool=np.zeros((2, 3), np.float32)),
        "x_pool: found inputs .*float32",
    ),
    "complex": (_with(x_train=np.zeros((20, 3), complex)), "x_train: found dtype complex128"),
    "bool": (_with(x_train=np.zeros((20, 3), bool)), "x_train: found dtype bool"),
    "text": (_with(x_train=np.full((20, 3), "a")), "x_train: found dtype <U1"),
    "dates": (_with(x_train=np.zeros((20, 3), "M8[s]")), "x_train: found dtype datetime64"),
    "records": (_with(x_train=np.zeros((20, 3), "f4,i4")), "x_train: found dtype"),
    "a single number": (_with(x_train=np.array(3.0)), r"x_train: found shape \(\)"),
    "numbers, not vectors": (
        _with(x_train=np.zeros(20)),
        r"x_train: found shape \(20,\), expected \(N, D\)",
    ),
    "five axes": (_with(x_train=np.zeros((20, 2, 2, 2, 2))), "x_train: found shape .*use reshape"),
    "channel first": (
        _with(x_train=np.zeros((20, 3, 8, 8))),
        "looks channel first.*channels_first",
    ),
    "no examples": (
        _with(x_train=np.zeros((0, 3)), y_train=np.zeros(0, int)),
        r"x_train: found shape \(0, 3\)",
    ),
    "no features": (
        _with(x_train=np.zeros((20, 0))),
        r"x_train: found shape \(20, 0\), which is empty",
    ),
    "empty pool": (_with(x_pool=np.zeros((0, 3))), r"x_pool: found shape \(0, 3\), which is empty"),
    "empty names": (
        _with(class_names=np.array([], dtype="U1")),
        "class_names: found shape .*empty",
    ),
    "numbers for names": (_with(class_names=np.array([0, 1])), "class_names: found int64"),
    "one name": (_with(class_names=np.array("ab")), r"class_names: found <U2 of shape \(\)"),
    "the same name twice": (
        _with(class_names=np.array(["a", "a"])),
        "class_names: found .*distinct",
    ),
    "too few to split": (
        {"x_train": np.zeros((2, 3)), "y_train": np.array([0, 1])},
        "test: 0.2 of 2 examples is 0, expected at least 1 .*bring more examples",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_refused(tmp_path: Path, case: str) -> None:
    arrays, message = BAD_ARRAYS[case]
    with pytest.raises(DataError, match=message) as caught:
        _loaded(tmp_path, arrays)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.npz'}: ")
    assert "\n" not in str(caught.value) and "allow_pickle=True" not in str(caught.value)


def _saved(arrays: Arrays, packing: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """The bytes of an .npz of the arrays and of extra members given as bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, np.asarray(array))
            archive.writestr(f"{name}.npy", member.getvalue())
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + bytes(64)


def _flipped() -> bytes:
    """A good file with one bit of its pixels flipped."""
    data = bytearray(_saved(_good()))
    data[data.index(np.float64(7).tobytes()) + 2] ^= 1
    return bytes(data)


def _packed_and_damaged(packing: int) -> bytes:
    """A file that is packed as numpy never does, and whose first array is cut short by zeros."""
    data = bytearray(_saved(_good(), packing))
    data[100:200] = bytes(100)
    return bytes(data)


def _encrypted() -> bytes:
    """A good file whose members claim to be encrypted."""
    data = bytearray(_saved(_good()))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 1)
    return bytes(data)


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 3)))
    return buffer.getvalue()


NO_X = {"y_train": np.arange(20) % 2}
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not a readable .npz"),
    "text": (b"x_train,y_train\n1,2\n", r"readable .npz \(neither an archive nor"),
    "a pickle": (b"\x80\x04]\x94.", r"readable .npz \(neither an archive nor"),
    "one array": (_npy(), "found a single array"),
    "cut in half": (_saved(_good())[:500], "not a readable .npz"),
    "its end cut off": (_saved(_good())[:-1], "not a readable .npz"),
    "a flipped bit": (_flipped(), "x_train: cannot be read .*CRC"),
    "bzip2, damaged": (_packed_and_damaged(zipfile.ZIP_BZIP2), "x_train: cannot be read"),
    "lzma, damaged": (_packed_and_damaged(zipfile.ZIP_LZMA), "x_train: cannot be read"),
    "encrypted": (_encrypted(), "x_train: cannot be read .*encrypted"),
    "a member that is no array": (
        _saved(NO_X, x_train=b"hello"),
        "x_train: found bytes that are not an array",
    ),
    "more than it holds": (_saved(NO_X, x_train=_header((20, 3))), "x_train: cannot be read"),
    "a terabyte": (_saved(NO_X, x_train=_header((10**9, 125))), "x_train: cannot be read"),
    "more than an address": (
        _saved(NO_X, x_train=_header((2**62, 2**62))),
        "x_train: cannot be read",
    ),
    "a negative shape": (_saved(NO_X, x_train=_header((-1, 3))), "x_train: cannot be read"),
    "an unfinished header": (
        _saved(NO_X, x_train=_header((20, 3))[:40]),
        "x_train: cannot be read",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused(tmp_path: Path, case: str) -> None:
    data, message = BAD_FILES[case]
    (tmp_path / "mine.npz").write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        _load(tmp_path / "mine.npz")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.npz'}: ")


class _Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return os.mkdir, (self.mark,)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    bomb = np.empty((20, 3), dtype=object)
    bomb[:] = _Bomb(mark)
    with pytest.raises(DataError, match="x_train: cannot be read"):
        _loaded(tmp_path, _with(x_train=bomb))
    assert not mark.exists()


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_files_load_or_are_refused(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(_saved(_good()))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(whole)))
    (tmp_path / "mine.npz").write_bytes(whole[:length])

    try:
        dataset = _load(tmp_path / "mine.npz")
    except GpedError as error:
        assert isinstance(error, DataError)
    else:
        assert dataset.num_classes == 2


@pytest.mark.parametrize("path", ["missing.npz", "no/such/folder.npz", ".", "a\0b.npz"])
def test_missing_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        _load(Path(path))


def test_unreadable_file_is_a_problem_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "mine.npz", **_good())

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(EnvironmentProblem, match="mine.npz: cannot be read: Permission denied"):
        _load(tmp_path / "mine.npz")
