"""Exported students: the same bytes, the same predictions, and a clear refusal where there is nothing to export."""

import json
from pathlib import Path

import pytest
import torch

import gped_nas as gn
from gped_nas.errors import DataError, EnvironmentProblem
from gped_nas.export.safetensors import export_student
from tests.cli.harness import Home, accepted, contents, refused


def _front(home: Home) -> list[int]:
    return [int(row["trial"]) for row in json.loads(accepted("front", home.study, "--format", "json").out)]


def test_an_exported_student_is_the_one_of_the_study(finished: Home, tmp_path: Path) -> None:
    raw = gn.load_dataset(gn.load_space(finished.space)).raw("validation")
    for trial in _front(finished):
        source, target = finished.study / "students" / str(trial), tmp_path / "deep" / f"{trial}"
        assert accepted("export", finished.study, trial, "--to", target).out == f"{target}\n"
        assert contents(target) == contents(source)
        ours, theirs = (gn.load_student(folder).predict(raw) for folder in (source, target))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_folder_is_named_after_study_and_trial(
    finished: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (trial, *_) = _front(finished)
    assert accepted("export", finished.study, trial).out == f"tiny-{trial}\n"
    assert (tmp_path / f"tiny-{trial}" / "spec.json").is_file()


def test_a_student_off_the_front_was_not_kept(finished: Home, tmp_path: Path) -> None:
    front = _front(finished)
    dropped = [t for t in range(4) if t not in front]
    assert dropped, "the tiny study should hold a dominated student"
    says = ("tiny", f"trial {dropped[0]}", "not kept", ", ".join(map(str, front)))
    refused(2, "export", finished.study, dropped[0], "--to", tmp_path / "x", says=says)
    assert not (tmp_path / "x").exists()


def test_an_export_below_a_file_is_refused_and_the_file_is_kept(finished: Home, tmp_path: Path) -> None:
    (trial, *_) = _front(finished)
    file = tmp_path / "file"
    file.write_text("mine")
    refused(5, "export", finished.study, trial, "--to", file / "x", says=(str(file),))
    refused(5, "export", finished.study, trial, "--to", file, says=(str(file),))
    assert file.read_text() == "mine"
    with pytest.raises(EnvironmentProblem):
        export_student(finished.study / "students" / str(trial), file)


@pytest.mark.parametrize("file", ["weights.safetensors", "spec.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_student_is_not_exported(own: Home, tmp_path: Path, file: str, damage: str) -> None:
    (trial, *_) = _front(own)
    path = own.study / "students" / str(trial) / file
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"")
    result = refused(2, "export", own.study, trial, "--to", tmp_path / "x", says=(file,))
    assert not (tmp_path / "x").exists() and "spec.json: spec.json" not in result.err
    with pytest.raises(DataError):
        export_student(path.parent, tmp_path / "x")
