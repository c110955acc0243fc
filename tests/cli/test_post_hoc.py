"""Tasks ``conformal`` and ``temperature``: fitted on examples that chose nothing, or said so."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas.api import after, export
from gped_nas.api.tasks.bench import Answers, Subject
from gped_nas.api.tasks.fitting import HeldOut
from gped_nas.evaluate.predictions import AnyPredictions, Predictions
from gped_nas.evaluate.student import student_predictions
from tests.cli.harness import Home, accepted, refused

APPROXIMATE = "approximate: chosen on the same examples"
QUICK_DIABETES = {
    "teacher.genotype": {"depth": 1, "width": 8},
    "teacher.method.num_samples": 4,
    "teacher.method.burn_in": 20,
    "teacher.method.thinning": 10,
}


def asked(home: Home, what: object, *args: object) -> list[dict[str, Any]]:
    result = accepted("evaluate", what, "--out", home.out, "-f", "json", *args)
    rows: list[dict[str, Any]] = json.loads(result.out)
    return rows


def test_a_front_on_test_is_fitted_on_validation_and_says_so(own: Home) -> None:
    rows = asked(own, own.study, "--tasks", "conformal:0.2,temperature", "--subjects", "student")
    assert {row["part"] for row in rows} == {"test"}
    n = len(gn.load_dataset(gn.load_space(own.space)).validation)
    assert {row["note"] for row in rows} == {f"{APPROXIMATE}; fitted on {n} validation examples"}

    # by hand: the k-th smallest score of validation
    study = gn.open_study(own.study)
    student, dataset = study.load_student(), gn.load_dataset(gn.load_space(own.space))
    prob = {
        p: student.predict(dataset.raw(p))["predictive"].numpy() for p in ("validation", "test")
    }
    labels = {part: dataset.labels(part) for part in ("validation", "test")}
    score = {p: 1 - np.take_along_axis(prob[p], labels[p][:, None], 1)[:, 0] for p in prob}
    limit = np.sort(score["validation"])[int(np.ceil((n + 1) * 0.8)) - 1]
    values = {row["metric"]: row["value"] for row in rows}
    assert values["split_coverage"] == pytest.approx((score["test"] <= limit + 1e-6).mean())
    assert values["split_set_size"] == pytest.approx(
        (1 - prob["test"] <= limit + 1e-6).sum(1).mean()
    )

    power = prob["test"] ** (1 / values["temperature"])
    of_label = (power / power.sum(1, keepdims=True))[np.arange(len(power)), labels["test"]]
    assert values["nll"] == pytest.approx(-np.log(of_label).mean(), abs=1e-5)
    raw = -np.log(prob["test"][np.arange(len(power)), labels["test"]]).mean()
    assert values["nll_change"] == pytest.approx(values["nll"] - raw, abs=1e-5)
    for row in rows:
        has_interval = row["low"] is not None
        assert has_interval or row["why"], row
        assert row["n"] == (n if row["metric"] == "temperature" else len(dataset.test))


def test_a_calibration_part_is_fitted_on_and_nothing_is_approximate(home: Home) -> None:
    share = ("--set", "data.calibration_share=0.5")
    rows = asked(home, home.space, "--tasks", "conformal,temperature", *share)
    assert {row["predictor"] for row in rows} == {"teacher", "single_sample"}
    assert {(row["part"], row["note"]) for row in rows} == {
        ("validation", "fitted on 144 calibration examples")
    }
    coverage = {row["metric"]: row["value"] for row in rows if row["predictor"] == "teacher"}
    assert coverage["split_coverage"] > 0.8 < coverage["aps_coverage"]

    # a teacher that its space calibrated there has seen the same labels
    tempered = ("--set", "teacher.calibration=temperature", "--subjects", "teacher")
    for row in asked(home, home.space, "--tasks", "conformal", *share, *tempered):
        assert row["note"] == f"{APPROXIMATE}; fitted on 144 calibration examples"


def test_validation_alone_is_fitted_half_by_half(home: Home) -> None:
    args = ("--tasks", "conformal:0.3", "--subjects", "teacher")
    rows = asked(home, home.space, *args)
    note = f"{APPROXIMATE}; each half by what was fitted on the other"
    assert {row["note"] for row in rows} == {note}
    assert [row["metric"] for row in rows] == [
        *("split_coverage", "split_set_size", "aps_coverage", "aps_set_size")
    ]
    assert asked(home, home.space, *args) == rows
    assert asked(home, home.space, *args, "--seed", 1) != rows


def test_intervals_of_real_labels_hold_them(home: Home) -> None:
    space = gn.load_space("diabetes_mlp", {**QUICK_DIABETES, "data.calibration_share": 0.5})
    evaluation = gn.evaluate_tasks(
        space, ["conformal", "temperature", "conformal:0.01"], out=home.out, subjects=["teacher"]
    )
    values = {(row["task"], row["metric"]): row for row in evaluation.rows}
    assert 0.7 < values["conformal:0.1", "split_coverage"]["value"] <= 1
    assert values["conformal:0.1", "split_width"]["value"] > 50, "in the labels' own unit"
    assert values["temperature", "nll"]["value"] is not None

    width = values["conformal:0.01", "split_width"]
    assert width["value"] is None
    few = "36 labels to fit on are too few for 0.99, which takes 99: sets have every label"
    assert width["why"] == few and width["note"].endswith(few)
    assert values["conformal:0.01", "split_coverage"]["value"] == 1


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("conformal:0", ("found 'conformal:0'", "above 0 and below 1", "conformal:0.1")),
        ("conformal:two", ("found 'conformal:two'",)),
        ("conformal:90", ("found 'conformal:90'",)),
        ("temperature:3", ("takes no argument",)),
    ],
)
def test_shares_that_are_none_are_refused(home: Home, task: str, says: tuple[str, ...]) -> None:
    refused(2, "evaluate", home.space, "--tasks", task, says=says)


def test_each_half_has_what_was_fitted_on_the_other() -> None:
    is_first = np.array([True, False, True, False])
    predictions = Predictions(np.log(np.full((4, 2), 0.5)))
    labels = np.array([1.0, 10.0, 3.0, 30.0])
    answers = Answers(Subject("x", "student", "", None), predictions, None, torch.zeros(4, 1))
    halves = HeldOut(answers, predictions, labels, "", is_first)
    # 2 is the mean of the first half, 20 that of the second one
    assert halves.each(lambda _, labels_N: labels_N.mean()).tolist() == [20, 2, 20, 2]
    assert halves.num_fitted == 2


def test_an_export_takes_along_what_was_fitted(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets and temperature of ``predict`` are those of the tasks, over all test examples."""
    taken, inputs = own.root / "taken", own.root / "test.npy"
    accepted("export", own.study, "--into", taken, "--post-hoc")
    dataset = gn.load_dataset(gn.load_space(own.space))
    np.save(inputs, dataset.raw("test").numpy())
    labels = [dataset.class_names[label] for label in dataset.labels("test")]
    tasks = ("--tasks", "conformal:0.1,temperature", "--subjects", "student")
    measured = {row["metric"]: row["value"] for row in asked(own, own.study, *tasks)}

    for rule in ("split", "aps"):
        args = ("--set-level", 0.9, "--set-rule", rule, "-f", "json")
        rows = json.loads(accepted("predict", taken, inputs, *args).out)
        held = [label in row["set"] for row, label in zip(rows, labels, strict=True)]
        assert np.mean(held) == pytest.approx(measured[f"{rule}_coverage"])
        mean_size = np.mean([len(row["set"]) for row in rows])
        assert mean_size == pytest.approx(measured[f"{rule}_set_size"])
        for row in rows:
            named = [row["probabilities"][name] for name in row["set"]]
            assert named == sorted(named, reverse=True)

    rows = json.loads(accepted("predict", taken, inputs, "--calibrated", "-f", "json").out)
    of_label = [row["probabilities"][label] for row, label in zip(rows, labels, strict=True)]
    assert -np.log(of_label).mean() == pytest.approx(measured["nll"], abs=1e-6)
    assert all("set" not in row for row in rows)

    # both at once: sets take the answers without a temperature, and a file is asked about once
    sets = gn.predict_files(taken, [inputs], set_level=0.9)
    asked_about = []

    def counted(student: gn.Student, raw: torch.Tensor) -> AnyPredictions:
        asked_about.append(len(raw))
        return student_predictions(student, raw)

    monkeypatch.setattr(after, "student_predictions", counted)
    both = gn.predict_files(taken, [inputs], calibrated=True, set_level=0.9)
    assert [row["set"] for row in both] == [row["set"] for row in sets]
    assert [row["probabilities"] for row in both] == [row["probabilities"] for row in rows]
    assert asked_about == [len(dataset.test)]

    table = accepted("predict", taken, inputs, "--set-level", 0.99).out
    assert "set" in table.splitlines()[0].split()
    about = json.loads((taken / "spec.json").read_text())["about"]["post_hoc"]
    assert (about["part"], about["is_approximate"], about["n"]) == ("validation", True, 288)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--set-level", "90"], 2, ("--set-level", "found 90", "below 1")),
        (
            ["--set-level", "0.9", "--set-rule", "app"],
            2,
            ("--set-rule", "'app'", "did you mean 'aps'"),
        ),
    ],
)
def test_levels_and_rules_that_are_none_are_refused(
    own: Home, args: list[str], code: int, says: tuple[str, ...]
) -> None:
    np.save(own.root / "x.npy", np.zeros((1, 1, 8, 8), np.uint8))
    accepted("export", own.study, "--into", own.root / "taken", "--post-hoc")
    refused(code, "predict", own.root / "taken", own.root / "x.npy", *args, says=says)


