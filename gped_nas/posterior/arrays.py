"""Arrays of an ensemble's predictions, from npz, safetensors or shards, and their rounding."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.archives import UNREADABLE, check_archive, reason_of, torch_dtype
from gped_nas.errors import DataError
from gped_nas.io import Array, environment
from gped_nas.models.storage import read_tensors
from gped_nas.posterior.shards import MANIFEST, NAMES, Shards

_READ = ("inputs", "prob", "log_prob", "weight", "origin")
"""Arrays that are looked at; others that lie beside them are nobody's business."""
_LEAST_SLACK, _MOST_SLACK = 1e-3, 0.5
_DECIMALS = (2, 3, 4)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of an ensemble's predictions that are there, by name.

    Raises:
        DataError: not a readable file, or one of them holds no numbers.
        DamageError: a shard is not what was written.
        EnvironmentProblem: it cannot be read.
    """
    if is_folder_of_shards(path):
        return _read_shards(path)
    if path.suffix != ".npz":
        tensors = read_tensors(path)
        return {name: tensors[name] for name in _READ if name in tensors}

    with environment("read", path):
        data = io.BytesIO(path.read_bytes())
    check_archive(data, path)

    arrays: dict[str, Array] = {}
    name = ""
    try:
        with np.load(data, allow_pickle=False) as file:
            for name in file.files:
                if name in _READ:
                    arrays[name] = file[name]
    except UNREADABLE as error:
        of = f"{name}: " if name else ""
        raise DataError(
            f"{path}: {of}not a readable npz of plain arrays ({reason_of(error)}); write it "
            "again with numpy.savez, and no objects"
        ) from None
    return {name: _to_tensor(array, f"{path}: {name}") for name, array in arrays.items()}


def is_folder_of_shards(path: Path) -> bool:
    """Whether a path is a folder that ``record_predictions`` wrote, whole or damaged."""
    return path.is_dir() and (path / MANIFEST).exists()


def _read_shards(folder: Path) -> dict[str, Tensor]:
    shards = Shards(folder)
    arrays = {name: torch.from_numpy(shards.joined(name)) for name in NAMES}
    return {**arrays, "weight": torch.from_numpy(np.array(shards.weight()))}


def _to_tensor(array: Array, where: str) -> Tensor:
    if not isinstance(array, np.ndarray):
        raise DataError(f"{where}: found bytes that are not an array; write it with numpy.savez")
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: found dtype {array.dtype}, expected real numbers; convert it with astype"
        )
    return torch.from_numpy(np.ascontiguousarray(array, torch_dtype(array.dtype)))


def rounding_slack(values_SMC: Tensor, *, is_log: bool) -> float:
    """By how much probabilities of one input may miss a sum of 1 for how they were rounded.

    Numbers with two to four decimals were written as text: each of C probabilities is off by half
    of the last one, or each logarithm.

    Args:
        values_SMC: probabilities or log-probabilities, as stored.
        is_log: which of them.
    """
    slack = max(_LEAST_SLACK, _step_of(values_SMC))
    finite = values_SMC[values_SMC.isfinite()].double()
    for decimals in _DECIMALS:
        scaled = finite * 10**decimals
        if bool(((scaled - scaled.round()).abs() < 1e-3).all()):
            num = 1 if is_log else values_SMC.shape[-1]
            slack = max(slack, num * 0.5 * 10.0**-decimals)
            break
    return min(slack, _MOST_SLACK)


def _step_of(values: Tensor) -> float:
    """The relative distance of two numbers of the stored type."""
    return torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0
