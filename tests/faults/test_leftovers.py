"""What killed commands leave is removed by the same command, given again."""

import shutil
from pathlib import Path

import pytest

from tests.faults.checks import assert_no_leftovers
from tests.faults.conftest import Undisturbed, soak_or
from tests.faults.forks import KILLED, Forks


def _hidden(root: Path) -> list[Path]:
    return [path for path in root.rglob(".*") if ".gone-" in path.name or path.suffix == ".tmp"]


@pytest.mark.parametrize(
    ("choice", "step"), [("--views --derived", 4), ("--building", 7), ("a stream", 25)]
)
def test_a_removal_killed_at_an_instant_is_finished(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path, choice: str, step: int
) -> None:
    start = tmp_path / "start"
    shutil.copytree(undisturbed.cache, start)
    (stream,) = (start / "streams").iterdir()
    for name in ("chain-00", "chain-01"):
        begun = stream / "building" / "000001" / name / "chunk-000000"
        begun.mkdir(parents=True)
        (begun / "manifest.json").write_text("{}")

    gc = ("gc", *(choice.split() if "--" in choice else [stream.name]), "--delete")
    whole = tmp_path / "whole"
    shutil.copytree(start, whole)
    ended = forks.run(*gc, cache=whole)
    assert ended.code == 0, ended.stderr
    expected = {path.relative_to(whole) for path in whole.rglob("*")}

    left = 0
    for at in range(1, len(ended.instants) + 1, soak_or(1, step)):
        cache = tmp_path / str(at)
        shutil.copytree(start, cache)
        assert forks.run(*gc, cache=cache, die="any", at=at).code == KILLED
        left += bool(_hidden(cache))
        # A stream that has lost its name cannot be named: any choice removes what is left of it.
        is_there = (cache / "streams" / stream.name).exists()
        again = gc if is_there else ("gc", "--building", "--delete")
        ended_again = forks.run(*again, cache=cache)
        assert ended_again.code == 0, ended_again.stderr
        assert {path.relative_to(cache) for path in cache.rglob("*")} == expected, at
    assert left


def test_report_and_init_killed_at_any_instant_leave_what_the_next_one_removes(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    study = tmp_path / "tiny"
    shutil.copytree(undisturbed.space.parent / "reports" / "tiny", study)
    space = tmp_path / "spaces" / "mine.yaml"
    space.parent.mkdir()
    commands = [
        (("report", str(study)), study / "report.html"),
        (("init", str(space), "--force"), space),
    ]
    for words, file in commands:
        ended = forks.run(*words, cache=undisturbed.cache)
        assert ended.code == 0, ended.stderr
        new = file.read_bytes()

        left = 0
        for at in range(soak_or(1, 2), len(ended.instants) + 1, soak_or(1, 2)):  # 2: the rename
            file.write_text("old")
            killed = forks.run(*words, cache=undisturbed.cache, die="any", at=at)
            assert killed.code == KILLED, killed.stderr
            assert file.read_bytes() in (b"old", new)
            left += bool(_hidden(tmp_path))
            assert forks.run(*words, cache=undisturbed.cache).code == 0
            assert file.read_bytes() == new
            assert_no_leftovers(tmp_path)
        assert left
