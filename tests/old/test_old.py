"""What an earlier version made is read, and gone on with: the same numbers as it gave itself."""

import functools
import hashlib
import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import accepted
from tests.old.homes import HERE, OLD, STUDY, everything_said

NAMES = sorted(OLD)

# Figures that are computed anew (predictions, intervals) may be rounded otherwise here; those of
# students that are trained anew go through a whole training on another processor.
COMPUTED = 1e-4
TRAINED = 0.05

# Keys and words that were spelled otherwise then.
RENAMED = {"optimiser": "optimizer", "centred": "centered", "regulariser": "regularizer"}
# a trial that a kill left is not said to run any more
RENAMED["running"] = "interrupted"
WORDS = {"unlabelled": "unlabeled", "optimised": "optimized"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* is now called:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.* is read unchecked:gped_nas.errors.UndigestedWarning"),
    pytest.mark.filterwarnings("ignore:.* its folder was :gped_nas.errors.MovedWarning"),
    pytest.mark.filterwarnings("ignore:.* part has no example of:gped_nas.errors.DataWarning"),
]


def call(home: Path, *args: object) -> str:
    """The command in a home, which must succeed; its stdout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("GPED_CACHE", str(home / "cache"))
        for name in ("GPED_STORAGE", "OPTUNA_STORAGE"):
            patch.delenv(name, raising=False)
        return accepted(*args).out


@functools.cache
def unpacked(base: Path, name: str) -> Path:
    """A home as the earlier version left it, made once a session; only to be read."""
    home = base / f"old-{name}"
    with tarfile.open(HERE / f"{name}.tar.xz") as archive:
        # the first releases of Python 3.11 have no filters
        filters = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(home, **filters)
    return home


@functools.cache
def resumed(base: Path, name: str) -> Path:
    """A copy of a home whose study went on, made once a session; only to be read."""
    home = base / f"resumed-{name}"
    shutil.copytree(unpacked(base, name), home)
    call(home, "run", "space.yaml", "--n-trials", OLD[name].more, *OLD[name].settings)
    return home


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def read_said(home: Path, when: str) -> dict[str, Any]:
    """What the earlier version said about a home, ``before`` or ``after`` it went on."""
    data: dict[str, Any] = json.loads((home / "said.json").read_text())[when]
    return data


def assert_kept(now: Any, before: Any, tolerance: float, path: str = "") -> None:
    """Whether everything that was said before is said now; there may be more."""
    if isinstance(before, dict):
        for key, value in before.items():
            new_key = RENAMED.get(key, key)
            assert new_key in now, f"{path}.{key}"
            assert_kept(now[new_key], value, tolerance, f"{path}.{key}")
    elif isinstance(before, list):
        assert len(now) == len(before), path
        for i, (ours, theirs) in enumerate(zip(now, before, strict=True)):
            assert_kept(ours, theirs, tolerance, f"{path}[{i}]")
    elif isinstance(before, float):
        assert now == pytest.approx(before, rel=tolerance, abs=tolerance), path
    elif isinstance(before, str):
        for old, new in WORDS.items():
            before = before.replace(old, new)
        assert now == before, path
    else:
        assert now == before, path


@pytest.mark.parametrize("name", NAMES)
def test_every_verb_says_what_it_said(base: Path, name: str) -> None:
    home = unpacked(base, name)
    now = everything_said(functools.partial(call, home))
    before = read_said(home, "before")
    before["teacher info"] = without_intervals(before["teacher info"])
    if "not better than a guess" in now["teacher info"]["verdict"]["sentence"]:
        del before["teacher info"]["verdict"]  # it was not asked then
    assert_kept(now, before, COMPUTED)


def without_intervals(said: Any) -> Any:
    """What was said, but for intervals: those of a teacher are computed anew, by better methods."""
    if isinstance(said, list):
        return [without_intervals(value) for value in said]
    if not isinstance(said, dict):
        return said
    kept = {key: value for key, value in said.items() if key not in ("interval", "low", "high")}
    return {key: without_intervals(value) for key, value in kept.items()}


@pytest.mark.parametrize("name", NAMES)
def test_its_stream_is_sound(base: Path, name: str) -> None:
    home = unpacked(base, name)
    before = sealed(home)
    call(home, "teacher", "verify", "space.yaml")
    assert sealed(home) == before, "nothing is built anew"


def sealed(home: Path) -> dict[str, bytes]:
    """What lies in the streams and may never change."""
    paths = [*home.glob("cache/streams/*/segments/**/*"), *home.glob("cache/streams/*/views/**/*")]
    return {str(p.relative_to(home)): p.read_bytes() for p in paths if p.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_a_study_goes_on(base: Path, name: str) -> None:
    """Finished trials stay as they were; further ones are those of the earlier version."""
    home = resumed(base, name)
    trials = everything_said(functools.partial(call, home))["trials"]
    before = read_said(home, "before")["trials"]
    after = read_said(home, "after")["trials"]

    finished = [trial for trial in before if trial["state"] != "running"]
    by_number = {trial["trial"]: trial for trial in trials}
    assert finished and len(trials) >= OLD[name].more
    for trial in finished:
        assert_kept(by_number[trial["trial"]], trial, 0.0, f"trial {trial['trial']}")

    for ours, theirs in zip(trials, after, strict=True):
        for key in ("trial", "state", "genotype"):
            assert ours[key] == theirs[key]
        assert_kept(ours["metrics"], theirs["metrics"], TRAINED, f"trial {theirs['trial']}")
    assert_digested(home / STUDY)
    assert sealed(home) == sealed(unpacked(base, name)), "its stream was found, not sampled anew"


def assert_digested(study: Path) -> None:
    """Students and records that had no digest have one now."""
    with closing(sqlite3.connect(study / "study.db")) as database:
        rows = database.execute(
            "SELECT count(*), sum(value_json LIKE '%\"digest\"%') FROM trial_user_attributes "
            "WHERE key = 'gped:row' AND value_json LIKE '%finished%'"
        ).fetchone()
    assert rows[0] == rows[1] > 0
    folders = list((study / "students").iterdir())
    assert folders
    for folder in folders:
        weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        spec = json.loads((folder / "spec.json").read_text())
        assert spec["files"] == {"weights.safetensors": weights}
        assert len(spec["digest"]) == 64


@pytest.mark.parametrize("name", NAMES)
def test_a_report_and_an_export_are_made_of_it(base: Path, name: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(unpacked(base, name), home)
    call(home, "report", STUDY)
    assert "<html" in (home / STUDY / "report.html").read_text()

    chosen = read_said(home, "before")["front"][0]["trial"]
    call(home, "export", STUDY, chosen, "--into", "again")
    weights = home / "again" / "weights.safetensors"
    old_weights = home / "exports" / "safetensors" / "weights.safetensors"
    assert weights.read_bytes() == old_weights.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_student_of_it_is_asked_in_the_library(base: Path, name: str) -> None:
    import numpy as np
    import torch

    import gped_nas as gn

    home = unpacked(base, name)
    student = gn.load_student(home / "exports" / "safetensors")
    raw = torch.from_numpy(np.load(home / "inputs.npy"))
    predicted = student.predict(raw)

    rows = read_said(home, "before")["predict"]["exports/safetensors"]
    if "predictive" in predicted:
        expected = [list(row["probabilities"].values()) for row in rows]
        assert predicted["predictive"].numpy() == pytest.approx(np.array(expected), abs=1e-5)
    else:
        mean = [row["mean"] for row in rows]
        assert predicted["predictive_normal"][:, 0].tolist() == pytest.approx(mean, abs=1e-5)
