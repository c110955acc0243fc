"""Search spaces: read with defaults, refused by file and key, overridden, and those shipped."""

import copy

import pytest

from gped_nas.config import dump_yaml, load_yaml
from gped_nas.errors import ConfigError, RegistryError
from gped_nas.models.base import Genotype
from gped_nas.models.costs import genotype_cost
from gped_nas.search.shipped import shipped_spaces
from gped_nas.search.space_file import find_space, load_space, parse_space
from gped_nas.search.teacher_words import teacher_text

SHAPE, CLASSES = (1, 8, 8), 10
GOOD = {
    "name": "tiny",
    "dataset": {"name": "digits"},
    "teacher": {
        "family": "mlp",
        "genotype": {"depth": 1, "width": 8},
        "method": {"name": "sgld", "chains": 2, "num_samples": 4, "step_size": {"initial": 1e-4}},
    },
    "students": [
        {
            "family": "mlp",
            "genotype": {
                "depth": {"int": [1, 2]},
                "width": {"choices": [4, 8]},
                "storage_dtype": {"choices": ["float32", "int8"]},
            },
        }
    ],
}


def changed(path, value):
    """``GOOD`` with the setting at a dotted path replaced; None removes it."""
    data = copy.deepcopy(GOOD)
    *parents, last = path.split(".")

    holder = data
    for parent in parents:
        if isinstance(holder, list):
            holder = holder[int(parent)]
        else:
            holder = holder.setdefault(parent, {})

    if value is None:
        holder.pop(last)
    elif isinstance(holder, list):
        holder[int(last)] = value
    else:
        holder[last] = value
    return data


def test_a_small_file_is_enough_and_defaults_are_filled_in():
    space = parse_space(GOOD, "f.yaml")
    assert [o.name for o in space.objectives] == ["nll", "flops", "storage_bytes"]
    assert [target.name for target in space.targets] == ["predictive", "expected_entropy"]
    assert [v.policy for v in space.views] == ["clean", "noise"]
    assert all(v.part == "distillation" for v in space.views)
    assert space.search.sampler == "auto" and space.search.n_trials == 48
    assert space.genotype == Genotype("mlp", depth=1, width=8)
    assert space.num_outputs(CLASSES) == 11
    assert len(list(space.enumerate())) == 8 and space.is_finite


def test_the_resolved_space_is_the_same_space():
    space = parse_space(GOOD, "f.yaml")
    text = dump_yaml(space.resolved)
    again = parse_space(load_yaml(text, "config.yaml"), "config.yaml")
    assert again == space
    assert again.resolved == space.resolved


def test_conditions_are_those_that_are_listed_and_those_that_goals_name():
    data = GOOD | {
        "conditions": {"mixed": {"name": "permuted"}},
        "objectives": ["nll@mixed", "params"],
    }
    space = parse_space(data, "f.yaml")
    assert [condition.name for condition in space.conditions] == ["clean", "mixed"]
    assert space.resolved["conditions"] == ["clean", {"mixed": {"name": "permuted"}}]
    assert parse_space(space.resolved, "config.yaml") == space

    data = GOOD | {"constraints": {"accuracy@permuted": 0.1}}
    space = parse_space(data, "f.yaml")
    assert space.resolved["conditions"] == ["clean", "permuted"]


def test_settings_that_are_given_are_kept():
    data = changed("teacher.prior", {"precision": 3.0})
    data |= {
        "views": [{"policy": "noise", "std": 0.5}],
        "constraints": {"storage_bytes": 20000, "accuracy": 0.5},
        "search": {"sampler": "grid", "n_trials": 3},
        "seed": 7,
        "objectives": ["accuracy", "params"],
    }

    space = parse_space(data, "f.yaml")
    assert (space.prior.precision, space.seed, space.search.sampler) == (3.0, 7, "grid")
    assert space.views[0].settings == {"std": 0.5} and space.views[0].seed == 7
    assert [o.direction for o in space.objectives] == ["maximize", "minimize"]
    assert space.constraints == {"storage_bytes": 20000, "accuracy": 0.5}


