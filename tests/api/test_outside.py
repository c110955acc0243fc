"""Out-of-distribution sets in a search: measured against the files, and what a study refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import gped_nas as gn
from gped_nas import load_dataset, load_space, load_student, rng
from gped_nas.api.identity import identity
from gped_nas.data.base import Part
from gped_nas.errors import StudyError
from gped_nas.evaluate.conditions import CONDITIONS, add_condition
from gped_nas.evaluate.measured import Key
from tests.cli.harness import Home, accepted, refused

PARTS: tuple[Part, Part] = ("validation", "test")
ASKED: dict[str, Any] = {
    "search.n_trials": 2,
    "conditions": {"shaky": {"name": "noise", "std": 0.3}},
    "ood": ["rotated", "shaky", "aimed", {"other": {"path": "other.npz"}}],
    "objectives": ["nll", "ood_auroc_model@permuted", "params"],
    "constraints": {"ood_auroc_total@rotated": 0.05},
}


def write_other(seed: int = 0) -> None:
    """A file of 700 pictures of bytes, larger than digits, in the current folder."""
    coarse = torch.rand((700, 1, 4, 4), generator=rng.generator(seed, "other"))
    large = torch.nn.functional.interpolate(coarse, (12, 12), mode="bilinear")
    np.savez("other.npz", x=(255 * large).to(torch.uint8).numpy())


@pytest.fixture
def attack(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A condition that asks the predictor, registered for one test."""
    CONDITIONS["clean"]
    monkeypatch.setattr(CONDITIONS, "_items", dict(CONDITIONS.items()))

    @add_condition("aimed", "brightened by how sure the predictor is")
    def aimed(raw: Any, *, predictor: Any) -> Any:
        top_N = torch.from_numpy(predictor.predict(raw).log_prob_NC.max(1)).exp().float()
        return raw + 8 * top_N[:, None, None, None]

    yield


def scores(student: Any, raw: Any) -> dict[str, Any]:
    """Total and model uncertainty of a student at raw inputs."""
    said = {name: value.double().numpy() for name, value in student.predict(raw).items()}
    prob, expected = said["predictive"], said["expected_entropy"][:, 0]
    total = -(prob * np.log(prob)).sum(1)
    return {"total": total, "model": total - expected}


@pytest.mark.usefixtures("attack")
def test_students_are_measured_by_how_well_they_notice_inputs_from_outside(home: Home) -> None:
    write_other()
    study = gn.run(load_space(home.space, ASKED), out=home.out)
    dataset = load_dataset(load_space(home.space))

    for record in study.front_records():
        student = load_student(study.path / "students" / str(record.trial))
        for part in PARTS:
            raw = dataset.raw(part)
            order = torch.randperm(64, generator=rng.generator(0, "condition", "permuted", part))
            outside = raw.flatten(1)[:, order].view_as(raw)
            inside, labels = scores(student, raw), np.repeat([0, 1], len(raw))
            at_set = scores(student, outside)
            both = np.concatenate([inside["model"], at_set["model"]])
            measured = record.measures[Key("ood_auroc_model", "permuted", part)]
            # uncertainty of a student is in float32 here, and near zero it is rounding
            assert measured.value == pytest.approx(roc_auc_score(labels, both), abs=2e-3)
            assert measured.n == 2 * len(raw) and measured.interval is not None

            # an attack gives every predictor inputs of its own
            aimed_at = raw + 8 * student.predict(raw)["predictive"].amax(1)[:, None, None, None]
            both = np.concatenate([inside["total"], scores(student, aimed_at)["total"]])
            measured = record.measures[Key("ood_aupr_total", "aimed", part)]
            assert measured.value == pytest.approx(average_precision_score(labels, both), abs=1e-4)

    # of a listed set everything is recorded, of one that a goal names that alone
    recorded: dict[str, set[str]] = {}
    for key in record.measures:
        if key.metric.startswith("ood_"):
            recorded.setdefault(key.condition, set()).add(key.metric)
    assert recorded["permuted"] == {"ood_auroc_model"}
    assert recorded["rotated"] == recorded["shaky"] == recorded["other"]
    assert {"ood_aupr_energy", "ood_fpr95_total", "ood_auroc_expected"} <= recorded["other"]
    assert record.measures[Key("ood_auroc_total", "rotated")].value >= 0.05

    # half of the file is for each part
    assert [record.measures[Key("ood_aupr_total", "other", part)].n for part in PARTS] == [
        288 + 288,
        359 + 350,
    ]
    references = {reference.name: reference.measures for reference in study.snapshot().references}
    assert references["teacher"][Key("ood_auroc_model", "permuted", "test")].value > 0
    assert Key("ood_auroc_total", "other", "test") in references["map"]
    row = json.loads(accepted("front", study.path, "--format", "json").out)[0]
    assert "ood_auroc_model@permuted" in row["intervals"]
    assert study.objectives[1].label.endswith("model uncertainty, permuted")

    # the same file under another path is the same study, another file is another one
    Path("other.npz").rename("moved.npz")
    moved = {**ASKED, "ood": [*ASKED["ood"][:-1], {"other": {"path": "moved.npz"}}]}
    assert (
        sum(
            record.is_counted
            for record in gn.run(load_space(home.space, moved), out=home.out).records()
        )
        == 2
    )
    write_other(seed=1)
    with pytest.raises(StudyError, match="ood"):
        gn.run(load_space(home.space, ASKED), out=home.out)


