"""What is kept for the cards: of validation alone, right for each front student, never stale."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from gped_nas.api import Study, load_dataset, load_space, load_student, open_study
from gped_nas.data.base import Dataset
from gped_nas.errors import StreamError, UndigestedWarning
from gped_nas.io import digest_of
from tests.cli.harness import Home, accepted, contents, refused


def predict(study: Study, trial: int, dataset: Dataset) -> np.ndarray:
    """What the written student predicts on validation, (N, C)."""
    student = load_student(study.path / "students" / str(trial))
    return student.predict(dataset.raw("validation"))["predictive"].double().numpy()


def test_every_front_student_has_evidence(finished: Home) -> None:
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    snapshot = study.snapshot()
    assert sorted(snapshot.evidence) == sorted(record.trial for record in study.front_records())
    assert snapshot.class_names == dataset.class_names


def test_the_confusion_is_that_of_the_student_s_record(finished: Home) -> None:
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    num_examples = len(dataset.labels("validation"))
    evidence = study.snapshot().evidence
    for record in study.front_records():
        confusion = evidence[record.trial]["confusion"]
        assert sum(count for _, _, count in confusion) == num_examples
        num_right = sum(count for label, predicted, count in confusion if label == predicted)
        assert num_right / num_examples == pytest.approx(record.metrics["accuracy"])


def test_examples_follow_from_the_student_s_files(finished: Home) -> None:
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    labels, raw = dataset.labels("validation"), dataset.raw("validation")
    for trial, evidence in study.snapshot().evidence.items():
        prob_NC = predict(study, trial, dataset)
        entropy_N = -(prob_NC * np.log(np.maximum(prob_NC, 1e-300))).sum(1)
        examples = evidence["examples"]
        uncertain = [example for example in examples if example["why"] == "uncertain"]
        assert uncertain[0]["index"] == int(entropy_N.argmax())

        for example in examples:
            index = example["index"]
            assert example["label"] == labels[index]
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(example["picture"]))))
            assert np.abs(pixels / 255 * 16 - raw[index][0].numpy()).max() < 0.05
            for label, _, student_prob in example["classes"]:
                assert student_prob == pytest.approx(prob_NC[index][label], abs=1e-4)


def test_evidence_follows_the_front_and_is_made_anew_where_it_is_gone(own: Home) -> None:
    folder = own.study / "evidence"
    before = contents(folder)
    (folder / "99.json").write_text("{}")
    next(iter(folder.glob("[0-9].json"))).unlink()

    accepted("run", own.space, "--out", own.out)

    assert contents(folder) == before


def test_evidence_that_is_not_what_was_written_is_refused(own: Home) -> None:
    """A changed number, or the file of another trial; a run makes it anew."""
    before = contents(own.study / "evidence")
    path, *others = (own.study / "evidence").iterdir()
    text = path.read_text()
    damages = [text.replace("1", "2", 1), text[: len(text) // 2], "[]"]
    damages += [other.read_text() for other in others[:1]]
    damages.append(sealed(text, student="0" * 64))
    damages += [text.replace("digest", "digesu"), sealed("{}")]
    for damage in damages:
        path.write_text(damage)
        says = (str(path), "gped-search run")
        refused(4, "report", own.study, says=says)

    accepted("run", own.space, "--out", own.out)
    assert contents(own.study / "evidence") == before


def sealed(text: str, **changes: object) -> str:
    """The text of evidence with some of it changed, under its own digest."""
    data = {**json.loads(text), **changes}
    return json.dumps({**data, "digest": digest_of(data)})


def test_evidence_under_a_digest_that_does_not_name_its_student_is_made_anew(own: Home) -> None:
    before = contents(own.study / "evidence")
    for path in (own.study / "evidence").iterdir():
        data = json.loads(path.read_text())
        del data["student"]
        path.write_text(sealed(json.dumps(data)))
    accepted("report", own.study)
    accepted("run", own.space, "--out", own.out)
    assert contents(own.study / "evidence") == before


def test_evidence_of_before_digests_is_read_with_a_warning_and_made_anew(own: Home) -> None:
    before = contents(own.study / "evidence")
    for path in (own.study / "evidence").iterdir():
        data = json.loads(path.read_text())
        del data["digest"], data["trial"], data["student"]
        path.write_text(json.dumps(data))
    with pytest.warns(UndigestedWarning, match="read unchecked"):
        open_study(own.study).snapshot()

    accepted("run", own.space, "--out", own.out)
    assert contents(own.study / "evidence") == before
    accepted("report", own.study)


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
    assert teacher["diagnosis"]["chains"] == 2
    assert "R-hat and ESS" in teacher["diagnosis"]["missing"]
    assert teacher["verdict"]["level"] in ("usable with care", "do not trust")
    assert teacher["seconds"] > 0
    words = " ".join((finished.study / "report.html").read_text().split())
    assert "Not known: " in words