BAD = [
    # unknown keys, at every level
    ("serach", {}, ConfigError, "f.yaml: serach: unknown key; did you mean 'search'?"),
    (
        "search.n_trails",
        3,
        ConfigError,
        "f.yaml: search.n_trails: unknown key; did you mean 'n_trials'?",
    ),
    (
        "teacher.famly",
        "mlp",
        ConfigError,
        "f.yaml: teacher.famly: unknown key; did you mean 'family'?",
    ),
    (
        "teacher.method.chain",
        2,
        ConfigError,
        "f.yaml: teacher.method: chain: unknown key; did you mean 'chains'?",
    ),
    (
        "teacher.method.step_size.inital",
        1.0,
        ConfigError,
        "inital: unknown key; did you mean 'initial'?",
    ),
    (
        "teacher.prior.precison",
        1.0,
        ConfigError,
        "f.yaml: teacher.prior: precison: unknown key; did you mean",
    ),
    (
        "teacher.genotype.widht",
        8,
        ConfigError,
        "f.yaml: teacher.genotype.widht: unknown key; did you mean 'width'?",
    ),
    (
        "students.0.genotpye",
        {},
        ConfigError,
        "f.yaml: students.0.genotpye: unknown key; did you mean 'genotype'?",
    ),
    (
        "students.0.genotype.widht",
        8,
        ConfigError,
        "f.yaml: students[0].genotype.widht: unknown key; did you mean",
    ),
    (
        "views",
        [{"policy": "noise", "sdt": 1.0}],
        ConfigError,
        "f.yaml: views[0]: sdt: unknown key; did you mean 'std'",
    ),
    ("recipe.step", 10, ConfigError, "f.yaml: recipe.step: unknown key; did you mean 'steps'?"),
    (
        "baseline.precision",
        [1.0],
        ConfigError,
        "baseline.precision: unknown key; did you mean 'precisions'?",
    ),
    # unknown names
    (
        "dataset.name",
        "digit",
        RegistryError,
        "f.yaml: dataset.name: unknown dataset 'digit'; did you mean 'digits'?",
    ),
    (
        "teacher.family",
        "mpl",
        RegistryError,
        "f.yaml: teacher.family: unknown family 'mpl'; did you mean 'mlp'?",
    ),
    (
        "teacher.method.name",
        "sgdl",
        RegistryError,
        "f.yaml: teacher.method.name: unknown method 'sgdl'; did you",
    ),
    (
        "views",
        [{"policy": "niose"}],
        RegistryError,
        "f.yaml: views[0]: policy: unknown policy 'niose'; did you mean",
    ),
    (
        "targets",
        ["predictve"],
        RegistryError,
        "f.yaml: targets[0]: unknown target 'predictve'; did you mean",
    ),
    (
        "objectives",
        ["nl"],
        RegistryError,
        "f.yaml: objectives: unknown metric or cost 'nl'; did you mean 'nll'?",
    ),
    (
        "constraints",
        {"flop": 1.0},
        RegistryError,
        "f.yaml: constraints: unknown metric or cost 'flop'; did you mean",
    ),
    (
        "search.sampler",
        "tpee",
        ConfigError,
        "f.yaml: search.sampler: found 'tpee'; did you mean 'tpe'?",
    ),
    (
        "students.0.family",
        "mpl",
        RegistryError,
        "f.yaml: students[0].family: unknown family 'mpl'; did you mean",
    ),
    (
        "recipe.target_weights",
        {"predictve": 1.0},
        ConfigError,
        "target_weights.predictve: not among the targets; did",
    ),
    (
        "targets",
        ["predictive", {"name": "quantile", "level": [0.5]}],
        ConfigError,
        "f.yaml: targets[1]: quantile: level:",
    ),
    # rules that would bias a loss
    (
        "targets",
        ["predictive", "quantile"],
        ConfigError,
        "f.yaml: recipe.update: found averaged, expected newest for",
    ),
    (
        "recipe",
        {"mode": "online", "update": "averaged"},
        ConfigError,
        "f.yaml: recipe: update: found averaged, expected",
    ),
    (
        "recipe",
        {"mode": "onlin"},
        ConfigError,
        "f.yaml: recipe.mode: found 'onlin'; did you mean 'online'",
    ),
    # missing and of the wrong type
    ("name", None, ConfigError, "f.yaml: name: missing"),
    ("teacher", None, ConfigError, "f.yaml: teacher: missing"),
    ("dataset.name", None, ConfigError, "f.yaml: dataset.name: found None, expected the name of a"),
    ("dataset", "digits", ConfigError, "f.yaml: dataset: found 'digits', expected"),
    ("dataset.name", 3, ConfigError, "f.yaml: dataset.name: found 3, expected the name of a"),
    (
        "teacher.method.name",
        None,
        ConfigError,
        "f.yaml: teacher.method.name: found None, expected the name of a",
    ),
    (
        "teacher.method.step_size",
        {"initial": 0.0},
        ConfigError,
        "f.yaml: teacher.method: step_size.initial: found 0.0, expected greater than 0",
    ),
    (
        "teacher.method.step_size",
        {"initial": "1e-4"},
        ConfigError,
        "found the text '1e-4', expected a number; YAML",
    ),
    ("teacher.genotype.width", "1e1", ConfigError, "f.yaml: teacher.genotype.width: found '1e1'"),
    ("teacher.genotype.depth", True, ConfigError, "f.yaml: teacher.genotype.depth: found True"),
    ("students", [], ConfigError, "f.yaml: students: found [], expected"),
    ("students", "mlp", ConfigError, "f.yaml: students: found 'mlp', expected"),
    ("students.0.genotype", {}, ConfigError, "f.yaml: students.0.genotype: found {}, expected"),
    ("targets", [], ConfigError, "f.yaml: targets: found [], expected at least one target"),
    (
        "targets",
        ["expected_entropy"],
        ConfigError,
        "f.yaml: targets: 'expected_entropy' reads the head of",
    ),
    ("views", [], ConfigError, "f.yaml: views: found [], expected"),
    ("objectives", [], ConfigError, "f.yaml: objectives: found [], expected"),
    (
        "objectives",
        ["nll", "nll"],
        ConfigError,
        "f.yaml: objectives: found ['nll', 'nll'], expected none twice",
    ),
    ("objectives", [3], ConfigError, "f.yaml: objectives.0: found 3, expected"),
    (
        "constraints",
        {"nll": "1e-1"},
        ConfigError,
        "f.yaml: constraints.nll: found the text '1e-1', expected a number",
    ),
    (
        "constraints",
        {"nll": float("inf")},
        ConfigError,
        "f.yaml: constraints.nll: found inf, expected",
    ),
    ("constraints", {"nll": True}, ConfigError, "f.yaml: constraints.nll: found True, expected"),
    (
        "search.n_trials",
        0,
        ConfigError,
        "f.yaml: search.n_trials: found 0, expected greater than or equal to 1",
    ),
    (
        "search.n_trials",
        -3,
        ConfigError,
        "f.yaml: search.n_trials: found -3, expected greater than or equal to 1",
    ),
    ("search.n_trials", True, ConfigError, "f.yaml: search.n_trials: found True, expected"),
    (
        "search.n_trials",
        "1e1",
        ConfigError,
        "f.yaml: search.n_trials: found the text '1e1', expected a number",
    ),
    ("search.students_at_once", 0, ConfigError, "f.yaml: search.students_at_once: found 0"),
    ("search.max_failures", -1, ConfigError, "f.yaml: search.max_failures: found -1"),
    ("seed", -1, ConfigError, "f.yaml: seed: found -1"),
    ("recipe.steps", 0, ConfigError, "f.yaml: recipe.steps: found 0"),
    ("baseline.seeds", -1, ConfigError, "f.yaml: baseline.seeds: found -1"),
    ("baseline.precisions", [], ConfigError, "f.yaml: baseline.precisions: found [], expected"),
    (
        "baseline.precisions",
        [1.0, 0.0],
        ConfigError,
        "f.yaml: baseline.precisions.1: found 0.0, expected greater",
    ),
    (
        "baseline.precisions",
        ["1e1"],
        ConfigError,
        "baseline.precisions.0: found the text '1e1', expected a number",
    ),
    (
        "teacher.prior",
        {"precision": 0.0},
        ConfigError,
        "f.yaml: teacher.prior: precision: found 0.0",
    ),
    # impossible together
    (
        "teacher.method.num_samples",
        5,
        ConfigError,
        "teacher.method.num_samples: found 5, expected a multiple of chains",
    ),
    (
        "teacher.genotype.group_penalty",
        0.1,
        ConfigError,
        "f.yaml: teacher.genotype.group_penalty: a teacher is neither",
    ),
    (
        "teacher.genotype.storage_dtype",
        "int8",
        ConfigError,
        "f.yaml: teacher.genotype.storage_dtype: a teacher is",
    ),
    # names that cannot be folders
    ("name", "", ConfigError, "f.yaml: name: found '', expected"),
    ("name", "a/b", ConfigError, "f.yaml: name: found 'a/b', expected a name for a folder"),
    ("name", "..", ConfigError, "f.yaml: name: found '..', expected a name for a folder"),
    ("name", ".hidden", ConfigError, "f.yaml: name: found '.hidden'"),
    ("name", "a\0b", ConfigError, "f.yaml: name: found 'a\\x00b'"),
    ("name", "a\nb", ConfigError, "f.yaml: name: found 'a\\nb'"),
    ("name", "--", ConfigError, "f.yaml: name: found '--'"),
    ("name", "x" * 201, ConfigError, "f.yaml: name: found"),
]


