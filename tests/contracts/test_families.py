"""What every registered family promises, on a grid of genotypes, whole and pruned."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gped_nas import rng
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, STORAGE_DTYPES, Genotype, initialize, num_params
from gped_nas.models.compact import compact, dead_units
from gped_nas.models.costs import cost_of, count_macs, genotype_cost, smallest_cost
from gped_nas.models.storage import decode, encode
from tests.scenarios import FAMILY_CASES, GENOTYPES, INPUT_SHAPES

NUM_OUTPUTS = 3
CASES = [pytest.param(g, s, id=f"{g}-{s}") for g, s in FAMILY_CASES]


def random_params(genotype: Genotype, input_shape, *, dead_share: float):
    """Parameters with positive biases on every unit; a share of each group's units is dead."""
    generator = rng.generator(0, "families", str(genotype), str(dead_share))
    shapes = genotype.shapes(input_shape, NUM_OUTPUTS)
    params = initialize(shapes, generator=generator)
    for name, value in params.items():
        if value.dim() == 1:
            params[name] = torch.rand(value.shape, generator=generator) + 0.1
    for group in FAMILIES[genotype.family].groups(shapes):
        dead = torch.rand(group.num_units(shapes), generator=generator) < dead_share
        for name in group.weights:
            params[name][dead] = 0.0
    return params


def shapes_of(params):
    return {name: tuple(p.shape) for name, p in params.items()}


def test_every_registered_family_is_tested():
    assert set(GENOTYPES) == set(INPUT_SHAPES) == set(FAMILIES)


@pytest.mark.parametrize(("genotype", "input_shape"), CASES)
@pytest.mark.parametrize("dead_share", [0.0, 0.5, 1.0])
def test_analytic_macs_are_fvcores_and_half_of_torchs_flops(genotype, input_shape, dead_share):
    params = compact(genotype.family, random_params(genotype, input_shape, dead_share=dead_share))
    shapes = shapes_of(params)
    analytic = sum(FAMILIES[genotype.family].macs(shapes, input_shape).values())
    assert analytic == sum(count_macs(genotype.family, shapes, input_shape).values())
    with FlopCounterMode(display=False) as counter:
        FAMILIES[genotype.family].forward(params, torch.zeros(1, *input_shape))
    assert counter.get_total_flops() == 2 * analytic
    cost = cost_of(genotype.family, shapes, input_shape, "float32")
    assert (cost.macs, cost.flops) == (analytic, 2 * analytic)
    assert cost.params == num_params(shapes) == sum(p.numel() for p in params.values())


@pytest.mark.parametrize(("genotype", "input_shape"), CASES)
def test_macs_by_operator_are_fvcores(genotype, input_shape):
    shapes = genotype.shapes(input_shape, NUM_OUTPUTS)
    by_operator = {"conv": 0, "linear": 0}
    for name, macs in FAMILIES[genotype.family].macs(shapes, input_shape).items():
        by_operator["conv" if len(shapes[name]) == 4 else "linear"] += macs
    counted = count_macs(genotype.family, shapes, input_shape)
    assert {name: macs for name, macs in by_operator.items() if macs} == counted


