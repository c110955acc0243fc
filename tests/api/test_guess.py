"""The guess against numbers computed here from labels, and what is said of who is no better."""

import json
from typing import Any

import numpy as np
import pytest

from gped_nas.api import Study, load_dataset, load_space, load_student, open_study
from gped_nas.evaluate.base import draw_resamples
from tests.cli.harness import Home, accepted, call, refused, snapshot_of

WHAT = "the teacher has no skill"


def guess_of(study: Study) -> Any:
    (guess,) = (r for r in study.snapshot().references if r.name == "guess")
    return guess


def test_the_guess_says_the_class_frequencies_of_training(finished: Home) -> None:
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    guess = guess_of(study)
    assert guess.costs == {} and "of the 1,150 training labels" in guess.note

    share_C = np.bincount(dataset.labels("train"), minlength=10) / len(dataset.train)
    for prefix, part in (("", "validation"), ("test_", "test")):
        labels = dataset.labels(part)  # type: ignore[arg-type]
        assert guess.metrics[f"{prefix}nll"] == pytest.approx(-np.log(share_C)[labels].mean())
        is_right = labels == share_C.argmax()
        assert guess.metrics[f"{prefix}accuracy"] == pytest.approx(is_right.mean())


def test_a_record_has_its_difference_to_it(finished: Home) -> None:
    """The difference and its interval, computed here for a student of the front."""
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    labels = dataset.labels("validation")
    share_C = np.bincount(dataset.labels("train"), minlength=10) / len(dataset.train)
    guess_N = -np.log(share_C)[labels]

    front = {record.trial: record for record in study.front_records()}
    trial, best = next(iter(front.items()))
    student = load_student(study.path / "students" / str(trial))
    prob = student.predict(dataset.raw("validation"))["predictive"].double().numpy()
    extra_N = -np.log(prob[range(len(labels)), labels]) - guess_N
    counts_RN = draw_resamples(len(labels), root=0, part="validation").counts_RN
    ends = np.quantile(counts_RN.astype(float) @ extra_N / len(labels), (0.025, 0.975))

    above = best.above_guess["nll"]
    assert above is not None and set(best.above_guess) == {"nll"}
    assert above[0] == pytest.approx(extra_N.mean(), abs=1e-5)
    width = ends[1] - ends[0]
    assert above[1:] == pytest.approx(tuple(ends), abs=0.2 * width)


def test_it_is_there_before_a_front_is_concluded(own: Home) -> None:
    study = open_study(own.study)
    study.ledger.change(references=None)
    guess = guess_of(open_study(own.study))
    assert guess.metrics["nll"] > 2.3 and not any("test" in name for name in guess.metrics)
    assert "guess from the labels" in accepted("front", own.study).out


def test_verbs_show_it_beside_the_others(finished: Home) -> None:
    guess = guess_of(open_study(finished.study)).metrics["nll"]
    rows = accepted("front", finished.study).out.splitlines()
    (row,) = [row for row in rows if row.startswith("guess from the labels")]
    assert f"{guess:.4g}" in row
    assert any(row.startswith("teacher (average)") for row in rows)

    (trial,) = {r.trial for r in open_study(finished.study).front_records()[:1]}
    rows = accepted("show", finished.study, trial).out.splitlines()
    of_nll = [row for row in rows if row.startswith("nll ")]
    assert of_nll[-1].endswith(f" {guess:.4g}")


def write_data(seed: int = 1, num: int = 600, **arrays: Any) -> None:
    """Inputs that say nothing of their three classes."""
    draw = np.random.default_rng(seed)
    data = {"x_train": draw.normal(size=(num, 4)), "y_train": draw.integers(3, size=num)}
    np.savez("data.npz", **{**data, **arrays})


DATA = ("--set", "dataset={name: npz, path: data.npz}")


def test_a_teacher_that_guesses_is_not_trusted_and_heads_no_report(home: Home) -> None:
    write_data()
    run = ("run", home.space, "--out", home.out, *DATA, "--set", "search.keep=0.9")
    refused(3, *run, says=(WHAT, "mend the teacher"))

    info = accepted("teacher", "info", home.space, *DATA, "--format", "json").out
    verdict = json.loads(info)["verdict"]
    assert verdict["level"] == "do not trust"
    assert verdict["sentence"].startswith("Do not trust: it is not better than a guess")

    page = (home.study / "report.html").read_text()
    assert "No student is to be used: the teacher is not better than a guess." in page
    assert "of the teacher&#39;s accuracy" not in page and "of the teacher's accuracy" not in page
    snapshot = snapshot_of(home)
    assert snapshot.chosen is None and WHAT in snapshot.rule
    assert snapshot.region is not None and snapshot.region.lacks_skill and not snapshot.outside

    refused(3, "pick", home.study, says=(WHAT,))
    refused(3, "pick", home.study, "--within", "params=5000", says=(WHAT,))
    front = call("front", home.study)
    assert front.code == 0 and "<- chosen" not in front.out
    assert "the teacher is not better than a guess" in front.err


@pytest.mark.filterwarnings("ignore:.* has no example of:gped_nas.errors.DataWarning")
def test_a_class_that_training_lacks_leaves_the_guess_no_nll(home: Home) -> None:
    """Nobody's share of the lead over an infinite NLL means anything: log C stands for it."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(90, 4)), draw.integers(2, size=90)
    x[:, 0] += 4 * y
    rest = {"x_val": x[:20], "y_val": [2, *y[1:20]], "x_test": x[20:40], "y_test": y[20:40]}
    names = {"class_names": ["a", "b", "c"]}
    write_data(x_train=x[40:], y_train=y[40:], **rest, **names)
    accepted("run", home.space, "--out", home.out, *DATA)

    study = open_study(home.study)
    assert study.region is not None
    assert study.region.know_nothing["nll"] == pytest.approx(np.log(3))  # its declared worst
    guess = guess_of(study)
    measured = guess.measured("nll")
    assert measured.value is None and "1 of 20 examples" in measured.why
    assert study.front_records()
    assert all(record.above_guess == {"nll": None} for record in study.front_records())
    assert "guess from the labels" in (home.study / "report.html").read_text()


def test_objectives_under_a_condition_are_compared_too(home: Home) -> None:
    changes = ("conditions=[clean, permuted]", "objectives=[nll@permuted, accuracy, params]")
    sets = [word for change in changes for word in ("--set", change)]
    assert call("run", home.space, "--out", home.out, *sets).code in (0, 3)

    study, dataset = open_study(home.study), load_dataset(load_space(home.space))
    guess = guess_of(study).metrics
    share_C = np.bincount(dataset.labels("train"), minlength=10) / len(dataset.train)
    nll = -np.log(share_C)[dataset.labels("validation")].mean()
    assert guess["nll@permuted"] == guess["nll"] == pytest.approx(nll)
    for record in study.records():
        for name in ("nll@permuted", "accuracy"):
            above = record.above_guess[name]
            assert above is not None and set(record.above_guess) == {"nll@permuted", "accuracy"}
            assert above[0] == pytest.approx(record.metrics[name] - guess[name], abs=1e-9)

    differences = study.ledger.document.front_differences
    front = {record.trial: record for record in study.front_records()}
    assert differences is not None and differences.metric == "nll@permuted"
    best = front[differences.best].metrics["nll@permuted"]
    assert len(differences.students) == len(front) - 1
    for row in differences.students:
        expected = front[row.trial].metrics["nll@permuted"] - best
        assert row.difference == pytest.approx(expected, abs=1e-9)
