"""Inputs from outside the data: what a model should be unsure about."""

import torch
from torch import Generator, Tensor


def permuted(x: Tensor, *, generator: Generator) -> Tensor:
    """The inputs (N, *input_shape) with their numbers rearranged, in one way for all of them.

    Every input keeps its own numbers, so that neither its mean nor its contrast gives it away.
    """
    flat = x.flatten(1)
    return flat[:, torch.randperm(flat.shape[1], generator=generator).to(x.device)].view_as(x)
