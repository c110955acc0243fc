"""Which settings suit arrays by name, whether they lie in an npz or in ``.npy`` files."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gped_nas.data.labels import look_real
from gped_nas.data.rows import chunks
from gped_nas.data.stored import AnyArray, StoredArray, in_memory


def suggest_for(arrays: Mapping[str, AnyArray], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of arrays by name, those that are given among them.

    Labels that are not whole are real numbers. Classes are stratified, columns and channels are
    normalized by themselves, and missing numbers of tables are filled in.

    Args:
        arrays: ``x_train`` and ``y_train``, and others of an npz.
        given: settings that the user said.
    """
    shape = arrays["x_train"].shape
    is_table = len(shape) == 2
    settings: dict[str, Any] = {}

    if "task" not in given and look_real(in_memory(arrays["y_train"])):
        settings["task"] = "regression"
    if {**settings, **given}.get("task") != "regression":
        settings["split"] = "stratified"

    settings["normalize"] = "columns" if is_table else "channels"
    is_by_column = {**settings, **given}["normalize"] == "columns"
    if is_by_column and any(_lacks_numbers(arrays[name]) for name in arrays if name[0] == "x"):
        settings["missing"] = "impute"
    if len(shape) == 4:
        settings["layout"] = "channels_first" if has_channels_first(shape) else "channels_last"
    return settings | dict(given)


def has_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape looks like pictures whose channels come first."""
    return len(shape) == 4 and shape[1] <= 4 < shape[3]


def _lacks_numbers(x: AnyArray) -> bool:
    """Whether a table has NaN."""
    if x.dtype.kind != "f" or x.ndim != 2:
        return False
    if isinstance(x, StoredArray):
        rows = x.rows(is_channels_last=False)
        return any(bool(chunk.isnan().any()) for chunk in chunks(rows))
    return bool(np.isnan(x).any())
