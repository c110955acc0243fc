"""Dimensions: costs bounded at the corners, genotypes listed once, bad ranges refused by key."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gped_nas.errors import ConfigError, RegistryError
from gped_nas.models.base import Genotype
from gped_nas.models.costs import genotype_cost, smallest_cost
from gped_nas.models.labels import COUNTED_COSTS
from gped_nas.search.dimensions import Fixed
from gped_nas.search.ranges import parse_dimensions

PLACE = "space.yaml: students[0].genotype"


def parse(ranges, family="mlp", prefix=""):
    return parse_dimensions(family, ranges, PLACE, prefix)


def enumerate_genotypes(space):
    return [space.draw(Fixed(params)) for params in space.enumerate(set())]


def choices(low, high, max_size):
    """Choices of up to ``max_size`` whole numbers."""
    numbers = st.lists(st.integers(low, high), min_size=1, max_size=max_size, unique=True)
    return numbers.map(lambda entries: {"choices": entries})


def int_range(low, length, step):
    return {"int": [low, low + length], "step": step}


WIDTHS = st.one_of(
    st.integers(1, 40),
    choices(1, 40, max_size=3),
    st.builds(int_range, st.integers(1, 6), st.integers(0, 4), st.integers(1, 3)),
)
DEPTHS = st.one_of(
    st.integers(0, 3),
    choices(0, 3, max_size=4),
    st.integers(0, 3).map(lambda low: {"int": [low, 3]}),
)
SPACES = st.fixed_dictionaries(
    {
        "depth": DEPTHS,
        "width": st.one_of(WIDTHS, st.lists(WIDTHS, min_size=3, max_size=3)),
        "group_penalty": st.sampled_from(
            [0.0, 0.1, {"choices": [0.0, 0.1]}, {"choices": [0.2, 0.1]}]
        ),
        "storage_dtype": st.sampled_from(["int8", {"choices": ["float16", "int8", "float32"]}]),
    }
)


def assert_corners_bound(space, genotypes, shape):
    """Whether costs of the genotypes lie between those of the space's corners."""
    corners = list(space.corners())
    for cost in (genotype_cost, smallest_cost):
        costs_of_corners = [cost(corner, shape, 4) for corner in corners]
        for genotype in genotypes:
            costs = cost(genotype, shape, 4)
            for name in COUNTED_COSTS:
                ends = [getattr(corner, name) for corner in costs_of_corners]
                assert min(ends) <= getattr(costs, name) <= max(ends), (name, genotype)


@given(SPACES)
@settings(max_examples=40, deadline=None)
def test_corners_bound_the_costs_of_every_genotype(ranges):
    space = parse(ranges)
    assert_corners_bound(space, enumerate_genotypes(space)[:100], (9,))


@given(SPACES)
@settings(max_examples=30, deadline=None)
def test_every_draw_is_enumerated_and_every_genotype_once(ranges):
    space = parse(ranges)
    everything = enumerate_genotypes(space)
    assert len(set(everything)) == len(everything)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {space.draw(study.ask()) for _ in range(20)} <= set(everything)


def test_enumeration_by_hand():
    """Depth 1 ignores the second width: 2 genotypes; depth 2 has 2 x 2; each with two dtypes."""
    space = parse(
        {
            "depth": {"int": [1, 2]},
            "width": [{"choices": [4, 8]}, {"choices": [2, 3]}],
            "storage_dtype": {"choices": ["float32", "int8"]},
        }
    )
    everything = enumerate_genotypes(space)
    assert len(everything) == 12
    assert Genotype("mlp", depth=1, width=[4], storage_dtype="int8") in everything
    assert space.is_finite


def test_a_depth_between_the_ends_can_cost_least_and_most():
    """On 64 inputs and 10 outputs, widths 64, 1, 64.

    There are 4736, 4170 and 4832 weights at depths 1, 2 and 3.
    """
    space = parse({"depth": {"int": [1, 3]}, "width": [64, 1, 64]})
    macs = [genotype_cost(g, (64,), 10).macs for g in space.corners()]
    assert (min(macs), max(macs)) == (64 * 64 + 64 + 10, 64 * 64 + 64 + 64 + 640)


