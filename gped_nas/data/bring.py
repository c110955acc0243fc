"""Data that somebody has in Python, as the settings of a dataset: arrays, or a torch ``Dataset``.

It is written once as ``.npy`` files, an example at a time, so that a study can go on in another
process, and so that data may be larger than memory.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from torch import Tensor

from gped_nas.data.archives import torch_dtype
from gped_nas.data.own import has_channels_first
from gped_nas.data.sources import suggest_settings
from gped_nas.errors import DataError
from gped_nas.io import Array, make_dir, npy_header, seal_dir, write_array, write_file

_PARTS = ("train", "val", "test", "pool")
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
        data: ``(x, y)`` arrays or tensors, memory maps too; a torch ``Dataset`` of such pairs, or a
            ``DataLoader`` of one, whose dataset is read in order; a path, see ``init --data``; or
            settings, which are returned as they are. Inputs are in your own range: bytes stay
            bytes.
        validation, test: likewise; parts of ``data`` are carved without them.
        pool: unlabeled inputs, or pairs whose labels are left out.
        class_names: in the order of class numbers; a dataset's own ``classes`` by default.
        folder: where the arrays are written; a folder in the cache, named after their content, by
            default. One that is there is not written again.
        settings: further settings of ``npy``: ``task``, ``layout``, ``split``, ``normalize``, ...

    Returns:
        Settings of ``npy``: ``{"name": "npy", "path": ...}``.

    Raises:
        DataError: it is none of these, examples differ in shape, or its first example is another
            one each time, as a transform that draws makes it.
        EnvironmentProblem: the disk refuses.
    """
    if isinstance(data, Mapping):
        return {**data, **settings}
    if isinstance(data, str | os.PathLike):
        return suggest_settings(Path(data), settings)

    root = _cache() if folder is None else Path(folder).parent
    building = make_dir(root) / f".building-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    make_dir(building)
    try:
        digest = hashlib.sha256()
        layouts = set()
        given = dict(zip(_PARTS, (data, validation, test, pool), strict=True))
        for part, source in given.items():
            if source is not None:
                writer = _Writer(building, part, digest, has_labels=part != "pool")
                layouts.add(writer.write(source))

        names = list(class_names) or _classes_of(data)
        if names:
            write_array(building / "class_names.npy", np.array(names))
            digest.update(json.dumps(names).encode())
        final = root / digest.hexdigest()[:32] if folder is None else Path(folder)
        seal_dir(building, final)
    finally:
        shutil.rmtree(building, ignore_errors=True)

    layout = {"layout": next(iter(layouts))} if layouts != {""} else {}
    return {"name": "npy", "path": str(final), **layout, **settings}


def _cache() -> Path:
    cache = os.environ.get("GPED_CACHE") or platformdirs.user_cache_dir("gped-nas")
    return Path(cache) / "brought"


def _classes_of(data: object) -> list[str]:
    """The names of classes that a dataset of torchvision has."""
    data = getattr(data, "dataset", data)
    classes = getattr(data, "classes", ())
    is_text = isinstance(classes, list | tuple) and all(isinstance(c, str) for c in classes)
    return list(classes) if is_text and len(set(classes)) == len(classes) else []