@pytest.mark.parametrize(
    ("path", "value", "error", "message"), BAD, ids=[f"{p}={v!r}"[:50] for p, v, _, _ in BAD]
)
def test_bad_settings_name_file_and_key(path, value, error, message):
    with pytest.raises(error) as caught:
        parse_space(changed(path, value), "f.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("f.yaml: ")


def test_all_errors_of_a_file_are_told_at_once():
    data = changed("search.n_trials", 0) | {"serach": 1}
    with pytest.raises(ConfigError) as caught:
        parse_space(data, "f.yaml")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("key", ["objectives", "constraints"])
def test_entropy_metrics_need_the_entropy_target(key):
    data = changed("targets", ["predictive"])
    data[key] = ["entropy_error"] if key == "objectives" else {"entropy_error": 0.1}
    message = "f.yaml: .*'entropy_error' needs 'expected_entropy' among the targets"
    with pytest.raises(ConfigError, match=message):
        parse_space(data, "f.yaml")

    data["targets"] = ["predictive", "expected_entropy"]
    parse_space(data, "f.yaml")


def test_configured_targets_are_kept_and_written_out():
    data = changed("targets", ["predictive", {"name": "quantile", "levels": [0.25, 0.75]}])
    data["recipe"] = {"update": "newest"}
    space = parse_space(data, "f.yaml")
    assert space.targets[1].settings.levels == (0.25, 0.75) and space.num_outputs(10) == 10 + 10 * 3
    assert space.resolved["targets"] == ["predictive", {"name": "quantile", "levels": [0.25, 0.75]}]
    assert parse_space(space.resolved, "g.yaml") == space


def test_configured_targets_must_fit_the_classes():
    utility = {"name": "utility", "costs": [[0.0], [1.0]]}
    costly = parse_space(changed("targets", ["predictive", utility]), "f.yaml")
    message = "target 'utility': its settings are for 2 classes, expected 10"
    with pytest.raises(ConfigError, match=message):
        costly.check_reachable(SHAPE, CLASSES)


def test_online_needs_a_method_with_more_samples_to_give():
    data = changed("teacher.method", {"name": "map"}) | {"recipe": {"mode": "online"}}
    message = "f.yaml: recipe.mode: found online, but method 'map' has no more posterior"
    with pytest.raises(ConfigError, match=message):
        parse_space(data, "f.yaml")


def test_a_derived_target_has_no_weight():
    data = changed("targets", ["predictive", "expected_entropy", "mutual_information"])
    data["recipe"] = {"target_weights": {"mutual_information": 1.0}}
    message = "f.yaml: recipe.target_weights.mutual_information: not among the targets"
    with pytest.raises(ConfigError, match=message):
        parse_space(data, "f.yaml")


@pytest.mark.parametrize("sampler", ["brute_force", "grid"])
def test_a_float_range_cannot_be_listed(sampler):
    data = changed("search.sampler", sampler)
    parse_space(data, "f.yaml")
    data["students"][0]["genotype"]["group_penalty"] = {"float": [1e-4, 1e-2], "log": True}
    message = f"f.yaml: search.sampler: found '{sampler}', which lists every genotype"
    with pytest.raises(ConfigError, match=message):
        parse_space(data, "f.yaml")


def test_a_constraint_that_no_genotype_can_meet():
    smallest = parse_space(GOOD, "f").smallest_cost(SHAPE, CLASSES)
    largest = parse_space(GOOD, "f").largest_cost(SHAPE, CLASSES)
    # 64 x 4 + 4 x 11 at depth 1; 64 x 8 + 8 x 8 + 8 x 11 at depth 2.
    assert (smallest["macs"], largest["macs"]) == (300, 664)

    space = parse_space(changed("constraints", {"macs": 299, "nll": 1.0}), "f")
    message = r"constraints.macs: no genotype .* macs <= 299: .* has macs 300; raise"
    with pytest.raises(ConfigError, match=message):
        space.check_reachable(SHAPE, CLASSES)
    parse_space(changed("constraints", {"macs": 300}), "f").check_reachable(SHAPE, CLASSES)


CNN = {
    "family": "cnn",
    "genotype": {"depth": {"int": [1, 2]}, "width": 4, "kernel": {"choices": [3, 5]}, "pool": 2},
}


RESNET = {"stages": 4, "depth": 1, "width": 4}


@pytest.mark.parametrize(
    ("path", "value", "shape", "message"),
    [
        # on 8x8 pixels a 3x3 kernel and pooling leave 3x3, and so one pixel for the second block to
        # pool
        (
            "students.0",
            CNN,
            SHAPE,
            r"students\[0\].genotype.pool: found 2 in block 2, where 1x1 .*ranges hold cnn",
        ),
        (
            "students.0",
            CNN,
            (1, 6, 6),
            r"students\[0\].genotype.kernel: found 3 in block 2, where 2x2 pixels",
        ),
        (
            "students.0",
            CNN,
            (64,),
            r"students\[0\].family: found cnn, which reads images .* shape \(64,\); use mlp",
        ),
        (
            "teacher.genotype",
            RESNET,
            SHAPE,
            r"teacher.genotype.stages: found 4, .* 1x1 pixels, .*; use at most 3",
        ),
    ],
)
def test_networks_that_the_data_cannot_feed_are_refused_before_anything_runs(
    path, value, shape, message
):
    data = changed(path, value)
    if path.startswith("teacher"):
        data["teacher"]["family"] = "resnet"
    space = parse_space(data, "f.yaml")
    with pytest.raises(ConfigError, match=f"f.yaml: {message}"):
        space.check_buildable(shape)
    space.check_buildable((1, 28, 28))


def test_pruning_may_reach_what_no_drawn_network_meets():
    data = changed("constraints", {"macs": 80})
    with pytest.raises(ConfigError, match="no genotype"):
        parse_space(data, "f").check_reachable(SHAPE, CLASSES)

    # With one unit left there are 64 + 11.
    data["students"][0]["genotype"]["group_penalty"] = {"float": [1e-4, 1e-2]}
    parse_space(data, "f").check_reachable(SHAPE, CLASSES)


def test_layers_may_have_widths_of_their_own():
    data = changed(
        "students.0.genotype",
        {"depth": {"int": [0, 2]}, "width": [{"choices": [4, 8]}, {"int": [2, 3]}]},
    )
    space = parse_space(data, "f.yaml")
    genotypes = {space.genotype_of(params) for params in space.enumerate()}
    widths = {genotype["width"] for genotype in genotypes}
    assert widths == {(), (4,), (8,), (4, 2), (4, 3), (8, 2), (8, 3)} and len(genotypes) == 7


def test_several_entries_may_draw_from_one_family_and_overlap():
    data = copy.deepcopy(GOOD)
    data["students"] = [
        {"family": "mlp", "genotype": {"depth": 1, "width": {"choices": [4, 8]}}},
        {"family": "mlp", "genotype": {"depth": {"int": [1, 2]}, "width": 8}},
    ]
    space = parse_space(data, "f.yaml")
    everything = list(space.enumerate())
    assert everything[0] == {"family": "0-mlp", "0-mlp.width": 4}
    # Depth 1, width 8 is in both.
    genotypes = [space.genotype_of(params) for params in everything]
    assert len(genotypes) == len(set(genotypes)) == 3

    data["students"][1]["genotype"]["width"] = {"choices": []}
    with pytest.raises(ConfigError, match=r"f.yaml: students\[1\].genotype.width.choices"):
        parse_space(data, "f.yaml")


# -- files, names and overrides


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(dump_yaml(GOOD))
    return path


def test_a_part_of_a_key_in_quotes_is_one_name(file):
    overrides = {'constraints."nll@permuted"': 2.5, "constraints.'accuracy'": 0.5}
    assert load_space(file, overrides).constraints == {"nll@permuted": 2.5, "accuracy": 0.5}

    # nothing is cut at a dot inside: the message names the whole of it
    with pytest.raises(RegistryError, match="unknown condition 'noize.1'"):
        load_space(file, {'constraints."nll@noize.1"': 2.5})


def test_a_file_is_loaded_with_overrides(file):
    space = load_space(
        file, {"search.n_trials": 4, "students.0.genotype.width": 16, "recipe.steps": 10}
    )
    assert (space.search.n_trials, space.recipe.steps) == (4, 10)
    genotypes = [space.genotype_of(params) for params in space.enumerate()]
    assert {genotype["width"][0] for genotype in genotypes} == {16}
    assert load_space(file).search.n_trials == 48


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("search.n_trails", "search.n_trails: unknown key; did you mean 'n_trials'?"),
        ("name.first", "--set name.first: 'first' is inside a single value"),
        ("name.first.second", "--set name.first.second: 'name.first' leads nowhere"),
        ("students.5.family", "--set students.5.family: 'students.5' leads nowhere"),
        ("students.-1.family", "leads nowhere"),
        ("students.².family", "leads nowhere"),
        ("students.7", "'7' is inside a single value"),
        ("", "unknown key"),
        ("a..b", "a: unknown key"),
    ],
)
def test_overrides_that_lead_nowhere_are_refused(file, key, message):
    with pytest.raises(ConfigError) as caught:
        load_space(file, {key: 3})
    assert message in str(caught.value)