def test_names_of_layers_and_families_are_apart():
    space = parse(
        {"depth": {"int": [1, 2]}, "width": [{"int": [1, 9]}, {"int": [1, 9]}]}, prefix="1-mlp."
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    depths = set()
    for _ in range(20):
        trial = study.ask()
        depth = space.draw(trial)["depth"]
        depths.add(depth)
        layers = ["1-mlp.width_0", "1-mlp.width_1"][:depth]
        assert set(trial.params) == {"1-mlp.depth", *layers}
    assert depths == {1, 2}


def test_a_step_that_misses_the_high_end_stops_before_it():
    space = parse({"depth": 1, "width": {"int": [8, 20], "step": 5}})
    assert [g["width"] for g in enumerate_genotypes(space)] == [(8,), (13,), (18,)]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    # Optuna does not warn of the step.
    assert {space.draw(study.ask())["width"][0] for _ in range(30)} == {8, 13, 18}


def test_log_and_single_valued_ranges():
    space = parse(
        {
            "depth": {"int": [1, 1]},
            "width": {"int": [1, 64], "log": True},
            "group_penalty": {"float": [0.1, 0.1]},
        }
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        genotype = space.draw(study.ask())
        assert (genotype["depth"], genotype["group_penalty"]) == (1, 0.1)
        assert 1 <= genotype["width"][0] <= 64
    assert not space.is_finite


GOOD = {"depth": {"int": [1, 2]}, "width": {"choices": [4, 8]}}
BAD = [
    ({"widht": 4}, "widht: unknown key; did you mean 'width'?"),
    ({"width": None}, "width: found None, expected a constant or one of {int}, {float}, {choices}"),
    ({"width": True}, "width: found True"),
    ({"width": "wide"}, "width: found 'wide', expected a whole number"),
    ({"width": "1e1"}, "width: found the text '1e1', expected a number; YAML takes 1e-3 for text"),
    ({"width": 0}, "width: found 0, expected a whole number from 1"),
    ({"width": 2.5}, "width: found 2.5, expected a whole number"),
    (
        {"width": {"choices": []}},
        "width.choices: found [], expected a list with at least one entry",
    ),
    ({"width": {"choices": 4}}, "width.choices: found 4, expected a list"),
    ({"width": {"choices": [4, True]}}, "width.choices: found True, expected numbers or words"),
    ({"width": {"choices": [4, None]}}, "width.choices: found None"),
    ({"width": {"choices": [4, 4]}}, "expected no entry twice"),
    ({"width": {"choices": [1, 4, 2.5, 8]}}, "width: found 2.5, expected a whole number"),
    ({"width": {"choices": [4, "8e0"]}}, "width.choices: found the text '8e0'"),
    ({"width": {"choices": [4, 8], "log": True}}, "width.log: found beside choices"),
    ({"width": {"chioces": [4]}}, "width: chioces: unknown key; did you mean 'choices'?"),
    ({"width": {"int": [1, 2], "float": [1, 2]}}, "expected exactly one of int, float, choices"),
    ({"width": {"log": True}}, "expected exactly one of int, float, choices"),
    ({"width": {}}, "expected exactly one of int, float, choices"),
    ({"width": {"int": [8, 4]}}, "width.int: found [8, 4], expected the low end first"),
    ({"width": {"int": [4]}}, "width.int: found [4], expected [low, high]"),
    ({"width": {"int": 4}}, "width.int: found 4, expected [low, high]"),
    ({"width": {"int": [4, 8.0]}}, "width.int: found 8.0, expected a finite int"),
    ({"width": {"int": [False, 8]}}, "width.int: found False, expected a finite int"),
    ({"width": {"int": ["1e1", 80]}}, "width.int: found the text '1e1'"),
    ({"width": {"int": [0, 8]}}, "width: found 0, expected a whole number from 1"),
    ({"width": {"int": [1, 10**30]}}, "width: found 1"),
    (
        {"width": {"int": [0, 8], "log": True}},
        "found a log range from 0, expected it to start above 0",
    ),
    ({"width": {"int": [1, 8], "log": "yes"}}, "width.log: found 'yes', expected true or false"),
    ({"width": {"int": [1, 8], "step": 0}}, "width.step: found 0"),
    ({"width": {"int": [1, 8], "step": True}}, "width.step: found True"),
    ({"width": {"int": [1, 8], "step": 2, "log": True}}, "found log and step together"),
    ({"width": {"float": [4, 8]}}, "width: found 4.0, expected a whole number"),
    ({"depth": {"float": [1, 2]}}, "depth: found 1.0, expected a whole number"),
    ({"depth": "two"}, "depth: found 'two', expected a whole number"),
    ({"depth": {"choices": ["a", "b"]}}, "depth: found 'a', expected a whole number"),
    ({"depth": 1.5}, "depth: found 1.5, expected a whole number"),
    ({"depth": [1, 2]}, "depth: found [1, 2], expected one range"),
    (
        {"depth": {"int": [1, 10**12]}},
        "depth: found 1000000000000, expected a whole number from 0 to 16",
    ),
    ({"depth": {"int": [-1, 2]}}, "depth: found -1"),
    ({"width": [4]}, "width: found 1 entries, expected one for each of 2 layers"),
    ({"width": []}, "width"),
    ({"width": [4, {"choices": []}]}, "width[1].choices: found []"),
    ({"width": [4, {"choices": [2, 3.5, 8]}]}, "width: found 3.5, expected a whole number"),
    ({"width": [4, {"choices": [2, "a", 8]}]}, "width: found 'a', expected a whole number"),
    (
        {"group_penalty": {"float": [0.0, 1.0], "log": True}},
        "found a log range from 0.0, expected it to start",
    ),
    (
        {"group_penalty": {"float": [-1.0, 1.0]}},
        "group_penalty: found -1.0, expected a finite number of at least 0",
    ),
    (
        {"group_penalty": {"float": ["1e-3", 0.1]}},
        "group_penalty.float: found the text '1e-3', expected a number",
    ),
    (
        {"group_penalty": {"float": [0.1, float("inf")]}},
        "group_penalty.float: found inf, expected a finite float",
    ),
    (
        {"group_penalty": {"float": [float("nan"), 0.1]}},
        "group_penalty.float: found nan, expected a finite float",
    ),
    ({"group_penalty": {"float": [0, 10**400]}}, "expected a finite float"),
    ({"group_penalty": {"float": [0.1, 0.2], "step": 1}}, "group_penalty.step: found 1"),
    ({"group_penalty": {"choices": [0.1, float("nan")]}}, "group_penalty: found nan"),
    ({"group_penalty": "1e-3"}, "group_penalty: found the text '1e-3', expected a number"),
    ({"group_penalty": [0.1, 0.2]}, "group_penalty: found [0.1"),
    (
        {"storage_dtype": {"choices": ["float32", "int4"]}},
        "storage_dtype: found 'int4', expected one of float32",
    ),
    ({"storage_dtype": 8}, "storage_dtype: found 8"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_ranges_name_file_and_key(change, message):
    for ranges in ({**GOOD, **change}, {**GOOD, "width": [{"int": [1, 8]}, 4], **change}):
        with pytest.raises(ConfigError) as caught:
            parse(ranges)
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"{PLACE}.{next(iter(change))}")


def test_missing_values_and_unknown_families_are_refused():
    with pytest.raises(ConfigError, match=r"genotype\.depth: found None"):
        parse({"width": 4})
    with pytest.raises(ConfigError, match=r"genotype\.width: found None"):
        parse({"depth": {"int": [0, 2]}})
    with pytest.raises(RegistryError, match="unknown family 'mpl'; did you mean 'mlp'"):
        parse(GOOD, family="mpl")


CNN_VALUES = st.one_of(st.integers(1, 3), choices(1, 3, max_size=3))
CNNS = st.fixed_dictionaries(
    {
        "depth": st.one_of(st.integers(1, 2), st.just({"int": [1, 2]})),
        "width": st.one_of(WIDTHS, st.lists(WIDTHS, min_size=2, max_size=2)),
        "kernel": st.one_of(CNN_VALUES, st.lists(CNN_VALUES, min_size=2, max_size=2)),
        "pool": st.sampled_from([1, 2, {"choices": [1, 2]}, [2, {"choices": [1, 2]}]]),
        "head_depth": st.sampled_from([0, {"int": [0, 2]}]),
        "head_width": st.one_of(WIDTHS, st.lists(WIDTHS, min_size=2, max_size=2)),
        "group_penalty": st.sampled_from([0.0, {"choices": [0.0, 0.1]}]),
    }
)
RESNETS = st.fixed_dictionaries(
    {
        "stages": st.sampled_from([1, 2, {"int": [1, 2]}]),
        "depth": st.sampled_from([1, {"int": [1, 3]}, [{"int": [1, 2]}, 2]]),
        "width": st.one_of(WIDTHS, st.lists(WIDTHS, min_size=2, max_size=2)),
        "group_penalty": st.sampled_from([0.0, {"choices": [0.0, 0.1]}]),
    }
)


@pytest.mark.parametrize(
    ("family", "spaces", "shape"), [("cnn", CNNS, (2, 13, 12)), ("resnet", RESNETS, (2, 5, 4))]
)
def test_corners_bound_the_costs_of_networks_that_read_images(family, spaces, shape):
    @given(spaces, st.randoms(use_true_random=False))
    @settings(max_examples=25, deadline=None)
    def bound(ranges, random):
        space = parse(ranges, family)
        everything = enumerate_genotypes(space)
        sample = random.sample(everything, min(20, len(everything)))
        assert_corners_bound(space, sample, shape)

    bound()


def test_every_list_is_as_long_as_the_value_that_counts_it():
    ranges = {
        "depth": {"int": [1, 2]},
        "width": [{"choices": [4, 8]}, {"choices": [16, 32]}],
        "kernel": 3,
        "pool": [2, {"choices": [1, 2]}],
        "head_depth": {"int": [0, 1]},
        "head_width": [{"choices": [5, 6]}],
    }
    # Blocks: 2 of depth 1, 2 x 2 x 2 of depth 2; dense layers: none, or one of two widths.
    everything = enumerate_genotypes(parse(ranges, "cnn"))
    assert len(everything) == len(set(everything)) == (2 + 8) * 3

    stages = parse({"stages": {"int": [1, 2]}, "depth": [1, {"int": [1, 3]}], "width": 4}, "resnet")
    assert [g["depth"] for g in enumerate_genotypes(stages)] == [(1,), (1, 1), (1, 2), (1, 3)]

    # The list alone says how many stages there are.
    listed = parse({"depth": 1, "width": [{"choices": [2, 3]}, 4]}, "resnet")
    stages_and_widths = [(g["stages"], g["width"]) for g in enumerate_genotypes(listed)]
    assert stages_and_widths == [(2, (2, 4)), (2, (3, 4))]


CNN = {"depth": 1, "width": 4, "kernel": 3, "head_depth": 1, "head_width": 4}
RESNET = {"stages": 2, "depth": 1, "width": 4}


@pytest.mark.parametrize(
    ("family", "ranges", "key"),
    [
        ("cnn", {**CNN, "head_depth": [1]}, "head_depth"),
        ("resnet", {**RESNET, "stages": [1, 2]}, "stages"),
    ],
)
def test_a_value_that_counts_layers_is_one_range(family, ranges, key):
    message = rf"genotype\.{key}: found \[.*expected one range, not one a layer"
    with pytest.raises(ConfigError, match=message):
        parse(ranges, family)


def test_too_many_combinations_to_look_at_are_refused():
    kernels = [{"choices": [2, 3, 4, 5, 6, 7]} for _ in range(6)]
    with pytest.raises(ConfigError, match=r"genotype\.kernel: found more than 10000 combinations"):
        parse({"depth": 6, "width": 8, "kernel": kernels}, "cnn")
