"""Files that are written whole or not at all, and refused when they are not what was written."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.lib import format as npy_format

from gped_nas import io
from gped_nas.errors import EnvironmentProblem, StreamError


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


class TestWriting:
    def test_what_is_written_is_read(self, tmp_path):
        io.write_text(tmp_path / "a", "h\u00e9")
        io.write_json(tmp_path / "b", {"b": [1, 2.5], "a": None})
        assert (tmp_path / "a").read_text(encoding="utf-8") == "h\u00e9"
        assert (tmp_path / "b").read_text() == '{"a":null,"b":[1,2.5]}\n'
        assert io.read_json(tmp_path / "b") == {"a": None, "b": [1, 2.5]}

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    def test_a_write_that_fails_leaves_the_old_file_and_no_other(
        self, tmp_path, monkeypatch, error
    ):
        io.write_text(tmp_path / "a", "old")

        def fails(fd):
            raise error

        monkeypatch.setattr(io.os, "fsync", fails)
        expected = EnvironmentProblem if isinstance(error, OSError) else KeyboardInterrupt
        for name in ("a", "b"):
            with pytest.raises(expected):
                io.write_text(tmp_path / name, "new")

        assert names_in(tmp_path) == ["a"]
        assert (tmp_path / "a").read_text() == "old"

    def test_a_rename_that_fails_leaves_the_old_file_and_no_other(self, tmp_path, monkeypatch):
        io.write_array(tmp_path / "a.npy", np.zeros(3, "<f4"))

        def fails(source, target):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(io.os, "replace", fails)
        with pytest.raises(EnvironmentProblem, match=r"a\.npy: cannot write: Permission denied"):
            io.write_array(tmp_path / "a.npy", np.ones(3, "<f4"))
        assert names_in(tmp_path) == ["a.npy"]
        assert not np.load(tmp_path / "a.npy").any()

    def test_numbers_json_has_no_word_for_are_refused(self, tmp_path):
        for value in (float("nan"), float("inf")):
            with pytest.raises(ValueError, match="JSON compliant"):
                io.write_json(tmp_path / "a", {"x": value})
        assert names_in(tmp_path) == []

    def test_below_a_plain_file_is_one_message(self, tmp_path):
        file = tmp_path / "file"
        file.write_text("")
        with pytest.raises(EnvironmentProblem, match="cannot write"):
            io.write_text(file / "a", "x")
        with pytest.raises(EnvironmentProblem, match="cannot create the directory"):
            io.make_dir(file / "folder")
        with (
            pytest.raises(EnvironmentProblem, match="cannot lock"),
            io.lock(file / "l", wait=False),
        ):
            pass

    def test_sealing_is_a_rename_and_never_replaces(self, tmp_path):
        for content in ("first", "second"):
            building = io.make_dir(tmp_path / "building")
            io.write_text(building / "a", content)
            io.seal_dir(building, tmp_path / "sealed" / "0")
            assert not building.exists()
        assert (tmp_path / "sealed" / "0" / "a").read_text() == "first"


ARRAYS = [
    np.arange(6, dtype="<f4").reshape(2, 3),
    np.array(7, "<i8"),
    np.empty((0, 3), "<f4"),
    np.empty((3, 0), "<f8"),
    np.arange(4, dtype="|u1"),
    np.asfortranarray(np.arange(6, dtype="<f8").reshape(2, 3)),
    np.arange(24, dtype="<f2").reshape(2, 3, 4).transpose(2, 0, 1),
    np.arange(10, dtype="<i4")[::2],
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}")
def test_an_array_comes_back_and_its_digest_is_the_files(tmp_path, array):
    digest = io.write_array(tmp_path / "a.npy", array)
    assert digest == io.sha256_file(tmp_path / "a.npy")

    mapped = io.map_array(tmp_path / "a.npy", dtype=array.dtype.str, shape=array.shape)
    np.testing.assert_array_equal(mapped, array)
    assert mapped.dtype == array.dtype
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)  # and numpy reads it too


class TestMapping:
    def refused(self, path, message=None, *, dtype="<f4", shape=(2, 3)):
        """Check that mapping a file is refused by a message that names it."""
        with pytest.raises(StreamError, match=message) as caught:
            io.map_array(path, dtype=dtype, shape=shape)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize(
        "array",
        [
            np.asfortranarray(np.ones((2, 3), "<f4")),
            np.ones((2, 3), "<f8"),
            np.ones((2, 3), ">f4"),
            np.ones((2, 3), "<i4"),
            np.ones((3, 2), "<f4"),
            np.ones(6, "<f4"),
            np.ones((2, 3), [("a", "<f4")]),
            np.full((2, 3), None, object),
            np.full((2, 3), "a"),
        ],
        ids=str,
    )
    def test_another_kind_of_array(self, tmp_path, array):
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
        self.refused(tmp_path / "a.npy")

    def test_dtypes_outside_the_format(self, tmp_path):
        np.save(tmp_path / "a.npy", np.full((2, 3), None, object), allow_pickle=True)
        for dtype in ("|O", "<c8", "|V4", "<U1", ">f4", "|b1", "", "nonsense"):
            self.refused(tmp_path / "a.npy", "not allowed", dtype=dtype)

    @pytest.mark.parametrize(
        "shape",
        [(2**62, 2**62), (0, 2**63), (-2, -3), (-1, 0), (1,) * 70, (2**31, 2**31, 4), (0, -1)],
    )
    def test_shapes_no_array_has(self, tmp_path, shape):
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        size = 4 * int(np.prod(shape, dtype=object))
        if not 0 <= size < 100:
            size = 24
        with (tmp_path / "a.npy").open("wb") as file:
            npy_format.write_array_header_1_0(file, header)
            file.write(b"\0" * size)
        self.refused(tmp_path / "a.npy", shape=shape)
        self.refused(tmp_path / "a.npy")

    def test_every_byte_of_the_header(self, tmp_path):
        path = tmp_path / "a.npy"
        io.write_array(path, np.arange(6, dtype="<f4").reshape(2, 3))
        whole = path.read_bytes()
        num_header_bytes = len(whole) - 24

        for i, value in itertools.product(range(num_header_bytes), b"\x00\n('{0\xff"):
            damaged = bytearray(whole)
            damaged[i] = value
            path.write_bytes(damaged)
            try:
                mapped = io.map_array(path, dtype="<f4", shape=(2, 3))
            except StreamError as error:
                assert str(path) in str(error)
            else:  # a header that says the same in other words
                np.testing.assert_array_equal(mapped, np.arange(6).reshape(2, 3))

    def test_truncated_extended_and_missing(self, tmp_path):
        path = tmp_path / "a.npy"
        io.write_array(path, np.ones((2, 3), "<f4"))
        whole = path.read_bytes()
        another_kind = (b"", b"PK\x03\x04" + whole[4:], b"\x80\x04pickle")
        for content in (whole[:-1], whole + b"\0", whole[:7], *another_kind):
            path.write_bytes(content)
            self.refused(path)

        path.unlink()
        self.refused(path, "missing")
        path.mkdir()
        self.refused(path, "not a plain file")

    def test_a_link(self, tmp_path):
        io.write_array(tmp_path / "b.npy", np.ones((2, 3), "<f4"))
        (tmp_path / "a.npy").symlink_to(tmp_path / "b.npy")
        self.refused(tmp_path / "a.npy", "expected a plain file")

    @pytest.mark.parametrize(
        "shape", [(), (0,), (3,), (4, 43), (10**18, 2), (123_456, 10, 3), (1,) * 8]
    )
    @pytest.mark.parametrize("dtype", ["<f2", "<f8", "|u1"])
    def test_our_header_is_numpys(self, tmp_path, dtype, shape):
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        with (tmp_path / "a.npy").open("wb") as file:
            npy_format.write_array_header_1_0(file, header)
        assert (tmp_path / "a.npy").read_bytes() == io.npy_header(dtype, shape)

    def test_other_versions_of_npy(self, tmp_path):
        for version in ((2, 0), (3, 0)):
            with (tmp_path / "a.npy").open("wb") as file:
                npy_format.write_array(file, np.ones((2, 3), "<f4"), version=version)
            self.refused(tmp_path / "a.npy")


class TestJson:
    @pytest.mark.parametrize(
        "text", ["", "{", "NaN", "[Infinity]", "[" * 100_000, "1" * 5000, "\x00"]
    )
    def test_what_is_no_json_is_refused(self, tmp_path, text):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(StreamError, match=r"a\.json"):
            io.read_json(tmp_path / "a.json")

    def test_missing_folders_and_files_in_their_place(self, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "folder").mkdir()
        for path in (tmp_path / "absent", tmp_path / "folder", tmp_path / "file" / "a.json"):
            with pytest.raises(StreamError, match=path.name):
                io.read_json(path)

    def test_canonical_text_is_pinned(self):
        assert io.canonical_json({"b": (1, 2), "a": "\u00e9"}) == '{"a":"\\u00e9","b":[1,2]}'
        of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        assert io.sha256_text("") == of_nothing


def test_digest_of_arrays_covers_dtype_shape_order_and_bytes():
    a = np.arange(6, dtype="<i4")
    digests = {
        io.sha256_arrays(a),
        io.sha256_arrays(a.reshape(2, 3)),
        io.sha256_arrays(a.view("<f4")),
        io.sha256_arrays(a[:3], a[3:]),
        io.sha256_arrays(a[3:], a[:3]),
        io.sha256_arrays(a.reshape(2, 3).T),
    }
    assert len(digests) == 6
    assert io.sha256_arrays(np.asfortranarray(a.reshape(2, 3))) == io.sha256_arrays(a.reshape(2, 3))


HOLDER = """
import sys, time
from pathlib import Path
from gped_nas.io import lock
with lock(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(60)
"""


class TestLock:
    def test_a_second_holder_in_this_process_is_refused_until_the_first_lets_go(self, tmp_path):
        with io.lock(tmp_path / "folder" / "lock", wait=False):
            with (
                pytest.raises(EnvironmentProblem, match="another process is working here"),
                io.lock(tmp_path / "folder" / "lock", wait=False),
            ):
                pass
        with io.lock(tmp_path / "folder" / "lock", wait=False):
            pass

    def test_it_is_let_go_on_an_error(self, tmp_path):
        with pytest.raises(RuntimeError), io.lock(tmp_path / "lock", wait=False):
            raise RuntimeError
        with io.lock(tmp_path / "lock", wait=False):
            pass

    def test_another_process_excludes_us_and_its_death_lets_us_in(self, tmp_path):
        path = tmp_path / "lock"
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(EnvironmentProblem, match="another process"),
                io.lock(path, wait=False),
            ):
                pass

            holder.send_signal(signal.SIGKILL)
            began = time.monotonic()
            with io.lock(path, wait=True):
                assert time.monotonic() - began < 30
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()
        assert os.access(path, os.R_OK)
