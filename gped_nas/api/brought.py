"""Data that a user has in memory or as a torch dataset, written as the npz that spaces read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.sources import suggest_settings
from gped_nas.errors import DataError
from gped_nas.io import Array, make_dir, write_file

FILE = "data.npz"


@dataclass(frozen=True)
class Brought:
    """A user's data, as a space names them.

    Attributes:
        settings: of the dataset.
        has_channels_last: whether the user's pictures have their channels last; None where they
            have no axis of channels.
    """

    settings: dict[str, object]
    has_channels_last: bool | None

    def as_user_has(self, raw: Tensor) -> Tensor:
        """Raw inputs of the dataset (B, *input_shape) in the layout that the user's have."""
        if self.has_channels_last is None:
            return raw.squeeze(1) if raw.dim() == 4 else raw
        return raw.movedim(1, -1) if self.has_channels_last else raw


def bring(data: object, folder: Path) -> Brought:
    """Data as settings of a dataset; what lies in memory is written to a folder.

    Args:
        data: ``(x, y)``, a mapping of the arrays of an npz, a torch dataset of such pairs, a path,
            or settings of a dataset as ``as_dataset`` gives them.
        folder: where arrays are written.

    Raises:
        DataError: it is none of these, or its items are no pairs of numbers of one shape.
        EnvironmentProblem: it cannot be read or written.
    """
    if isinstance(data, str | Path):
        return _describe(suggest_settings(Path(data), {}))
    if isinstance(data, Mapping) and "name" in data:
        return _describe(dict(data))

    arrays: dict[str, Any] = dict(_arrays(data))
    path = make_dir(folder) / FILE
    write_file(path, lambda file: np.savez(file, **arrays))
    return _describe(suggest_settings(path, {}))


def _describe(settings: dict[str, object]) -> Brought:
    if settings["name"] not in ("npz", "npy"):
        return Brought(settings, False)  # tables, and images as torch has them
    layout = settings.get("layout")
    return Brought(settings, None if layout is None else layout == "channels_last")


def _arrays(data: object) -> dict[str, Array]:
    if isinstance(data, Mapping):
        return {str(name): _array(values) for name, values in data.items()}
    if isinstance(data, tuple | list) and len(data) == 2:
        x, y = data
        return {"x_train": _array(x), "y_train": _array(y)}
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _items(data)
    raise DataError(
        f"data: found {type(data).__name__}, expected (x, y), a mapping of the arrays of an npz, a "
        "torch dataset of pairs, or a path"
    )


def _items(dataset: Any) -> dict[str, Array]:
    """The items of a torch dataset, each once and in order."""
    inputs, labels = [], []
    for i in range(len(dataset)):
        item = dataset[i]
        if not (isinstance(item, Sequence) and len(item) == 2):
            raise DataError(
                f"data: item {i} is {type(item).__name__}, expected a pair of input and label"
            )
        inputs.append(_array(item[0]))
        labels.append(_array(item[1]))

        if inputs[i].shape != inputs[0].shape:
            raise DataError(
                f"data: item {i} has shape {inputs[i].shape}, expected {inputs[0].shape} as the "
                "first one has; crop or resize inputs to one shape"
            )
    if not inputs:
        raise DataError("data: found no item in the dataset, expected pairs of input and label")
    return {"x_train": np.stack(inputs), "y_train": np.stack(labels)}


def _array(values: object) -> Array:
    """Numbers or text as an array.

    Raises:
        DataError: they are neither.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        wide = values.float() if values.dtype == torch.bfloat16 else values
        return wide.numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise DataError(f"data: no array can be made of it ({error}); give arrays") from None
    if array.dtype.kind == "O":
        raise DataError(
            f"data: found {type(values).__name__} that holds objects, expected numbers or text; "
            "convert it with numpy.asarray and a dtype"
        )
    return array
