"""Of codec ``low_rank``."""

from typing import Any

import torch
from torch import Generator, Tensor


def decode(tensors: dict[str, Tensor], about: Any, num: int, generator: Generator) -> Tensor:
    """Draws (num, W) of a chain's normal law: a few directions, and a spread for each weight."""
    mean, std, factor = tensors["mean"], tensors["std"], tensors["factor"]
    draws = []
    for _ in range(num):
        chain = int(torch.multinomial(tensors["share"], 1, generator=generator))
        along = torch.randn(factor.shape[1], generator=generator)
        noise = torch.randn(mean.shape[1], generator=generator)
        draws.append(mean[chain] + std[chain] * noise + along @ factor[chain])
    return torch.stack(draws)
