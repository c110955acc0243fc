"""What killed commands leave is removed by the same command, given again."""

import shutil
from pathlib import Path

from tests.faults.checks import assert_no_leftovers
from tests.faults.conftest import Undisturbed, soak_or
from tests.faults.forks import KILLED, Forks


def _hidden(root: Path) -> list[Path]:
    return [path for path in root.rglob(".*") if ".gone-" in path.name or path.suffix == ".tmp"]


def test_a_removal_killed_at_an_instant_is_finished(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    gc = ("gc", "--views", "--derived", "--delete")
    whole = tmp_path / "whole"
    shutil.copytree(undisturbed.cache, whole)
    ended = forks.run(*gc, cache=whole)
    assert ended.code == 0, ended.stderr
    expected = {path.relative_to(whole) for path in whole.rglob("*")}

    left = 0
    for at in range(1, len(ended.instants) + 1, soak_or(1, 3)):
        cache = tmp_path / str(at)
        shutil.copytree(undisturbed.cache, cache)
        assert forks.run(*gc, cache=cache, die="any", at=at).code == KILLED
        left += bool(_hidden(cache))
        again = forks.run(*gc, cache=cache)
        assert again.code == 0, again.stderr
        assert {path.relative_to(cache) for path in cache.rglob("*")} == expected, at
    assert left


def test_report_and_init_killed_at_any_instant_leave_what_the_next_one_removes(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    study = tmp_path / "tiny"
    shutil.copytree(undisturbed.space.parent / "reports" / "tiny", study)
    space = tmp_path / "spaces" / "mine.yaml"
    commands = [
        (("report", str(study)), study / "report.html"),
        (("init", str(space), "--force"), space),
    ]
    for words, file in commands:
        ended = forks.run(*words, cache=undisturbed.cache)
        assert ended.code == 0, ended.stderr
        new = file.read_bytes()

        left = 0
        for at in range(1, len(ended.instants) + 1):
            file.write_text("old")
            killed = forks.run(*words, cache=undisturbed.cache, die="any", at=at)
            assert killed.code == KILLED, killed.stderr
            assert file.read_bytes() in (b"old", new)
            left += bool(_hidden(tmp_path))
            assert forks.run(*words, cache=undisturbed.cache).code == 0
            assert file.read_bytes() == new
            assert_no_leftovers(tmp_path)
        assert left
