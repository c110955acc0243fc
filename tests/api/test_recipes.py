"""Whole searches under other recipes: online, and on single samples with targets of every kind."""

import pytest
import torch

import gped_nas as gn
from gped_nas.api.identity import identity
from gped_nas.api.lessons import distillation_set
from gped_nas.api.online import online_feed
from gped_nas.errors import ConfigError
from gped_nas.io import canonical_json, sha256_text
from gped_nas.spelling import as_digested
from gped_nas.targets.expectations import expect
from tests.api.test_surface import OVERRIDES
from tests.cli.harness import Home

ONE_TRIAL = {
    **OVERRIDES,
    "search": {"n_trials": 1, "students_at_once": 1, "keep": {}, "every_dtype": False},
}
ONLINE = {"steps": 15, "warmup": 5, "lr": 0.05, "mode": "online"}
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


def test_an_online_search_says_so(home: Home) -> None:
    space = gn.load_space("digits_sgld", {**ONE_TRIAL, "recipe": ONLINE})
    study = gn.run(space, out="reports", seed=0)
    (record,) = study.records()
    assert record.state == "complete"
    assert record.extra["recipe"] == {
        **ONLINE,
        "update": "newest",
        "optimizer": "adamw",
        "precision": study.ledger.document.precision,
    }
    assert study.snapshot().config["recipe"]["mode"] == "online"


def test_an_online_search_begins_with_the_stream_s_first_chain(home: Home) -> None:
    space = gn.load_space("digits_sgld", {**ONE_TRIAL, "recipe": ONLINE})
    teacher = gn.build_teacher(space, gn.new_session("cpu"))
    assert not list((teacher.stream.folder / "views").glob("distillation*"))

    data = distillation_set(teacher)
    assert data.expectations == {} and data.samples is None

    forward = gn.FAMILIES["mlp"].forward
    feed = online_feed(teacher, data.inputs)
    for sample in (0, 2):  # two chains take turns: the even samples are the first one's
        x, values = next(feed)
        expected = forward(teacher.stream.params(sample), x).softmax(-1)
        assert torch.allclose(values["predictive"], expected, atol=1e-6)


def test_a_search_whose_views_are_drawn_in_each_step(home: Home) -> None:
    """The teacher's own answers at mixed digits, and the stored ones at digits with noise."""
    views = [{"policy": ["noise", "mixup"]}, {"policy": "noise", "answers": "clean"}]
    changes = {"views": views, "recipe.draw_views": "fresh", "search.n_trials": 2}
    study = gn.run(gn.load_space(home.space, changes), out="reports")
    for record in study.records():
        assert record.state == "complete"
        assert record.extra["recipe"]["draw_views"] == "fresh"


def test_a_search_with_targets_of_every_kind(home: Home) -> None:
    recipe = {
        "steps": 40,
        "warmup": 5,
        "lr": 0.02,
        "update": "newest",
        "target_weights": {"second_moment": 3.0},
    }
    space = gn.load_space("digits_sgld", {**ONE_TRIAL, "targets": TARGETS, "recipe": recipe})
    study = gn.run(space, out="reports", seed=0)

    (record,) = study.records()
    assert record.extra["recipe"] == {
        **recipe,
        "mode": "cached",
        "optimizer": "adamw",
        "precision": study.ledger.document.precision,
    }
    assert record.metrics["information_error"] > 0

    student = gn.load_student(f"reports/digits_sgld/students/{record.trial}")
    assert student.spec.targets == space.targets
    assert student.spec.targets[4].settings.levels == (0.1, 0.9)

    answers = student.predict(gn.load_dataset(space).raw("validation"))
    assert {name: value.shape[1] for name, value in answers.items()} == {
        "predictive": 10,
        "expected_entropy": 1,
        "second_moment": 10,
        "utility": 10,
        "quantile": 20,
        "variance": 10,
        "mutual_information": 1,
        "dirichlet": 10,
    }
    dirichlet_mean = answers["dirichlet"] / answers["dirichlet"].sum(-1, keepdim=True)
    assert torch.allclose(dirichlet_mean, answers["predictive"], atol=1e-5)
    low, high = answers["quantile"].unflatten(-1, (10, 2)).unbind(-1)
    assert (low < high).all()

    stream = gn.load_stream(study.stream_path)
    view = next(name for name in stream.views if name.startswith("distillation"))
    log_prob = stream.stream.predictions(view).double()
    for target in space.targets:
        if target.kind != "quantile":
            direct = expect(target, log_prob, stream.weight)
            error = (stream.expectation(target.name, view) - direct).abs() / (1 + direct.abs())
            # alpha grows without bound where samples agree: there float32 averages see no spread
            worst = error.median() if target.name == "dirichlet" else error.max()
            assert worst < 1e-5, target.name


