"""``teacher tune`` on the command line, and ``run --teacher tuned``."""

import json

import pytest
import yaml

from gped_nas.api import held_out, tuning_answer, tuning_starts
from tests.cli.harness import Home, accepted, refused


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer folds and MAP networks."""
    monkeypatch.setattr(held_out, "MAX_FOLDS", 1)
    monkeypatch.setattr(tuning_answer, "FINAL_SEEDS", 2)
    monkeypatch.setattr(tuning_starts, "_changes", lambda best: iter(()))


TUNE = ("--n-trials", "1", "--methods", "deep_ensemble")


def test_the_block_that_is_printed_is_the_teacher_of_a_tuned_run(home: Home) -> None:
    run = ("run", home.space, "--out", home.out, "--teacher", "tuned")
    refused(2, *run, says=("--teacher tuned", "found none", "teacher tune"))
    refused(2, "run", home.space, "--teacher", "tunde", says=("found 'tunde'", "'tuned'"))

    printed = accepted("teacher", "tune", home.space, *TUNE).out
    assert "230 of 1,150 training examples" in printed
    block = yaml.safe_load(printed[printed.index("teacher:\n") :])["teacher"]
    again = accepted("teacher", "tune", home.space, *TUNE, "--format", "json").out
    answer = json.loads(again)
    assert answer["teacher"] == block and answer["validation"]["n"] == 288
    assert {"verdict", "prediction_verdict", "costs", "candidates", "beats_map"} <= set(answer)
    rows = accepted("teacher", "tune", home.space, *TUNE, "--format", "csv").out.splitlines()
    assert len(rows) == 1 + len(answer["candidates"])

    config = yaml.safe_load(accepted(*run, "--print-config").out)
    assert config["teacher"]["method"]["name"] == block["method"]["name"]
    assert config["teacher"]["prior"] == block["prior"]
    pasted = yaml.safe_load(home.space.read_text()) | {"teacher": block}
    (home.root / "pasted.yaml").write_text(yaml.safe_dump(pasted, sort_keys=False))
    assert "(there)" in accepted(*run, "--dry-run").out
    assert (
        accepted("run", home.root / "pasted.yaml", "--print-config").out
        == accepted(*run, "--print-config").out
    )


def test_what_cannot_be_tuned_is_refused(home: Home) -> None:
    tune = ("teacher", "tune", home.space)
    refused(
        2, *tune, "--budget", "0.01", says=("--budget: found 0.01 s, expected at least", "chain")
    )
    refused(2, *tune, "--budget", "soon", says=("--budget: found 'soon'",))
    refused(2, *tune, "--methods", "sghmd", says=("'sghmd'", "'sghmc'"))
    refused(
        2,
        *tune,
        "--set",
        "teacher.method={name: deep_ensemble, temperature: 0.1}",
        says=("teacher.method.temperature", "deep_ensemble", "no temperature", "sghmc"),
    )
