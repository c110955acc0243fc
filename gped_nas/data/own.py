"""``npz``: a dataset of the user's own, one file of plain arrays as ``numpy.savez`` writes it.

* ``x_train``: (N, D) vectors, (N, height, width) or (N, height, width, channels) images; integers
  or floats.
* ``y_train``: (N,) labels, integers or text, see ``labels``; with ``task: regression`` real numbers
  in a unit of your own.
* ``x_test``, ``x_val``: as ``x_train``, of the same dtype and shape of one input; without them a
  test part and a validation part are carved.
* ``y_test``, ``y_val``: as ``y_train``; each comes with its inputs.
* ``x_pool``: as ``x_train``: unlabeled inputs that students may be distilled on.
* ``groups_train``, ``groups_val``, ``groups_test``: (N,) whole numbers or text: examples of one
  group are kept together where parts are carved.
* ``class_names``: (C,) text, one name a class; without it the training labels are the names.

Every array but the first two is optional. Pickled data is never read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, FiniteFloat
from torch import Tensor

from gped_nas.config import Config, parse
from gped_nas.data.archives import torch_dtype
from gped_nas.data.base import DATASETS, Dataset, Task, build
from gped_nas.data.groups import number_groups
from gped_nas.data.labels import number_classes
from gped_nas.data.named_arrays import GROUPS, read_arrays
from gped_nas.data.normalization import Missing, Normalize
from gped_nas.data.rows import chunks
from gped_nas.data.splits import Split, SplitRule
from gped_nas.data.stored import AnyArray, StoredArray, in_memory
from gped_nas.data.suggested import has_channels_first
from gped_nas.errors import DataError
from gped_nas.io import Array

Layout = Literal["auto", "channels_last", "channels_first"]
_LARGEST = 1e30


class ArraySettings(Config):
    """Settings of every dataset that is made of arrays."""

    task: Task = Field(
        "classification", description="what labels are: class numbers or real numbers"
    )
    validation: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="fraction of the training part carved for validation if there is no x_val",
    )
    test: float = Field(
        0.2, gt=0, lt=1, description="fraction carved for the test part if there is no x_test"
    )
    seed: int = Field(0, ge=0, description="seed of the splits")
    missing: Missing = Field(
        "refuse", description="what becomes of NaN in a table: refused, or filled in and flagged"
    )
    layout: Layout = Field(
        "auto",
        description="where pictures (N, ., ., .) have their channels; last unless it is said",
    )
    value_range: Annotated[tuple[FiniteFloat, FiniteFloat] | None, Field(strict=False)] = Field(
        None,
        description="smallest and largest value that a picture can have, of which a radius is a "
        "share; 0 and 255 of bytes, and those of the training part of other numbers, if not said",
    )


class NpzSettings(ArraySettings):
    """Settings of ``npz``."""

    name: Literal["npz"]
    path: str = Field(
        min_length=1, description="the .npz file; a relative path starts at the current directory"
    )
    split: SplitRule = Field(
        "random",
        description="how parts are carved; stratified ones have the same fraction of each class",
    )
    normalize: Normalize = Field(
        "whole",
        description="what shares one mean and deviation: the whole input, each of the columns of a "
        "table, or each of the channels of pictures",
    )


@DATASETS.register("npz")
def load_npz(settings: dict[str, object], where: str) -> Dataset:
    """The user's arrays as a dataset.

    Inputs become (D,), (1, height, width) or (channels, height, width).

    Raises:
        ConfigError: settings it does not take.
        DataError: the file or one of its arrays cannot be used; names the file, the array and the
            way out.
        EnvironmentProblem: the file exists and cannot be opened.
    """
    cfg = parse(NpzSettings, settings, where)
    # One mean for the whole came first: of what is read whole, its last bits stay what they were.
    arrays = read_arrays(Path(cfg.path), stays_stored=cfg.normalize != "whole")
    return dataset_of(
        cfg, arrays, name=cfg.name, path=cfg.path, normalize=cfg.normalize, rule=cfg.split
    )


def dataset_of(
    cfg: ArraySettings,
    arrays: Mapping[str, AnyArray],
    *,
    name: str,
    path: str,
    normalize: Normalize,
    rule: SplitRule,
) -> Dataset:
    """Arrays by name as a dataset.

    Args:
        cfg: what is said of them.
        arrays: those of the module; large inputs may be in their file.
        name: the registered name.
        path: of the file or folder, for messages.
        normalize: what shares one mean and deviation.
        rule: how parts are carved.

    Raises:
        DataError: an array cannot be used.
    """
    class_names: tuple[str, ...] = ()
    if cfg.task == "classification":
        names = _class_names(arrays, path)
        labels, class_names = number_classes(_labels(arrays), names, path)
    else:
        labels = _real_labels(arrays, path)

    groups = number_groups(
        {name: np.asarray(arrays[name]) for name in GROUPS if name in arrays}, path
    )

    def part(part_name: str, default: float) -> Split | float:
        if f"x_{part_name}" not in arrays:
            return default
        inputs = _inputs(arrays, f"x_{part_name}", path, cfg)
        return Split(inputs, labels[f"y_{part_name}"], groups.get(f"groups_{part_name}"))

    unlabeled = None
    if "x_pool" in arrays:
        unlabeled = _inputs(arrays, "x_pool", path, cfg)

    _check_characters(class_names, path)
    return build(
        name,
        Split(
            _inputs(arrays, "x_train", path, cfg),
            labels["y_train"],
            groups.get("groups_train"),
        ),
        class_names=class_names,
        test=part("test", cfg.test),
        validation=part("val", cfg.validation),
        seed=cfg.seed,
        where=path,
        unlabeled=unlabeled,
        normalize=normalize,
        rule=rule,
        missing=cfg.missing,
        value_range=cfg.value_range,
    )


def _inputs(arrays: Mapping[str, AnyArray], name: str, path: str, cfg: ArraySettings) -> Tensor:
    """Raw inputs (N, *input_shape), channel first, of the array's own dtype where torch has it."""
    x = arrays[name]
    if x.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: {name}: found dtype {x.dtype}, expected integers or floats; convert it with "
            "astype"
        )

    is_last = _has_channels_last(x.shape, cfg.layout, f"{path}: {name}")
    if isinstance(x, StoredArray):
        rows = x.rows(is_channels_last=is_last)
        start = 0
        for chunk in chunks(rows) if x.dtype.kind == "f" else ():
            _check_finite(chunk.numpy(), start, f"{path}: {name}", cfg.missing)
            start += len(chunk)
        return rows

    if x.dtype.kind == "f":
        _check_finite(x, 0, f"{path}: {name}", cfg.missing)
    if x.ndim == 3:
        x = x[:, None]
    elif is_last:
        x = x.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(x, torch_dtype(x.dtype)))


