"""From what a stranger brings to a front, by ``init`` alone; or a refusal that says what to do.

Six of the sets run with every test, all of them under ``make soak``.
"""

import os
from pathlib import Path

import pytest

from gped_nas.api import open_study
from gped_nas.search.snapshot import Reference
from tests.cli.harness import accepted, refused
from tests.strangers.sets import STRANGERS

SOAK = bool(os.environ.get("GPED_SOAK"))
FEW = (
    "columns of six scales",
    "real labels in milliseconds since 1970",
    "a table with semicolons and decimal commas",
    "a number that is infinite",
    "a table whose label is not told",
    "images of two sizes",
)
NUM_TRIALS = 6 if SOAK else 2


def test_there_are_forty() -> None:
    assert len(STRANGERS) == 40 and set(FEW) <= set(STRANGERS)


@pytest.mark.filterwarnings("ignore::gped_nas.errors.DataWarning")
@pytest.mark.parametrize("name", STRANGERS if SOAK else FEW)
def test_a_stranger_comes_to_a_front_or_knows_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = STRANGERS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPED_CACHE", str(tmp_path / "cache"))
    path = stranger.write(tmp_path / "mine")

    words = ("init", "new.yaml", "--data", path.name, *stranger.options)
    if stranger.refused:
        result = refused(2, *words, says=stranger.refused)
        assert "hint:" in result.err
        return

    accepted(*words)
    # so few students may all keep too little of the teacher's skill
    accepted("run", "new.yaml", "--n-trials", NUM_TRIALS, "--set", "search.keep={}", *_short())
    study = open_study("new")
    predictors = {reference.name: reference for reference in study.references()}
    teacher, guess = _nll(predictors["teacher"]), _nll(predictors["guess"])
    if not stranger.is_learnable:
        # what is found in noise costs little
        assert teacher < guess + 0.1
        return

    assert teacher < guess
    assert study.front_records()
    assert study.front_records()[0].metrics["nll"] < guess


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::gped_nas.errors.DataWarning")
@pytest.mark.parametrize("name", [name for name, set_ in STRANGERS.items() if not set_.refused])
def test_a_chain_finds_a_step_size_that_is_stable_on_a_strangers_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = STRANGERS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPED_CACHE", str(tmp_path / "cache"))
    path = stranger.write(tmp_path / "mine")
    accepted("init", "new.yaml", "--data", path.name, *stranger.options)

    method = "{name: sgld, num_samples: 10, burn_in: 800}"
    accepted("teacher", "build", "new.yaml", "--set", f"teacher.method={method}")


def _short() -> list[str]:
    """Settings that make the few short; the soak has those that ``init`` writes."""
    if SOAK:
        return []
    settings = (
        "teacher.method.steps=200",
        "recipe.steps=200",
        "baseline.steps=100",
        "twins.seeds=0",
    )
    return [word for setting in settings for word in ("--set", setting)]


def _nll(reference: Reference) -> float:
    """On validation."""
    return reference.metrics["nll"]
