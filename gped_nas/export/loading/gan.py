"""Of codec ``gan``."""

from typing import Any

import torch
from torch import Generator, Tensor


def decode(tensors: dict[str, Tensor], about: Any, num: int, generator: Generator) -> Tensor:
    """Draws (num, W): places along a chain's directions, and a spread for each weight."""
    chains = torch.multinomial(tensors["share"], num, replacement=True, generator=generator)
    x = torch.randn(num, tensors["factor"].shape[1], generator=generator)
    noise = torch.randn(num, tensors["mean"].shape[1], generator=generator)
    theta = noise * tensors["std"][chains] + tensors["mean"][chains]
    width, at = about["settings"]["width"], 0
    for chain, factor in enumerate(tensors["factor"]):
        here = moved = x[chains == chain]
        if "network" in tensors:
            flat, at = tensors["network"][chain], 0
            for layer, size in enumerate([width, width, width, len(factor)]):
                end = at + size * moved.shape[1]
                weight, bias = flat[at:end].view(size, -1), flat[end : end + size]
                moved = torch.nn.functional.linear(moved, weight, bias)
                moved, at = moved.relu() if layer < 3 else here + moved, end + size
        theta[chains == chain] += moved @ factor
    return theta
