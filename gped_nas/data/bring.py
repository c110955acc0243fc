"""Data that somebody has in Python, as the settings of a dataset: arrays, or a torch ``Dataset``.

They are written once as ``.npy`` files, so that a study can go on in another process, and so that
data may be larger than memory. A folder is named after its content. A memory map of an ``.npy``
file is not copied: the settings name its file.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from gped_nas.data.archives import UNREADABLE, torch_dtype
from gped_nas.data.gather import PARTS, Gatherer, write_rows
from gped_nas.data.sources import suggest_settings
from gped_nas.errors import DataError
from gped_nas.io import (
    Array,
    environment,
    make_dir,
    npy_header,
    seal_dir,
    sha256_array,
    write_array,
)

_CHUNK_BYTES = 2**24


def as_dataset(
    data: object,
    *,
    validation: object = None,
    test: object = None,
    pool: object = None,
    class_names: tuple[str, ...] | list[str] = (),
    folder: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Settings of a dataset that holds data of yours; a space takes them as its ``dataset``.

    Args:
        data: ``(x, y)`` arrays, tensors or lists, memory maps too; a mapping of the arrays of an
            npz (``x_train``, ``y_train``, ``groups_train``, ``x_val``); a torch ``Dataset`` of
            pairs, or a ``DataLoader`` of one, whose dataset is read in order; a path, see
            ``init --data``; or settings, which are returned as they are. Inputs are in your own
            range: bytes stay bytes.
        validation, test: ``(x, y)`` or a ``Dataset``; parts of ``data`` are carved without them.
        pool: unlabeled inputs, or pairs whose labels are left out.
        class_names: in the order of class numbers; a dataset's own ``classes`` by default.
        folder: where the arrays are written; a folder in the cache, named after their content, by
            default. One that is there is not written again.
        settings: further settings of the dataset: ``task``, ``layout``, ``split``, ``normalize``,
            ... What is not said is chosen as ``init`` chooses it.

    Returns:
        Settings of ``npy``: ``{"name": "npy", "path": ..., "split": ..., "normalize": ...}``.

    Raises:
        DataError: it is none of these, examples differ in shape, its first example is another one
            each time, as a transform that draws makes it, or the folder holds other data.
        EnvironmentProblem: the disk refuses.
    """
    if isinstance(data, Mapping) and "name" in data:
        return {**data, **settings}
    if isinstance(data, str | os.PathLike):
        return suggest_settings(Path(data), settings)

    parts = dict(zip(PARTS, (data, validation, test, pool), strict=True))
    names = list(class_names) or classes_of(data)
    root, name = (_cache(), None) if folder is None else (Path(folder).parent, Path(folder).name)
    return bring(parts, names, root=root, name=name, settings=settings)


