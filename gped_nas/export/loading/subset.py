"""Of codec ``subset``."""

from typing import Any

from torch import Generator, Tensor


def decode(tensors: dict[str, Tensor], about: Any, num: int, generator: Generator) -> Tensor:
    """The networks (S, W) that are stored."""
    return tensors["theta"]