def test_averages_that_run_along_are_kept_at_sets_too(home: Home) -> None:
    recipe = {"mode": "online", "stream": "none", "steps": 100, "lr": 0.02}
    settings = {"recipe": recipe, "search.n_trials": 1, "ood": ["rotated"]}
    study = gn.run(load_space(home.space, settings), out=home.out)
    (teacher,) = (r for r in study.snapshot().references if r.name == "teacher")
    for part in PARTS:
        assert teacher.measures[Key("ood_auroc_model", "rotated", part)].value > 0


def test_a_space_without_sets_is_the_study_that_it_was(home: Home) -> None:
    plain = load_space(home.space)
    assert "ood" not in plain.resolved and "ood" not in identity(plain, "x")
    listed = load_space(home.space, {"ood": ["rotated"]})
    assert listed.resolved["ood"] == ["rotated"]
    same = {part: value for part, value in identity(listed, "x").items() if part != "ood"}
    assert same == identity(plain, "x")
    with_none = load_space(home.space, {"ood": []})
    assert identity(with_none, "x") == identity(plain, "x")


BAD = {
    "an unknown set": ("ood=[fashion_mnst]", 2, ("tiny.yaml: ood[0]", "'fashion_mnist'")),
    "no list": ("ood=permuted", 2, ("tiny.yaml: ood: found 'permuted'", "expected a list")),
    "the data itself": (
        "ood=[digits]",
        2,
        ("tiny.yaml: ood", "288 of 288", "'digits' holds itself", "take another set"),
    ),
    "a set of another shape": (
        "ood=[diabetes]",
        2,
        ("tiny.yaml: ood", "shape (10,), expected (1, 8, 8)", "only pictures"),
    ),
    "a file that is not there": (
        "ood.mine.path=nowhere.npz",
        2,
        ("tiny.yaml: ood", "nowhere.npz: no such file"),
    ),
    "a set that is not on disk": (
        "ood=[fashion_mnist]",
        5,
        ("tiny.yaml: ood", "dataset 'fashion_mnist'", "GPED_DATA"),
    ),
    "a metric without a set": (
        "objectives=[nll, ood_auroc_model]",
        2,
        ("objectives: ood_auroc_model", "found no set", "write ood_auroc_model@permuted"),
    ),
    "an unknown set of an objective": (
        "objectives=[nll, ood_auroc_model@permutd]",
        2,
        ("objectives: ood_auroc_model@permutd", "unknown set 'permutd'", "'permuted'"),
    ),
    "a metric of predictions at a set": (
        'constraints."nll@fashion_mnist"=2',
        2,
        ("nll@fashion_mnist", "inputs from outside alone", "ood_auroc_total@fashion_mnist"),
    ),
    "a set that is a condition with a number": (
        'constraints."accuracy@noise"=0.1',
        2,
        ("constraints: accuracy@noise", "expected a number after 'noise-'", "write noise-s3"),
    ),
    "a score without its target": (
        "targets=[predictive]\0objectives=[nll, ood_auroc_model@permuted]",
        2,
        ("ood_auroc_model@permuted", "needs 'expected_entropy'"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_set_is_told_before_any_work(
    home: Home, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPED_DATA", str(home.root / "nothing"))
    settings, code, says = BAD[case]
    sets = []
    for setting in settings.split("\0"):
        sets += ["--set", setting]
    refused(code, "run", home.space, "--out", home.out, *sets, says=says)
    assert not home.out.exists() and not home.cache.exists()