def test_precision_is_decided_once_a_study(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later run keeps it, whatever its own machine would say."""
    answers = [True]
    monkeypatch.setattr("gped_nas.device.half_is_fast", lambda device: answers.pop())
    monkeypatch.setattr("gped_nas.device.SHARED_MACS", 0)
    space = gn.load_space(
        "digits_sgld", {**ONE_TRIAL, "recipe": {"steps": 15, "warmup": 5, "lr": 0.05}}
    )

    study = gn.run(space, out="reports", seed=0)
    assert study.ledger.document.precision == "bfloat16"

    study = gn.run(space, out="reports", seed=0, n_trials=2)  # a second probe would find no answer
    assert study.ledger.document.precision == "bfloat16"
    assert [record.extra["recipe"]["precision"] for record in study.records()] == ["bfloat16"] * 2


def test_a_precision_that_a_space_asks_for_is_not_probed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(device: torch.device) -> bool:
        raise AssertionError("probed")

    monkeypatch.setattr("gped_nas.device.half_is_fast", probe)
    monkeypatch.setattr("gped_nas.device.SHARED_MACS", 0)
    recipe = {"steps": 15, "warmup": 5, "lr": 0.05, "precision": "float32"}
    space = gn.load_space("digits_sgld", {**ONE_TRIAL, "recipe": recipe})

    study = gn.run(space, out="reports", seed=0)

    assert study.ledger.document.precision is None
    assert study.records()[0].extra["recipe"]["precision"] == "float32"


def test_settings_that_came_later_leave_older_studies_as_they_were() -> None:
    space = gn.load_space("digits_sgld")
    recipe = dict(space.resolved["recipe"])
    later_ones = (
        "components",
        "centered",
        "label_weight",
        "lr_probe",
        "draw_views",
        "decay_from",
        "stream",
        "certify",
    )
    for later in (*later_ones, "kernel"):
        del recipe[later]
    before = sha256_text(canonical_json(as_digested(recipe)))[:16]
    assert identity(space, "stream")["recipe"] == before

    fresh = {"recipe.draw_views": "fresh", "views": [{"policy": "noise"}]}
    changes = (
        {"recipe.components": 8},
        {"recipe.centered": True},
        {"recipe.decay_from": 0.8},
        fresh,
    )
    for change in changes:
        assert identity(gn.load_space("digits_sgld", change), "stream")["recipe"] != before

    # it changes students by rounding alone
    graph = gn.load_space("digits_sgld", {"recipe.kernel": "graph"})
    assert identity(graph, "stream")["recipe"] == before


def test_what_only_fully_connected_students_can_be_is_refused_of_others(home: Home) -> None:
    space = gn.load_space("mnist_cnn", {"recipe.centered": True})
    message = r"mnist_cnn.yaml: recipe.centered: found true with students of family cnn"
    with pytest.raises(ConfigError, match=message):
        space.check_reachable((1, 28, 28), 10)


def test_a_step_size_is_chosen_once_a_study(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later run keeps it, and probes nothing."""
    recipe = {"steps": 100, "warmup": 10, "lr": 0.5, "lr_probe": [1e-6, 0.02]}
    # a sampler that is named has no note of its own
    settings = {**ONE_TRIAL, "search.sampler": "random", "recipe": recipe}
    space = gn.load_space("digits_sgld", settings)

    study = gn.run(space, out="reports", seed=0)
    assert study.ledger.document.lr == 0.02
    tried = dict(study.ledger.document.lr_losses)
    assert tried[0.02] < tried[1e-6]
    (note,) = study.training_notes()
    assert note.startswith("Step size 0.02, chosen by a short probe of 1e-06 (loss ")

    monkeypatch.setattr("gped_nas.api.recipes.probe", None)
    study = gn.run(space, out="reports", seed=0, n_trials=2)
    for record in study.records():
        assert record.extra["recipe"]["lr"] == 0.02
        assert "lr_probe" not in record.extra["recipe"]
    assert study.training_notes() == (note,)
