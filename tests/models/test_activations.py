"""Activations: a word of a genotype, of names, and what it changes in a network of each family."""

import math

import pytest
import torch
from scipy.integrate import quad
from torch import nn

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.models.activations import (
    ACTIVATIONS,
    SECOND_MOMENTS,
    activation_in,
    activation_of,
)
from gped_nas.models.base import FAMILIES, Genotype, initialize, shapes_of
from gped_nas.models.compact import compact
from gped_nas.models.costs import count_macs, genotype_cost
from gped_nas.models.dense import dense_chain

SMALL = {
    "mlp": {"depth": 2, "width": [4, 3]},
    "cnn": {"depth": 1, "width": 3, "kernel": 3, "head_width": [4]},
    "resnet": {"depth": 1, "width": [3, 4]},
}
SHAPE = (1, 6, 6)
OTHERS = sorted(set(ACTIVATIONS) - {"relu"})


def by_hand(name, z):
    """The activation of one number."""
    return {
        "relu": max(z, 0.0),
        "tanh": math.tanh(z),
        "silu": z / (1 + math.exp(-z)),
        "gelu": z * 0.5 * (1 + math.erf(z / math.sqrt(2))),
    }[name]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_what_its_name_says_and_its_second_moment_that_of_a_normal(name):
    z = torch.linspace(-4, 4, 33, dtype=torch.float64)
    expected = torch.tensor([by_hand(name, float(number)) for number in z], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](z), expected)

    def weighted_square(number):
        return by_hand(name, number) ** 2 * math.exp(-(number**2) / 2) / math.sqrt(2 * math.pi)

    moment, _ = quad(weighted_square, -12, 12, limit=200)
    assert SECOND_MOMENTS[name] == pytest.approx(moment, abs=1e-9)


@pytest.mark.parametrize("family", SMALL)
def test_a_relu_is_left_out_of_identity_and_names(family):
    plain = Genotype(family, **SMALL[family])
    assert plain["activation"] == "relu"
    assert Genotype(family, activation="relu", **SMALL[family]) == plain
    assert "activation" not in plain.to_json() and "activation" not in str(plain)
    assert activation_in(plain.shapes(SHAPE, 3)) == "relu"

    for name in OTHERS:
        other = Genotype(family, activation=name, **SMALL[family])
        assert other != plain and other.to_json()["activation"] == name
        assert other.architecture()["activation"] == name
        assert activation_in(other.shapes(SHAPE, 3)) == name
        # it is free, and no number is stored for it
        cost, plain_cost = (genotype_cost(genotype, SHAPE, 3) for genotype in (other, plain))
        assert (cost.macs, cost.params) == (plain_cost.macs, plain_cost.params)
        assert sum(count_macs(family, other.shapes(SHAPE, 3), SHAPE).values()) == cost.macs


def test_a_linear_model_has_no_activation():
    assert Genotype("mlp", depth=0, activation="tanh") == Genotype("mlp", depth=0)


@pytest.mark.parametrize("family", SMALL)
def test_an_unknown_activation_is_refused_by_name(family):
    with pytest.raises(ConfigError, match="activation: found 'swish', expected one of relu, tanh"):
        Genotype(family, activation="swish", **SMALL[family])


def test_names_tell_layers_with_an_activation_and_the_last_has_none():
    shapes = Genotype("mlp", depth=1, width=2, activation="gelu").shapes((3,), 2)
    assert list(shapes) == [
        "layers.0.gelu.weight",
        "layers.0.gelu.bias",
        "layers.1.weight",
        "layers.1.bias",
    ]
    chain = dense_chain(FAMILIES["mlp"], shapes)
    assert [activation_of(weight) for weight, _ in chain] == ["gelu", "relu"]

    values = {"depth": 1, "width": 2, "kernel": 3, "pool": 2, "padding": "same", "head_width": [5]}
    names = list(Genotype("cnn", activation="silu", **values).shapes(SHAPE, 2))
    layers = ["layers.0.same.pool2.silu", "layers.1.silu", "layers.2"]
    assert [name.removesuffix(".weight") for name in names[::2]] == layers

    names = list(Genotype("resnet", depth=1, width=[2], activation="tanh").shapes(SHAPE, 2))
    assert [name for name in names if activation_of(name) == "tanh"] == [
        "layers.0.tanh.conv.weight",
        "layers.0.tanh.norm.gain",
        "layers.0.tanh.norm.bias",
    ]


