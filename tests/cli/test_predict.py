"""The verb ``predict``: a quick look at what a student says."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gped_nas as gn
from gped_nas.models.base import Genotype
from tests.cli.harness import accepted, refused
from tests.export.students import make_student, raw_inputs
from tests.scenarios import GENOTYPES

HOSTILE = ("<script>alert(1)</script>", "[red]cat[/]\x1b[31m", "\u202eeel", "d" * 10_000)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return make_student(tmp_path / "student", Genotype("mlp", depth=1, width=4))


@pytest.fixture
def array(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", raw_inputs(3).numpy())
    return tmp_path / "x.npy"


def test_rows_say_what_the_student_predicts(student: Path, array: Path) -> None:
    rows = json.loads(accepted("predict", student, array, "--format", "json").out)
    expected = gn.load_student(student).predict(raw_inputs(3))
    for i, row in enumerate(rows):
        prob = expected["predictive"][i].tolist()
        assert list(row["probabilities"].values()) == pytest.approx(prob, abs=1e-6)
        assert row["input"] == f"{array}[{i}]"
        assert row["class"] == ("cat", "dog", "eel")[prob.index(max(prob))]

        entropy = -sum(p * math.log(p) for p in prob)
        expected_entropy = float(expected["expected_entropy"][i])
        information = entropy - row["expected_entropy"]
        assert row["entropy"] == pytest.approx(entropy, abs=1e-5)
        assert row["expected_entropy"] == pytest.approx(expected_entropy, abs=1e-6)
        assert row["mutual_information"] == pytest.approx(information, abs=1e-5)

    for row in rows:
        assert row.pop("schema_version") == 1
    assert rows == gn.predict_files(student, [array])
    assert rows == gn.predict_files(gn.load_student(student), [str(array)])


def test_several_files_as_csv_and_as_a_table(
    student: Path, array: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = raw_inputs(1)[0, 0].numpy().astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "one.png")

    printed = accepted("predict", "student", "x.npy", "one.png", "-f", "csv").out
    table = list(csv.DictReader(io.StringIO(printed)))
    assert [row["input"] for row in table] == ["x.npy[0]", "x.npy[1]", "x.npy[2]", "one.png"]
    columns = [
        "input",
        "class",
        "entropy",
        "expected_entropy",
        "mutual_information",
        "p(cat)",
        "p(dog)",
        "p(eel)",
    ]
    assert list(table[0]) == columns
    assert float(table[0]["p(eel)"]) == pytest.approx(float(table[3]["p(eel)"]), abs=1e-6)

    text = accepted("predict", "student", "x.npy").out
    assert all(column in text for column in columns) and len(text.splitlines()) == 4


@pytest.mark.parametrize("family", ["cnn", "resnet"])
def test_a_student_that_reads_images_is_asked_about_pictures(family: str, tmp_path: Path) -> None:
    folder = make_student(tmp_path / family, GENOTYPES[family][2], dtype="int8")
    images = raw_inputs(2)
    names = [tmp_path / f"{i}.png" for i in range(2)]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image[0].numpy().astype(np.uint8)).save(name)

    rows = json.loads(accepted("predict", folder, *names, "-f", "json").out)
    expected = gn.load_student(folder).predict(images)
    for i, row in enumerate(rows):
        prob = expected["predictive"][i].tolist()
        expected_entropy = float(expected["expected_entropy"][i])
        assert row["input"] == str(names[i])
        assert list(row["probabilities"].values()) == pytest.approx(prob, abs=1e-6)
        assert row["expected_entropy"] == pytest.approx(expected_entropy, abs=1e-6)
    assert rows[0]["probabilities"] != pytest.approx(rows[1]["probabilities"], abs=1e-3)


def test_an_export_is_a_student_if_it_holds_the_weights(
    student: Path, array: Path, tmp_path: Path
) -> None:
    from gped_nas.export.folder import write_export

    out = tmp_path / "out"
    write_export(student, out, ["safetensors"], lambda spec: "")
    assert accepted("predict", out, array).out == accepted("predict", student, array).out

    (out / "weights.safetensors").unlink()
    refused(2, "predict", out, array, says=("without weights.safetensors", "--to safetensors"))


def test_a_real_label_has_mean_and_variance(array: Path, tmp_path: Path) -> None:
    folder = make_student(
        tmp_path / "real", Genotype("mlp", depth=0), targets=("predictive_normal",), class_names=()
    )
    rows = json.loads(accepted("predict", folder, array, "-f", "json").out)
    expected = gn.load_student(folder).predict(raw_inputs(3))["predictive_normal"]
    assert [set(row) for row in rows] == [{"schema_version", "input", "mean", "variance"}] * 3
    assert [[row["mean"], row["variance"]] for row in rows] == [
        pytest.approx(pair) for pair in expected.tolist()
    ]


def test_hostile_class_names_are_shown_as_text(
    array: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_student(tmp_path / "evil", Genotype("mlp", depth=0), class_names=HOSTILE)
    text = accepted("predict", folder, "x.npy", "-f", "csv").out
    text += accepted("predict", folder, "x.npy").out
    assert "\x1b" not in text and "\u202e" not in text and len(text) < 10_000
    columns = [
        "p(<script>alert(1)</script>)",
        "p([red]cat[/]<U+001B>[31m)",
        "p(<U+202E>eel)",
        f"p({'d' * 32})",
    ]
    assert text.splitlines()[0].endswith(",".join(columns))
    assert text.splitlines()[4].split()[5:] == columns
    (row, *_) = json.loads(accepted("predict", folder, array, "-f", "json").out)
    assert tuple(row["probabilities"]) == HOSTILE


def test_what_cannot_be_read_is_told(student: Path, array: Path, tmp_path: Path) -> None:
    refused(2, "predict", student, tmp_path / "no.npy", says=("no.npy", "no such file"))
    refused(2, "predict", student, array, tmp_path / "x.txt", says=("x.txt", ".npy, .npz, .png"))
    refused(2, "predict", tmp_path / "nowhere", array, says=("nowhere", "spec.json"))
    refused(2, "predict", student, says=("INPUTS",))