@pytest.mark.parametrize("args", [["--post-hoc"], ["--to", "onnx", "--compute", "int8"]])
def test_nothing_is_fitted_on_other_data_than_the_students(
    finished: Home, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    other = replace(gn.load_dataset(gn.load_space(finished.space)), digest="0" * 64)
    monkeypatch.setattr(export, "load_dataset", lambda space: other)
    into = finished.root / "into"
    says = ("found other data", "digits", "0" * 16, "restore them")
    refused(4, "export", finished.study, "--into", into, *args, says=says)
    assert not into.exists()


@pytest.mark.parametrize("args", [["--calibrated"], ["--set-level", "0.9"]])
def test_a_student_that_nothing_was_fitted_to_says_so(own: Home, args: list[str]) -> None:
    np.save(own.root / "x.npy", np.zeros((1, 1, 8, 8), np.uint8))
    says = (str(own.study / "students"), "nothing was fitted", "--post-hoc")
    refused(2, "predict", own.study, own.root / "x.npy", "--out", own.out, *args, says=says)


def test_a_search_with_a_calibration_part_keeps_its_promise_apart(home: Home) -> None:
    share = ("--set", "data.calibration_share=0.5", "--n-trials", 2)
    accepted("run", home.space, "--out", home.out, *share)
    rows = asked(home, home.study, "--tasks", "conformal", "--subjects", "student")
    assert {row["note"] for row in rows} == {"fitted on 144 calibration examples"}
    # of 288, half chose the student
    args = ("--tasks", "prediction", "--subjects", "student", "--part", "validation")
    assert {row["n"] for row in asked(home, home.study, *args)} == {144}

    accepted("export", home.study, "--into", home.root / "taken", "--post-hoc", "--out", home.out)
    about = json.loads((home.root / "taken" / "spec.json").read_text())["about"]["post_hoc"]
    assert (about["part"], about["is_approximate"], about["n"]) == ("calibration", False, 144)
