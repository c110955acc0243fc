"""Bounds hold for every input of a box: exact ones, corners, random points."""

import pytest
import torch
from torch import Generator, Tensor

from gped_nas import rng
from gped_nas.evaluate.certify.bounds import Bounds, bound
from gped_nas.models.base import FAMILIES, Genotype, Params
from gped_nas.models.elementary import Elementary, run_layers

BOUNDS: tuple[Bounds, ...] = ("ibp", "crown_ibp", "crown")


def random_params(
    genotype: Genotype, input_shape: tuple[int, ...], num_outputs: int, generator: Generator
) -> Params:
    """Parameters with biases, float64."""
    shapes = genotype.shapes(input_shape, num_outputs)
    params = FAMILIES[genotype.family].initialize(shapes, generator=generator)
    for name, value in params.items():
        if value.dim() == 1:
            params[name] = 0.3 * torch.randn(value.shape, generator=generator)
    return {name: value.double() for name, value in params.items()}


def layers_of(genotype: Genotype, params: Params) -> list[Elementary]:
    layers = FAMILIES[genotype.family].layers(params)
    assert layers is not None
    return layers


def points_in(low: Tensor, high: Tensor, num: int, generator: Generator) -> Tensor:
    """Corners and random points of each box, (B, 2 num, *shape)."""
    shape = (len(low), num, *low.shape[1:])
    corners = torch.randint(2, shape, generator=generator).double()
    inside = torch.rand(shape, generator=generator, dtype=torch.float64)
    share = torch.cat([corners, inside], 1)
    return low[:, None] + share * (high - low)[:, None]


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("width", [[], [5], [8, 8], [6, 9, 5]], ids=str)
def test_no_point_of_a_box_is_outside_of_its_bounds(width: list[int], bounds: Bounds) -> None:
    generator = rng.generator(0, "bounds", str(width))
    genotype = Genotype("mlp", depth=len(width), width=width)
    layers = layers_of(genotype, random_params(genotype, (4,), 3, generator))
    center = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    low, high = center - 0.2, center + 0.2

    forms = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    lower, upper = bound(layers, low, high, forms, bounds=bounds)

    points = points_in(low, high, 500, generator)
    values = run_layers(layers, points.flatten(0, 1)).view(6, 1000, 3) @ forms.T
    assert (lower <= values.amin(1)).all()
    assert (values.amax(1) <= upper).all()
    assert (upper - lower < 20).all()
