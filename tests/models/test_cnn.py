"""Convolutional networks against torch's own layers, by hand, and as populations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad, vmap

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Genotype, initialize
from gped_nas.models.compact import compact
from gped_nas.models.costs import genotype_cost

MNIST = Genotype("cnn", depth=2, width=[10, 20], kernel=4, pool=2, head_width=[80])
CIFAR = Genotype("cnn", depth=2, width=[16, 32], kernel=5, pool=2, head_width=[200, 50])
SMALL = Genotype("cnn", depth=2, width=[3, 4], kernel=[3, 2], pool=[2, 1], head_width=5)
SHAPE, NUM_OUTPUTS = (2, 9, 8), 3


def network(genotype=SMALL, shape=SHAPE, num_outputs=NUM_OUTPUTS):
    shapes = genotype.shapes(shape, num_outputs)
    params = initialize(shapes, generator=rng.generator(0, "cnn"))
    return {name: p if p.dim() > 1 else p + 0.1 for name, p in params.items()}


def images(num=6, shape=SHAPE):
    return torch.randn(num, *shape, generator=rng.generator(0, "images"))


def test_cost_of_the_networks_of_the_paper():
    # MNIST: 28 -> 25 -> 12 -> 9 -> 4
    # parameters 10*16+10 + 20*160+20 + 320*80+80 + 80*10+10 = 170 + 3220 + 25680 + 810
    # multiply-adds 25*25*160 + 9*9*3200 + 25600 + 800 = 100000 + 259200 + 26400
    mnist = genotype_cost(MNIST, (1, 28, 28), 10)
    assert (mnist.params, mnist.macs, mnist.flops) == (29_880, 385_600, 771_200)

    # CIFAR: 32 -> 28 -> 14 -> 10 -> 5
    # multiply-adds 784*16*75 + 100*32*400 + 800*200 + 200*50 + 50*10
    cifar = genotype_cost(CIFAR, (3, 32, 32), 10)
    assert (cifar.params, cifar.macs, cifar.flops) == (184_808, 2_391_300, 4_782_600)


def test_forward_is_that_of_torchs_own_layers():
    params, x = network(), images()
    with torch.random.fork_rng(devices=[]):
        blocks = [
            *(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(3, 4, 2), nn.ReLU()),
        ]
        head = [nn.Flatten(), nn.Linear(4 * 2 * 2, 5), nn.ReLU(), nn.Linear(5, 3)]
    layers = nn.Sequential(*blocks, *head)
    layers.load_state_dict(dict(zip(layers.state_dict(), params.values(), strict=True)))
    torch.testing.assert_close(FAMILIES["cnn"].forward(params, x), layers(x))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_memory_layout_of_inputs_and_of_parameters_changes_no_output(channels):
    shape = (channels, 9, 8)
    params, x = network(shape=shape), images(shape=shape)
    forward = FAMILIES["cnn"].forward
    expected = forward(params, x)

    last = torch.channels_last
    params_last = dict(params)
    for name, p in params.items():
        if p.dim() == 4:
            params_last[name] = p.contiguous(memory_format=last)
    x_last = x.contiguous(memory_format=last)
    x_reversed = x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)

    torch.testing.assert_close(forward(params_last, x), expected)
    torch.testing.assert_close(forward(params, x_last), expected)
    torch.testing.assert_close(forward(params_last, x_reversed), expected)


def test_networks_of_one_shape_can_be_stacked_and_differentiated():
    x, forward = images(), FAMILIES["cnn"].forward
    params = network()

    stacked = {name: torch.stack([p, -p, 2 * p]) for name, p in params.items()}
    together = vmap(forward, in_dims=(0, None))(stacked, x)
    for i in range(3):
        alone = forward({name: p[i] for name, p in stacked.items()}, x)
        torch.testing.assert_close(together[i], alone)

    slopes = grad(lambda params: forward(params, x).square().sum())(params)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    forward(leaves, x).square().sum().backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(slopes[name], leaf.grad)
        assert leaf.grad.abs().sum() > 0


def test_gradients_are_those_of_differences():
    params = {name: p.double().requires_grad_() for name, p in network().items()}
    x = images(2).double()

    def forward(*tensors):
        return FAMILIES["cnn"].forward(dict(zip(params, tensors, strict=True)), x)

    assert torch.autograd.gradcheck(forward, tuple(params.values()))


def test_a_dead_filters_constant_is_folded_through_pooling_and_flattening():
    params = {name: p.double() for name, p in network().items()}
    params["layers.0.pool2.weight"][1] = 0.0
    params["layers.0.pool2.bias"][1] = 0.7
    params["layers.1.weight"][[0, 2]] = 0.0
    params["layers.1.bias"][[0, 2]] = torch.tensor([1.5, -1.0]).double()
    compacted = compact("cnn", params)

    # the second layer reads filter 1 as 0.7 at 2 x 2 places
    window = params["layers.1.weight"][[1, 3], 1].sum((1, 2))
    expected = params["layers.1.bias"][[1, 3]] + 0.7 * window
    torch.testing.assert_close(compacted["layers.1.bias"], expected)

    # the third reads filter 0 as 1.5 at 2 x 2 pixels
    block = params["layers.2.weight"].view(5, 4, 4)[:, 0].sum(1)
    expected = params["layers.2.bias"] + 1.5 * block
    torch.testing.assert_close(compacted["layers.2.bias"], expected)
    assert compacted["layers.2.weight"].shape == (5, 2 * 4)

    x = images().double()
    forward = FAMILIES["cnn"].forward
    torch.testing.assert_close(forward(compacted, x), forward(params, x), rtol=1e-12, atol=1e-12)


def test_one_number_stands_for_all_blocks():
    listed = {"width": [4, 4, 9], "kernel": [3, 3], "pool": 1, "head_width": []}
    assert Genotype("cnn", depth=2, width=4, kernel=3) == Genotype("cnn", depth=2, **listed)


def test_a_list_or_a_number_counts_the_dense_layers():
    def head_width(**values):
        return Genotype("cnn", depth=1, width=4, kernel=3, **values)["head_width"]

    assert head_width(head_width=8) == (8,)
    assert head_width(head_depth=2, head_width=8) == (8, 8)
    assert head_width(head_depth=0, head_width=8) == ()

    text = str(Genotype("cnn", depth=1, width=4, kernel=3))
    assert "head_width=none" in text and "kernel=3" in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 0}, "depth: found 0, expected a whole number from 1"),
        ({"kernel": None}, "kernel: found None"),
        ({"kernel": [3]}, "kernel: found 1 entries, expected one for each of 2 blocks"),
        ({"pool": 0}, "pool: found 0"),
        ({"head_depth": 1}, "head_width: found 0 entries, expected one for each of 1 dense layers"),
        ({"padding": "smae"}, "padding: found 'smae', expected one of valid, same"),
        (
            {"padding": "same", "kernel": [3, 4]},
            "kernel: found 4 with padding same, expected",
        ),
        ({"stride": 9}, "stride: found 9, expected a whole number from 1 to 8"),
        ({"stages": 3}, "stages: found 3, expected at most 2, the depth"),
        ({"stages": 2, "pool": 2}, "pool: found 2 beside stages 2, expected one of them"),
        ({"head": "average"}, "head: found 'average', expected one of flatten, global_average"),
        ({"head_widht": 3}, "head_widht: unknown key; did you mean 'head_width'"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Genotype("cnn", **{"depth": 2, "width": 4, "kernel": 3, **values})


def test_an_image_that_vanishes_is_refused():
    with pytest.raises(ConfigError, match="kernel: found 5 in block 2, where 4x3 pixels are left"):
        Genotype("cnn", depth=2, width=4, kernel=5).shapes((1, 8, 7), 10)
    with pytest.raises(ConfigError, match="pool: found 3 in block 1, where 4x2 pixels are left"):
        Genotype("cnn", depth=1, width=4, kernel=5, pool=3).shapes((1, 8, 6), 10)
    with pytest.raises(
        ConfigError, match="stages: found 3, whose pooling behind block 2 would see 1x1"
    ):
        Genotype("cnn", depth=3, width=4, kernel=1, stages=3).shapes((1, 3, 2), 10)
    message = r"family: found cnn, which reads images .* inputs of shape \(7,\); use mlp"
    with pytest.raises(ConfigError, match=message):
        Genotype("cnn", depth=1, width=4, kernel=1).shapes((7,), 10)


def test_layers_are_described_with_their_windows():
    rows = FAMILIES["cnn"].describe(SMALL.shapes(SHAPE, NUM_OUTPUTS))
    columns = ["layer", "kind", "inputs", "outputs", "params"]
    assert [tuple(row[column] for column in columns) for row in rows] == [
        ("layers.0", "conv 3x3, max pool 2x2", 2, 3, 57),
        ("layers.1", "conv 2x2", 3, 4, 52),
        ("layers.2", "linear", 16, 5, 85),
        ("layers.3", "linear", 5, 3, 18),
    ]


def test_pooling_before_the_relu_is_pooling_after_it():
    params, x = network(Genotype("cnn", depth=1, width=3, kernel=2, pool=2)), images()
    weight, bias = params["layers.0.pool2.weight"], params["layers.0.pool2.bias"]
    hidden = F.max_pool2d(F.relu(F.conv2d(x, weight, bias)), 2).flatten(1)
    expected = F.linear(hidden, params["layers.1.weight"], params["layers.1.bias"])
    torch.testing.assert_close(FAMILIES["cnn"].forward(params, x), expected)


def test_padding_same_is_torchs_own():
    genotype = Genotype("cnn", depth=2, width=[3, 4], kernel=[5, 3], pool=[2, 1], padding="same")
    params, x = network(genotype), images()
    with torch.random.fork_rng(devices=[]):
        layers = nn.Sequential(
            *(nn.Conv2d(2, 3, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(4 * 4 * 4, 3)),
        )
    assert list(params) == [
        *("layers.0.same.pool2.weight", "layers.0.same.pool2.bias"),
        *("layers.1.same.weight", "layers.1.same.bias", "layers.2.weight", "layers.2.bias"),
    ]
    layers.load_state_dict(dict(zip(layers.state_dict(), params.values(), strict=True)))
    torch.testing.assert_close(FAMILIES["cnn"].forward(params, x), layers(x))

    # 9 x 8 pixels of 3 * 2 * 25 weights, 4 x 4 of 4 * 3 * 9, then 64 * 3
    assert genotype_cost(genotype, SHAPE, NUM_OUTPUTS).macs == 72 * 150 + 16 * 108 + 192


def test_a_filter_whose_reader_pads_is_dead_when_its_bias_is_zero_too():
    genotype = Genotype("cnn", depth=2, width=[3, 4], kernel=3, padding="same")
    params = {name: p.double() for name, p in network(genotype).items()}
    params["layers.0.same.weight"][1] = 0.0
    params["layers.0.same.bias"][1] = 0.7
    params["layers.1.same.weight"][2] = 0.0
    params["layers.1.same.bias"][2] = 0.9

    # filter 1 sends .7, and the next layer zeros beside it; filter 2 sends .9 to a dense layer
    compacted = compact("cnn", params)
    assert [len(compacted[f"layers.{i}.same.weight"]) for i in (0, 1)] == [3, 3]
    params["layers.0.same.bias"][1] = 0.0
    compacted = compact("cnn", params)
    assert [len(compacted[f"layers.{i}.same.weight"]) for i in (0, 1)] == [2, 3]

    x, forward = images().double(), FAMILIES["cnn"].forward
    torch.testing.assert_close(forward(compacted, x), forward(params, x), rtol=1e-12, atol=1e-12)


def test_defaults_have_the_identity_of_genotypes_without_them():
    plain = Genotype("cnn", depth=1, width=4, kernel=3)
    defaults = {"padding": "valid", "stride": [1], "head": "flatten", "block": "plain"}
    spelled = Genotype("cnn", depth=1, width=4, kernel=3, **defaults)
    assert spelled == plain and spelled.to_json() == plain.to_json()
    assert set(plain.to_json()) == {
        *("family", "depth", "width", "kernel", "pool", "head_depth", "head_width"),
        *("group_penalty", "storage_dtype"),
    }
    for name, value in {"padding": "same", "stride": 2, "head": "global_average"}.items():
        changed = plain.replace(**{name: value})
        assert changed != plain and f"{name}={value}" in str(changed)
        assert Genotype.from_json(changed.to_json()) == changed


def torch_network(genotype, *layers, shape=SHAPE):
    """The network as torch's own layers, with the same parameters, and those."""
    params = network(genotype, shape=shape)
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(*(layer() for layer in layers))
    module.load_state_dict(dict(zip(module.state_dict(), params.values(), strict=True)))
    return module, params


