"""Of codec ``apd``."""

from typing import Any

import torch
from torch import Generator, Tensor


def decode(tensors: dict[str, Tensor], about: Any, num: int, generator: Generator) -> Tensor:
    """Draws (num, W): what a generator with three hidden layers makes of normal numbers."""
    flat, settings, at = tensors["generator"], about["settings"], 0
    theta = torch.randn(num, settings["latent"], generator=generator)
    sizes = [settings["width"]] * 3
    for layer in range(4):
        # the last layer has as many outputs as the rest of the numbers says
        size = sizes[layer] if layer < 3 else (len(flat) - at) // (theta.shape[1] + 1)
        end = at + size * theta.shape[1]
        weight, bias = flat[at:end].view(size, -1), flat[end : end + size]
        theta = torch.nn.functional.linear(theta, weight, bias)
        theta, at = theta.relu() if layer < 3 else theta, end + size
    return theta
