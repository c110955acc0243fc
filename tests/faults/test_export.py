"""An export over another: whoever reads the folder meets the old one or the new one, whole."""

import json
import shutil
from pathlib import Path

import pytest

from gped_nas.export import placing
from tests.cli.harness import accepted, contents
from tests.faults.conftest import Undisturbed, soak_or
from tests.faults.forks import KILLED, Forks


@pytest.fixture
def study(undisturbed: Undisturbed) -> Path:
    return undisturbed.space.parent / "reports" / "tiny"


@pytest.fixture
def trials(study: Path) -> tuple[str, str]:
    """Two students of the front."""
    first, second, *_ = sorted(path.name for path in (study / "students").iterdir())
    return first, second


def _state(folder: Path) -> dict[str, bytes]:
    return contents(folder) if folder.exists() else {}


@pytest.mark.parametrize("case", ["over another in a folder of mine", "new", "in my own folder"])
def test_an_export_killed_at_any_instant_is_the_old_one_or_the_new_one(
    forks: Forks,
    undisturbed: Undisturbed,
    study: Path,
    trials: tuple[str, str],
    tmp_path: Path,
    case: str,
) -> None:
    first, second = trials
    start = tmp_path / "start"
    start.mkdir()
    is_in_place = case == "in my own folder"
    if case != "new":
        accepted("export", study, first, "--into", start / "x")
    if "of mine" in case:
        (start / "x" / "notes").mkdir()
        (start / "x" / "notes" / "a.txt").write_text("mine")

    def export(home: Path, **request: object) -> list[list[str]]:
        words = ("export", str(study), second, "--into", str(home / "x"))
        cwd = str(home / "x") if is_in_place else str(home)
        ended = forks.run(*words, cache=undisturbed.cache, cwd=cwd, **request)
        assert ended.code == (KILLED if request else 0), ended.stderr
        return ended.instants

    whole = tmp_path / "whole"
    shutil.copytree(start, whole)
    instants = export(whole)
    old, new = _state(start / "x"), _state(whole / "x")
    assert old != new
    assert [path.name for path in whole.iterdir()] == ["x"]
    if "of mine" in case:
        assert new["notes/a.txt"] == b"mine"

    seen = set()
    for at in range(len(instants), 0, -soak_or(1, 3)):  # the last one is always among them
        home = tmp_path / str(at)
        shutil.copytree(start, home)
        export(home, die="any", at=at)
        state = _state(home / "x")
        if is_in_place:  # perhaps there is no student for a moment, and what was built lies inside
            state = {name: data for name, data in state.items() if not name.startswith(".")}
        is_no_student = is_in_place and "spec.json" not in state
        assert is_no_student or state in (old, new), (at, instants[at - 1])
        seen.add(state == new)

        if at % soak_or(1, 2) == 0:
            export(home)
            assert [path.name for path in home.iterdir()] == ["x"], "a leftover stays"
            assert _state(home / "x") == new
    assert seen == {False, True}


@pytest.mark.parametrize("limit", [0, 1000, 1500])
def test_a_full_disk_leaves_the_old_export(
    forks: Forks,
    undisturbed: Undisturbed,
    study: Path,
    trials: tuple[str, str],
    tmp_path: Path,
    limit: int,
) -> None:
    first, second = trials
    accepted("export", study, first, "--into", tmp_path / "x")
    before = contents(tmp_path)
    words = ("export", str(study), second, "--into", str(tmp_path / "x"))
    ended = forks.run(*words, cache=undisturbed.cache, limit=limit)
    assert ended.code == 5, ended.stderr
    assert contents(tmp_path) == before


def test_where_folders_cannot_be_exchanged_readers_meet_no_mixture(
    study: Path, trials: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder that one works in: at each replacement there is no spec, or all is there."""
    first, second = trials
    accepted("export", study, first, "--into", tmp_path / "x")
    accepted("export", study, second, "--into", tmp_path / "y")
    old = contents(tmp_path / "x")
    leftover = tmp_path / "x" / f".x.{2**40}.export" / "spec.json"
    leftover.parent.mkdir()
    leftover.write_text("half of a set")
    states = []
    replace = placing.os.replace

    def watched(source: Path, target: Path) -> None:
        states.append({n: d for n, d in contents(tmp_path / "x").items() if not n.startswith(".")})
        replace(source, target)

    monkeypatch.setattr(placing.os, "replace", watched)
    monkeypatch.chdir(tmp_path / "x")
    accepted("export", study, second, "--into", ".")
    new = contents(tmp_path / "x")
    assert new == contents(tmp_path / "y")
    assert all("spec.json" not in state or state == old for state in states)
    assert json.loads(new["spec.json"])["about"]["trial"] == second
