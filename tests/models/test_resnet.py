"""Residual networks written out, their costs by hand, and the channels that die together."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Genotype, initialize
from gped_nas.models.compact import compact, num_dead_units
from gped_nas.models.costs import genotype_cost
from gped_nas.models.storage import encode

GENOTYPE = Genotype("resnet", depth=[1, 2], width=[4, 6])
SHAPE, NUM_OUTPUTS = (2, 9, 8), 3
STREAM = ("layers.2.0.norm2", "layers.2.1.norm2")


def network(genotype=GENOTYPE, shape=SHAPE):
    generator = rng.generator(0, "resnet")
    params = initialize(genotype.shapes(shape, NUM_OUTPUTS), generator=generator)
    for name, p in params.items():
        if p.dim() == 1:
            params[name] = p + 0.2 * torch.randn(p.shape, generator=generator)
    return params


def images(num=6, shape=SHAPE):
    return torch.randn(num, *shape, generator=rng.generator(0, "images"))


def group_of(name, shapes):
    (group,) = (group for group in FAMILIES["resnet"].groups(shapes) if group.layer == name)
    return group


def affine(*norms):
    """The names of gain and bias of some norms."""
    names = []
    for norm in norms:
        names += [f"{norm}.gain", f"{norm}.bias"]
    return tuple(names)


def assert_same_outputs(compacted, params):
    x = images().double()
    forward = FAMILIES["resnet"].forward
    small = {name: p.double() for name, p in compacted.items()}
    wide = {name: p.double() for name, p in params.items()}
    torch.testing.assert_close(forward(small, x), forward(wide, x), rtol=1e-12, atol=1e-12)


def plain_forward(params, x):
    """The network written out for two stages of one and two blocks, norms channel by channel."""

    def norm(x, name):
        root = (x.pow(2).sum((2, 3)) / (x.shape[2] * x.shape[3]) + 1e-6).sqrt()
        channels = []
        for c in range(x.shape[1]):
            gain, bias = params[f"{name}.gain"][c], params[f"{name}.bias"][c]
            channels.append(gain * x[:, c] / root[:, c, None, None] + bias)
        return torch.stack(channels, 1)

    def conv(x, name, stride=1):
        weight = params[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = norm(conv(x, "layers.0.conv"), "layers.0.norm").relu()
    for block, stride in (("layers.1.0", 1), ("layers.2.0", 2), ("layers.2.1", 1)):
        inner = norm(conv(x, f"{block}.conv1", stride), f"{block}.norm1").relu()
        inner = norm(conv(inner, f"{block}.conv2"), f"{block}.norm2")
        shortcut = conv(x, f"{block}.projection", 2) if stride == 2 else x
        x = (inner + shortcut).relu()
    return x.mean((2, 3)) @ params["layers.3.weight"].mT + params["layers.3.bias"]


def test_forward_is_the_network_written_out():
    params, x = network(), images()
    torch.testing.assert_close(FAMILIES["resnet"].forward(params, x), plain_forward(params, x))


def test_costs_by_hand():
    # 9x8 pixels; the second stage sees 5x4
    # stem 72 * 4*2*9; stage 1: 72 * 4*4*9 twice; stage 2: 20 * 6*4*9, 20 * 6*6*9 three times and
    # the projection 20 * 6*4; head 6*3
    cost = genotype_cost(GENOTYPE, SHAPE, NUM_OUTPUTS)
    assert cost.macs == 72 * 72 + 2 * 72 * 144 + 20 * 216 + 3 * 20 * 324 + 20 * 24 + 18

    # weights 72 + 288 + 216 + 972 + 24 + 18; biases of the head 3; gains and biases of norms
    # 2 * (4 + 8 + 24)
    assert cost.params == 72 + 288 + 216 + 972 + 24 + 18 + 3 + 72


def test_networks_of_one_shape_can_be_stacked_and_differentiated():
    x, forward = images(), FAMILIES["resnet"].forward
    params = network()

    stacked = {name: torch.stack([p, 2 * p]) for name, p in params.items()}
    together = vmap(forward, in_dims=(0, None))(stacked, x)
    for i in range(2):
        alone = forward({name: p[i] for name, p in stacked.items()}, x)
        torch.testing.assert_close(together[i], alone)

    slopes = grad(lambda params: forward(params, x).square().sum())(params)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    forward(leaves, x).square().sum().backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(slopes[name], leaf.grad, rtol=1e-4, atol=1e-5)
        assert leaf.grad.abs().sum() > 0


def test_a_fresh_network_keeps_the_size_of_its_inputs():
    shapes = Genotype("resnet", depth=2, width=[16, 32]).shapes((3, 16, 16), 10)
    params = initialize(shapes, generator=rng.generator(0, "r"))
    gains = [p for name, p in params.items() if name.endswith(".gain")]
    assert gains and all(bool((p == 1).all()) for p in gains)

    # the first norm takes the scale of inputs out
    x = images(64, (3, 16, 16))
    small = FAMILIES["resnet"].forward(params, x)
    large = FAMILIES["resnet"].forward(params, 100.0 * x)
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-3)
    assert 0.3 < float(small.std()) < 10


def test_a_channel_of_the_stream_is_one_group_over_all_that_writes_to_it():
    shapes = GENOTYPE.shapes(SHAPE, NUM_OUTPUTS)

    stage_1 = group_of("layers.0.conv", shapes)
    assert stage_1.weights == affine("layers.0.norm", "layers.1.0.norm2")
    assert stage_1.followers == ("layers.0.conv.weight", "layers.1.0.conv2.weight")
    next_readers = ("layers.2.0.conv1.weight", "layers.2.0.projection.weight")
    assert stage_1.readers == ("layers.1.0.conv1.weight", *next_readers)

    stage_2 = group_of("layers.2.0.projection", shapes)
    assert stage_2.weights == ("layers.2.0.projection.weight", *affine(*STREAM))
    assert stage_2.readers == ("layers.2.1.conv1.weight", "layers.3.weight")


def test_the_channels_inside_a_block_are_a_group_of_their_own():
    inner = group_of("layers.2.1.conv1", GENOTYPE.shapes(SHAPE, NUM_OUTPUTS))
    assert inner.weights == affine("layers.2.1.norm1")
    assert inner.readers == ("layers.2.1.conv2.weight",)


def test_a_channel_dies_only_when_nothing_writes_to_it():
    params = network()
    for name in STREAM:
        params[f"{name}.gain"][2] = 0.0
        params[f"{name}.bias"][2] = 0.0
    assert num_dead_units("resnet", params) == 0  # the projection still writes to it
    params["layers.2.0.projection.weight"][2] = 0.0
    assert num_dead_units("resnet", params) == 1

    compacted = compact("resnet", params)
    for name in ("layers.2.0.projection", "layers.2.0.conv2", "layers.2.1.conv2"):
        assert compacted[f"{name}.weight"].shape[0] == 5
    assert compacted["layers.2.1.conv1.weight"].shape == (6, 5, 3, 3)
    assert compacted["layers.3.weight"].shape == (3, 5)
    assert_same_outputs(compacted, params)


def test_a_dead_inner_channel_is_zero_beside_the_padding_too():
    # without the norm's bias in the group a removed channel would leave a constant that zero
    # padding cuts off
    params = network()
    params["layers.1.0.norm1.gain"][1] = 0.0
    assert num_dead_units("resnet", params) == 0
    params["layers.1.0.norm1.bias"][1] = 0.0
    compacted = compact("resnet", params)
    assert compacted["layers.1.0.conv1.weight"].shape == (3, 4, 3, 3)
    assert_same_outputs(compacted, params)


def test_gains_and_biases_stay_float32_beside_int8_filters():
    stored = encode(network(), "int8")
    assert stored["layers.0.norm.gain"].dtype == torch.float32
    assert stored["layers.2.1.norm2.bias"].dtype == torch.float32
    assert stored["layers.2.0.projection.weight"].dtype == torch.int8
    assert stored["layers.2.0.projection.weight.scale"].shape == (6,)


def test_lists_count_the_stages():
    written_out = Genotype("resnet", stages=2, depth=[1, 1, 5], width=[4, 8, 9])
    assert Genotype("resnet", depth=1, width=[4, 8]) == written_out
    assert Genotype("resnet", stages=3, depth=2, width=4)["width"] == (4, 4, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 1, "width": 4}, "stages: found None, expected a whole number from 1"),
        ({"depth": [1, 0], "width": 4}, "depth: found 0, expected a whole number from 1"),
        (
            {"depth": [1], "width": [4, 5]},
            "depth: found 1 entries, expected one for each of 2 stages",
        ),
        ({"stages": 2, "width": 4}, "depth: found None"),
        ({"stages": 2, "depth": 1, "width": 4, "kernel": 3}, "kernel: unknown key"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Genotype("resnet", **values)


def test_an_image_that_vanishes_is_refused():
    # 8x7 pixels are halved to 4x4, 2x2 and 1x1
    genotype = Genotype("resnet", stages=4, depth=1, width=4)
    message = "stages: found 4, of which number 4 would see .* 1x1 .*; use at most 3"
    with pytest.raises(ConfigError, match=message):
        genotype.shapes((1, 8, 7), 10)
    assert genotype.replace(stages=3).shapes((1, 8, 7), 10)

    message = r"family: found resnet, which reads images .* inputs of shape \(7,\)"
    with pytest.raises(ConfigError, match=message):
        genotype.shapes((7,), 10)