class _Writer:
    """Writes the inputs and labels of one part."""

    def __init__(self, folder: Path, part: str, digest: Any, *, has_labels: bool) -> None:
        self._folder, self._part, self._digest = folder, part, digest
        self._has_labels = has_labels

    def write(self, source: object) -> str:
        """Write it, and say where pictures have their channels; nothing of other inputs.

        Raises:
            DataError: it cannot be read.
        """
        if not self._has_labels and _is_array(source):
            source = (source, np.zeros(len(source), np.int64))  # type: ignore[arg-type]
        if isinstance(source, tuple | list) and len(source) == 2 and all(map(_is_array, source)):
            return self._write_arrays(*source)
        return self._write_examples(source)

    def _write_arrays(self, x: Any, y: Any) -> str:
        if len(x) != len(y):
            raise DataError(
                f"{self._part}: found {len(y)} labels for {len(x)} inputs, expected one each; "
                "check that both come from the same examples"
            )
        size = max(1, _CHUNK_BYTES // max(1, _plain(x[:1]).nbytes))
        blocks = (_plain(x[start : start + size]) for start in range(0, len(x), size))
        self._write_inputs(blocks, len(x))
        self._write_labels(_plain(y))
        if len(x.shape) != 4:
            return ""
        return "channels_first" if _is_first(tuple(x.shape), x) else "channels_last"

    def _write_examples(self, source: object) -> str:
        """Examples of a dataset, or of a loader's dataset, one after the other."""
        dataset: Any = getattr(source, "dataset", source)
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise DataError(
                f"{self._part}: found {type(source).__name__}, expected (x, y) arrays or a torch "
                "Dataset with a length; bring its examples as arrays"
            )
        if not len(dataset):
            raise DataError(f"{self._part}: found no example, expected some")

        labels: list[Any] = []
        first, _ = self._example(dataset, 0)
        again, _ = self._example(dataset, 0)
        if not np.array_equal(first, again, equal_nan=first.dtype.kind == "f"):
            raise DataError(
                f"{self._part}: found two versions of its first example, expected one; leave out "
                "transforms that draw, such as random flips, and say them as views of the space"
            )

        def examples() -> Iterator[Array]:
            for place in range(len(dataset)):
                x, y = self._example(dataset, place)
                if x.shape != first.shape or x.dtype != first.dtype:
                    raise DataError(
                        f"{self._part}: found an input {x.shape} of {x.dtype} at place {place}, "
                        f"expected {first.shape} of {first.dtype} as at the first; bring all to "
                        "one shape"
                    )
                labels.append(y)
                yield x[None]

        self._write_inputs(examples(), len(dataset))
        self._write_labels(np.array(labels))
        if first.ndim != 3:
            return ""
        is_first = _is_first((1, *first.shape), self._input(dataset, 0))
        return "channels_first" if is_first else "channels_last"

    def _input(self, dataset: Any, place: int) -> Any:
        example = dataset[place]
        return example[0] if isinstance(example, tuple | list) else example

    def _example(self, dataset: Any, place: int) -> tuple[Array, Any]:
        example = dataset[place]
        if isinstance(example, tuple | list) and len(example) == 2:
            x, y = example
        elif not self._has_labels:
            x, y = example, 0
        else:
            raise DataError(
                f"{self._part}: found {type(example).__name__} at place {place}, expected (input, "
                "label) pairs; give a Dataset of such pairs"
            )
        label = y.item() if isinstance(y, Tensor) else y
        return np.ascontiguousarray(_plain(x)), label

    def _write_inputs(self, blocks: Iterator[Array], num: int) -> None:
        first = next(blocks)
        dtype = torch_dtype(first.dtype)
        header = npy_header(dtype.str, (num, *first.shape[1:]))
        self._digest.update(header)

        def write(file: Any) -> None:
            file.write(header)
            for block in chain([first], blocks):
                data = np.ascontiguousarray(block, dtype).data
                self._digest.update(data)
                file.write(data)

        write_file(self._folder / f"x_{self._part}.npy", write)

    def _write_labels(self, labels: Array) -> None:
        if self._has_labels:
            path = self._folder / f"y_{self._part}.npy"
            self._digest.update(write_array(path, labels).encode())


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray | Tensor)


def _plain(value: Any) -> Array:
    """A tensor, an array or a picture as an array."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _is_first(shape: tuple[int, ...], x: object) -> bool:
    """Whether pictures (N, ., ., .) have their channels first, as tensors of torch do."""
    return has_channels_first(shape) or (isinstance(x, Tensor) and shape[1] <= 4)
