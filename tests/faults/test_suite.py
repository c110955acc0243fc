"""A grid that is killed at any write goes on, and no measured cell is measured again."""

import json
from pathlib import Path

import yaml

from tests.faults.checks import assert_no_leftovers, assert_whole
from tests.faults.conftest import SOAK, Undisturbed
from tests.faults.forks import KILLED, Forks


def _write_grid(folder: Path, space: Path) -> str:
    grid = {
        "name": "small",
        "teachers": [{"tiny": {"space": str(space)}}],
        "students": ["none", "own"],
        "tasks": ["prediction", "misclassification"],
    }
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(grid))
    return str(path)


def _choose(instants: list[list[str]]) -> list[int]:
    """All instants under soak; else the one when the third cell is there and has no name yet."""
    if SOAK:
        return list(range(1, len(instants) + 1))
    renames = []
    for number, (kind, what) in enumerate(instants, 1):
        if kind == "rename" and "/cells/" in what:
            renames.append(number)
    return renames[2:3]


def _cells(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "suite" / "cells").glob("*.json")}


def test_a_grid_killed_at_an_instant_ends_the_same(
    forks: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    grid = _write_grid(tmp_path, undisturbed.space)
    cache, whole = undisturbed.cache, tmp_path / "whole"
    ended = forks.run("suite", grid, "--out", str(whole), cache=cache)
    assert ended.code == 0, ended.stderr
    rows = (whole / "small-suite" / "rows.jsonl").read_bytes()
    assert len(_cells(whole)) == 4
    assert_whole(whole)

    chosen = _choose(ended.instants)
    for at in chosen:
        out = tmp_path / str(at)
        suite = ("suite", grid, "--out", str(out))
        killed = forks.run(*suite, cache=cache, die="any", at=at)
        assert killed.code == KILLED, killed.stderr
        assert_whole(out)
        before = _cells(out)

        resumed = forks.run(*suite, cache=cache)
        moment = f"after instant {at} {killed.instants[-1]}"
        assert resumed.code == 0, f"{moment}: {resumed.stderr}"
        after = _cells(out)
        assert SOAK or len(before) == 2
        assert {name: after[name] for name in before} == before, moment
        assert (out / "small-suite" / "rows.jsonl").read_bytes() == rows, moment
        assert json.loads((out / "small-suite" / "suite.json").read_text())["cells"] == 4
        assert_whole(out)
        assert_no_leftovers(out)

    print(f"\n{len(chosen)} of {len(ended.instants)} instants of a grid")
    assert len(chosen) == (len(ended.instants) if SOAK else 1)
