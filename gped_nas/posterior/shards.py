"""An ensemble's predictions as a folder of shards, format version 1.

    <folder>/manifest.json            sealed JSON: version, kind, members, classes, and of each
                                      array its shape, dtype and SHA-256
    <folder>/inputs-000000.npy ...    raw inputs (m, ...) in their own dtype: uint8 stays uint8
    <folder>/log_prob-000000.npy ...  float32 (S, m, C), log-probabilities of each member, nats
    <folder>/origin-000000.npy ...    int64 (m,): the row of the untouched input, counted over all
                                      shards, of which this one is a flipped or shifted copy; its
                                      own row where it is untouched, -1 where it is of several
    <folder>/weight.npy               float64 (S,), weights of the members on any scale

The folder appears under its name when every byte of it is on disk. ``to_npz`` writes the same
arrays, joined, as one npz.
"""

import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from pydantic import Field

from gped_nas.config import Config, parse
from gped_nas.data.archives import torch_dtype
from gped_nas.errors import ConfigError, DamageError, StreamError
from gped_nas.io import (
    Array,
    environment,
    is_left_by,
    make_dir,
    map_array,
    npy_header,
    read_sealed,
    seal_dir,
    sha256_plain,
    sync_dir,
    write_array,
    write_sealed,
)

VERSION = 1
MANIFEST = "manifest.json"
SHARD_BYTES = 32 * 2**20
NAMES = ("inputs", "log_prob", "origin")
"""Arrays of which every shard has one."""
_WEIGHT = "weight.npy"
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""The oldest day that an archive can name: its bytes follow from what it holds."""
_Shape = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, max_length=8)]


class _ShardFile(Config):
    """One array of a shard, as the manifest has it."""

    file: Annotated[str, Field(pattern=r"^([a-z_]{1,20}-\d{6}|weight)\.npy$")]
    dtype: str
    shape: _Shape
    sha256: str


class _ManifestFile(Config):
    """``manifest.json``; see the module."""

    version: int
    kind: Literal["predictions"]
    members: int = Field(ge=1)
    classes: int = Field(ge=2)
    files: Annotated[tuple[_ShardFile, ...], Field(strict=False)]


class ShardWriter:
    """Writes shards, then the manifest.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_inputs = 0
        self._num_shards = 0
        self._files: list[dict[str, Any]] = []
        self._like: tuple[int, int] = (0, 0)

    def add(self, inputs: Array, log_prob_SMC: Array, origin_M: Array) -> None:
        """Write one shard.

        Args:
            inputs: raw inputs (m, ...); of one dtype in all shards.
            log_prob_SMC: float32 log-probabilities there, nats.
            origin_M: see the module.
        """
        arrays = {
            "inputs": np.ascontiguousarray(inputs, _stored(inputs.dtype)),
            "log_prob": np.ascontiguousarray(log_prob_SMC, np.float32),
            "origin": np.ascontiguousarray(origin_M, np.int64),
        }
        for name, array in arrays.items():
            self._write(f"{name}-{self._num_shards:06d}.npy", array)
        self._like = log_prob_SMC.shape[0], log_prob_SMC.shape[2]
        self._num_shards += 1
        self.num_inputs += len(inputs)

    def close(self, weight_S: Array) -> None:
        """Write the weights and the manifest."""
        self._write(_WEIGHT, np.asarray(weight_S, np.float64))
        members, classes = self._like
        data = {
            "version": VERSION,
            "kind": "predictions",
            "members": members,
            "classes": classes,
            "files": self._files,
        }
        write_sealed(self.folder / MANIFEST, data)

    def _write(self, file: str, array: Array) -> None:
        digest = write_array(self.folder / file, array)
        entry = {"file": file, "dtype": array.dtype.str, "shape": list(array.shape)}
        self._files.append({**entry, "sha256": digest})


def _stored(dtype: "np.dtype[Any]") -> "np.dtype[Any]":
    """The dtype that inputs are stored in: their own, or one that a stream's files know."""
    wanted = torch_dtype(dtype)
    return np.dtype(np.int32) if wanted.name == "int16" else wanted


