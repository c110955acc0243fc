"""Studies that are asked for certified accuracy: objectives, references, twins, refusals."""

from typing import Any

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas.api import load_dataset, load_space, load_student
from gped_nas.api.lessons import distillation_set
from gped_nas.evaluate.certify.box import linf_box
from gped_nas.evaluate.certify.networks import margins, network_of_student
from gped_nas.evaluate.measured import Key
from gped_nas.search import space_checks
from tests.cli.harness import Home, refused

NAME = "certified_accuracy@linf-0.03"
KEY = Key("certified_accuracy", "linf-0.03")


def test_certified_accuracy_is_an_objective_and_a_constraint(home: Home) -> None:
    overrides: dict[str, Any] = {
        "objectives": ["nll", NAME, "params"],
        f'constraints."{NAME}"': 0.01,
        "search.n_trials": 3,
        "recipe.steps": 150,
        "twins.seeds": 2,
        "twins.students": 1,
    }
    space = load_space(home.space, overrides)
    study = gn.run(space, out=home.out)

    dataset = load_dataset(space)
    raw, labels = dataset.raw("validation"), torch.from_numpy(dataset.labels("validation"))
    box = linf_box(raw, dataset.scale, 0.03)
    records = study.front_records()
    assert records
    for record in records:
        student = load_student(study.path / "students" / str(record.trial))
        margin_NC = margins(network_of_student(student), box.low, box.high, labels)
        lead_N = margin_NC.scatter(1, labels[:, None], torch.inf).amin(1)
        measured = record.measures[KEY]
        assert measured.value == float((lead_N > 0).double().mean())
        assert measured.n == len(raw) and measured.interval is not None
        assert 0.01 <= measured.value < record.metrics["accuracy"]
        assert {key.metric for key in record.measures if key.condition == "linf-0.03"} == {
            "certified_accuracy"
        }
        assert record.above_guess[NAME] is not None

    references = {each.name: each.measures for each in study.snapshot().references}
    # the same answer everywhere is proven wherever it is right
    assert references["guess"][KEY].value == references["guess"][Key("accuracy")].value
    for name in ("unpruned", "single_sample", "map"):
        assert KEY in references[name]
    assert KEY not in references["teacher"]
    (twins,) = study.snapshot().twins
    over_seeds = {each.name: each.measures for each in twins.references}
    assert over_seeds["student"][KEY].value is not None
    assert over_seeds["label_twin"][KEY].value is not None
    compared = [each for each in twins.comparisons if each.metric == NAME]
    assert compared and all(each.seeds == 2 for each in compared)

    page = (study.path / "report.html").read_text()
    assert "certified accuracy (share), linf-0.03" in page
    assert "epsilon 0.03 (of 0..16: 0.48)" in page


def test_a_listed_radius_is_measured_beside_references_without_bounds(home: Home) -> None:
    overrides = {
        "conditions": ["clean", "linf-0.03"],
        "search.n_trials": 1,
        "teacher.genotype.activation": "gelu",
    }
    study = gn.run(load_space(home.space, overrides), out=home.out)
    assert all(KEY in record.measures for record in study.records())
    for reference in study.snapshot().references:
        assert (KEY in reference.measures) == (reference.name == "guess"), reference.name


GELU = "students=[{family: mlp, genotype: {depth: 1, width: 4, activation: gelu}}]"
ASKED = f"objectives=[nll, {NAME}]"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            [ASKED, GELU],
            ("students[0].genotype.activation: found 'gelu', which has no bounds", "relu"),
        ),
        (["conditions=[clean, linf-0.1]", GELU], ("found 'gelu'", "'linf-0.1'")),
        (["objectives=[certified_accuracy]"], ("found no radius", "certified_accuracy@linf-0.03")),
        (
            ["objectives=[certified_accuracy@permuted]"],
            ("proven within a radius", "'permuted', which states none"),
        ),
        (["objectives=[nll@linf-0.03]"], ("measured at inputs as they are", "write nll, or")),
        (["objectives=[nll, certified_accuracy@linf--1]"], ("epsilon: found -1", "or equal to 0")),
        (["ood=[linf-0.03]"], ("ood: found 'linf-0.03', which leaves inputs as they are",)),
        (["constraints={certified_accuracy@linf-0.03: 1.1}"], ("no student can meet",)),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_cannot_be_certified_is_refused_when_the_space_is_read(
    home: Home, settings: list[str], says: tuple[str, ...]
) -> None:
    options = [part for setting in settings for part in ("--set", setting)]
    refused(2, "run", home.space, "--out", home.out, *options, says=says)
    assert not home.out.exists() and not home.cache.exists()