MODULES = {"tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU}


@pytest.mark.parametrize("name", OTHERS)
def test_networks_are_those_of_torchs_own_layers(name):
    unit = MODULES[name]
    with torch.random.fork_rng(devices=[]):
        dense = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), unit(), nn.Linear(4, 3))
        # pooling comes first
        convolution = nn.Sequential(
            *(nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), unit()),
            *(nn.Flatten(), nn.Linear(12, 4), unit(), nn.Linear(4, 3)),
        )
    networks = {
        "mlp": (Genotype("mlp", depth=1, width=4, activation=name), dense),
        "cnn": (
            Genotype("cnn", depth=1, width=3, kernel=3, pool=2, head_width=[4], activation=name),
            convolution,
        ),
    }
    x = torch.randn(5, *SHAPE, generator=rng.generator(0, "x"))
    for family, (genotype, network) in networks.items():
        params = initialize(genotype.shapes(SHAPE, 3), generator=rng.generator(0, family))
        network.load_state_dict(dict(zip(network.state_dict(), params.values(), strict=True)))
        torch.testing.assert_close(FAMILIES[family].forward(params, x), network(x))


def test_a_residual_network_takes_it_at_all_three_places():
    """With gains of zero each norm sends its bias, and all is a sum of activations of these."""
    genotype = Genotype("resnet", depth=1, width=[1], activation="tanh")
    params = {name: torch.zeros(shape) for name, shape in genotype.shapes(SHAPE, 1).items()}
    params["layers.0.tanh.norm.bias"] += 0.3
    params["layers.1.0.norm1.bias"] += 0.7
    params["layers.1.0.norm2.bias"] += 0.2
    params["layers.2.weight"] += 1.0
    # the block's first convolution and norm reach the stream by the second convolution alone
    expected = math.tanh(math.tanh(0.3) + 0.2)
    forward = FAMILIES["resnet"].forward
    assert forward(params, torch.zeros(1, *SHAPE)).item() == pytest.approx(expected)

    params["layers.1.0.conv2.weight"][0, 0, 1, 1] = 1.0
    params["layers.1.0.norm2.gain"] += 1.0
    # tanh(0.7) everywhere has a mean square of tanh(0.7)^2, so that the norm makes 1 of it
    expected = math.tanh(math.tanh(0.3) + 1.2)
    assert forward(params, torch.zeros(1, *SHAPE)).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_a_dead_unit_sends_what_its_activation_makes_of_its_bias(name):
    # output = 5 f(2 x + 1) + 7 f(-0.5) + 1
    params = {
        f"layers.0.{name}.weight": torch.tensor([[2.0], [0.0]]),
        f"layers.0.{name}.bias": torch.tensor([1.0, -0.5]),
        "layers.1.weight": torch.tensor([[5.0, 7.0]]),
        "layers.1.bias": torch.tensor([1.0]),
    }
    pruned = compact("mlp", params)
    assert shapes_of(pruned)[f"layers.0.{name}.weight"] == (1, 1)
    assert pruned["layers.1.bias"].item() == pytest.approx(7 * by_hand(name, -0.5) + 1)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_sums_keep_their_variance_through_a_deep_network(name):
    """Of SiLU and GELU a small excess grows from layer to layer, so that few are looked at."""
    genotype = Genotype("mlp", depth=4, width=512, activation=name)
    shapes = genotype.shapes((512,), 512)
    params = initialize(shapes, generator=rng.generator(0, "deep"))
    hidden = torch.randn(64, 512, generator=rng.generator(0, "inputs"))

    # the inputs have a mean square of one, the activations of standard normal sums less
    hidden = hidden * SECOND_MOMENTS[name] ** 0.5
    variances = []
    for weight, _ in dense_chain(FAMILIES["mlp"], shapes):
        sums = hidden @ params[weight].T
        variances.append(float(sums.var()))
        hidden = ACTIVATIONS[name](sums)
    assert variances[0] == pytest.approx(1, rel=0.1)
    assert variances[-1] == pytest.approx(1, rel=0.2)
