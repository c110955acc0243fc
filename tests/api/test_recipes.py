"""Whole searches under other recipes: online, and on single posterior samples with targets of every
kind.
"""

import pytest
import torch

import gped_nas as gn
from gped_nas.api.job import identity
from gped_nas.api.lessons import distillation_set
from gped_nas.api.online import online_feed
from gped_nas.errors import ConfigError
from gped_nas.io import canonical_json, sha256_text
from gped_nas.spelling import as_digested
from gped_nas.targets.expectations import expect
from tests.api.test_surface import OVERRIDES
from tests.cli.harness import Home

ONE = {**OVERRIDES, "search": {"n_trials": 1, "students_at_once": 1}}
TARGETS = [
    "predictive",
    "expected_entropy",
    "second_moment",
    "utility",
    {"name": "quantile", "levels": [0.1, 0.9]},
    "variance",
    "mutual_information",
    "dirichlet",
]


def test_an_online_search_says_so_and_begins_with_the_stream_s_first_chain(home: Home) -> None:
    space = gn.load_space(
        "digits_mlp", {**ONE, "recipe": {"steps": 15, "warmup": 5, "mode": "online"}}
    )
    study = gn.run(space, out="reports", seed=0)
    (record,) = study.records()
    told = {
        "optimizer": "adamw",
        "precision": study.ledger.document.precision,
        "steps": 15,
        "warmup": 5,
    }
    assert record.state == "complete" and record.extra["recipe"] == {
        "mode": "online",
        "update": "newest",
        **told,
    }
    assert study.snapshot().config["recipe"]["mode"] == "online"

    teacher = gn.build_teacher(space, gn.new_session("cpu"))
    assert [path.name.split("-")[0] for path in (teacher.stream.folder / "views").glob("*")].count(
        "distillation"
    ) == 0
    forward = gn.FAMILIES["mlp"].forward
    data = distillation_set(teacher)
    assert data.expectations == {} and data.samples is None
    feed = online_feed(teacher, data.inputs)
    for sample in (0, 2):  # two chains take turns: the even samples are the first one's
        x, said = next(feed)
        expected = forward(teacher.stream.params(sample), x).softmax(-1)
        assert torch.allclose(said["predictive"], expected, atol=1e-6)


def test_a_search_with_targets_of_every_kind(home: Home) -> None:
    recipe = {
        "steps": 40,
        "warmup": 5,
        "update": "newest",
        "target_weights": {"second_moment": 3.0},
    }
    space = gn.load_space("digits_mlp", {**ONE, "targets": TARGETS, "recipe": recipe})
    study = gn.run(space, out="reports", seed=0)
    (record,) = study.records()
    told = {"mode": "cached", "optimizer": "adamw", "precision": study.ledger.document.precision}
    assert record.extra["recipe"] == {**recipe, **told}
    assert record.metrics["information_error"] > 0
    student = gn.load_student(f"reports/digits_mlp/students/{record.trial}")
    assert student.spec.targets == space.targets and student.spec.targets[4].settings.levels == (
        0.1,
        0.9,
    )
    dataset = gn.load_dataset(space)
    found = student.predict(dataset.raw("validation"))
    assert {name: value.shape[1] for name, value in found.items()} == {
        "predictive": 10,
        "expected_entropy": 1,
        "second_moment": 10,
        "utility": 10,
        "quantile": 20,
        "variance": 10,
        "mutual_information": 1,
        "dirichlet": 10,
    }
    assert torch.allclose(
        found["dirichlet"] / found["dirichlet"].sum(-1, keepdim=True),
        found["predictive"],
        atol=1e-5,
    )
    low, high = found["quantile"].unflatten(-1, (10, 2)).unbind(-1)
    assert (low < high).all()

    stream = gn.load_stream(study.stream_path)
    view = next(name for name in stream.views if name.startswith("distillation"))
    log_prob = stream.stream.predictions(view).double()
    for target in space.targets:
        if target.kind != "quantile":
            direct = expect(target, log_prob, stream.weight)
            # alpha grows without bound where samples agree: there float32 averages see no spread
            relative = (stream.expectation(target.name, view) - direct).abs() / (1 + direct.abs())
            assert (relative.median() if target.name == "dirichlet" else relative.max()) < 1e-5, (
                target.name
            )


def test_precision_is_decided_once_a_study(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later run keeps it, whatever its own machine would say; what a space asks for is not probed
    at all.
    """
    space = gn.load_space("digits_mlp", {**ONE, "recipe": {"steps": 15, "warmup": 5}})
    said = [True]
    monkeypatch.setattr("gped_nas.device.half_is_fast", lambda device: said.pop())
    monkeypatch.setattr("gped_nas.device.SHARED_MACS", 0)
    first = gn.run(space, out="reports", seed=0)
    again = gn.run(space, out="reports", seed=0, n_trials=2)  # a second probe would find no answer
    assert again.ledger.document.precision == "bfloat16" == first.ledger.document.precision
    assert [record.extra["recipe"]["precision"] for record in again.records()] == ["bfloat16"] * 2

    asked = gn.load_space(
        "digits_mlp", {**ONE, "recipe": {"steps": 15, "warmup": 5, "precision": "float32"}}
    )
    other = gn.run(asked, out="reports", seed=0, study_name="asked")
    assert other.ledger.document.precision is None
    assert other.records()[0].extra["recipe"]["precision"] == "float32"


def test_settings_that_came_later_leave_older_studies_as_they_were() -> None:
    space = gn.load_space("digits_mlp")
    recipe = {
        k: v for k, v in space.resolved["recipe"].items() if k not in ("components", "centered")
    }
    before = sha256_text(canonical_json(as_digested(recipe)))[:16]
    assert identity(space, "stream")["recipe"] == before
    for change in ({"recipe.components": 8}, {"recipe.centered": True}):
        assert identity(gn.load_space("digits_mlp", change), "stream")["recipe"] != before


def test_what_only_fully_connected_students_can_be_is_refused_of_others(home: Home) -> None:
    space = gn.load_space("mnist_cnn", {"recipe.centered": True})
    with pytest.raises(
        ConfigError,
        match=r"mnist_cnn.yaml: recipe.centered: found true with students of family cnn",
    ):
        space.check_reachable((1, 28, 28), 10)
