"""Which tensor of a file is which parameter: said by names, shapes and numbers, or asked for."""

from pathlib import Path

import pytest
import torch

from gped_nas.errors import DataError
from gped_nas.posterior.pairing import pair

SQUARE = {
    "layers.0.weight": (4, 4),
    "layers.0.bias": (4,),
    "layers.1.weight": (4, 4),
    "layers.1.bias": (4,),
    "layers.2.weight": (3, 4),
    "layers.2.bias": (3,),
}
FILE = Path("ensemble.safetensors")


def tensors(*layers, shapes=SQUARE):
    """The teacher's tensors under a file's names of the layers, each filled with its layer."""
    params = {}
    for i, layer in enumerate(layers):
        for kind in ("weight", "bias"):
            params[f"{layer}.{kind}"] = torch.full(shapes[f"layers.{i}.{kind}"], float(i))
    return dict(sorted(params.items()))


def layers_of(params):
    """The layer that each parameter was of."""
    return [int(tensor.flatten()[0]) for tensor in params.values()]


@pytest.mark.parametrize(
    "layers",
    [
        ("layers.0", "layers.1", "layers.2"),
        ("0", "2", "4"),
        ("net.2", "net.10", "net.4"),
        ("fc1", "fc2", "fc10"),
        ("hidden.0", "hidden.1", "out"),
        ("b.hidden1", "b.hidden2", "a.first"),
    ],
)
def test_numbers_tell_layers_of_one_shape_apart(layers):
    paired = pair(tensors(*layers), SQUARE, {}, FILE)
    assert list(paired) == list(SQUARE)
    assert layers_of(paired) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "layers",
    [
        ("fc_in", "fc_hidden", "fc_out"),
        ("input.0", "hidden.0", "out"),
        ("conv3x3", "conv1x1", "out"),
        ("a", "b", "c"),
        ("net", "net.0", "net.1"),
    ],
)
def test_the_alphabet_tells_nothing_and_a_map_is_asked_for(layers):
    with pytest.raises(DataError) as caught:
        pair(tensors(*layers), SQUARE, {}, FILE)
    message = str(caught.value)
    assert "have one shape" in message and "names to {layers.0: ..., layers.1: ..." in message
    assert all(layer in message for layer in layers)

    names = {f"layers.{i}": layer for i, layer in enumerate(layers)}
    paired = pair(tensors(*layers), SQUARE, names, FILE)
    assert layers_of(paired) == [0, 0, 1, 1, 2, 2]


def test_tensors_of_shapes_of_their_own_need_no_order():
    shapes = {"layers.0.weight": (4, 5), "layers.0.bias": (4,)}
    shapes |= {"layers.1.weight": (3, 4), "layers.1.bias": (3,)}
    paired = pair(tensors("z", "a", shapes=shapes), shapes, {}, FILE)
    assert layers_of(paired) == [0, 0, 1, 1]


def test_a_bias_is_no_gain():
    shapes = {"norm.0.gain": (4,), "norm.0.bias": (4,)}
    named = {"1.bias": torch.ones(4), "1.weight": torch.zeros(4)}
    assert layers_of(pair(named, shapes, {}, FILE)) == [0, 1]

    with pytest.raises(DataError, match=r"0\.bias would be norm\.0\.gain .* only one .* bias"):
        pair({"0.bias": torch.ones(4), "1.weight": torch.zeros(4)}, shapes, {}, FILE)


def test_a_map_may_name_single_tensors_and_leave_out_what_has_its_name():
    params = tensors("layers.0", "layers.1", "layers.2")
    params["w"] = params.pop("layers.1.weight")
    assert layers_of(pair(params, SQUARE, {"layers.1.weight": "w"}, FILE)) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"layer.0": "a"}, r"found layer\.0, expected parameters or layers .*layers\.0, layers\.1"),
        ({"layers.0": "x", "layers.1": "b", "layers.2": "c"}, r"lead to x\.weight.*holds a\.bias"),
        ({"layers.0": "a", "layers.1": "a", "layers.2": "c"}, r"leaves out b\.bias, b\.weight"),
        ({"layers.0": "a", "layers.1": "c", "layers.2": "b"}, r"c\.weight has shape \(3, 4\), exp"),
    ],
)
def test_a_map_that_does_not_fit_says_what_the_file_holds(names, message):
    with pytest.raises(DataError, match=message):
        pair(tensors("a", "b", "c"), SQUARE, names, FILE)
