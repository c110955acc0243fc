"""Inputs from outside the data."""

import torch

from gped_nas import rng
from gped_nas.data.shift import permuted


def test_every_input_keeps_its_numbers_and_all_are_rearranged_alike() -> None:
    x = torch.arange(2 * 12.0).view(2, 1, 3, 4)
    found = permuted(x, generator=rng.generator(0, "permuted"))
    assert found.shape == x.shape and not torch.equal(found, x)
    assert torch.equal(found.flatten(1).sort(1).values, x.flatten(1))
    assert torch.equal(found[1] - found[0], torch.full((1, 3, 4), 12.0))
    assert torch.equal(found, permuted(x, generator=rng.generator(0, "permuted")))