def bring(
    parts: Mapping[str, object],
    class_names: list[str],
    *,
    root: Path,
    name: str | None = None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Settings of a dataset whose arrays lie in a folder, where they are written if need be.

    Args:
        parts: see ``as_dataset``, by the name of the part.
        class_names: may be empty.
        root: where the folder is.
        name: of the folder; that of its content by default.
        settings: said by the user.

    Raises as ``as_dataset``.
    """
    with _building(root) as building:
        gatherer = Gatherer(building)
        for part, source in parts.items():
            if source is not None:
                gatherer.add(part, source)
        if class_names:
            gatherer.add_class_names(class_names)
        gatherer.check()
        place = _keep(gatherer.arrays, building, root, name)

    layout = {"layout": gatherer.layout} if gatherer.layout else {}
    return suggest_settings(place.folder, {**place.files, **layout, **settings})


@dataclass(frozen=True)
class _Place:
    """A folder of ``.npy`` files, and files by the name of the array that lie elsewhere."""

    folder: Path
    files: dict[str, str]


def _keep(arrays: Mapping[str, Array], building: Path, root: Path, name: str | None) -> _Place:
    """Write the arrays that lie in no file yet, unless the folder is there.

    Args:
        arrays: by name.
        building: a folder where some of them lie; it becomes the final one.
        root, name: see ``bring``.

    Raises:
        DataError: the folder holds other data.
    """
    content = _digest(arrays)
    folder = root / (name or content)
    if (folder / "x_train.npy").is_file() and name is None:
        return _Place(folder, {})

    files = {}
    for key, array in arrays.items():
        file = _file_of(array)
        if file is not None and file.parent != building.resolve():
            files[key] = str(file)
    if name is None and files:
        paths = json.dumps(files, sort_keys=True)
        folder = root / hashlib.sha256(f"{content} {paths}".encode()).hexdigest()[:32]
    if folder.exists():
        _check_holds(folder, files, arrays, content)
        return _Place(folder, files)

    for key, array in arrays.items():
        path = building / f"{key}.npy"
        if key.startswith("x_") and key not in files and not path.exists():
            write_rows(path, _blocks(array), len(array))
        elif key not in files and not path.exists():
            write_array(path, array)
    seal_dir(building, folder)
    return _Place(folder, files)


def _check_holds(
    folder: Path, files: Mapping[str, str], arrays: Mapping[str, Array], content: str
) -> None:
    """Raise ``DataError`` unless a folder holds these arrays, but for those of other files."""
    held = {name: arrays[name] for name in files}
    for path in folder.glob("*.npy"):
        try:
            held[path.stem] = np.load(path, mmap_mode="r", allow_pickle=False)
        except UNREADABLE:  # none of these
            held.clear()
    if "x_train" not in held or _digest(held) != content:
        raise DataError(
            f"{folder}: found other data there, expected those that are given; give another "
            "folder, or remove it"
        )


def _file_of(array: Array) -> Path | None:
    """The ``.npy`` file that a memory map shows, all of it and as it is; None of other arrays."""
    if not isinstance(array, np.memmap) or array.filename is None or array.mode == "c":
        return None
    is_as_read = array.flags.c_contiguous and torch_dtype(array.dtype) == array.dtype
    try:
        whole = np.load(array.filename, mmap_mode="r", allow_pickle=False)
    except UNREADABLE:  # a map of plain numbers
        return None

    # a part of the map that is as large, in the same order, is all of it
    is_whole = (whole.shape, whole.dtype) == (array.shape, array.dtype)
    return Path(array.filename).resolve() if is_as_read and is_whole else None


def _digest(arrays: Mapping[str, Array]) -> str:
    """What a folder of these arrays is called."""
    digest = hashlib.sha256()
    for part in PARTS:
        if f"x_{part}" in arrays:
            x = arrays[f"x_{part}"]
            dtype = torch_dtype(x.dtype)
            digest.update(npy_header(dtype.str, x.shape))
            for block in _blocks(x):
                digest.update(np.ascontiguousarray(block, dtype).data)
        for name in (f"y_{part}", f"groups_{part}"):
            if name in arrays:
                digest.update(sha256_array(arrays[name]).encode())

    if "class_names" in arrays:
        digest.update(json.dumps(arrays["class_names"].tolist()).encode())
    return digest.hexdigest()[:32]


def _blocks(x: Array) -> Iterator[Array]:
    """The rows of an array, some at a time; of a file they are read, not mapped, see ``rows``."""
    size = max(1, _CHUNK_BYTES // max(1, x[:1].nbytes))
    file = _file_of(x)
    if file is None or not isinstance(x, np.memmap):
        for start in range(0, len(x), size):
            yield x[start : start + size]
        return

    with environment("read", file), file.open("rb") as stream:
        stream.seek(x.offset)
        for start in range(0, len(x), size):
            rows = x[start : start + size]
            yield np.fromfile(stream, x.dtype, rows.size).reshape(rows.shape)


def _cache() -> Path:
    cache = os.environ.get("GPED_CACHE") or platformdirs.user_cache_dir("gped-nas")
    return Path(cache) / "brought"


def classes_of(data: object) -> list[str]:
    """The names of classes that a dataset of torchvision has."""
    data = getattr(data, "dataset", data)
    classes = getattr(data, "classes", ())
    is_text = isinstance(classes, list | tuple) and all(isinstance(c, str) for c in classes)
    return list(classes) if is_text and len(set(classes)) == len(classes) else []


@contextlib.contextmanager
def _building(root: Path) -> Iterator[Path]:
    """A new folder in ``root``, which is gone afterwards."""
    building = make_dir(root) / f".building-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    try:
        yield make_dir(building)
    finally:
        shutil.rmtree(building, ignore_errors=True)
