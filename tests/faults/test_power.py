"""The power goes, or the disk reports an error: what was committed is there, and all goes on.

At every instant the disk is rebuilt as ``disk`` says, and the same command is run on it.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import accepted, contents
from tests.faults.checks import assert_finished, assert_kept, recorded, sealed
from tests.faults.conftest import SOAK, STEP_S, Undisturbed, soak_or
from tests.faults.forks import KILLED, Ended, Forks


def _choose(num: int, few: int) -> list[int]:
    """All instants under soak; else one, drawn by a seed, of each of a few parts of the run."""
    if SOAK:
        return list(range(1, num + 1))
    draw = random.Random(num)
    return sorted({1 + int((i + draw.random()) * num / few) for i in range(few)})


def _lose_power(
    forks: Forks, root: Path, words: tuple[str, ...], kept: Path, **request: Any
) -> str:
    """Run a command that loses its power, and leave of ``root`` what a strict disk keeps."""
    ended = forks.run(*words, die="any", power=[str(root)], kept=str(kept), **request)
    assert ended.code == KILLED, ended.stderr
    return f"instant {request['at']} {ended.instants[-1]}"


def _states(root: Path, kept: Path) -> Iterator[str]:
    """The two disks that may be left, one after the other in the place of ``root``."""
    for name in ("strict", "names"):
        shutil.rmtree(root)
        shutil.copytree(kept / name / "0", root)
        yield name
    shutil.rmtree(kept)


def _is_seal(kind: str, what: str) -> bool:
    return kind == "rename" and Path(what).name == "sealing"


def test_a_build_without_power_keeps_what_it_sealed(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """It ends with the same bytes, and samples nothing that was sealed again."""
    build = ("teacher", "build", str(undisturbed.space))
    instants = undisturbed.build.instants
    seal = max(i for i, (kind, what) in enumerate(instants) if _is_seal(kind, what))
    # the rename, then the flush of the folder of all segments
    is_sealed_from = seal + 3
    for at in sorted({*_choose(len(instants), 1), is_sealed_from}):
        cache, kept = tmp_path / str(at), tmp_path / f"kept-{at}"
        cache.mkdir()
        moment = _lose_power(forks, cache, build, kept, cache=cache, step_s=STEP_S, at=at)
        for disk in _states(cache, kept):
            ended = forks.run(*build, cache=cache, step_s=STEP_S)
            assert ended.code == 0, f"{moment} {disk}: {ended.stderr}"
            assert sealed(cache) == undisturbed.sealed[0], f"{moment} {disk}"
            if at >= is_sealed_from:
                assert ended.steps == 0, f"{moment} {disk}: sealed samples were lost"


def test_a_study_without_power_keeps_its_records_and_their_students(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    for at in _choose(len(undisturbed.search.instants), 1):
        out, kept = tmp_path / str(at), tmp_path / f"kept-{at}"
        out.mkdir()
        run = ("run", str(undisturbed.space), "--out", str(out))
        moment = _lose_power(forks, out, run, kept, cache=undisturbed.cache, at=at)
        for disk in _states(out, kept):
            before = recorded(out / "tiny")
            ended = forks.run(*run, cache=undisturbed.cache)
            assert ended.code == 0, f"{moment} {disk}: {ended.stderr}"
            assert_kept(before, out / "tiny")
            assert set(assert_finished(out / "tiny", 4)) == set(undisturbed.complete), moment


def _exported(undisturbed: Undisturbed) -> tuple[Path, str]:
    """The undisturbed study, and a student of its front."""
    study = undisturbed.space.parent / "reports" / "tiny"
    return study, min(path.name for path in (study / "students").iterdir())


def _export_old(study: Path, trial: str, folder: Path) -> None:
    """An export that every later one differs from."""
    accepted("export", study, trial, "--into", folder)
    (folder / "README.md").write_text("old")


@pytest.mark.parametrize("case", ["over another in a folder of mine", "new"][: soak_or(2, 1)])
def test_an_export_without_power_is_the_old_one_or_the_new_one(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path, case: str
) -> None:
    study, trial = _exported(undisturbed)
    start = tmp_path / "start"
    start.mkdir()
    if case != "new":
        _export_old(study, trial, start / "x")
        (start / "x" / "notes").mkdir()
        (start / "x" / "notes" / "a.txt").write_text("mine")

    words = ("export", str(study), trial, "--into", str(tmp_path / "home" / "x"))
    home = tmp_path / "home"
    shutil.copytree(start, home)
    whole = forks.run(*words, cache=undisturbed.cache)
    assert whole.code == 0, whole.stderr
    old = contents(start / "x") if case != "new" else {}
    new = contents(home / "x")

    seen = set()
    for at in range(1, len(whole.instants) + 1, soak_or(1, 4)):
        shutil.rmtree(home)
        shutil.copytree(start, home)
        moment = _lose_power(forks, home, words, tmp_path / "kept", cache=undisturbed.cache, at=at)
        for disk in _states(home, tmp_path / "kept"):
            state = contents(home / "x") if (home / "x").exists() else {}
            assert state in (old, new), f"{moment} {disk}"
            seen.add(state == new)
    assert False in seen

    ended = forks.run(*words, cache=undisturbed.cache)
    assert ended.code == 0, ended.stderr
    assert contents(home / "x") == new


# ------------------------------------------------------------------------------- failing disks


def _assert_refused(ended: Ended, moment: str) -> None:
    """Assert exit code 5 and one message that names the error."""
    lines = ended.stderr.splitlines()
    messages = [line for line in lines if "error: " in line or "Traceback" in line]
    assert ended.code == 5, f"{moment}: {ended.stderr}"
    assert len(messages) == 1, f"{moment}: {ended.stderr}"
    assert "nput/output error" in messages[0] or "disk I/O error" in messages[0], messages


def _count(instants: list[list[str]], kind: str) -> int:
    return sum(found == kind for found, _ in instants)


def test_a_build_stops_at_a_flush_that_fails(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """It is not tried again: the kernel forgets what it could not write."""
    build = ("teacher", "build", str(undisturbed.space))
    for at in _choose(_count(undisturbed.build.instants, "fsync"), 1):
        cache = tmp_path / str(at)
        ended = forks.run(*build, cache=cache, step_s=STEP_S, fail="fsync", at=at)
        _assert_refused(ended, f"flush {at}")
        assert _count(ended.instants, "fsync") == at

        resumed = forks.run(*build, cache=cache, step_s=STEP_S)
        assert resumed.code == 0, resumed.stderr
        assert sealed(cache) == undisturbed.sealed[0], f"flush {at}"


@pytest.mark.parametrize("kind", ["fsync", "commit"])
def test_a_study_stops_at_a_flush_that_fails(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path, kind: str
) -> None:
    """Of a student's file or the report, or of the database with records and the document."""
    num = _count(undisturbed.search.instants, "fsync")
    if kind == "commit":
        run = ("run", str(undisturbed.space), "--out", str(tmp_path / "whole"))
        whole = forks.run(*run, cache=undisturbed.cache, fail="commit", at=0)
        assert whole.code == 0, whole.stderr
        num = _count(whole.instants, "commit")

    for at in _choose(num, 1):
        out = tmp_path / str(at)
        run = ("run", str(undisturbed.space), "--out", str(out))
        ended = forks.run(*run, cache=undisturbed.cache, fail=kind, at=at)
        # Optuna asks again for the row of a new trial, and of what a run leaves last, that nobody
        # holds the study any more, nothing depends
        if kind == "fsync" or ended.code != 0:
            _assert_refused(ended, f"{kind} {at}")
        before = recorded(out / "tiny")

        resumed = forks.run(*run, cache=undisturbed.cache)
        assert resumed.code == 0, f"{kind} {at}: {resumed.stderr}"
        assert_kept(before, out / "tiny")
        assert set(assert_finished(out / "tiny", 4)) == set(undisturbed.complete), at


def test_an_export_stops_at_a_flush_that_fails(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    study, trial = _exported(undisturbed)
    _export_old(study, trial, tmp_path / "x")
    old = contents(tmp_path / "x")

    words = ("export", str(study), trial, "--into", str(tmp_path / "x"))
    at = 1
    while (ended := forks.run(*words, cache=undisturbed.cache, fail="fsync", at=at)).code != 0:
        _assert_refused(ended, f"flush {at}")
        state = contents(tmp_path / "x")
        assert state.keys() == old.keys()
        assert state == old or state["README.md"] != b"old"
        at += soak_or(1, 3)
    assert at > 3
