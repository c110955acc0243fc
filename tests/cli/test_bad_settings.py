"""Settings that cannot be: one message, exit code 2, nothing written."""

import os
from pathlib import Path

import pytest

from tests.cli.harness import Home, assert_one_message, call, installed, refused

BAD_SETTINGS = {
    "unknown key": ("recipe.stepz=3", ("tiny.yaml", "recipe.stepz", "unknown key", "'steps'")),
    "unknown section": ("serch.n_trials=3", ("tiny.yaml", "serch", "'search'")),
    "unknown dataset setting": ("dataset.validaton=0.1", ("dataset", "validaton", "'validation'")),
    "unknown genotype value": (
        "students.0.genotype.wdth=3",
        ("students[0].genotype.wdth", "'width'"),
    ),
    "wrong type": ("recipe.steps=abc", ("tiny.yaml", "recipe.steps", "'abc'", "a number")),
    "fraction of a step": ("recipe.steps=20.5", ("recipe.steps", "20.5", "integer")),
    "a number for a section": ("recipe=3", ("recipe", "found 3")),
    "a boolean for a number": ("recipe.steps=yes", ("recipe.steps", "True")),
    "1e-3 is text": ("recipe.lr=1e-3", ("recipe.lr", "'1e-3'", "a number", "1.0e-3")),
    "1e-6 in a range": (
        "students.0.genotype.group_penalty={float: [1e-6, 1.0e-2], log: true}",
        ("group_penalty", "'1e-6'", "a number"),
    ),
    "not a number": ("recipe.lr=.nan", ("recipe.lr", "nan", "finite")),
    "no choices": (
        "students.0.genotype.width.choices=[]",
        ("students[0].genotype.width.choices", "[]", "one entry"),
    ),
    "a choice twice": (
        "students.0.genotype.width.choices=[2, 2]",
        ("width.choices", "[2, 2]", "twice"),
    ),
    "range upside down": (
        "students.0.genotype.depth={int: [3, 1]}",
        ("depth.int", "[3, 1]", "low end first"),
    ),
    "no students": ("students=[]", ("students", "[]")),
    "unknown dataset": ("dataset={name: digts}", ("dataset.name", "'digts'", "'digits'")),
    "unknown teacher family": ("teacher.family=mlpp", ("teacher.family", "'mlpp'", "'mlp'")),
    "unknown student family": ("students.0.family=mpl", ("students[0].family", "'mpl'", "'mlp'")),
    "unknown method": ("teacher.method.name=sglld", ("teacher.method.name", "'sglld'", "'sgld'")),
    "unknown target": ("targets=[predictve]", ("targets[0]", "'predictve'", "'predictive'")),
    "unknown metric": ("objectives=[nl, flops]", ("objectives", "'nl'", "'nll'")),
    "unknown constraint": ("constraints={parms: 9}", ("constraints", "'parms'", "'params'")),
    "unknown policy": ("views=[{policy: nois}]", ("views[0]", "'nois'", "'noise'")),
    "unknown sampler": ("search.sampler=tpee", ("search.sampler", "'tpee'", "'tpe'")),
    "objective twice": ("objectives=[nll, nll]", ("objectives", "twice")),
    "metric without its head": (
        "targets=[predictive]\0objectives=[entropy_error, macs]",
        ("expected_entropy",),
    ),
    "no trials": ("search.n_trials=0", ("search.n_trials", "found 0", "1")),
    "a budget below the smallest network": (
        "students.0.genotype.prune_to={macs: 70}",
        ("students[0].genotype.prune_to", "found macs 70", "at least 75", "raise the budget"),
    ),
    "a range of budgets whose low end is below it": (
        "students.0.genotype.prune_to={storage_bytes: {int: [100, 4000]}}",
        ("genotype.prune_to", "found storage_bytes 100 as int8", "at least"),
    ),
    "a budget of what no network is pruned to": (
        "students.0.genotype.prune_to={mac: 700}",
        ("genotype.prune_to", "found 'mac'", "'macs'"),
    ),
    "a budget beside a penalty": (
        "students.0.genotype.prune_to={macs: 700}\0students.0.genotype.group_penalty=0.1",
        ("genotype.prune_to", "beside group_penalty 0.1", "leave the other out"),
    ),
    "a criterion without a budget": (
        "students.0.genotype.prune_criterion=magnitude",
        ("genotype.prune_criterion", "magnitude without prune_to", "add prune_to"),
    ),
    "an exempt layer that no student has": (
        "students.0.genotype.prune_exempt=layer.0\0students.0.genotype.prune_to={macs: 700}",
        ("genotype.prune_exempt", "'layer.0'", "'layers.0'"),
    ),
    "a share of the training above one": (
        "students.0.genotype.prune_at={float: [0.5, 1.5]}",
        ("genotype.prune_at", "found 1.5", "between 0 and 1"),
    ),
    "a factor of zero": (
        "students.0.genotype.width={times: [4, 2], choices: [0, 1]}",
        ("genotype.width", "found the factor 0", "above 0"),
    ),
    "factors of too few layers": (
        "students.0.genotype.width={times: [4], choices: [1, 2]}",
        ("genotype.width", "found 1 entries", "each of 2 layers"),
    ),
    "negative seed": ("seed=-1", ("seed", "found -1", "0")),
    "samples that chains cannot share": (
        "teacher.method.num_samples=5",
        ("num_samples", "found 5", "chains (2)"),
    ),
    "teacher without units": (
        "teacher.genotype.width=0",
        ("teacher.genotype.width", "found 0", "from 1"),
    ),
    "teacher with a norm": (
        "teacher.family=cnn\0teacher.genotype={depth: 1, width: 2, kernel: 3, norm: batch}",
        ("teacher.genotype.norm", "found batch", "folded away", "remove it"),
    ),
    "batch norm of single inputs": (
        "students.0={family: cnn, genotype: {depth: 1, width: {choices: [2, 3]}, kernel: 3, "
        "norm: batch}}\0recipe.batch_size=1",
        ("recipe.batch_size", "found 1 with norm batch", "at least 2", "norm weight"),
    ),
    "a name that is a path": ("name=a/b", ("name", "'a/b'", "folder")),
    "no equals sign": ("search.n_trials", ("--set search.n_trials", "KEY=VALUE")),
    "no key": ("=3", ("--set", "KEY=VALUE")),
    "broken value": ("recipe.steps=[1", ("--set recipe.steps", "YAML")),
    "below a value": ("name.a=1", ("--set name.a", "single value")),
    "a name with a dot that is no key": (
        "constraints.accuracy@noise-0.1=0.8",
        ("found a dot inside of 'accuracy@noise-0.1'", "in quotes"),
    ),
    "a quote that does not end": (
        'constraints."accuracy=0.8',
        ("expected quotes around a whole part", 'constraints."accuracy@apgd-0.1"'),
    ),
    "an unknown condition in quotes": (
        'constraints."accuracy@permutd"=0.8',
        ("constraints: accuracy@permutd", "unknown condition 'permutd'", "'permuted'"),
    ),
    "an unknown condition": (
        "conditions=[clean, permutd]",
        ("tiny.yaml: conditions[1]", "'permutd'", "'permuted'"),
    ),
    "no list of conditions": (
        "conditions=permuted",
        ("tiny.yaml: conditions: found 'permuted'", "expected a list"),
    ),
    "a condition that is too large for the pictures": (
        "conditions=[clean, mask-9]",
        ("tiny.yaml: conditions", "'mask-9'", "found size 9", "at most 8 pixels", "lower it"),
    ),
    "a condition of one's own without a name": (
        "conditions.hard={epsilon: 0.5}",
        ("tiny.yaml: conditions.hard: name", "expected the name of a condition"),
    ),
    "a condition under two names": (
        "conditions=[clean, permuted, {hard: {name: permuted}}]",
        ("tiny.yaml: conditions", "'hard' and 'permuted' are one condition", "remove one"),
    ),
    "beyond a list": ("students.7.family=mlp", ("--set students.7.family", "leads nowhere")),
    "nothing to learn": (
        "objectives=[flops, params]\0search.sampler=costs_known",
        ("search.sampler", "'costs_known'", "follow from the genotype", "nsga2"),
    ),
    "a sampler for widths of some": (
        "students.0.genotype.width=[{int: [2, 4]}, {int: [2, 4]}]\0search.sampler=gp",
        ("search.sampler", "'gp'", "width_1", "costs_known"),
    ),
    "a start-up of nobody": ("search.start_up=0", ("search.start_up", "found 0")),
    "grid over a float range": (
        "students.0.genotype.group_penalty={float: [1.0e-4, 1.0e-2]}\0search.sampler=grid",
        ("search.sampler", "'grid'", "float range", "tpe"),
    ),
    "brute force over a float range": (
        "students.0.genotype.group_penalty={float: [1.0e-4, 1.0e-2]}\0search.sampler=brute_force",
        ("search.sampler", "'brute_force'", "float range", "tpe"),
    ),
    "a constraint nothing meets": (
        "constraints={params: 3}",
        ("constraints.params", "params <= 3", "raise the bound"),
    ),
    "an accuracy above 1": (
        "constraints={accuracy: 2}",
        ("constraints.accuracy", "accuracy >= 2", "is 1"),
    ),
    "a negative NLL of classes": ("constraints={nll: -0.1}", ("nll <= -0.1", "is 0")),
    "genotypes that all cost the same": (
        "students.0.genotype={depth: 1, width: 1, storage_dtype: float32}",
        ("objectives", "every genotype", "flops", "leave this objective out"),
    ),
    "an integer beyond what Python prints": (
        f"seed=0x{'f' * 5000}",
        ("--set seed", "5002 characters", "at most 400"),
    ),
    "an index beyond what Python reads": (
        f"students.{'1' * 5000}.family=mlp",
        ("--set students.1", "leads nowhere"),
    ),
    "base 8": ("seed=010", ("--set seed", "found 010", "base 8", "first zero")),
    "base 60": ("seed=25:00", ("--set seed", "found 25:00", "base 60")),
    "base 60 with a fraction": ("recipe.lr=1:30.5", ("--set recipe.lr", "1:30.5", "base 60")),
    "half a surrogate pair": ('name="\\ud800"', ("--set name", "surrogate")),
    "stacking one chain": (
        "teacher.calibration=stacking\0teacher.method.chains=1",
        ("teacher.calibration", "stacking with one chain of 'sgld'", "set chains"),
    ),
    "stacking one network": (
        "teacher.calibration=stacking\0teacher.method={name: map}",
        ("teacher.calibration", "'map', which has one sample", "temperature or none"),
    ),
    "stacking a chain that students meet": (
        "teacher.calibration=stacking\0recipe.mode=online",
        ("teacher.calibration", "stacking with recipe.mode online", "use temperature"),
    ),
    "nothing stored for students that read it": (
        "recipe.stream=none",
        ("recipe", "stream: found none with mode cached", "set recipe.mode to online"),
    ),
    "nothing stored to calibrate": (
        "recipe={mode: online, stream: none}\0teacher.calibration=temperature",
        ("recipe.stream", "found none with teacher.calibration 'temperature'", "set it to stored"),
    ),
    "nothing stored for quantiles": (
        "recipe={mode: online, stream: none}\0targets=[predictive, quantile]",
        ("recipe.stream", "found none with target 'quantile'", "set it to stored"),
    ),
    "single samples for a range": (
        "targets=[predictive, interval]\0recipe.update=newest",
        ("recipe.update", "found newest, expected averaged", "'interval'", "update: averaged"),
    ),
    "a chain of its own for factors": (
        "targets=[predictive, factors]\0recipe.mode=online",
        ("recipe.update", "expected averaged", "'factors'", "mode: cached"),
    ),
    "averages alone for factors": (
        "targets=[predictive, factors]\0recipe={mode: online, stream: none}",
        ("recipe.update", "a statistic of all stored posterior samples", "remove the target"),
    ),
    "no factor": (
        "targets=[predictive, {name: factors, rank: 0}]",
        ("targets[1]: factors", "rank", "greater than or equal to 1"),
    ),
    "more than the posterior": (
        "targets=[predictive, {name: interval, share: 1.5}]",
        ("targets[1]: interval", "share", "less than or equal to 1"),
    ),
    "nothing stored to move inputs by": (
        "recipe={mode: online, stream: none}\0views=[{policy: disagreement}]",
        ("recipe.stream", "found none with view 'disagreement'", "set it to stored"),
    ),
    "an unknown calibration": (
        "teacher.calibration=platt",
        ("teacher.calibration", "'platt'", "temperature"),
    ),
    "a method's constraint": ("teacher.method.burn_in=-1", ("teacher.method", "burn_in", "-1")),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_a_bad_setting_is_named_and_nothing_is_written(home: Home, case: str) -> None:
    settings, says = BAD_SETTINGS[case]
    sets = []
    for setting in settings.split("\0"):
        sets += ["--set", setting]
    refused(2, "run", home.space, "--out", home.out, *sets, says=says)
    assert not home.out.exists() and not home.cache.exists()


BAD_OPTIONS = {
    "no trials": (2, ("--n-trials", "0"), ("--n-trials", "found 0", "at least 1")),
    "negative trials": (2, ("--n-trials", "-2"), ("--n-trials", "found -2", "at least 1")),
    "trials in words": (2, ("--n-trials", "many"), ("--n-trials", "integer")),
    "a vague timeout": (2, ("--timeout", "soon"), ("--timeout", "'soon'", "30m")),
    "no time": (2, ("--timeout", "0"), ("--timeout", "'0'", "30m")),
    "an unknown unit": (2, ("--timeout", "3d"), ("--timeout", "'3d'", "2h")),
    "no such device": (2, ("--device", "tpu"), ("--device", "'tpu'", "cuda:N")),
    "a device torch has and we do not": (2, ("--device", "mps"), ("--device", "'mps'", "cuda:N")),
    "no device": (2, ("--device", ""), ("--device", "''", "auto")),
    "a study above the folder": (2, ("--study-name", "../x"), ("--study-name", "'../x'", "folder")),
    "a study that colors terminals": (
        2,
        ("--study-name", "a\n\x1b[31m"),
        ("--study-name", r"'a\n\x1b[31m'", "control characters"),
    ),
    "a study of a long name": (2, ("--study-name", "é" * 128), ("--study-name", "255 bytes")),
    "a number beyond what Python reads": (2, ("--n-trials", "1" * 5000), ("--n-trials",)),
    "unknown option": (2, ("--n-trails", "3"), ("--n-trails",)),
    "out below a file": (
        5,
        ("--out", "tiny.yaml/x"),
        ("tiny.yaml/x", "directory", "check the path"),
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_named_and_nothing_is_written(home: Home, case: str) -> None:
    code, options, says = BAD_OPTIONS[case]
    text = home.space.read_bytes()
    refused(code, "run", home.space, "--out", home.out, *options, says=says)
    assert not home.out.exists() and not home.cache.exists()
    assert home.space.read_bytes() == text


@pytest.mark.parametrize("place", ["--out", "GPED_CACHE", "the folder"])
def test_a_path_that_is_not_utf8_is_refused_before_the_search(home: Home, place: str) -> None:
    path = os.fsdecode(b"o\xff")
    folder = home.root
    options, env = [], {}
    if place == "--out":
        options = ["--out", path]
    elif place == "GPED_CACHE":
        env = {"GPED_CACHE": path}
    else:
        folder = home.root / path
        folder.mkdir()

    result = installed("run", home.space, *options, cwd=folder, **env)
    assert result.code == 5
    assert_one_message(result.err, (r"\udcff", "not UTF-8"))
    assert not home.cache.exists() and not list(folder.rglob("study*"))


def test_a_long_message_is_cut_in_its_middle_and_what_a_terminal_obeys_is_escaped(
    home: Home,
) -> None:
    setting = f"name.{'a' * 120_000}\x1b[31m.b=1"
    result = installed("run", home.space, "--set", setting)
    assert result.code == 2 and len(result.err) < 2500
    assert_one_message(result.err, ("--set name.aaa", "characters left out", r"\x1b[31m"))


@pytest.mark.parametrize("verb", [("run",), ("teacher", "build")])
def test_cuda_without_cuda_is_an_environment_problem(
    home: Home, verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    says = ("--device cuda", "no CUDA device", "--device cpu")
    refused(5, *verb, home.space, "--device", "cuda", says=says)
    assert not Path("reports").exists() and not home.cache.exists()


@pytest.mark.parametrize(
    ("storage", "code", "says"),
    [
        ("nonsense", 2, ("not a storage URL", "sqlite:///study.db")),
        ("postgresql://me:pa@secret-word@localhost:1/x", 2, ("postgresql://me:***@...", "%40")),
        ("postgresql://me:pa@h/secret-word@localhost:1/x", 5, ("postgresql://me:***@...",)),
        ("postgresql://me:pa@h?secret-word@localhost/x", 5, ("postgresql://me:***@...",)),
        ("postgresql://me:secret-word@localhost:1/x", 5, ("postgresql://me:***@localhost:1/x",)),
    ],
)
def test_a_storage_out_of_reach_is_told_before_the_teacher_is_sampled(
    home: Home, storage: str, code: int, says: tuple[str, ...]
) -> None:
    result = refused(code, "run", home.space, "--out", home.out, "--storage", storage, says=says)
    assert "secret-word" not in result.err
    assert not home.cache.exists()


FILES = {
    "missing": (None, ("no such file",)),
    "binary": (b"\xff\xfe\x00", ("UTF-8",)),
    "empty": (b"", ("expected a mapping",)),
    "a list": (b"- 1\n- 2\n", ("expected a mapping",)),
    "broken": (b"name: [1\n", (":2", "YAML")),
    "a key twice": (b"name: a\nname: b\n", ("'name'", "twice")),
    "a python object": (b"name: !!python/object/apply:os.getcwd []\n", ("YAML",)),
    "an alias": (b"name: &a x\ndataset: *a\n", ("alias",)),
    "almost nothing": (b"name: x\n", ("dataset", "missing")),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_named(home: Home, case: str) -> None:
    data, says = FILES[case]
    path = Path("bad.yaml")
    if data is not None:
        path.write_bytes(data)
    for verb in (("run",), ("space",), ("teacher", "build")):
        result = call(*verb, path)
        assert result.code == 2 and "bad.yaml" in result.err
        if case != "almost nothing":  # one line for each missing key
            assert_one_message(result.err, says)
    assert not Path("reports").exists() and not home.cache.exists()


def test_a_misspelt_shipped_space_is_answered_with_the_nearest() -> None:
    refused(2, "run", "digits_mpl", says=("digits_mpl", "'digits_mlp'"))


def test_a_teacher_that_diverges_leaves_a_study_name_that_can_be_used(home: Home) -> None:
    wild = "teacher.method.step_size.initial=1000000.0"
    says = ("not finite", "teacher.method.step_size.initial")
    refused(1, "run", home.space, "--out", home.out, "--set", wild, says=says)
    refused(4, "status", home.study, says=("no such study",))
    home.run("--n-trials", "1")


def test_init_does_not_overwrite(home: Home) -> None:
    before = home.space.read_bytes()
    refused(2, "init", home.space, says=("tiny.yaml", "exists already", "--force"))
    assert home.space.read_bytes() == before
    refused(5, "init", home.space / "x.yaml", says=("tiny.yaml",))
    refused(2, "init", "new.yaml", "--data", "nowhere.npz", says=("nowhere.npz", "no such file"))
    assert not Path("new.yaml").exists()
