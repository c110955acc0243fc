"""The verb ``export``: the student of the study, a card beside it, or a clear refusal."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas.distill.student import save_student
from gped_nas.errors import DataError, EnvironmentProblem, StudyError
from tests.cli.harness import Home, accepted, contents, refused


def _front(home: Home) -> list[int]:
    rows = json.loads(accepted("front", home.study, "--format", "json").out)
    return [int(row["trial"]) for row in rows]


def test_an_exported_student_is_the_one_of_the_study(finished: Home, tmp_path: Path) -> None:
    raw = gn.load_dataset(gn.load_space(finished.space)).raw("validation")
    for trial in _front(finished):
        source = finished.study / "students" / str(trial)
        target = tmp_path / "deep" / f"{trial}"
        result = accepted("export", finished.study, trial, "--into", target)
        assert result.out == f"{target}\n"
        assert set(contents(target)) == {"weights.safetensors", "spec.json", "README.md"}

        weights = (source / "weights.safetensors").read_bytes()
        assert (target / "weights.safetensors").read_bytes() == weights
        assert f"weights.safetensors: {len(weights):,} bytes" in result.err
        assert "at most 0 on 1,000" in result.err

        expected = gn.load_student(source).predict(raw)
        exported = gn.load_student(target).predict(raw)
        for name in expected:
            torch.testing.assert_close(exported[name], expected[name])


def test_the_folder_is_named_after_study_and_trial(
    finished: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (trial, *_) = _front(finished)
    assert accepted("export", finished.study, trial).out == f"tiny-{trial}\n"
    assert (tmp_path / f"tiny-{trial}" / "spec.json").is_file()

    result = accepted("export", "tiny", trial, "--to", "pt2", "--out", finished.out)
    assert result.out == f"tiny-{trial}-pt2\n"
    files = contents(tmp_path / f"tiny-{trial}-pt2")
    assert set(files) == {"student.pt2", "spec.json", "README.md"}


def test_a_student_off_the_front_was_not_kept(own: Home, tmp_path: Path) -> None:
    own.run("--n-trials", 8)  # the first four are all on the front
    front = _front(own)
    records = gn.open_study(own.study).records()
    complete = [record.trial for record in records if record.state == "complete"]
    (*_, dropped) = [trial for trial in complete if trial not in front]
    says = ("tiny", f"trial {dropped}", "not kept", ", ".join(map(str, front)))
    refused(2, "export", own.study, dropped, "--into", tmp_path / "x", says=says)
    assert not (tmp_path / "x").exists()


def test_an_export_below_a_file_is_refused_and_the_file_is_kept(
    finished: Home, tmp_path: Path
) -> None:
    (trial, *_) = _front(finished)
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (file / "x", file):
        refused(5, "export", finished.study, trial, "--into", folder, says=(str(file),))
    assert file.read_text() == "mine"
    with pytest.raises(EnvironmentProblem):
        gn.export_student(finished.study, trial, file)


@pytest.mark.parametrize("file", ["weights.safetensors", "spec.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_student_is_not_exported(
    own: Home, tmp_path: Path, file: str, damage: str
) -> None:
    (trial, *_) = _front(own)
    path = own.study / "students" / str(trial) / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(b"")

    says = f"students/{trial}" if damage == "missing" else file
    result = refused(4, "export", own.study, trial, "--into", tmp_path / "x", says=(says,))
    assert not (tmp_path / "x").exists()
    assert "spec.json: spec.json" not in result.err
    with pytest.raises(StudyError if damage == "missing" else DataError):
        gn.export_student(own.study, trial, tmp_path / "x")


def test_a_student_that_is_not_what_was_written_gives_no_number(own: Home, tmp_path: Path) -> None:
    (trial, *_) = _front(own)
    folder = own.study / "students" / str(trial)
    np.save(tmp_path / "inputs.npy", np.zeros((1, 8, 8), np.float32))
    weights = folder / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 0x40]))
    says = (str(weights), "SHA-256", "restore")
    refused(4, "predict", folder, tmp_path / "inputs.npy", says=says)
    refused(4, "export", own.study, trial, "--into", tmp_path / "x", says=says)

    # whole, but of somebody else
    weights.write_bytes(whole)
    spec = gn.load_student(folder).spec
    params = {name: p + 1 for name, p in gn.load_student(folder).params.items()}
    save_student(folder, spec, params)
    accepted("predict", folder, tmp_path / "inputs.npy")
    says = ("spec.json", "trial's record")
    refused(4, "export", own.study, trial, "--into", tmp_path / "x", says=says)
    assert not (tmp_path / "x").exists()


def test_a_folder_given_as_format_is_told_where_folders_go(finished: Home, tmp_path: Path) -> None:
    (trial, *_) = _front(finished)
    says = ("--to", "'student'", "safetensors, pt2, onnx", "--into")
    refused(2, "export", finished.study, trial, "--to", "student", says=says)
    refused(2, "export", finished.study, trial, "--to", tmp_path, says=(str(tmp_path), "--into"))


def test_a_format_named_twice_is_refused(finished: Home) -> None:
    (trial, *_) = _front(finished)
    twice = ("--to", "pt2", "--to", "pt2")
    refused(2, "export", finished.study, trial, *twice, says=("--to", "none twice"))


def test_exports_are_never_mixed(finished: Home, own: Home, tmp_path: Path) -> None:
    (trial, *_) = _front(finished)
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "student.onnx").write_bytes(b"mine")
    says = ("student.onnx", "another --into")
    refused(2, "export", finished.study, trial, "--into", folder, says=says)
    assert contents(folder) == {"student.onnx": b"mine"}

    inside = own.study / "students" / str(trial)
    before = contents(own.study)
    refused(2, "export", own.study, trial, "--into", inside, says=(str(inside), "own folder"))
    assert contents(own.study) == before


def test_a_missing_extra_is_told(
    finished: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    (trial, *_) = _front(finished)
    says = ("onnxscript", "pip install 'gped-nas[onnx]'")
    refused(5, "export", finished.study, trial, "--to", "onnx", "--into", tmp_path / "x", says=says)
    assert not (tmp_path / "x").exists()


def test_the_card_tells_costs_intervals_and_what_is_given_up(
    finished: Home, tmp_path: Path
) -> None:
    (trial, *_) = _front(finished)
    export = gn.export_student(finished.study, trial, tmp_path / "x")
    text = (tmp_path / "x" / "README.md").read_text()
    study = gn.open_study(finished.study)

    record = study.record(trial)
    for name in ("macs", "params", "storage_bytes"):
        assert f"| {record.costs[name]:,} |" in text
    nll = record.measured("test_nll")
    assert f"| test\\_nll | {nll.value:.4g} | {nll.low:.4g} to {nll.high:.4g} | 359 |" in text

    differences = study.paired_differences(trial)
    rows = [difference for difference in differences if difference.metric == "nll"]
    assert [row.second for row in rows] == ["teacher", "map"]
    for row in rows:
        low, high = row.interval
        cells = f"{row.difference:+.4f} | {low:.4g} to {high:.4g}"
        assert f"| test nll, {row.second} | {cells} |" in text
    assert study.verdict(trial).sentence.split(" (")[0] in text.replace("\\", "")

    assert "carved with seed 0" in text
    assert "gn.load_student" in text
    assert export.files["weights.safetensors"]["sha256"] in text
    spec = json.loads((tmp_path / "x" / "spec.json").read_text())
    assert spec["about"]["files"] == export.files


def test_paired_differences_answer_to_their_old_name(finished: Home) -> None:
    (trial, *_) = _front(finished)
    study = gn.open_study(finished.study)
    with pytest.warns(DeprecationWarning, match="called paired_differences now"):
        assert study.comparisons(trial) == study.paired_differences(trial)
