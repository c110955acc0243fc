"""Genotypes, fresh parameters, and what a family gets without saying it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gped_nas import rng
from gped_nas.errors import ConfigError, RegistryError
from gped_nas.models.base import Family, Genotype, initialize, num_params
from gped_nas.models.labels import genotype_text

WIDTHS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def test_inactive_widths_are_dropped_before_comparing():
    # the third width belongs to a layer that is not there
    short = Genotype("mlp", depth=2, width=[5, 3])
    assert Genotype("mlp", depth=2, width=[5, 3, 99]) == short
    assert hash(Genotype("mlp", depth=2, width=(5, 3, 99))) == hash(short)
    assert Genotype("mlp", depth=2, width=[5, 4]) != short

    linear = Genotype("mlp", depth=0)
    assert Genotype("mlp", depth=0, width=[5]) == linear
    assert Genotype("mlp", depth=0, width=8) == linear
    assert Genotype("mlp", depth=2, width=5) == Genotype("mlp", depth=2, width=[5, 5])


def test_defaults_are_filled_in_and_order_is_no_difference():
    plain = Genotype("mlp", depth=1, width=4)
    assert plain == Genotype("mlp", storage_dtype="float32", width=4, group_penalty=0, depth=1)
    assert plain["group_penalty"] == 0.0
    assert plain["width"] == (4,)
    assert plain.replace(group_penalty=0.5) != plain
    assert plain.replace(group_penalty=0.5).architecture() == {"depth": 1, "width": (4,)}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"depth": 1}, "width"),
        ({"width": 3}, "depth"),
        ({"depth": True, "width": 3}, "depth"),
        ({"depth": 1.0, "width": 3}, "depth"),
        ({"depth": -1, "width": 3}, "depth"),
        ({"depth": 17, "width": 3}, "depth"),
        ({"depth": 1, "width": 0}, "width"),
        ({"depth": 1, "width": 65_537}, "width"),
        ({"depth": 2, "width": [3]}, "width"),
        ({"depth": 2, "width": [3, "4"]}, "width"),
        ({"depth": 1, "width": 3, "dropout": 0.1}, "dropout"),
        ({"depth": 1, "width": 3, "group_penalty": math.nan}, "group_penalty"),
        ({"depth": 1, "width": 3, "group_penalty": math.inf}, "group_penalty"),
        ({"depth": 1, "width": 3, "group_penalty": 10**400}, "group_penalty"),
        ({"depth": 1, "width": 3, "group_penalty": True}, "group_penalty"),
        ({"depth": 1, "width": 3, "storage_dtype": ["int8"]}, "storage_dtype"),
    ],
)
def test_impossible_values_are_refused_by_name(values, name):
    with pytest.raises(ConfigError, match=name):
        Genotype("mlp", **values)


def test_an_unknown_value_and_an_unknown_family_name_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        Genotype("mlp", depth=1, widht=3)
    with pytest.raises(RegistryError, match="did you mean 'mlp'"):
        Genotype("mpl", depth=1, width=3)


def test_a_genotype_is_shown_without_what_is_off():
    genotype = Genotype("mlp", depth=2, width=[5, 3])
    assert str(genotype) == "mlp(depth=2, storage_dtype=float32, width=5-3)"
    assert "group_penalty=0.001" in str(Genotype("mlp", depth=0, group_penalty=1e-3))
    assert "width=none" in str(Genotype("mlp", depth=0))


def test_a_genotype_and_its_plain_data_are_shown_alike():
    genotype = Genotype("mlp", depth=2, width=[5, 3], group_penalty=0.0123456)
    assert genotype_text(genotype.to_json()) == str(genotype)
    assert "group_penalty=0.0123" in str(genotype)
    assert genotype_text({"depth": 1}) == "student(depth=1)"


@settings(deadline=None, derandomize=True, max_examples=60, database=None)
@given(widths=WIDTHS, extra=st.lists(st.integers(1, 9), max_size=3), inputs=st.integers(1, 30))
def test_shapes_chain_from_input_to_output(widths, extra, inputs):
    genotype = Genotype("mlp", depth=len(widths), width=[*widths, *extra])
    shapes = genotype.shapes((inputs,), 4)
    sizes = [inputs, *widths, 4]
    assert num_params(shapes) == sum(a * b + b for a, b in zip(sizes[:-1], sizes[1:], strict=True))
    assert genotype == Genotype("mlp", depth=len(widths), width=widths)
    assert Genotype.from_json(genotype.to_json()) == genotype


def test_initial_weights_have_variance_two_over_fan_in_and_biases_are_zero():
    # 400 x 500 weights: the relative standard error of their variance is sqrt(2 / 200000) = 0.3 %
    shapes = {"w": (400, 500), "b": (400,), "norm.gain": (3,), "norm.bias": (3,)}
    params = initialize(shapes, generator=rng.generator(0, "init"))
    assert params["norm.gain"].tolist() == [1, 1, 1]
    assert not params["norm.bias"].any()
    assert float(params["w"].var()) == pytest.approx(2 / 500, rel=0.013)
    assert not params["b"].any()

    again = initialize({"w": (400, 500), "b": (400,)}, generator=rng.generator(0, "init"))
    assert torch.equal(params["w"], again["w"])


class Bare(Family):
    """A family that says no more than it must: one convolution, a vector, a dense layer."""

    def canonical(self, values):
        return dict(values)

    def shapes(self, values, input_shape, num_outputs):
        shapes = {"conv.weight": (3, 1, 2, 2), "conv.bias": (3,), "shift": (3,)}
        return shapes | {"out.weight": (num_outputs, 3), "out.bias": (num_outputs,)}

    def forward(self, params, x):
        raise NotImplementedError

    def macs(self, shapes, input_shape):
        return {}


def test_a_family_gets_what_it_does_not_say():
    family = Bare()
    shapes = family.shapes({}, (1, 4, 4), 5)
    assert (family.counts, family.monotone, family.groups(shapes)) == ({}, frozenset(), [])
    assert family.head(shapes) == ("out.weight", "out.bias")
    assert family.describe(shapes) == [
        {"layer": "conv", "kind": "conv", "inputs": 1, "outputs": 3, "params": 15},
        {"layer": "shift", "kind": "vector", "inputs": 3, "outputs": 3, "params": 3},
        {"layer": "out", "kind": "linear", "inputs": 3, "outputs": 5, "params": 20},
    ]

    fresh = family.initialize(shapes, generator=rng.generator(0, "bare"))
    again = initialize(shapes, generator=rng.generator(0, "bare"))
    assert list(fresh) == list(shapes)
    assert all(torch.equal(fresh[name], again[name]) for name in shapes)


def test_a_last_layer_that_is_not_dense_is_no_head():
    family = Bare()
    conv = {"a.weight": (2, 1, 3, 3), "a.bias": (2,)}
    assert family.head(conv) is None
    assert family.head({"a.weight": (2, 3)}) is None
    assert family.head({"a.weight": (2, 3), "b.gain": (3,)}) is None