def test_a_space_that_is_nowhere(tmp_path):
    with pytest.raises(ConfigError, match="no.yaml: no such file"):
        load_space(tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match="no such file and no shipped space of that name"):
        find_space("nowhere")


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "a: [", "a: 1\na: 2", "name: !!python/name:os.system"]
)
def test_files_that_are_no_space_are_named(tmp_path, text):
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(ConfigError, match="f.yaml"):
        load_space(tmp_path / "f.yaml")


def test_shipped_spaces_load_by_name():
    for name, path in shipped_spaces().items():
        space = load_space(name)
        assert find_space(name) == path
        assert space == load_space(path) and space.name == name
        assert parse_space(space.resolved, "again") == space


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mnist_cnn", (1, 28, 28)),
        ("mnist_grid", (1, 28, 28)),
        ("fashion_cnn", (1, 28, 28)),
        ("fashion_resnet", (1, 28, 28)),
        ("cifar_cnn", (3, 32, 32)),
        ("cifar_resnet", (3, 32, 32)),
    ],
)
def test_shipped_spaces_of_images_can_be_built_and_hold_much_cheaper_students(name, shape):
    space = load_space(name)
    space.check_buildable(shape)
    teacher = genotype_cost(space.genotype, shape, 10)
    flops = []
    for genotype in space.corners():
        unpruned = genotype.replace(group_penalty=0.0)
        flops.append(genotype_cost(unpruned, shape, 11).flops)
    # A quarter of the teacher's FLOPs lies inside, without any pruning.
    assert min(flops) < teacher.flops / 4
    assert max(flops) > teacher.flops / 2

    space.check_reachable(shape, 10)


