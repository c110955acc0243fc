import pytest
import torch
from torch import Tensor

from gped_nas.errors import GpedError
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.models.costs import Cost, cost_of, count_macs, genotype_cost, smallest_cost
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
    for dtype in ("float32", "float16", "int8"):
        size = write_weights(tmp_path / dtype, {n: torch.ones(s) for n, s in shapes.items()}, dtype)
        assert cost_of("mlp", shapes, (5,), dtype).storage_bytes == size == (tmp_path / dtype).stat().st_size


def test_costs_do_not_allocate_the_network():
    # 65536 x 65536 weights are 17 GB: counting happens on meta tensors
    shapes = {"layers.0.weight": (65_536, 65_536), "layers.0.bias": (65_536,)}
    assert count_macs("mlp", shapes, (65_536,)) == {"linear": 65_536**2}


def test_an_operator_that_cannot_be_counted_is_an_error(monkeypatch):
    def forward(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.erf(x @ params["w"])

    class Strange:
        def __init__(self) -> None:
            self.forward = forward

    monkeypatch.setitem(FAMILIES._items, "strange", Strange())
    with pytest.raises(GpedError, match="aten::erf"):
        count_macs("strange", {"w": (3, 2)}, (3,))


def test_costs_are_plain_numbers():
    assert Cost(1, 2, 3, 4) == Cost(macs=1, flops=2, params=3, storage_bytes=4)
    cost = genotype_cost(Genotype("mlp", depth=0), (7,), 3)
    assert {type(v) for v in vars(cost).values()} == {int}
