"""Random networks of every family that has bounds, and inputs in boxes."""

from typing import Any

import torch
from torch import Generator, Tensor

from gped_nas import rng
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.models.elementary import Elementary


def random_layers(
    genotype: Genotype,
    input_shape: tuple[int, ...],
    num_outputs: int,
    *,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
    as_float32: bool = False,
) -> list[Elementary]:
    """The layers of a network with biases; its parameters are numbers that float32 holds.

    Args:
        genotype: of the network.
        input_shape: of one input.
        num_outputs: U.
        scale: what all parameters are multiplied by.
        dtype: in which the layers compute.
        as_float32: whether scaled parameters are rounded to what float32 has.
    """
    generator = rng.generator(0, "network", str(genotype), str(input_shape))
    family = FAMILIES[genotype.family]
    params = family.initialize(genotype.shapes(input_shape, num_outputs), generator=generator)
    for name, value in params.items():
        if value.dim() == 1:
            params[name] = 0.3 * torch.randn(value.shape, generator=generator)

    scaled = {}
    for name, value in params.items():
        exact = scale * (value if as_float32 else value.to(dtype))
        scaled[name] = exact.to(dtype)

    layers = family.layers(scaled)
    assert layers is not None
    return layers


def mlp(*width: int, **values: Any) -> Genotype:
    return Genotype("mlp", depth=len(width), width=list(width), **values)


def boxes(num: int, shape: tuple[int, ...], radius: float) -> tuple[Tensor, Tensor]:
    """The ends of boxes around random inputs, float64 numbers that float32 holds, too."""
    center = torch.randn(num, *shape, generator=rng.generator(0, "boxes", str(shape)))
    return (center - radius).double(), (center + radius).double()


def points_in(low: Tensor, high: Tensor, num: int, generator: Generator) -> Tensor:
    """Corners and random points of each box, (B, 2 num, *shape)."""
    shape = (len(low), num, *low.shape[1:])
    corners = torch.randint(2, shape, generator=generator).double()
    inside = torch.rand(shape, generator=generator, dtype=torch.float64)
    share = torch.cat([corners, inside], 1)
    points = low[:, None] + share * (high - low)[:, None]
    return torch.minimum(torch.maximum(points, low[:, None]), high[:, None])
