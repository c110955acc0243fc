"""A damaged study: each command says what it said before, or refuses; it never breaks.

Refused is one message and exit code 4 or 2. Damage is drawn by ``damages``.
"""

import functools
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.harness import Home, accepted, call, contents, shared_home
from tests.faults.conftest import soak_or
from tests.faults.damages import DAMAGES, Target

FIRST_SEED = int(os.environ.get("GPED_SOAK_SEED", "0"))
COUNTS = {
    "student": soak_or(400, 2),
    "file": soak_or(60, 2),
    "attribute": soak_or(60, 2),
    "database": soak_or(16, 1),
}
CASES = [(kind, FIRST_SEED + i) for kind, num in COUNTS.items() for i in range(num)]
BASELINE = "baseline={steps: 100, precisions: [1.0, 10.0]}"
"""References of these settings are made anew, from the files of those that are there."""

pytestmark = pytest.mark.filterwarnings("always::gped_nas.errors.UndigestedWarning")


@dataclass(frozen=True)
class Said:
    """How one command ended: exit code, what it gave, what it said on stderr."""

    code: int
    gave: Any
    err: str


def _ask(home: Home) -> dict[str, Said]:
    """What every command says of a study, by its words; the run goes on with it, and comes last."""
    json = ("--format", "json")
    said: dict[str, Said] = {}

    def ask(name: str, *words: object, file: Path | None = None) -> None:
        result = call(*words)
        gave: Any = result.out
        if file is not None and result.code == 0:
            gave = contents(file) if file.is_dir() else file.read_bytes()
        said[name] = Said(result.code, gave, result.err)

    for verb in ("front", "trials", "status"):
        ask(verb, verb, home.study, *json)
    for trial in _front(home):
        ask(f"show {trial}", "show", home.study, trial, *json)
        student = home.study / "students" / trial
        ask(f"predict {trial}", "predict", student, home.root / "x.npy", *json)
        taken = home.root / f"taken-{trial}"
        ask(f"export {trial}", "export", home.study, trial, "--into", taken, file=taken)
    ask("predict export", "predict", home.root / "export", home.root / "x.npy", *json)
    page = home.root / "page.html"
    ask("report", "report", home.study, "--to", page, file=page)

    run = ("run", home.space, "--out", home.out, "--set", BASELINE)
    ask("run", *run)
    ask("trials after it", "trials", home.study, *json)
    ask("report after it", "report", home.study, "--to", page, file=page)
    return said


def _front(home: Home) -> list[str]:
    """The trials of the undamaged front."""
    return (home.root / "front.txt").read_text().split()


@dataclass(frozen=True)
class Undamaged:
    """A study, an export and inputs as they should be; and what is said of them.

    Attributes:
        home: to be copied.
        place: where each copy lies: messages name it.
        said: by each command.
    """

    home: Home
    place: Path
    said: dict[str, Said]

    def copy(self) -> Home:
        """A copy to be damaged; the last one is gone."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.home.root, self.place)
        return Home(self.place)


@functools.cache
def _prepare(base: Path) -> Undamaged:
    """Made once a session, from the study that everybody shares."""
    shared = shared_home(base)
    home = Home(base / "undamaged")
    shutil.copytree(shared.root, home.root, ignore=shutil.ignore_patterns("cache", "report.html"))
    front = sorted(path.name for path in (home.study / "students").iterdir())
    (home.root / "front.txt").write_text(" ".join(front))
    np.save(home.root / "x.npy", np.arange(64.0).reshape(1, 8, 8))
    accepted("export", home.study, front[-1], "--into", home.root / "export")

    undamaged = Undamaged(home, base / "damaged", {})
    said = _ask(undamaged.copy())
    assert {ended.code for ended in said.values()} == {0}
    return Undamaged(home, base / "damaged", said)


@pytest.fixture
def undamaged(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Undamaged]:
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("GPED_CACHE", str(shared_home(base).cache))
    yield _prepare(base)


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_a_damaged_study_is_right_or_refused(
    undamaged: Undamaged, tmp_path: Path, kind: str, seed: int
) -> None:
    home = undamaged.copy()
    target = Target(home.study, home.root / "export", tmp_path, random.Random(f"{kind} {seed}"))
    what = DAMAGES[kind](target)

    for words, ended in _ask(home).items():
        allowed = [undamaged.said[words].gave]
        if words.endswith("after it"):  # the run may have been refused
            allowed.append(undamaged.said[words.removesuffix(" after it")].gave)
        if ended.code == 0:
            assert ended.gave in allowed or _is_told(ended), f"{what}: {words}: {ended.err}"
        else:
            assert ended.code in (2, 4), f"{what}: {words}: {ended.err}"
            assert ended.err.count("gped-search: error: ") == 1, ended.err
            assert "Traceback" not in ended.err


def _is_told(ended: Said) -> bool:
    """Whether a list of trials says beside one of them that its record is damaged."""
    return "by something other than gped-search" in str(ended.gave)
