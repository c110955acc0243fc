"""Costs by hand, and against two counters on random networks of every family."""

import subprocess
import sys
from random import Random

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gped_nas.errors import GpedError
from gped_nas.models import costs
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.models.costs import (
    Cost,
    cost_of,
    count_macs,
    genotype_cost,
    largest_product,
    macs_by_operator,
    smallest_cost,
)
from gped_nas.models.mlp import Mlp
from gped_nas.models.storage import write_weights


def test_cost_of_the_network_of_the_paper():
    # parameters: 784*400+400 + 400*400+400 + 400*10+10 = 314000 + 160400 + 4010 = 478410
    # multiply-adds: 784*400 + 400*400 + 400*10 = 313600 + 160000 + 4000 = 477600, so 955200 FLOPs
    cost = genotype_cost(Genotype("mlp", depth=2, width=400), (1, 28, 28), 10)
    assert (cost.params, cost.macs, cost.flops) == (478_410, 477_600, 955_200)
    assert 4 * 478_410 < cost.storage_bytes < 4 * 478_410 + 1000  # numbers and a header


def test_a_linear_model_costs_its_one_layer():
    cost = genotype_cost(Genotype("mlp", depth=0), (7,), 3)
    assert (cost.macs, cost.flops, cost.params) == (21, 42, 24)


def test_smallest_network_has_one_unit_a_layer():
    # 6 -> 1 -> 1 -> 3: 6 + 1 + 3 = 10 multiply-adds and 5 biases
    genotype = Genotype("mlp", depth=2, width=[9, 8], group_penalty=0.1, storage_dtype="int8")
    smallest = smallest_cost(genotype, (6,), 3)
    assert (smallest.macs, smallest.params) == (10, 15)
    by_hand = Genotype("mlp", depth=2, width=1, storage_dtype="int8")
    assert smallest == genotype_cost(by_hand, (6,), 3)


def test_storage_is_the_size_of_the_file(tmp_path):
    shapes = Genotype("mlp", depth=1, width=11).shapes((5,), 4)
    params = {name: torch.ones(shape) for name, shape in shapes.items()}
    for dtype in ("float32", "float16", "int8"):
        size = write_weights(tmp_path / dtype, params, dtype)
        assert size == (tmp_path / dtype).stat().st_size
        assert size == cost_of("mlp", shapes, (5,), dtype).storage_bytes


def test_costs_do_not_allocate_the_network():
    # 65536 x 65536 weights are 17 GB: counting happens on meta tensors
    shapes = {"layers.0.weight": (65_536, 65_536), "layers.0.bias": (65_536,)}
    assert count_macs("mlp", shapes, (65_536,)) == {"linear": 65_536**2}


