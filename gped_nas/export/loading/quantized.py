"""Of codec ``quantized``."""

import math
from typing import Any

import torch
from torch import Generator, Tensor


def decode(tensors: dict[str, Tensor], about: Any, num: int, generator: Generator) -> Tensor:
    """The networks (S, W) that are stored: whole numbers times the scale of their row."""
    settings, steps, parts, at, row, one = about["settings"], tensors["steps"], [], 0, 0, 0
    if settings["bits"] == 4:  # two in a byte, the first in its lower half
        steps = torch.stack([steps & 15, steps >> 4], -1).flatten(1).char() - 8
    means = tensors.get("mean", torch.zeros(1, steps.shape[1]))
    mean = means[torch.arange(len(steps)) % len(means)]  # of the chain of each
    for _, shape in about["shapes"]:
        size, rows = math.prod(shape), shape[0] if settings["scales"] == "row" else 1
        if len(shape) == 1:  # biases are as they are
            parts.append(tensors["rest"][:, one : one + size])
            one += size
            continue
        scale = tensors["scale"][:, row : row + rows].repeat_interleave(size // rows, 1)
        parts.append(steps[:, at : at + size] * scale + mean[:, at : at + size])
        at, row = at + size, row + rows
    return torch.cat(parts, 1)
