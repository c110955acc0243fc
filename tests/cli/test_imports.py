"""Imported ensembles: what they give no probability, and what they are worth."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gped_nas.api import open_study
from gped_nas.config import dump_yaml, load_yaml, read_yaml
from gped_nas.evaluate.measured import Key
from gped_nas.search.snapshot import Reference
from tests.cli.harness import Home, Result, accepted, refused

METHOD = "teacher.method={name: import, path: ensemble.npz}"
GIVEN = "{predictions: ensemble.npz, name: 2 x clumsy, macs: 9.1e+6, storage_bytes: 1_234_567}"

KEPT = ("--set", "search.keep=0.9")


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
    says = (
        "at chance: accuracy 0",
        "labels alone 0.",
        "nll",
        "288 validation",
        "classes are, in order, 0, 1, 2, 3",
        "if the ensemble's are 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, its accuracy is 0.9",
        "order of its",
    )
    refused(2, *command, says=says)
    assert not home.study.joinpath("study.db").exists()
    # It is taken where the user says so, and then its students have nothing to keep.
    says = ("the teacher has no skill", "mend the teacher")
    refused(3, *command, "--set", "teacher.method.at_chance=true", *KEPT, says=says)
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


def named_home(home: Home, teacher: str = GIVEN) -> Home:
    """A home whose space has a teacher that is given by its predictions, and names no views."""
    data = read_yaml(home.space)
    del data["views"]
    data["teacher"] = load_yaml(f"teacher: {teacher}", "test")["teacher"]
    home.space.write_text(dump_yaml(data))
    return home


def test_a_given_teacher_needs_no_network_and_is_told_by_its_name_and_its_costs(
    home: Home,
) -> None:
    write_ensemble()
    named_home(home).run("--n-trials", 2)

    references = {reference.name: reference for reference in references_of(home)}
    costs = {"macs": 9_100_000, "flops": 18_200_000, "storage_bytes": 1_234_567}
    assert references["teacher"].costs == costs
    assert "2 members of 2 x clumsy" in references["teacher"].note
    assert "map" not in references and references["single_sample"].costs == {}

    info = json.loads(accepted("teacher", "info", home.space, "--format", "json").out)
    assert info["teacher"] == "2 x clumsy, known by its predictions"
    assert info["multiply-adds"] == "9,100,000" and info["bytes of weights"] == "1,234,567"

    page = (home.study / "report.html").read_text()
    words = "2 x clumsy, 2 members known by predictions"
    assert words in page and "all together multiply-adds 9,100,000 and bytes" in page

    chosen = open_study(home.study).chosen().trial
    accepted("export", home.study, chosen, "--into", "served")
    card = Path("served/README.md").read_text()
    assert f"stands in for {words}" in card and "of its multiply-adds" in card
    assert "not given" not in card


def test_a_given_teacher_goes_on_wherever_its_file_lies_and_not_under_other_costs(
    home: Home,
) -> None:
    write_ensemble()
    named_home(home, "{predictions: ensemble.npz, name: mine}").run("--n-trials", 1)
    Path("ensemble.npz").rename("moved.npz")
    moved = ("--set", "teacher.predictions=moved.npz")
    home.run("--n-trials", 2, *moved)
    command = ("run", home.space, "--out", home.out, *moved)
    refused(4, *command, "--set", "teacher.macs=5", says=("teacher and dataset",))

    # costs that nobody gave are said to be so
    page = (home.study / "report.html").read_text()
    assert "all together multiply-adds not given and bytes of weights not given" in page
    chosen = open_study(home.study).chosen().trial
    accepted("export", home.study, chosen, "--into", "served")
    card = Path("served/README.md").read_text()
    assert "all members together: multiply-adds not given, bytes of weights not given" in card
    info = accepted("teacher", "info", home.space, *moved, "--format", "json").out
    assert json.loads(info)["multiply-adds"] == "not given"


def test_what_a_given_teacher_cannot_have_is_refused(home: Home) -> None:
    write_ensemble()
    named_home(home)
    command = ("run", home.space, "--out", home.out)
    says = ("teacher: found family, genotype beside predictions", "remove them")
    both = ("--set", "teacher.family=mlp", "--set", "teacher.genotype={depth: 1, width: 8}")
    refused(2, *command, *both, says=says)
    refused(2, *command, "--set", "teacher.macs=1.5", says=("teacher.macs", "integer"))
    refused(2, *command, "--set", "teacher.nmae=a", says=("did you mean 'name'?",))
    says = ("teacher: known by its predictions alone", "give teacher.family")
    refused(2, "dials", home.space, "--mask", "2", "--out", home.out, says=says)
    assert not home.study.exists()


def test_parts_are_carved_from_rows_that_an_imported_ensemble_has_not_seen(home: Home) -> None:
    write_ensemble()
    command = ("run", named_home(home).space, "--out", home.out, "--dry-run")
    planned = accepted(*command, "--set", "teacher.trained_on=1200").out
    assert "test: 332 of the 597 examples that the teacher has not seen" in planned
    assert "validation: 265 of the 265 examples that the teacher has not seen" in planned

    says = ("teacher.trained_on", "trained on all 1797 examples", "give x_test and y_test")
    refused(2, *command, "--set", "teacher.trained_on=all", says=says)
    refused(2, *command, "--set", "teacher.trained_on=0", says=("greater than or equal to 1",))


def test_what_a_sampled_teacher_has_seen_is_not_asked(home: Home) -> None:
    says = ("teacher.trained_on: found with the method 'sgld'", "remove it")
    refused(2, "space", home.space, "--set", "teacher.trained_on=all", says=says)


def message(result: Result) -> str:
    """The error of a refused command, without what it told before."""
    return result.err[result.err.index("gped-search: error") :]


def test_a_dry_run_tells_what_an_import_takes_and_refuses_what_a_run_does(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ensemble()
    dry = ("run", named_home(home).space, "--out", home.out, "--dry-run")
    planned = accepted(*dry, "--n-trials", 7).out

    assert "2 x clumsy, known by its predictions, 2 members at 1,797 inputs" in planned
    assert f"disk for inputs       {1797 * 64 * 4:,}" in planned
    assert f"disk for predictions  {2 * 1797 * 10 * 4:,}" in planned
    assert "to be written" in planned and "disk for weights      0" in planned
    assert re.search(r"^trials +7$", planned, re.MULTILINE)

    views = ("--set", "views=[{policy: noise}]")
    assert message(refused(2, *dry, *views)) == message(refused(2, *dry[:-1], *views))
    cuda = ("--device", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert message(refused(5, *dry, *cuda)) == message(refused(5, *dry[:-1], *cuda))
    with np.load("ensemble.npz") as arrays:
        write_ensemble(prob=np.roll(arrays["prob"], 1, axis=-1))
    refused(2, *dry, says=("at chance", "set teacher.at_chance: true"))
    assert not home.cache.exists()


def label_twins(home: Home) -> dict[str, Path]:
    """Folders of the label twins of the first seed, by the genotypes in their specs."""
    folders = sorted((home.study / "references" / "twins").glob("*/label_twin-1-*"))
    return {
        json.dumps(json.loads((folder / "spec.json").read_text())["genotype"]): folder
        for folder in folders
    }


def test_a_label_twin_of_the_chosen_genotype_is_measured_beside_imported_predictions(
    home: Home,
) -> None:
    write_ensemble()
    twins = ("--set", "twins={seeds: 1, students: 1}")
    named_home(home).run("--n-trials", 1, *twins)
    study = open_study(home.study)
    first = json.dumps(study.chosen().genotype)
    assert list(label_twins(home)) == [first]

    home.run("--n-trials", 4, *twins)
    chosen = study.chosen()
    snapshot = study.snapshot()
    assert not any(reference.name == "map_twin" for reference in snapshot.references)
    (twin,) = [reference for reference in snapshot.references if reference.name == "label_twin"]
    assert twin.is_control and "trained on labels alone" in twin.note
    assert set(label_twins(home)) == {first, json.dumps(chosen.genotype)}
    assert {name for name in twin.metrics if name.endswith("nll")} == {"nll", "test_nll"}

    pairs = {(row.first, row.second, row.metric) for row in snapshot.paired_differences}
    assert ("student", "label_twin", "accuracy") in pairs
    assert "label twin" in (home.study / "report.html").read_text()


def test_a_label_twin_knows_nothing_of_the_teacher(home: Home) -> None:
    genotype = "students=[{family: mlp, genotype: {depth: 1, width: 8}}]"
    named_home(home)
    written = []
    for smoothing in (0.0, 0.05):
        write_ensemble()
        with np.load("ensemble.npz") as arrays:
            prob = (1 - 10 * smoothing) * arrays["prob"] + smoothing
            write_ensemble(prob=prob)
        name = f"smoothed-{smoothing}"
        accepted(
            *("run", home.space, "--out", home.out, "--study-name", name, "--n-trials", 1),
            *("--set", genotype, "--set", "objectives=[nll, accuracy]"),
            *("--set", "twins={seeds: 1}"),
        )
        twins = home.out / name / "references" / "twins"
        (weights,) = twins.glob("*/label_twin-1-1/weights.safetensors")
        (of_student,) = twins.glob("*/student-1/weights.safetensors")
        written.append((weights.read_bytes(), of_student.read_bytes()))

    (first, first_student), (second, second_student) = written
    assert first == second and first_student != second_student