def test_a_small_network_is_counted_without_torchs_compiler():
    program = """
import sys
from gped_nas.models.costs import count_macs
assert count_macs("mlp", {"layers.0.weight": (3, 5), "layers.0.bias": (3,)}, (5,)) == {"linear": 15}
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def random_case(random: Random) -> tuple[Genotype, tuple[int, ...]]:
    """A small genotype of any family, and inputs that it can read."""

    def widths(num: int) -> list[int]:
        return [random.randint(1, 12) for _ in range(num)]

    family = random.choice(["mlp", "cnn", "resnet"])
    depth = random.randint(1, 2)
    image = (random.randint(1, 3), random.randint(22, 25), random.randint(22, 25))

    if family == "mlp":
        genotype = Genotype("mlp", depth=depth - 1, width=widths(depth - 1))
        return genotype, random.choice([image, image[:1]])

    if family == "resnet":
        depths = [random.randint(1, 2) for _ in range(depth)]
        return Genotype("resnet", depth=depths, width=widths(depth)), image

    genotype = Genotype(
        "cnn",
        depth=depth,
        width=widths(depth),
        kernel=[random.randint(1, 3) for _ in range(depth)],
        pool=[random.randint(1, 2) for _ in range(depth)],
        head_width=widths(random.randint(0, 2)),
    )
    return genotype, image


def prune(
    random: Random, family: str, shapes: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The shapes that remain when some units of every group are removed."""
    remaining = dict(shapes)
    for group in FAMILIES[family].groups(shapes):
        before = group.num_units(remaining)
        after = random.randint(1, before)
        for name in group.readers:
            outputs, inputs, *window = remaining[name]
            remaining[name] = (outputs, inputs // before * after, *window)
        for name in group.rows:
            remaining[name] = (after, *remaining[name][1:])
    return remaining


def test_analytic_macs_are_those_that_two_counters_find_on_200_random_networks_whole_or_pruned():
    random = Random(0)
    families = set()
    for i in range(200):
        genotype, input_shape = random_case(random)
        family = genotype.family
        shapes = genotype.shapes(input_shape, 4)
        if i % 2:
            shapes = prune(random, family, shapes)

        macs = cost_of(family, shapes, input_shape, "float32").macs
        counted = count_macs(family, shapes, input_shape)
        assert macs == sum(counted.values()), (genotype, shapes)
        assert macs_by_operator(family, shapes, input_shape) == counted, (genotype, shapes)

        with FlopCounterMode(display=False) as counter:
            params = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
            FAMILIES[family].forward(params, torch.empty(1, *input_shape, device="meta"))
        assert counter.get_total_flops() == 2 * macs, (genotype, shapes)
        families.add(family)
    assert families == {"mlp", "cnn", "resnet"}


@pytest.mark.parametrize(
    ("operator", "forward"),
    [
        ("aten::erf", lambda params, x: torch.erf(x @ params["w"])),
        # fvcore would count these two, but what costs mean says nothing about them
        (
            "adaptive_avg_pool2d",
            lambda params, x: torch.nn.functional.adaptive_avg_pool2d(x[None], 1),
        ),
        ("layer_norm", lambda params, x: torch.nn.functional.layer_norm(x @ params["w"], (2,))),
    ],
)
def test_an_operator_without_a_rule_is_an_error(monkeypatch, operator, forward):
    class Strange(Mlp):
        def forward(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
            return forward(params, x)

    monkeypatch.setitem(FAMILIES._items, "strange", Strange())
    with pytest.raises(GpedError, match=operator):
        count_macs("strange", {"w": (3, 2)}, (3, 3))


def test_one_chain_of_a_length_is_traced_and_one_that_computes_more_is_traced_each_time(
    monkeypatch,
):
    class Wasteful(Mlp):
        """Computes its last layer twice."""

        def forward(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
            return super().forward(params, x) + super().forward(params, x)

    traced = []

    def trace(family, shapes, input_shape):
        traced.append(family)
        return count_macs(family, shapes, input_shape)

    monkeypatch.setattr(costs, "count_macs", trace)
    monkeypatch.setattr(costs, "_OPERATOR_OF_CHAINS", {})
    monkeypatch.setitem(FAMILIES._items, "wasteful", Wasteful())
    for family, factor in (("mlp", 1), ("wasteful", 2)):
        for width in (3, 5):
            shapes = Genotype("mlp", depth=1, width=width).shapes((4,), 2)
            expected = {"linear": factor * 6 * width}
            assert macs_by_operator(family, shapes, (4,)) == expected
    assert traced == ["mlp", "wasteful", "wasteful"]


def test_threads_are_chosen_by_the_largest_product():
    # 784 x 16 weights; a convolution uses its 25 x 8 weights at 24 x 24 pixels, and the dense layer
    # behind it has 1152 x 10
    mlp = Genotype("mlp", depth=1, width=16)
    cnn = Genotype("cnn", depth=1, width=8, kernel=5, pool=2)
    for genotype, product in ((mlp, 784 * 16), (cnn, 576 * 200)):
        shapes = genotype.shapes((1, 28, 28), 10)
        assert largest_product(genotype.family, shapes, (1, 28, 28), 100) == 100 * product


def test_costs_are_plain_numbers():
    assert Cost(1, 2, 3, 4) == Cost(macs=1, flops=2, params=3, storage_bytes=4)
    cost = genotype_cost(Genotype("mlp", depth=0), (7,), 3)
    assert {type(v) for v in vars(cost).values()} == {int}


@pytest.mark.parametrize(
    "activation", [torch.tanh, torch.sigmoid, torch.nn.functional.gelu, torch.nn.functional.silu]
)
def test_an_activation_costs_nothing(monkeypatch, activation):
    class Smooth(Mlp):
        def forward(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
            return activation(torch.nn.functional.linear(x, params["w"]))

    monkeypatch.setitem(FAMILIES._items, "smooth", Smooth())
    assert count_macs("smooth", {"w": (3, 2)}, (2,)) == {"linear": 6}


def test_a_family_names_operators_of_its_own_that_cost_nothing(monkeypatch):
    class Soft(Mlp):
        def forward(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.nn.functional.softplus(torch.nn.functional.linear(x, params["w"]))

    monkeypatch.setitem(FAMILIES._items, "soft", Soft())
    with pytest.raises(GpedError, match="'soft': no rule counts aten::softplus; .*free_operators"):
        count_macs("soft", {"w": (3, 2)}, (2,))
    monkeypatch.setattr(Soft, "free_operators", frozenset({"aten::softplus"}))
    assert count_macs("soft", {"w": (3, 2)}, (2,)) == {"linear": 6}