def test_strides_stages_and_a_global_average_are_torchs_own():
    genotype = Genotype(
        "cnn",
        **{"depth": 4, "width": [3, 4, 5, 6], "kernel": [3, 3, 1, 3], "stride": [2, 1, 2, 1]},
        **{"stages": 3, "padding": "same", "head": "global_average", "head_width": [7]},
    )
    module, params = torch_network(
        genotype,
        *(lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU),
        *(lambda: nn.Conv2d(3, 4, 3, padding=1), nn.ReLU, lambda: nn.MaxPool2d(2)),
        *(lambda: nn.Conv2d(4, 5, 1, stride=2), nn.ReLU, lambda: nn.MaxPool2d(2)),
        *(lambda: nn.Conv2d(5, 6, 3, padding=1), nn.ReLU, lambda: nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten, lambda: nn.Linear(6, 7), nn.ReLU, lambda: nn.Linear(7, 3)),
        shape=(2, 16, 13),
    )
    x = images(shape=(2, 16, 13))
    torch.testing.assert_close(FAMILIES["cnn"].forward(params, x), module(x))
    assert "layers.3.same.average.weight" in params


def test_separable_blocks_are_those_of_mobilenet():
    genotype = Genotype(
        "cnn",
        **{"depth": 3, "width": [4, 6, 5], "kernel": 3, "stride": [1, 2, 1], "pool": [1, 1, 2]},
        **{"padding": "same", "block": "separable"},
    )
    module, params = torch_network(
        genotype,
        *(lambda: nn.Conv2d(2, 4, 3, padding=1), nn.ReLU),
        *(lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4), nn.ReLU),
        *(lambda: nn.Conv2d(4, 6, 1), nn.ReLU),
        *(lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU),
        *(lambda: nn.Conv2d(6, 5, 1), nn.ReLU, lambda: nn.MaxPool2d(2)),
        *(nn.Flatten, lambda: nn.Linear(5 * 2 * 2, 3)),
    )
    x = images()
    torch.testing.assert_close(FAMILIES["cnn"].forward(params, x), module(x))

    # a filter and its depthwise one go together, and what is left sends the same
    params = {name: p.double() for name, p in params.items()}
    for name in ("layers.0.same.weight", "layers.1.depthwise.same.stride2.weight"):
        params[name][[0, 2]] = 0.0
    compacted = compact("cnn", params)
    assert compacted["layers.1.depthwise.same.stride2.weight"].shape == (2, 1, 3, 3)
    assert compacted["layers.1.pointwise.weight"].shape == (6, 2, 1, 1)
    forward, x = FAMILIES["cnn"].forward, x.double()
    torch.testing.assert_close(forward(compacted, x), forward(params, x), rtol=1e-12, atol=1e-12)


