"""Multipliers of several layers, budgets and exempt layers as a space writes them."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gped_nas.errors import ConfigError
from gped_nas.models.costs import genotype_cost
from gped_nas.search.counting import count_genotypes
from gped_nas.search.dimensions import Fixed
from gped_nas.search.pruning_checks import check_pruning
from gped_nas.search.ranges import parse_dimensions

PLACE = "space.yaml: students[0].genotype"


def parse(family="mlp", prefix="", **ranges):
    return parse_dimensions(family, ranges, PLACE, prefix)


def listed(*spaces):
    seen = set()
    return [space.draw(Fixed(params)) for space in spaces for params in space.enumerate(seen)]


def test_one_drawn_number_multiplies_several_layers():
    space = parse(depth=2, width={"times": [16, 32], "choices": [0.25, 0.5, 1, 2]})
    assert [g["width"] for g in listed(space)] == [(4, 8), (8, 16), (16, 32), (32, 64)]

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    width = space.draw(trial)["width"]
    assert list(trial.params) == ["width"]
    assert width == (16 * trial.params["width"], 32 * trial.params["width"])


def test_multiples_are_rounded_and_at_least_one():
    space = parse(depth=2, width={"times": [5, 1], "choices": [0.1, 0.5, 1.5]})
    # 0.5 and 0.1; 2.5 and 0.5; 7.5 and 1.5
    assert [g["width"] for g in listed(space)] == [(1, 1), (3, 1), (8, 2)]


def test_the_two_multipliers_of_the_paper():
    space = parse(
        "cnn",
        depth=2,
        kernel=4,
        pool=2,
        width={"times": [10, 20], "choices": [0.5, 1, 2]},
        head_width={"times": [80], "choices": [0.25, 1]},
    )
    genotypes = listed(space)
    assert len(genotypes) == 6 == count_genotypes([space])
    assert {(g["width"], g["head_width"]) for g in genotypes} >= {
        ((5, 10), (20,)),
        ((20, 40), (80,)),
    }


factors = st.lists(st.sampled_from([0.1, 0.25, 0.3, 1, 2]), min_size=1, max_size=3, unique=True)
MULTIPLIED = st.builds(
    lambda times, choices: {"times": times, "choices": choices},
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    factors,
)
WHOLE = st.builds(
    lambda times, low: {"times": times, "int": [low, low + 1]},
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.integers(1, 2),
)


@settings(max_examples=60, deadline=None)
@given(width=st.one_of(MULTIPLIED, WHOLE), depth=st.sampled_from([2, {"int": [0, 3]}]))
def test_multiplied_genotypes_are_counted_and_bounded(width, depth):
    space = parse(depth=depth, width=width)
    genotypes = listed(space)
    assert count_genotypes([space]) == len(genotypes)

    other = parse(depth={"int": [1, 2]}, width={"choices": [1, 2]}, prefix="1-mlp.")
    assert count_genotypes([space, other]) == len(listed(space, other))

    corners = [genotype_cost(corner, (3,), 2).macs for corner in space.corners()]
    macs = [genotype_cost(genotype, (3,), 2).macs for genotype in genotypes]
    assert min(corners) <= min(macs) and max(macs) <= max(corners)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"width": {"times": [], "choices": [1]}}, "width.times: found []"),
        ({"width": {"times": [2.5], "choices": [1]}}, "width.times: found [2.5]"),
        ({"width": {"times": [2, 2], "choices": [0, 1]}}, "width: found the factor 0"),
        ({"width": {"times": [2, 2], "choices": ["a"]}}, "width: found the factor 'a'"),
        ({"width": {"times": [2, 2]}}, "expected exactly one of int, float, choices"),
        ({"width": [{"times": [2], "choices": [1]}]}, "width[0].times: found in a list"),
        ({"width": 3, "depth": {"times": [1], "int": [1, 2]}}, "depth.times: found beside"),
        (
            {"width": {"times": [2], "choices": [1]}},
            "width: found 1 entries, expected one for each",
        ),
        ({"width": 3, "prune_to": 20}, "prune_to: found 20, expected one cost"),
        ({"width": 3, "prune_to": {"macs": 20, "params": 20}}, "expected one cost"),
        ({"width": 3, "prune_to": {"mac": 20}}, "prune_to: found 'mac'"),
        ({"width": 3, "prune_to": {"macs": 0}}, "prune_to_macs: found 0"),
        ({"width": 3, "prune_exempt": [3]}, "prune_exempt: found [3]"),
        (
            {"width": 3, "prune_to": {"macs": 20}, "group_penalty": {"choices": [0, 0.1]}},
            "prune_to: found prune_to_macs beside group_penalty 0.1",
        ),
        (
            {"width": 3, "prune_criterion": {"choices": ["group_lasso", "magnitude"]}},
            "prune_criterion: found magnitude without prune_to",
        ),
    ],
)
def test_bad_ranges_name_file_and_key(ranges, message):
    with pytest.raises(ConfigError) as caught:
        parse(**{"depth": 2, **ranges})
    assert PLACE in str(caught.value)
    assert message in str(caught.value)


def test_a_budget_is_drawn_under_its_name():
    space = parse(depth=1, width=9, prune_to={"macs": {"int": [20, 80], "log": True}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    genotype = space.draw(trial)
    assert list(trial.params) == ["prune_to_macs"]
    assert genotype.budget.most == trial.params["prune_to_macs"]


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (None, "float32"),
        ("float16", "float16"),
        ({"choices": ["int8", "float32", "float16"]}, "int8"),
        ({"choices": ["float16", "float32"]}, "float16"),
    ],
)
def test_bytes_are_those_of_the_smallest_storage_type_of_the_space(dtypes, expected):
    ranges = {} if dtypes is None else {"storage_dtype": dtypes}
    space = parse(depth=1, width=9, prune_to={"storage_bytes": 700}, **ranges)
    for genotype in listed(space):
        assert genotype.budget.dtype == expected
        assert genotype[f"prune_to_{expected}_bytes"] == 700


def test_a_list_of_layers_is_one_exemption():
    space = parse(depth=2, width=3, group_penalty=0.1, prune_exempt=["layers.0", "last"])
    (genotype,) = listed(space)
    assert genotype["prune_exempt"] == "layers.0+last"


def test_settings_of_pruning_are_drawn_one_by_one():
    space = parse(
        depth=1,
        width=9,
        prune_to={"macs": {"choices": [30, 60]}},
        prune_at={"choices": [0.4, 0.6]},
        prune_exempt={"choices": ["none", "first"]},
        prune_criterion={"choices": ["group_lasso", "magnitude"]},
    )
    assert len(listed(space)) == 16 == count_genotypes([space])


def refusal(*spaces, shape=(4,)):
    with pytest.raises(ConfigError) as caught:
        for space in spaces:
            check_pruning(tuple(space.corners()), shape, 2, PLACE)
    return str(caught.value)


def test_a_range_whose_low_end_is_below_the_smallest_network_is_refused():
    # one unit in each of two layers: 4 + 1 + 2 multiply-adds
    ranges = {"depth": {"int": [1, 2]}, "width": 9}
    space = parse(**ranges, prune_to={"macs": {"int": [6, 90]}})
    assert "prune_to: found macs 6, expected at least 7" in refusal(space)
    reachable = parse(**ranges, prune_to={"macs": {"int": [7, 90]}})
    check_pruning(tuple(reachable.corners()), (4,), 2, PLACE)


def test_a_layer_that_no_student_has_is_refused():
    space = parse(depth={"int": [1, 2]}, width=9, group_penalty=0.1, prune_exempt="layer.0")
    assert "prune_exempt: found 'layer.0', which no student has; did you mean" in refusal(space)
    deeper = parse(depth={"int": [1, 2]}, width=9, group_penalty=0.1, prune_exempt="layers.1")
    check_pruning(tuple(deeper.corners()), (4,), 2, PLACE)