def test_students_of_a_family_without_bounds_are_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_checks, "families_with_bounds", lambda: ["cnn"])
    says = (
        "students[0].family: found 'mlp', which has no bounds",
        "expected one of cnn",
        "hint: take",
    )
    refused(2, "run", home.space, "--out", home.out, "--set", ASKED, says=says)
    assert not home.out.exists() and not home.cache.exists()


def test_real_labels_are_refused(home: Home) -> None:
    says = (f"'{NAME}' is not defined for regression",)
    setting = f"objectives=[nll, {NAME}]"
    refused(2, "run", "diabetes_mlp", "--out", home.out, "--set", setting, says=says)


def test_a_table_with_missing_numbers_is_refused_before_any_work(home: Home) -> None:
    x = np.random.default_rng(0).normal(5, 2, size=(150, 2))
    x[100:120, 1] = np.nan
    np.savez("mine.npz", x_train=x, y_train=(x[:, 0] > 5).astype(int))
    dataset = "dataset={name: npz, path: mine.npz, normalize: columns, missing: impute}"
    says = ("conditions: found 'linf-0.03' and a table with missing numbers", "fill the table in")
    settings = ("--set", dataset, "--set", ASKED)
    refused(2, "run", home.space, "--out", home.out, *settings, says=says)
    assert not home.cache.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tasks", "shift:linf-0.1"), ("which shifts nothing", "hint: write certify:linf-0.1")),
        (
            ("--tasks", "prediction", "--metrics", "certified_accuracy"),
            ("proven within a radius", "certify:linf-RADIUS"),
        ),
    ],
)
def test_tasks_that_prove_nothing_say_which_one_does(
    finished: Home, options: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused(2, "evaluate", finished.study, *options, says=says)


def test_students_are_trained_within_a_radius_of_the_datas_range(home: Home) -> None:
    overrides: dict[str, Any] = {
        "students": [{"family": "mlp", "genotype": {"depth": 1, "width": 16}}],
        "objectives": ["nll"],
        "search.n_trials": 1,
        "recipe.steps": 150,
    }
    nll = []
    for radius in (0.0, 0.01):
        settings = {**overrides, "recipe.certify": radius, "name": f"radius-{radius}"}
        (record,) = gn.run(load_space(home.space, settings), out=home.out).records()
        nll.append(record.metrics["nll"])
        assert record.extra["recipe"].get("certify", 0.0) == radius
    assert nll[0] != nll[1]

    teacher = gn.build_teacher(load_space(home.space, {"recipe.certify": 0.01}), gn.new_session())
    reach = distillation_set(teacher).reach
    assert reach is not None
    # pixels go from 0 to 16
    width = 16 / teacher.dataset.normalization.std
    assert torch.allclose(reach, torch.full((1, 8, 8), width))
    plain = gn.build_teacher(load_space(home.space), gn.new_session())
    assert distillation_set(plain).reach is None


@pytest.mark.parametrize(
    ("space", "settings", "says"),
    [
        ("tiny", ["recipe.certify=-1"], ("recipe.certify: found -1",)),
        ("tiny", ["recipe.certify=0.1", GELU], ("recipe.certify: found students with 'gelu'",)),
        (
            "tiny",
            ["recipe.certify=0.1", "recipe.centered=true"],
            ("recipe.centered", "certify 0.1"),
        ),
        ("tiny", ["recipe.certify=0.1", "teacher.genotype.activation=silu"], ("with 'silu'",)),
        ("diabetes_mlp", ["recipe.certify=0.1"], ("recipe.certify: found 0.1 with real labels",)),
    ],
)
def test_training_that_proves_nothing_is_refused_before_any_work(
    home: Home, space: str, settings: list[str], says: tuple[str, ...]
) -> None:
    options = [part for setting in settings for part in ("--set", setting)]
    name = home.space if space == "tiny" else space
    refused(2, "run", name, "--out", home.out, *options, says=says)
    assert not home.cache.exists()
