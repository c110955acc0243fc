"""The verb ``export``: the student of the study, a card beside it, and a clear refusal where there
is none.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

import gped_nas as gn
from gped_nas.errors import DataError, EnvironmentProblem
from tests.cli.harness import Home, accepted, contents, refused


def _front(home: Home) -> list[int]:
    return [
        int(row["trial"])
        for row in json.loads(accepted("front", home.study, "--format", "json").out)
    ]


def test_an_exported_student_is_the_one_of_the_study(finished: Home, tmp_path: Path) -> None:
    raw = gn.load_dataset(gn.load_space(finished.space)).raw("validation")
    for trial in _front(finished):
        source, target = finished.study / "students" / str(trial), tmp_path / "deep" / f"{trial}"
        result = accepted("export", finished.study, trial, "--into", target)
        assert result.out == f"{target}\n"
        assert set(contents(target)) == {"weights.safetensors", "spec.json", "README.md"}
        weights = (source / "weights.safetensors").read_bytes()
        assert (target / "weights.safetensors").read_bytes() == weights
        assert (
            f"weights.safetensors: {len(weights):,} bytes" in result.err
            and "at most 0 on 1,000" in result.err
        )
        ours, theirs = (gn.load_student(folder).predict(raw) for folder in (source, target))
        for name in ours:
            torch.testing.assert_close(theirs[name], ours[name])


def test_the_folder_is_named_after_study_and_trial(
    finished: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (trial, *_) = _front(finished)
    assert accepted("export", finished.study, trial).out == f"tiny-{trial}\n"
    assert (tmp_path / f"tiny-{trial}" / "spec.json").is_file()
    assert (
        accepted("export", "tiny", trial, "--to", "pt2", "--out", finished.out).out
        == f"tiny-{trial}-pt2\n"
    )
    assert set(contents(tmp_path / f"tiny-{trial}-pt2")) == {
        "student.pt2",
        "spec.json",
        "README.md",
    }


def test_a_student_off_the_front_was_not_kept(finished: Home, tmp_path: Path) -> None:
    front = _front(finished)
    dropped = [t for t in range(4) if t not in front]
    assert dropped, "the tiny study should hold a dominated student"
    says = ("tiny", f"trial {dropped[0]}", "not kept", ", ".join(map(str, front)))
    refused(2, "export", finished.study, dropped[0], "--into", tmp_path / "x", says=says)
    assert not (tmp_path / "x").exists()


def test_an_export_below_a_file_is_refused_and_the_file_is_kept(
    finished: Home, tmp_path: Path
) -> None:
    (trial, *_) = _front(finished)
    file = tmp_path / "file"
    file.write_text("mine")
    refused(5, "export", finished.study, trial, "--into", file / "x", says=(str(file),))
    refused(5, "export", finished.study, trial, "--into", file, says=(str(file),))
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
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    result = refused(2, "export", own.study, trial, "--into", tmp_path / "x", says=(file,))
    assert not (tmp_path / "x").exists() and "spec.json: spec.json" not in result.err
    with pytest.raises(DataError):
        gn.export_student(own.study, trial, tmp_path / "x")


def test_a_folder_given_as_format_is_told_where_folders_go(finished: Home, tmp_path: Path) -> None:
    (trial, *_) = _front(finished)
    says = ("--to", "'student'", "safetensors, pt2, onnx", "--into")
    refused(2, "export", finished.study, trial, "--to", "student", says=says)
    refused(2, "export", finished.study, trial, "--to", tmp_path, says=(str(tmp_path), "--into"))
    refused(
        2,
        "export",
        finished.study,
        trial,
        "--to",
        "pt2",
        "--to",
        "pt2",
        says=("--to", "none twice"),
    )


def test_exports_are_never_mixed(finished: Home, own: Home, tmp_path: Path) -> None:
    (trial, *_) = _front(finished)
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "student.onnx").write_bytes(b"mine")
    refused(
        2,
        "export",
        finished.study,
        trial,
        "--into",
        folder,
        says=("student.onnx", "another --into"),
    )
    assert contents(folder) == {"student.onnx": b"mine"}
    inside, before = own.study / "students" / str(trial), contents(own.study)
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
    found = gn.export_student(finished.study, trial, tmp_path / "x")
    text = (tmp_path / "x" / "README.md").read_text()
    study = gn.open_study(finished.study)
    record = study.record(trial)
    for name in ("macs", "params", "storage_bytes"):
        assert f"| {record.costs[name]:,} |" in text
    low, high = record.measured("test_nll").interval
    assert (
        f"| test\\_nll | {record.metrics['test_nll']:.4g} | {low:.4g} to {high:.4g} | 359 |" in text
    )
    with pytest.warns(DeprecationWarning, match="called paired_differences now"):
        assert study.comparisons(trial) == study.paired_differences(trial)
    (paired,) = (c for c in study.paired_differences(trial) if c.metric == "nll")
    assert (
        f"| test nll | {paired.difference:+.4f} | {paired.interval[0]:.4g} to "
        f"{paired.interval[1]:.4g} |" in text
    )
    assert (
        "carved with seed 0" in text
        and "gn.load_student" in text
        and found.files["weights.safetensors"]["sha256"] in text
    )
    assert json.loads((tmp_path / "x" / "spec.json").read_text())["about"]["files"] == found.files
