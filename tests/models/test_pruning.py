"""How genotypes say that they are pruned, and what is known of their costs before training."""

import pytest

from gped_nas.errors import ConfigError
from gped_nas.models.base import Genotype
from gped_nas.models.costs import check_budget, genotype_cost, known_cost, smallest_cost

SHAPE, NUM_OUTPUTS = (6,), 3
WHOLE = Genotype("mlp", depth=2, width=[8, 4])
# MACs by hand: 6 * 8 + 8 * 4 + 4 * 3 = 92; of one unit a layer 6 + 1 + 3 = 10


def test_a_genotype_without_the_new_values_is_written_as_before():
    assert WHOLE.to_json() == {
        "family": "mlp",
        "depth": 2,
        "width": [8, 4],
        "group_penalty": 0.0,
        "storage_dtype": "float32",
    }


def test_values_that_change_nothing_are_left_out():
    assert WHOLE.replace(prune_criterion="group_lasso", prune_exempt="none") == WHOLE
    assert WHOLE.replace(prune_exempt="first") == WHOLE  # nothing is pruned
    assert WHOLE.replace(group_penalty=0.1, prune_exempt="first")["prune_exempt"] == "first"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prune_to_macs": 0}, "prune_to_macs: found 0"),
        ({"prune_to_macs": 2.5}, "prune_to_macs: found 2.5"),
        ({"prune_to_macs": 9, "prune_to_params": 9}, "expected one budget"),
        ({"prune_to_macs": 9, "group_penalty": 0.1}, "beside group_penalty 0.1"),
        ({"prune_criterion": "taylor"}, "found 'taylor', expected one of group_lasso, magnitude"),
        ({"prune_criterion": "magnitude"}, "magnitude without prune_to"),
        ({"prune_exempt": "first+"}, "prune_exempt: found 'first+'"),
        ({"prune_exempt": "none+first"}, "expected none alone"),
        ({"prune_exempt": 1}, "prune_exempt: found 1"),
        ({"prune_at": 1}, "prune_at: found 1, expected a number between 0 and 1"),
    ],
)
def test_impossible_values_are_refused_by_name(values, words):
    with pytest.raises(ConfigError) as caught:
        WHOLE.replace(**values)
    assert words in str(caught.value)


def test_a_genotype_is_read_back_from_its_plain_data():
    genotype = WHOLE.replace(
        prune_to_int8_bytes=900, prune_criterion="magnitude", prune_exempt="last", prune_at=0.5
    )
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert str(genotype.budget) == "storage_bytes 900 as int8"
    assert genotype.unpruned == WHOLE
    assert genotype.architecture() == WHOLE.architecture()


@pytest.mark.parametrize(
    ("exempt", "layers"),
    [
        ("first", ["layers.1"]),
        ("last", ["layers.0"]),
        ("layers.1", ["layers.0"]),
        ("layers", []),
        ("layers.7", ["layers.0", "layers.1"]),
        ("first+layers.1", []),
    ],
)
def test_exempt_layers_are_no_prunable_groups(exempt, layers):
    genotype = WHOLE.replace(group_penalty=0.1, prune_exempt=exempt)
    groups = genotype.prunable(genotype.shapes(SHAPE, NUM_OUTPUTS))
    assert [group.layer for group in groups] == layers


def test_the_smallest_network_keeps_exempt_layers_whole():
    smallest = smallest_cost(WHOLE.replace(prune_to_macs=60), SHAPE, NUM_OUTPUTS)
    assert smallest.macs == 6 + 1 + 3
    kept = WHOLE.replace(prune_to_macs=80, prune_exempt="first")
    assert smallest_cost(kept, SHAPE, NUM_OUTPUTS).macs == 6 * 8 + 8 + 3
    within = WHOLE.replace(prune_to_macs=92)
    assert smallest_cost(within, SHAPE, NUM_OUTPUTS) == genotype_cost(WHOLE, SHAPE, NUM_OUTPUTS)


def test_costs_that_are_known_before_training():
    def known(**values):
        return known_cost(WHOLE.replace(**values), SHAPE, NUM_OUTPUTS)

    everything = known()
    assert everything == vars(genotype_cost(WHOLE, SHAPE, NUM_OUTPUTS))
    assert known(group_penalty=0.1) == {}
    assert known(prune_to_macs=92) == everything
    assert known(prune_to_macs=91) == {"macs": 91, "flops": 182}
    assert known(prune_to_flops=91) == {"macs": 45, "flops": 91}
    assert known(prune_to_params=50) == {"params": 50}
    assert known(prune_to_int8_bytes=600, storage_dtype="int8") == {"storage_bytes": 600}
    assert known(prune_to_int8_bytes=600) == {}


@pytest.mark.parametrize(
    ("budget", "least"),
    [
        ({"prune_to_macs": 9}, 10),
        ({"prune_to_flops": 19}, 20),
        ({"prune_to_params": 14}, 15),
        ({"prune_to_macs": 58, "prune_exempt": "first"}, 59),
    ],
)
def test_a_budget_below_the_smallest_network_is_refused(budget, least):
    genotype = WHOLE.replace(**budget)
    with pytest.raises(ConfigError) as caught:
        check_budget(genotype, SHAPE, NUM_OUTPUTS, "here")
    assert f"expected at least {least}" in str(caught.value)

    (name, most) = next(iter(budget.items()))
    check_budget(genotype.replace(**{name: most + 1}), SHAPE, NUM_OUTPUTS, "here")