@pytest.mark.parametrize(("genotype", "input_shape"), CASES)
def test_forward_gives_raw_outputs_for_any_batch(genotype, input_shape):
    params = random_params(genotype, input_shape, dead_share=0.0)
    forward = FAMILIES[genotype.family].forward
    x = torch.randn(5, *input_shape, generator=rng.generator(0, "x"))
    out = forward(params, x)
    assert out.shape == (5, NUM_OUTPUTS)
    alone = torch.cat([forward(params, x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(out, alone)  # an example's outputs do not depend on its batch
    assert forward(params, x[:0]).shape == (0, NUM_OUTPUTS)


@pytest.mark.parametrize(("genotype", "input_shape"), CASES)
@pytest.mark.parametrize("dead_share", [0.3, 0.7, 1.0])
def test_removing_dead_units_changes_no_output(genotype, input_shape, dead_share):
    params = random_params(genotype, input_shape, dead_share=dead_share)
    left = compact(genotype.family, params)
    forward = FAMILIES[genotype.family].forward
    x = torch.randn(16, *input_shape, generator=rng.generator(0, "x"))
    wide = {name: p.double() for name, p in params.items()}
    assert list(left) == list(params)
    reference = forward(wide, x.double())
    scale = float(reference.abs().max())
    assert float((forward(left, x).double() - reference).abs().max()) < 1e-6 * max(1.0, scale)
    groups = FAMILIES[genotype.family].groups(shapes_of(params))
    num_dead = sum(int(dead_units(params, g).sum()) for g in groups)
    assert (num_params(shapes_of(left)) < num_params(shapes_of(params))) == any(
        0 < int(dead_units(params, g).sum()) and g.num_units(shapes_of(params)) > 1 for g in groups
    )
    assert num_dead > 0 or dead_share < 1 or not groups
    for group in FAMILIES[genotype.family].groups(shapes_of(left)):
        dead = dead_units(left, group)
        assert not dead.any() or len(dead) == 1  # a layer of nothing but dead units keeps one


@pytest.mark.parametrize(("genotype", "input_shape"), CASES)
def test_pruned_costs_lie_between_the_smallest_and_the_whole_network(genotype, input_shape):
    pruned = genotype.replace(group_penalty=0.1)
    whole = genotype_cost(pruned, input_shape, NUM_OUTPUTS)
    smallest = smallest_cost(pruned, input_shape, NUM_OUTPUTS)
    assert smallest_cost(genotype, input_shape, NUM_OUTPUTS) == genotype_cost(
        genotype, input_shape, NUM_OUTPUTS
    )
    for share in (0.0, 0.5, 1.0):
        left = compact(genotype.family, random_params(genotype, input_shape, dead_share=share))
        cost = cost_of(genotype.family, shapes_of(left), input_shape, "float32")
        for name in ("macs", "flops", "params", "storage_bytes"):
            assert getattr(smallest, name) <= getattr(cost, name) <= getattr(whole, name)
    # nothing but dead units leaves exactly the smallest network
    assert cost == smallest


@pytest.mark.parametrize(("genotype", "input_shape"), CASES)
def test_a_genotype_survives_json_and_names_its_layers(genotype, input_shape):
    again = Genotype.from_json(genotype.to_json())
    assert again == genotype
    assert hash(again) == hash(genotype)
    assert str(again) == str(genotype)
    shapes = genotype.shapes(input_shape, NUM_OUTPUTS)
    rows = FAMILIES[genotype.family].describe(shapes)
    assert sum(row["params"] for row in rows) == num_params(shapes)
    assert all(set(row) == {"layer", "kind", "inputs", "outputs", "params"} for row in rows)
    layers = {row["layer"] for row in rows}
    assert {group.layer for group in FAMILIES[genotype.family].groups(shapes)} <= layers


@pytest.mark.parametrize(("genotype", "input_shape"), CASES)
def test_groups_hold_one_row_and_one_block_of_columns_a_unit(genotype, input_shape):
    shapes = genotype.shapes(input_shape, NUM_OUTPUTS)
    groups = FAMILIES[genotype.family].groups(shapes)
    for group in groups:
        num_units = group.num_units(shapes)
        assert {shapes[name][0] for name in group.rows} == {num_units}
        assert all(shapes[name][1] % num_units == 0 for name in group.readers)
    # but for the outputs, every row of every parameter belongs to exactly one group; a weight has
    # one reader's role
    rows = [name for group in groups for name in group.rows]
    readers = [name for group in groups for name in group.readers]
    assert len(set(rows)) == len(rows) == len(shapes) - 2
    assert len(set(readers)) == len(readers)


@pytest.mark.parametrize(("genotype", "input_shape"), CASES)
def test_a_missing_parameter_is_noticed(genotype, input_shape):
    params = random_params(genotype, input_shape, dead_share=0.0)
    x = torch.zeros(1, *input_shape)
    for name in params:
        with pytest.raises(
            (KeyError, RuntimeError)
        ):  # what a student's loader turns into a message
            FAMILIES[genotype.family].forward({n: p for n, p in params.items() if n != name}, x)


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
@pytest.mark.parametrize(("genotype", "input_shape"), CASES)
def test_names_are_read_back_in_the_familys_order(genotype, input_shape, dtype):
    params = random_params(genotype, input_shape, dead_share=0.0)
    stored = encode(params, dtype)
    assert list(decode(dict(sorted(stored.items())))) == list(params)
    for name, value in params.items():  # affine parts and biases are never rounded to int8
        assert dtype != "int8" or (stored[name].dtype == torch.int8) == (value.dim() > 1)


@pytest.mark.parametrize("family", sorted(GENOTYPES))
@pytest.mark.parametrize(
    "values", [{"wdith": 3}, {"storage_dtype": "bfloat16"}, {"group_penalty": -1}]
)
def test_unknown_and_impossible_values_are_refused(family, values):
    good = GENOTYPES[family][-1]
    with pytest.raises(ConfigError, match=next(iter(values))):
        Genotype(family, **{**dict(good.values), **values})


@pytest.mark.parametrize("dtype", STORAGE_DTYPES)
@pytest.mark.parametrize("family", sorted(GENOTYPES))
def test_storage_dtype_changes_bytes_alone(family, dtype):
    for genotype in GENOTYPES[family]:
        base = genotype_cost(genotype, INPUT_SHAPES[family][0], NUM_OUTPUTS)
        cost = genotype_cost(
            genotype.replace(storage_dtype=dtype), INPUT_SHAPES[family][0], NUM_OUTPUTS
        )
        assert (cost.macs, cost.params) == (base.macs, base.params)
        assert genotype.replace(storage_dtype=dtype).architecture() == genotype.architecture()
