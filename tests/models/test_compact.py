"""Dead units are removed, and outputs stay what they were."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gped_nas import rng
from gped_nas.models.base import FAMILIES, Genotype, initialize
from gped_nas.models.compact import compact, num_dead_units


def network(widths, *, seed=0):
    shapes = Genotype("mlp", depth=len(widths), width=widths).shapes((3,), 2)
    generator = rng.generator(seed, "compact")
    params = initialize(shapes, generator=generator)
    for name, p in params.items():
        if p.dim() == 1:
            params[name] = torch.randn(p.shape, generator=generator)
    return params


def assert_same_outputs(compacted, params):
    x = torch.randn(9, 3, generator=rng.generator(0, "x"))
    forward = FAMILIES["mlp"].forward
    torch.testing.assert_close(forward(compacted, x), forward(params, x), atol=1e-6, rtol=0)


def test_a_dead_units_constant_is_folded_into_its_reader():
    # hidden units: relu(2 x + 1) and the constant relu(0 x + 3) = 3
    # output = 5 h0 + 7 h1 + 1 = 5 h0 + 22
    params = {
        "layers.0.weight": torch.tensor([[2.0], [0.0]]),
        "layers.0.bias": torch.tensor([1.0, 3.0]),
        "layers.1.weight": torch.tensor([[5.0, 7.0]]),
        "layers.1.bias": torch.tensor([1.0]),
    }
    before = {name: p.clone() for name, p in params.items()}
    compacted = compact("mlp", params)
    assert compacted["layers.0.weight"].tolist() == [[2.0]]
    assert compacted["layers.0.bias"].tolist() == [1.0]
    assert compacted["layers.1.weight"].tolist() == [[5.0]]
    assert compacted["layers.1.bias"].tolist() == [22.0]

    # the old ones are left alone
    assert all(torch.equal(params[name], before[name]) for name in params)


def test_a_dead_unit_with_a_negative_bias_is_the_constant_zero():
    params = {
        "layers.0.weight": torch.tensor([[2.0], [0.0]]),
        "layers.0.bias": torch.tensor([1.0, -3.0]),
        "layers.1.weight": torch.tensor([[5.0, 7.0]]),
        "layers.1.bias": torch.tensor([1.0]),
    }
    assert compact("mlp", params)["layers.1.bias"].tolist() == [1.0]


def test_units_that_read_only_dead_units_die_with_them():
    params = network([4, 3])
    params["layers.0.weight"][1] = 0.0
    params["layers.1.weight"][2] = 0.0
    params["layers.1.weight"][2, 1] = 1.0  # its one input is the dead unit
    compacted = compact("mlp", params)
    assert compacted["layers.0.weight"].shape == (3, 3)
    assert compacted["layers.1.weight"].shape == (2, 3)
    assert_same_outputs(compacted, params)


def test_a_layer_of_dead_units_keeps_one_and_its_outputs():
    params = network([4, 3])
    params["layers.0.weight"].zero_()
    params["layers.0.bias"].abs_().add_(1.0)
    compacted = compact("mlp", params)
    assert compacted["layers.0.weight"].shape == (1, 3)
    assert_same_outputs(compacted, params)
    assert num_dead_units("mlp", params) == 4


def test_nearly_zero_is_not_dead():
    params = network([4])
    params["layers.0.weight"][1] = 1e-38
    assert num_dead_units("mlp", params) == 0
    assert compact("mlp", params)["layers.0.weight"].shape == (4, 3)


def test_a_network_without_hidden_layers_is_left_alone():
    params = {"layers.0.weight": torch.zeros(2, 3), "layers.0.bias": torch.ones(2)}
    shapes = {name: p.shape for name, p in compact("mlp", params).items()}
    assert shapes == {"layers.0.weight": (2, 3), "layers.0.bias": (2,)}


def test_constants_of_a_wide_layer_keep_their_precision():
    # 4095 dead units of constant 1 are read with weights of 0.1; their float32 sum, one by one, is
    # off by 1e-4
    params = network([4096], seed=1)
    params["layers.0.weight"][1:] = 0.0
    params["layers.0.bias"][1:] = 1.0
    params["layers.1.weight"][:] = 0.1
    params["layers.1.bias"][:] = -0.1 * 4095

    bias = compact("mlp", params)["layers.1.bias"]
    exact = -(torch.tensor(0.1 * 4095).double()) + 4095 * torch.tensor(0.1).double()
    torch.testing.assert_close(bias.double(), exact.expand(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(deadline=None, derandomize=True, max_examples=40, database=None)
@given(widths=st.lists(st.integers(1, 12), min_size=1, max_size=4), data=st.data())
def test_any_mask_can_be_removed(widths, data, dtype):
    params = {name: p.to(dtype) for name, p in network(widths).items()}
    for i, width in enumerate(widths):
        dead = data.draw(st.lists(st.booleans(), min_size=width, max_size=width))
        params[f"layers.{i}.weight"][torch.tensor(dead)] = 0.0
    compacted = compact("mlp", params)

    x = torch.randn(8, 3, generator=rng.generator(0, "x"), dtype=dtype)
    forward = FAMILIES["mlp"].forward
    params_double = {name: p.double() for name, p in params.items()}
    reference = forward(params_double, x.double())
    scale = max(1.0, float(reference.abs().max()))
    assert float((forward(compacted, x).double() - reference).abs().max()) < 1e-6 * scale

    num_before = sum(p.numel() for p in params.values())
    assert sum(p.numel() for p in compacted.values()) <= num_before
    assert all(p.dtype == dtype for p in compacted.values())

    again = compact("mlp", compacted)
    assert list(again) == list(compacted)
    assert all(torch.equal(again[name], compacted[name]) for name in compacted)