def _check_finite(x: Array, start: int, label: str, missing: Missing) -> None:
    """Refuse numbers that are no use; ``start`` rows come before these."""
    # a NaN compares as false, so it is asked what is not within the bound
    with np.errstate(over="ignore"):
        is_wrong = ~(np.abs(x.astype(np.float32)) <= _LARGEST)
    is_missing = np.isnan(x) if x.ndim == 2 else np.zeros_like(is_wrong)
    if missing == "impute":
        is_wrong &= ~is_missing
    if is_wrong.any():
        row, *place = np.unravel_index(int(is_wrong.argmax()), is_wrong.shape)
        index = tuple(int(i) for i in (row + start, *place))
        impute = "set dataset.missing: impute, " if (is_wrong == is_missing).all() else ""
        raise DataError(
            f"{label}: found {int(is_wrong.sum())} values that are NaN, infinite or beyond "
            f"{_LARGEST:g}, the first at index {index}, expected finite numbers; {impute}"
            "remove those examples or fill them in"
        )


def _has_channels_last(shape: tuple[int, ...], layout: Layout, label: str) -> bool:
    """Whether inputs are pictures whose channels come last.

    Raises:
        DataError: they are no inputs, or nobody can tell.
    """
    if len(shape) not in (2, 3, 4):
        raise DataError(
            f"{label}: found shape {shape}, expected (N, D), (N, height, width) or "
            "(N, height, width, channels); use reshape"
        )
    if layout != "auto" and len(shape) != 4:
        raise DataError(
            f"{label}: found shape {shape} and layout: {layout}, expected pictures with "
            "channels; remove layout"
        )
    if layout == "auto" and has_channels_first(shape):
        raise DataError(
            f"{label}: found shape {shape}, which looks channel first, expected "
            "(N, height, width, channels); set dataset.layout: channels_first, or channels_last "
            "if it is so"
        )
    return len(shape) == 4 and layout != "channels_first"


def _labels(arrays: Mapping[str, AnyArray]) -> dict[str, Array]:
    """The arrays of labels that are there, those of training first."""
    labels = {}
    for name in ("y_train", "y_val", "y_test"):
        if name in arrays:
            labels[name] = in_memory(arrays[name])
    return labels


def _real_labels(arrays: Mapping[str, AnyArray], path: str) -> dict[str, Tensor]:
    """Labels (N,) as float64; that they are finite is checked when the dataset is built."""
    if "class_names" in arrays:
        raise DataError(
            f"{path}: class_names: found beside task: regression, which has no classes; remove one "
            "of them"
        )

    labels = {}
    for name, y in _labels(arrays).items():
        if y.dtype.kind not in "iuf":
            raise DataError(
                f"{path}: {name}: found dtype {y.dtype}, expected real numbers; use "
                "astype('float64')"
            )
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 1:
            raise DataError(
                f"{path}: {name}: found shape {y.shape}, labels of several columns, expected (N,), "
                "one number an input; make a study of each column"
            )
        labels[name] = torch.from_numpy(y.astype(np.float64))
    return labels


def _class_names(arrays: Mapping[str, AnyArray], path: str) -> tuple[str, ...]:
    """The user's names of classes; none where there are none."""
    if "class_names" not in arrays:
        return ()

    names = in_memory(arrays["class_names"])
    is_text = names.dtype.kind == "U" and names.ndim == 1
    if not is_text or len(set(names.tolist())) != len(names):
        raise DataError(
            f"{path}: class_names: found {names.dtype} of shape {names.shape}, expected "
            "distinct text of shape (C,); give one name a class"
        )
    return tuple(names.tolist())


def _check_characters(names: tuple[str, ...], path: str) -> None:
    """Refuse a name that no page, file or terminal can hold."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{path}: class_names: found {name!r}, which holds half a surrogate pair, expected "
                "characters; write that name again"
            ) from None
