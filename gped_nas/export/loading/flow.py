"""Of codec ``flow``."""

import math
from typing import Any

import torch
from torch import Generator, Tensor


def decode(tensors: dict[str, Tensor], about: Any, num: int, generator: Generator) -> Tensor:
    """Draws (num, W): places along a chain's directions, and a spread for each weight."""
    chains = torch.multinomial(tensors["share"], num, replacement=True, generator=generator)
    x = torch.randn(num, tensors["factor"].shape[1], generator=generator)
    noise = torch.randn(num, tensors["mean"].shape[1], generator=generator)
    theta = noise * tensors["std"][chains] + tensors["mean"][chains]
    for chain, factor in enumerate(tensors["factor"]):
        flat, here = tensors.get("network"), x[chains == chain]
        here = here if flat is None else _follow(flat[chain], about["settings"]["width"], here)
        theta[chains == chain] += here @ factor
    return theta


def _follow(flat: Tensor, width: int, x: Tensor) -> Tensor:
    def slope(x: Tensor, time: float) -> Tensor:
        angle = torch.full((len(x), 1), time * math.pi / 2)
        said, at = torch.cat([x, angle.cos(), angle.sin()], 1), 0
        for size in (width, width, x.shape[1]):
            weight = flat[at : (at := at + size * said.shape[1])].view(size, -1)
            said = torch.nn.functional.linear(said, weight, flat[at : (at := at + size)])
            said = torch.nn.functional.silu(said) if at < len(flat) else said
        return said

    for step in range(32):  # Heun's rule
        x = x + ((first := slope(x, step / 32)) + slope(x + first / 32, (step + 1) / 32)) / 64
    return x
