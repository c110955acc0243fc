"""What is kept for the cards: of validation alone, right for each front student, and never stale."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from gped_nas.api import load_dataset, load_space, load_student, open_study
from gped_nas.errors import StreamError
from tests.cli.harness import Home, accepted, contents


def test_every_front_student_has_evidence_that_follows_from_its_files(finished: Home) -> None:
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    labels, raw = dataset.labels("validation"), dataset.raw("validation")
    found = study.snapshot().evidence
    front = study.front_records()
    assert sorted(found) == sorted(record.trial for record in front)
    assert study.snapshot().class_names == dataset.class_names
    for record in front:
        student = load_student(study.path / "students" / str(record.trial))
        prob = student.predict(raw)["predictive"].double().numpy()
        confusion = found[record.trial]["confusion"]
        assert sum(count for _, _, count in confusion) == len(labels)
        right = sum(count for label, seen, count in confusion if label == seen)
        assert right / len(labels) == pytest.approx(record.metrics["accuracy"])
        entropy = -(prob * np.log(np.maximum(prob, 1e-300))).sum(1)
        unsure = [one for one in found[record.trial]["examples"] if one["why"] == "uncertain"]
        assert unsure[0]["index"] == int(entropy.argmax())
        for one in found[record.trial]["examples"]:
            assert one["label"] == labels[one["index"]]
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["picture"]))))
            assert np.abs(pixels / 255 * 16 - raw[one["index"]][0].numpy()).max() < 0.05
            for index, _, of_student in one["classes"]:
                assert of_student == pytest.approx(prob[one["index"]][index], abs=1e-4)


def test_evidence_follows_the_front_and_is_made_anew_where_it_is_gone(own: Home) -> None:
    folder = own.study / "evidence"
    before = contents(folder)
    (folder / "99.json").write_text("{}")
    next(iter(folder.glob("[0-9].json"))).unlink()
    accepted("run", own.space, "--out", own.out)
    assert contents(folder) == before


def test_a_study_without_evidence_still_has_a_report(own: Home) -> None:
    for path in (own.study / "evidence").iterdir():
        path.unlink()
    accepted("report", own.study)
    page = (own.study / "report.html").read_text()
    assert "data:image/png" not in page and "gped-search export tiny" in page


def test_damaged_evidence_is_named(own: Home) -> None:
    path = next(iter((own.study / "evidence").iterdir()))
    path.write_text(json.dumps({"spread": 1})[:-1])
    with pytest.raises(StreamError, match=path.name):
        open_study(own.study).snapshot()


def test_the_teacher_is_diagnosed_once(finished: Home) -> None:
    teacher = open_study(finished.study).snapshot().teacher
    assert (
        teacher["diagnosis"]["chains"] == 2 and "R-hat and ESS" in teacher["diagnosis"]["missing"]
    )
    assert teacher["verdict"]["level"] in ("usable with care", "do not trust")
    assert teacher["seconds"] > 0
    assert "Not known: " in (finished.study / "report.html").read_text()