def test_half_floats_are_for_probabilities_only():
    message = "stream.prediction_dtype: found 'float16', expected 'float32'.*gaussian"
    with pytest.raises(ConfigError, match=message):
        load_space("diabetes_mlp", {"stream.prediction_dtype": "float16"})


def test_only_views_in_half_floats_have_a_name_of_their_own():
    narrow = load_space("digits_mlp", {"stream.prediction_dtype": "float16"}).views[0]
    wide = load_space("digits_mlp").views[0]
    assert (narrow.dtype, wide.dtype) == ("float16", "float32") and narrow.name != wide.name
    # Views that were made before there was a choice keep their names.
    assert "dtype" not in wide.key()


def test_overrides_are_left_as_they_were_given() -> None:
    recipe = {"steps": 70}
    space = load_space("digits_mlp", {"recipe": recipe, "recipe.batch_size": 7})
    assert (space.recipe.steps, space.recipe.batch_size) == (70, 7)
    assert recipe == {"steps": 70}


def test_an_ensemble_of_one_has_one_member() -> None:
    given = {"name": "mine", "macs": None, "storage_bytes": 7}
    assert teacher_text({"given": given, "num_samples": 1}).startswith("mine, 1 member known by")
    assert teacher_text({"given": given, "num_samples": 2}).startswith("mine, 2 members known by")


def test_particles_can_be_stacked_as_members_are():
    method = {"name": "svgd", "particles": 4}
    data = changed("teacher.method", method)
    data["teacher"]["calibration"] = "stacking"
    assert parse_space(data, "f.yaml").calibration == "stacking"
