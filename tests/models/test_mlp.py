"""Fully connected networks by hand and against torch's own layers."""

import torch
from torch import nn

from gped_nas import rng
from gped_nas.models.base import FAMILIES, Genotype, initialize


def test_forward_by_hand():
    # x = (1, -2): hidden relu(1*1 + 2*-2 + 1, 3*1 + 0*-2 - 1) = relu(-2, 2) = (0, 2)
    # output 10*0 + 5*2 + 0.5
    params = {
        "layers.0.weight": torch.tensor([[1.0, 2.0], [3.0, 0.0]]),
        "layers.0.bias": torch.tensor([1.0, -1.0]),
        "layers.1.weight": torch.tensor([[10.0, 5.0]]),
        "layers.1.bias": torch.tensor([0.5]),
    }
    assert FAMILIES["mlp"].forward(params, torch.tensor([[1.0, -2.0]])).tolist() == [[10.5]]


def test_forward_is_that_of_torchs_own_layers():
    shapes = Genotype("mlp", depth=3, width=[8, 6, 7]).shapes((2, 5), 4)
    params = initialize(shapes, generator=rng.generator(0, "mlp"))

    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(
            *(nn.Flatten(), nn.Linear(10, 8), nn.ReLU()),
            *(nn.Linear(8, 6), nn.ReLU()),
            *(nn.Linear(6, 7), nn.ReLU()),
            nn.Linear(7, 4),
        )
    network.load_state_dict(dict(zip(network.state_dict(), params.values(), strict=True)))
    x = torch.randn(6, 2, 5, generator=rng.generator(0, "x"))
    torch.testing.assert_close(FAMILIES["mlp"].forward(params, x), network(x))


def test_groups_name_reader_and_bias():
    shapes = Genotype("mlp", depth=2, width=[8, 6]).shapes((5,), 4)
    outer, inner = FAMILIES["mlp"].groups(shapes)
    assert outer.weights == ("layers.0.weight",)
    assert outer.followers == ("layers.0.bias",)
    assert outer.readers == ("layers.1.weight",)
    assert outer.constant == ("layers.0.bias", "layers.1.bias")
    assert (inner.layer, inner.readers) == ("layers.1", ("layers.2.weight",))
