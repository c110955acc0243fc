"""Weights on disk: one safetensors file, in float32, float16 or int8.

* ``float32``, ``float16``: every parameter in that type.
* ``int8``: a weight matrix is stored as ``round(w / scale)`` in [-127, 127] with one float32
  ``scale`` an output unit (the tensor ``<name>.scale``); biases stay float32, since they are few
  and enter every output.

Reading always gives float32 parameters: what a student computes with is what its file holds.
"""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gped_nas.errors import DataError
from gped_nas.io import environment, write_bytes
from gped_nas.models.base import Params, Shapes

_SCALE = ".scale"


def encode(params: Params, dtype: str) -> dict[str, Tensor]:
    """Tensors to store for float32 ``params``.

    Args:
        params: parameters by name.
        dtype: one of ``STORAGE_DTYPES``.
    """
    if dtype in ("float32", "float16"):
        torch_dtype = torch.float32 if dtype == "float32" else torch.float16
        return {name: p.detach().cpu().to(torch_dtype).contiguous() for name, p in params.items()}
    stored: dict[str, Tensor] = {}
    for name, p in params.items():
        p = p.detach().cpu().to(torch.float32)
        if p.dim() < 2:
            stored[name] = p.contiguous()
            continue
        rows = p.flatten(1)
        scale = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        stored[name] = (
            (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8).view_as(p).contiguous()
        )
        stored[name + _SCALE] = scale
    return stored


def decode(stored: Mapping[str, Tensor]) -> Params:
    """Float32 parameters from stored tensors, in the order of their names' layers."""
    params: Params = {}
    for name in sorted(stored, key=_natural):
        if name.endswith(_SCALE):
            continue
        tensor = stored[name].to(torch.float32)
        if name + _SCALE in stored:
            tensor = tensor * stored[name + _SCALE].view(-1, *[1] * (tensor.dim() - 1))
        params[name] = tensor
    return params


def _natural(name: str) -> list[tuple[int, int, str]]:
    # weights and gains before biases within a layer, layers by number: the order of the family's
    # shapes
    parts = [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in name.split(".")]
    parts[-1] = (
        1,
        0,
        {"weight": "0", "gain": "1", "bias": "2"}.get(name.rsplit(".", 1)[-1], parts[-1][2]),
    )
    return parts


def serialize(params: Params, dtype: str) -> bytes:
    """The bytes of the weights file."""
    return safetensors.torch.save(encode(params, dtype))


def write_weights(path: Path, params: Params, dtype: str) -> int:
    """Write the weights file and return its size in bytes."""
    data = serialize(params, dtype)
    write_bytes(path, data)
    return len(data)


def read_weights(path: Path) -> Params:
    """Float32 parameters of a weights file.

    Raises:
        DataError: missing or not a safetensors file.
        EnvironmentProblem: it cannot be read.
    """
    return decode(read_tensors(path))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file as stored.

    Raises:
        DataError: missing or not a safetensors file.
        EnvironmentProblem: it cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a safetensors file")
    try:
        with environment("read", path):
            return safetensors.torch.load(path.read_bytes())
    except SafetensorError as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from None


def storage_bytes(shapes: Shapes, dtype: str) -> int:
    """Size of the weights file of parameters of these shapes, exactly, without writing it."""
    return len(serialize({name: torch.zeros(shape) for name, shape in shapes.items()}, dtype))
