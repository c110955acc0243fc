"""Weights on disk: one safetensors file, in float32, float16 or int8.

* ``float32``, ``float16``: every parameter in that type.
* ``int8``: a weight matrix is stored as ``round(w / scale)`` in [-127, 127] with one float32
  ``scale`` an output unit (the tensor ``<name>.scale``); biases stay float32, since they are few
  and enter every output.

Reading always gives float32 parameters: what a student computes with is what its file holds.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gped_nas.errors import DamageError, DataError
from gped_nas.io import environment, write_bytes
from gped_nas.models.base import Params, Shapes

_SCALE = ".scale"
_MAX_HEADER_BYTES = 2**24


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
        else:
            stored[name], stored[name + _SCALE] = _quantize(p)
    return stored


def _quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (outputs, ...) as int8 numbers of its shape and their scale (outputs,)."""
    rows = weight.flatten(1)
    # the scale of a row of zeros must not be zero
    scale = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    steps = (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return steps.view_as(weight).contiguous(), scale


def decode(stored: Mapping[str, Tensor], where: object = "weights") -> Params:
    """Float32 parameters from stored tensors, in the order of their names' layers.

    Args:
        stored: as ``encode`` gave them.
        where: file that they are of, for messages.

    Raises:
        DamageError: a scale does not fit its weight.
    """
    params: Params = {}
    for name in sorted(stored, key=_natural_order):
        # a user's network may have a parameter of that name
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in stored:
            continue
        tensor = stored[name].to(torch.float32)
        if name + _SCALE in stored:
            scale = stored[name + _SCALE]
            if scale.shape != tensor.shape[:1]:
                raise DamageError(
                    f"{where}: {name}{_SCALE}: found shape {tuple(scale.shape)}, expected "
                    f"{tuple(tensor.shape[:1])}, one for each output unit"
                )
            other_axes = [1] * (tensor.dim() - 1)
            tensor = tensor * scale.view(-1, *other_axes)
        params[name] = tensor
    return params


def _natural_order(name: str) -> list[tuple[int, int, str]]:
    """The sort key that gives the order of the family's shapes.

    Layers go by number; within a layer, weights and gains come before biases.
    """
    *layers, kind = name.split(".")
    key = [(0, int(part), "") if _is_number(part) else (1, 0, part) for part in layers]

    text = "" if _is_number(kind) else kind
    rank = {"weight": "0", "gain": "1", "bias": "2"}.get(kind, text)
    return [*key, (1, 0, rank)]


def _is_number(part: str) -> bool:
    """Whether a part of a name counts layers; a file may have names of any length and content."""
    return part.isascii() and part.isdecimal() and len(part) <= 9


def serialize(params: Params, dtype: str) -> bytes:
    """The bytes of the weights file."""
    return safetensors.torch.save(encode(params, dtype))


def write_weights(path: Path, params: Params, dtype: str) -> int:
    """Write the weights file and return its size in bytes."""
    data = serialize(params, dtype)
    write_bytes(path, data)
    return len(data)


def parse_weights(data: bytes, path: Path) -> Params:
    """Float32 parameters of the bytes of a weights file.

    Raises:
        DamageError: not a safetensors file of weights; ``path`` is named.
    """
    return decode(parse_tensors(data, path), path)


def read_weights(path: Path) -> Params:
    """Float32 parameters of a weights file.

    Raises:
        DataError: missing.
        DamageError: not a safetensors file of weights.
        EnvironmentProblem: it cannot be read.
    """
    return parse_weights(read_bytes(path), path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file as stored.

    Raises:
        DataError: missing.
        DamageError: not a safetensors file.
        EnvironmentProblem: it cannot be read.
    """
    return parse_tensors(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """The bytes of a weights file.

    Raises:
        DataError: missing.
        DamageError: it is larger than its header says, perhaps by more than fits into memory.
        EnvironmentProblem: it cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a safetensors file")
    with environment("read", path), path.open("rb") as file:
        data = file.read(_MAX_HEADER_BYTES)
        expected = _size_of(data)
        size = os.fstat(file.fileno()).st_size
        if size > len(data) and size > expected:
            raise DamageError(
                f"{path}: found {size} bytes, its header says {expected}; restore it from a copy"
            )
        return data + file.read()


def _size_of(beginning: bytes) -> int:
    """Size of the safetensors file that begins so; 0 where its header is not readable."""
    num = int.from_bytes(beginning[:8], "little")
    try:
        header = json.loads(beginning[8 : 8 + num])
        header.pop("__metadata__", None)
        ends = [int(entry["data_offsets"][1]) for entry in header.values()]
        return 8 + num + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return 0


def parse_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file, as stored.

    Raises:
        DamageError: not a safetensors file; ``path`` is named.
    """
    try:
        return safetensors.torch.load(data)
    # a type of number that torch lacks is a KeyError, a size beyond 64 bits a TypeError
    except (SafetensorError, KeyError, TypeError) as error:
        raise DamageError(
            f"{path}: not a readable safetensors file ({error}); restore it from a copy"
        ) from None


def storage_bytes(shapes: Shapes, dtype: str) -> int:
    """Size of the weights file of parameters of these shapes, exactly, without writing it."""
    return len(serialize({name: torch.zeros(shape) for name, shape in shapes.items()}, dtype))
