"""A student takes the missing numbers of a table in every form that it has."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import gped_nas as gn
from tests.cli.harness import Home, accepted

nan = float("nan")


@pytest.mark.filterwarnings("ignore::gped_nas.errors.DataWarning")
def test_a_student_takes_missing_numbers_everywhere(home: Home) -> None:
    # the second column lacks every third number, and that is the class
    x = np.random.default_rng(0).normal(5, 2, size=(150, 2))
    is_missing = np.arange(150) % 3 == 0
    x[is_missing, 1] = nan
    x[::7, 0] = nan
    np.savez("mine.npz", x_train=x, y_train=is_missing.astype(int))

    dataset = "dataset={name: npz, path: mine.npz, normalize: columns, missing: impute}"
    teacher = "teacher.method={name: deep_ensemble, num_samples: 2, steps: 300, lr: 0.01}"
    settings = ("--set", dataset, "--set", teacher, "--set", "recipe.steps=200")
    accepted("run", home.space, *settings, "--n-trials", 2)

    study = gn.open_study("tiny")
    (guess,) = [reference for reference in study.references() if reference.name == "guess"]
    labels = gn.load_dataset(gn.load_space(study.path / "config.yaml")).labels("validation")
    # a third of the training labels is 1, and it has an answer where numbers are missing too
    assert guess.metrics["nll"] == pytest.approx(-np.log([2 / 3, 1 / 3])[labels].mean(), abs=0.02)

    number = study.front_records()[0].trial
    accepted("export", "tiny", number, "--to", "onnx", "--into", "served")
    spec = json.loads(Path("served/spec.json").read_text())
    assert spec["input_shape"] == [2] and spec["normalization"]["flagged"] == [0, 1]

    questions = np.array([[5, nan], [5, 5], [nan, 4]], np.float32)
    np.save("questions.npy", questions)
    student = gn.load_student(f"reports/tiny/students/{number}")
    answers = student.predict(questions)["predictive"].numpy()
    assert answers[0, 1] > answers[1, 1]  # that it is missing is what says the class

    session = onnxruntime.InferenceSession("served/student.onnx")
    (served,) = session.run(["predictive"], {"inputs": questions})
    assert np.allclose(served, answers, atol=1e-5)
    rows = json.loads(
        accepted(
            "predict", f"reports/tiny/students/{number}", "questions.npy", "--format", "json"
        ).out
    )
    assert len(rows) == 3
