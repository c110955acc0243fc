"""Data that somebody has in Python, as arrays by the names that they have in an npz."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.archives import torch_dtype
from gped_nas.data.named_arrays import check_names, check_not_empty
from gped_nas.data.suggested import has_channels_first
from gped_nas.errors import DataError
from gped_nas.io import Array, npy_header, write_file

PARTS = ("train", "val", "test", "pool")


class Gatherer:
    """Collects the parts of a dataset.

    Attributes:
        arrays: by name, in the order of parts; of a tensor and of a memory map nothing is copied.
        layout: where pictures have their channels; empty where inputs have no such axis.
    """

    def __init__(self, folder: Path) -> None:
        """Examples of datasets are written to a folder, one after the other."""
        self.arrays: dict[str, Array] = {}
        self.layout = ""
        self._folder = folder

    def add(self, part: str, source: object) -> None:
        """A part: ``(x, y)``, a dataset of examples, or inputs alone if it is the pool.

        A mapping of arrays by name may bring all parts at once.

        Raises:
            DataError: it is none of these, or cannot be read.
        """
        if isinstance(source, Mapping) and part == "train":
            self._add_named(source)
        elif part == "pool" and _is_array(source):
            self._set("x_pool", source)
        elif _is_pair(source):
            self._set(f"x_{part}", source[0])  # type: ignore[index]
            self._set_labels(part, source[1])  # type: ignore[index]
        else:
            self._add_examples(part, source)

    def add_class_names(self, names: list[str]) -> None:
        """The names of classes, in the order of class numbers."""
        self._set("class_names", names)

    def check(self) -> None:
        """Raise ``DataError`` unless there are examples, with as many labels as inputs."""
        check_names(list(self.arrays), "data")
        for name, array in self.arrays.items():
            if not array.ndim:
                raise DataError(f"data: {name}: found one value, expected one an example")
            check_not_empty(array.shape, name, "data")
            kind, _, part = name.partition("_")
            if kind == "x" and array.dtype.kind not in "biuf":
                raise DataError(
                    f"data: {name}: found {array.dtype}, expected numbers; encode inputs as numbers"
                )
            num = len(self.arrays[f"x_{part}"]) if kind in ("y", "groups") else len(array)
            if len(array) != num:
                raise DataError(
                    f"{part}: found {len(array)} {'labels' if kind == 'y' else kind} for {num} "
                    "inputs, expected one each; check that both come from the same examples"
                )

    def _add_named(self, arrays: Mapping[Any, object]) -> None:
        check_names([str(name) for name in arrays], "data")
        for name, values in arrays.items():
            self._set(str(name), values)

    def _set(self, name: str, values: object) -> None:
        """Take an array, and see where its pictures have their channels."""
        if name in self.arrays:
            raise DataError(f"data: found {name} twice; give it once")
        array = self.arrays[name] = as_array(values, name)
        if name == "x_train" and array.ndim == 4:
            is_first = has_channels_first(array.shape) or (
                isinstance(values, Tensor) and array.shape[1] <= 4
            )
            self.layout = "channels_first" if is_first else "channels_last"

    def _set_labels(self, part: str, labels: object) -> None:
        if part != "pool":
            self._set(f"y_{part}", labels)

    def _add_examples(self, part: str, source: object) -> None:
        """Examples of a dataset, or of a loader's dataset, one after the other."""
        dataset: Any = getattr(source, "dataset", source)
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise DataError(
                f"{part}: found {type(source).__name__}, expected (x, y) arrays, a mapping of the "
                "arrays of an npz, a path, or a torch Dataset with a length; bring its examples as "
                "arrays"
            )
        if not len(dataset):
            raise DataError(f"{part}: found no example, expected some")

        examples = _Examples(dataset, part)
        inputs = examples.inputs()
        first = next(inputs)
        path = self._folder / f"x_{part}.npy"
        write_rows(path, chain([first[None]], (x[None] for x in inputs)), len(dataset))

        self._set(f"x_{part}", np.load(path, mmap_mode="r", allow_pickle=False))
        self._set_labels(part, examples.labels)
        if part == "train" and first.ndim == 3:
            shape = self.arrays["x_train"].shape
            is_first = has_channels_first(shape) or (examples.are_tensors and shape[1] <= 4)
            self.layout = "channels_first" if is_first else "channels_last"


class _Examples:
    """The examples of a dataset, each read once and in order.

    Attributes:
        labels: of those that were read.
        are_tensors: whether inputs are tensors of torch, which have their channels first.
    """

    def __init__(self, dataset: Any, part: str) -> None:
        self.labels: list[Any] = []
        self.are_tensors = False
        self._dataset, self._part = dataset, part

    def inputs(self) -> Iterator[Array]:
        """The inputs, all of one shape and dtype.

        Raises:
            DataError: they are not, or the first one is another one each time.
        """
        first = self._read(0)
        if not np.array_equal(first, self._read(0), equal_nan=first.dtype.kind == "f"):
            raise DataError(
                f"{self._part}: found two versions of its first example, expected one; leave out "
                "transforms that draw, such as random flips, and say them as views of the space"
            )

        self.labels.clear()
        for place in range(len(self._dataset)):
            x = self._read(place)
            if x.shape != first.shape or x.dtype != first.dtype:
                raise DataError(
                    f"{self._part}: found an input {x.shape} of {x.dtype} at place {place}, "
                    f"expected {first.shape} of {first.dtype} as at the first; bring all to one "
                    "shape"
                )
            yield x

    def _read(self, place: int) -> Array:
        """An input, whose label is noted."""
        example = self._dataset[place]
        if isinstance(example, tuple | list) and len(example) == 2:
            x, y = example
        elif self._part == "pool":
            x, y = example, 0
        else:
            raise DataError(
                f"{self._part}: found {type(example).__name__} at place {place}, expected (input, "
                "label) pairs; give a Dataset of such pairs"
            )
        is_number = isinstance(y, Tensor) and y.numel() == 1
        self.labels.append(y.item() if is_number else as_array(y, f"label {place}"))
        self.are_tensors = isinstance(x, Tensor)
        return np.ascontiguousarray(as_array(x, f"input {place}"))


def write_rows(path: Path, blocks: Iterator[Array], num: int) -> None:
    """Write an ``.npy`` of ``num`` rows that come some at a time, in a dtype that torch has."""
    first = next(blocks)
    dtype = torch_dtype(first.dtype)

    def write(file: Any) -> None:
        file.write(npy_header(dtype.str, (num, *first.shape[1:])))
        for block in chain([first], blocks):
            file.write(np.ascontiguousarray(block, dtype).data)

    write_file(path, write)


def as_array(values: object, name: str) -> Array:
    """A tensor, an array, a picture, or lists of numbers or text as an array.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        # numpy lacks it
        return values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()
    try:
        array = values if isinstance(values, np.memmap) else np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise DataError(f"{name}: no array can be made of it ({error}); give arrays") from None
    if array.dtype.kind == "O":
        raise DataError(
            f"{name}: found {type(values).__name__} that holds objects, expected numbers or text; "
            "convert it with numpy.asarray and a dtype"
        )
    return array


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray | Tensor)


def _is_pair(source: object) -> bool:
    """Whether it is inputs and their labels, not two examples of input and label each."""
    if not isinstance(source, tuple | list) or len(source) != 2:
        return False
    return not all(isinstance(example, tuple) and len(example) == 2 for example in source)