def test_stages_halve_images_after_all_but_the_last():
    def pools(depth, stages):
        values = {"depth": depth, "width": 2, "kernel": 1, "stages": stages}
        shapes = Genotype("cnn", **values).shapes((1, 32, 32), 10)
        return [2 if "pool2" in name else 1 for name in shapes if name.endswith("bias")][:-1]

    assert pools(4, 3) == [1, 2, 2, 1]
    assert pools(6, 3) == [1, 2, 1, 2, 1, 1]
    assert pools(5, 2) == [1, 1, 2, 1, 1]
    assert pools(2, 1) == [1, 1]
    assert pools(3, 3) == [2, 2, 1]


def test_cost_of_a_network_for_small_color_pictures():
    # 32 -> 16 by the stride, -> 8 -> 4 by pooling
    # parameters 12*28 + 14*109 + 32*127 + 48*289 + 7*49, each filter with its bias
    # multiply-adds 256*324 + 256*1512 + 64*4032 + 16*13824 + 336
    genotype = Genotype(
        "cnn",
        **{"depth": 4, "width": [12, 14, 32, 48], "kernel": 3, "stride": [2, 1, 1, 1]},
        **{"stages": 3, "padding": "same", "head": "global_average"},
    )
    cost = genotype_cost(genotype, (3, 32, 32), 7)
    assert (cost.params, cost.macs) == (20_141, 949_584)
