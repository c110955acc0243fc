"""The paired differences that the chosen student follows from, against the students' own files."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gped_nas.api import Study, load_dataset, load_space, load_student, open_study
from gped_nas.api.nearness import standard_error
from gped_nas.evaluate.base import draw_resamples
from gped_nas.evaluate.judging import resampled
from gped_nas.evaluate.predictions import Predictions
from tests.cli.harness import Home, accepted, snapshot_of


def losses_of(study: Study, trial: int, raw: Any, labels: Any) -> np.ndarray[Any, Any]:
    """A student's loss on each example, nats, (N,)."""
    prob = load_student(study.path / "students" / str(trial)).predict(raw)["predictive"].double()
    loss_N: np.ndarray[Any, Any] = -prob[range(len(labels)), labels].log().numpy()
    return loss_N


def written(home: Home) -> Mapping[str, Any]:
    """What the study's document says of its front."""
    differences = open_study(home.study).ledger.document.to_json()["front_differences"]
    assert isinstance(differences, dict)
    return differences


def test_they_are_those_of_the_students_on_the_same_examples(finished: Home) -> None:
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    raw, labels = dataset.raw("validation"), dataset.labels("validation")
    best, *others = study.front_records()
    assert others

    differences = written(finished)
    assert differences["metric"] == "nll" and differences["best"] == best.trial
    assert differences["n"] == len(labels)
    assert [row["trial"] for row in differences["students"]] == [o.trial for o in others]

    counts_RN = draw_resamples(len(labels), root=0, part="validation").counts_RN
    for row, record in zip(differences["students"], others, strict=True):
        extra_N = losses_of(study, record.trial, raw, labels) - losses_of(
            study, best.trial, raw, labels
        )
        assert row["difference"] == pytest.approx(extra_N.mean(), abs=1e-5)
        means_R = counts_RN.astype(float) @ extra_N / len(labels)
        assert row["error"] == pytest.approx(means_R.std(ddof=1), rel=1e-3)
        # that of the mean in closed form; 1,000 resamples know it to 2.2 %
        closed_form = extra_N.std(ddof=1) / len(labels) ** 0.5
        assert row["error"] == pytest.approx(closed_form, rel=0.1)


def test_a_study_that_is_gone_on_with_has_those_of_its_new_front(own: Home) -> None:
    before = written(own)
    own.run("--n-trials", "20")
    after = written(own)
    front = [record.trial for record in open_study(own.study).front_records()]
    assert [after["best"], *(row["trial"] for row in after["students"])] == front
    assert after != before
    assert "paired difference" in snapshot_of(own).rule


def test_every_verb_chooses_by_them_and_as_before_without_them(own: Home) -> None:
    """Differences that let none but the best be near, then a document of before there were any."""
    study = open_study(own.study)
    best, *others = [record.trial for record in study.front_records()]
    differences = study.ledger.document.front_differences
    assert differences is not None and others
    strict = [dataclasses.replace(row, error=0.0) for row in differences.students]
    study.ledger.change(front_differences=dataclasses.replace(differences, students=tuple(strict)))
    assert chosen_by_verbs(own) == {best}
    assert "paired difference" in snapshot_of(own).rule

    study.ledger.change(front_differences=None)
    (chosen,) = chosen_by_verbs(own)
    rule = snapshot_of(own).rule
    assert "so the standard error is that of its own value" in rule
    assert chosen == snapshot_of(own).chosen


def chosen_by_verbs(home: Home) -> set[int]:
    """The trials that verbs say is chosen."""
    status = json.loads(accepted("status", home.study, "--format", "json").out)
    picked = json.loads(accepted("pick", home.study, "--format", "json").out)
    accepted("report", home.study)
    page = (home.study / "report.html").read_text()
    assert f"<h1>{status['verdict']}</h1>" in page
    assert f"trial {picked['trial']} " in status["verdict"].lower()
    return {status["chosen"], picked["trial"]}


def test_resamples_without_a_value_do_not_hide_the_error() -> None:
    """Two of 100 examples are wrong: an area has no value on the resamples that hold neither."""
    generator = np.random.default_rng(0)
    resamples = draw_resamples(100, root=0, part="validation")
    values = []
    for _ in range(2):
        predictions = Predictions(np.log(generator.dirichlet(np.ones(3), 100)))
        labels = predictions.answer_N.copy()
        labels[:2] = (labels[:2] + 1) % 3
        name = "misclassification_auroc_confidence"
        values.append(resampled(name, predictions, labels, resamples=resamples)[1])

    has_value_R = resamples.counts_RN[:, :2].any(axis=1)
    assert 0 < has_value_R.sum() < len(resamples)
    difference_R = values[0] - values[1]
    assert standard_error(difference_R) == pytest.approx(difference_R[has_value_R].std(ddof=1))
