"""Imported ensembles: what they give no probability, and what they are worth."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gped_nas.api import open_study
from gped_nas.evaluate.measured import Key
from gped_nas.search.snapshot import Reference
from tests.cli.harness import Home, accepted, refused

METHOD = "teacher.method={name: import, path: ensemble.npz}"


def digits() -> tuple[NDArray[Any], NDArray[Any]]:
    """Inputs and labels of the dataset."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images[:, None].astype(np.float32), bunch.target


def write_ensemble(**changes: Any) -> None:
    """Predictions of two members that are right of nine in ten digits."""
    inputs, labels = digits()
    guessed = np.where(np.arange(len(labels)) % 10 == 0, (labels + 1) % 10, labels)
    prob = np.full((2, len(labels), 10), 0.01)
    prob[:, np.arange(len(labels)), guessed] = 0.91
    np.savez("ensemble.npz", **{"inputs": inputs, "prob": prob, **changes})


def certain(prob: NDArray[Any]) -> NDArray[Any]:
    """The same guesses, to which all probability is given."""
    return (prob == prob.max(-1, keepdims=True)).astype(np.float64)


def references_of(home: Home) -> tuple[Reference, ...]:
    """What the front of the tiny study is compared with."""
    return open_study(home.study).snapshot().references


def test_an_ensemble_that_excludes_labels_has_no_nll_and_the_study_says_why(home: Home) -> None:
    write_ensemble()
    with np.load("ensemble.npz") as arrays:
        write_ensemble(prob=certain(arrays["prob"]))
    accepted("run", home.space, "--out", home.out, "--set", METHOD, "--n-trials", 1)

    references = {reference.name: reference for reference in references_of(home)}
    for name in ("teacher", "single_sample"):
        nll = references[name].measures[Key("nll")]
        assert nll.value is None and "examples have no finite term" in nll.why
    assert references["teacher"].metrics["accuracy"] > 0.8

    record = json.loads(accepted("show", home.study, "0", "--format", "json").out)
    assert record["metrics"]["nll"] > 0 and record["metrics"]["nll_above_teacher"] is None
    assert "examples have no finite term" in record["why"]["nll_above_teacher"]
    accepted("show", home.study, "0")
    accepted("report", home.study)

    info = ("teacher", "info", home.space, "--set", METHOD)
    metrics = json.loads(accepted(*info, "--format", "json").out)["validation metrics"]
    assert metrics["nll"]["value"] is None and metrics["accuracy"]["value"] > 0.8
    assert "no finite term" in accepted(*info).out


def test_an_objective_that_no_student_can_have_is_refused_before_any_trial(home: Home) -> None:
    write_ensemble()
    with np.load("ensemble.npz") as arrays:
        write_ensemble(prob=certain(arrays["prob"]))
    objectives = "objectives=[nll_above_teacher, macs]"
    command = ("run", home.space, "--out", home.out, "--set", METHOD, "--set", objectives)
    refused(2, *command, says=("nll_above_teacher", "no probability", "such as 'nll'"))
    assert not home.study.joinpath("study.db").exists()


def test_an_ensemble_at_chance_is_refused_unless_told(home: Home) -> None:
    _, labels = digits()
    write_ensemble()
    with np.load("ensemble.npz") as arrays:
        write_ensemble(prob=np.roll(arrays["prob"], 1, axis=-1))  # classes in another order

    command = ("run", home.space, "--out", home.out, "--set", METHOD, "--n-trials", 1)
    says = ("at chance: accuracy 0", "labels alone 0.", "nll", "288 validation", "order of its")
    refused(2, *command, says=says)
    assert not home.study.joinpath("study.db").exists()
    # It is taken where the user says so, and then no student of it is better than the labels alone.
    says = ("no student is better than a guess", "mend the teacher")
    refused(3, *command, "--set", "teacher.method.at_chance=true", says=says)
    assert home.study.joinpath("study.db").exists()


def test_a_good_ensemble_is_shown_beside_the_labels_alone(home: Home) -> None:
    write_ensemble()
    accepted("teacher", "build", home.space, "--set", METHOD)
    info = accepted("teacher", "info", home.space, "--set", METHOD, "--format", "json").out
    assert "(labels alone 0." in json.loads(info)["imported ensemble"]


def test_inputs_that_were_rounded_are_named_so(home: Home) -> None:
    inputs, _ = digits()
    write_ensemble(inputs=(inputs / 3).astype(np.float16).astype(np.float32) * 3)
    build = ("teacher", "build", home.space, "--set", METHOD)
    refused(2, *build, says=("but for rounding", "not in float16"))