class Shards:
    """A folder of shards opened for reading.

    Raises:
        DamageError: a file is missing, or not what was written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path, remedy = folder / MANIFEST, "record the predictions again"
        try:
            data, is_sealed = read_sealed(path, remedy)
            self.manifest = parse(_ManifestFile, data, str(path))
        except StreamError as error:
            raise DamageError(str(error)) from None
        except ConfigError as error:
            problem = str(error).splitlines()[0].partition(";")[0]
            raise DamageError(f"{problem}, so it is no manifest of shards; {remedy}") from None
        if not is_sealed or self.manifest.version != VERSION:
            raise DamageError(
                f"{folder / MANIFEST}: found version {self.manifest.version}, expected {VERSION} "
                f"and a digest; {remedy}"
            )
        self._files = {file.file: file for file in self.manifest.files}

    @property
    def num_shards(self) -> int:
        """How many there are."""
        return sum(name.startswith("inputs-") for name in self._files)

    def weight(self) -> Array:
        """Weights of the members, (S,)."""
        return self._read(_WEIGHT)

    def read(self, name: str) -> Iterator[Array]:
        """One array of each shard in order, as read-only maps whose digest was checked."""
        for i in range(self.num_shards):
            yield self._read(f"{name}-{i:06d}.npy")

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array of all shards, joined."""
        files = [file for file in self.manifest.files if file.file.startswith(f"{name}-")]
        axis = 1 if name == "log_prob" else 0
        shape = list(files[0].shape)
        shape[axis] = sum(file.shape[axis] for file in files)
        return tuple(shape)

    def joined(self, name: str) -> Array:
        """An array of all shards in memory."""
        return np.concatenate(list(self.read(name)), axis=1 if name == "log_prob" else 0)

    def _read(self, file: str) -> Array:
        path = self.folder / file
        if file not in self._files:
            raise DamageError(
                f"{self.folder / MANIFEST}: names no {file}; record the predictions again"
            )
        entry = self._files[file]
        try:
            array = map_array(path, dtype=entry.dtype, shape=entry.shape)
            digest = sha256_plain(path)
        except StreamError as error:
            raise DamageError(str(error)) from None
        if digest != entry.sha256:
            raise DamageError(
                f"{path}: found SHA-256 {digest[:16]}, expected {entry.sha256[:16]}; record the "
                "predictions again"
            )
        return array


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """An empty folder beside ``out`` that is gone afterwards, also where the block fails.

    What killed processes left there is removed.

    Raises:
        EnvironmentProblem: it cannot be made.
    """
    make_dir(out.parent)
    beginning, end = f".{out.name}.", ".building"
    with environment("write", out):
        for path in out.parent.glob(f"{beginning}*{end}"):
            if is_left_by(path.name.removeprefix(beginning).removesuffix(end)):
                shutil.rmtree(path, ignore_errors=True)
        folder = out.with_name(f"{beginning}{os.getpid()}{end}")
        folder.mkdir()

    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def seal(folder: Path, out: Path) -> None:
    """Give a finished folder of shards its name.

    Raises:
        ConfigError: somebody else made a folder of that name meanwhile.
    """
    refuse_existing(out)
    seal_dir(folder, out)


def refuse_existing(out: Path) -> None:
    """Refuse to write a folder of shards where there is something.

    Raises:
        ConfigError: there is.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already; delete it, or choose another name")


def to_npz(folder: Path, out: Path) -> None:
    """Write the arrays of a folder of shards as one npz, whole or not at all.

    No array is ever in memory as a whole.
    """
    shards = Shards(folder)
    joined = folder / "joined.npz"
    with environment("write", out):
        with zipfile.ZipFile(joined, "w", zipfile.ZIP_STORED) as archive:
            for name in NAMES:
                dtype = next(shards.read(name)).dtype.str
                with _member(archive, name) as file:
                    file.write(npy_header(dtype, shards.shape(name)))
                    _copy(shards, name, file)
            weight = shards.weight()
            with _member(archive, "weight") as file:
                file.write(npy_header(weight.dtype.str, weight.shape))
                file.write(weight.tobytes())

        with joined.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(joined, out)
        sync_dir(out.parent)


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    return archive.open(zipfile.ZipInfo(f"{name}.npy", _FIRST_DAY), "w", force_zip64=True)


def _copy(shards: Shards, name: str, file: BinaryIO) -> None:
    """Write an array of all shards in the order of one array."""
    blocks: Sequence[Array] = list(shards.read(name))
    if name != "log_prob":
        for block in blocks:
            file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        return

    for member in range(shards.manifest.members):  # its first axis is not that of the shards
        for block in blocks:
            file.write(np.ascontiguousarray(block[member]).reshape(-1).view(np.uint8).data)
