"""The verdict on a study on disk, by everybody who says it."""

import dataclasses
import html
import json
from pathlib import Path

import pytest

from gped_nas.api import Study, export_student, open_study
from gped_nas.api.dashboard import study_note
from gped_nas.cli.listing import warn_of_teacher
from gped_nas.errors import ConfigError
from gped_nas.evaluate.measured import from_public
from gped_nas.export.text import as_markdown
from gped_nas.search.snapshot import Reference
from tests.cli.harness import Home, accepted


def test_everybody_says_the_same_verdict(finished: Home, tmp_path: Path) -> None:
    """Status, page, model card and the dashboard's note, of the tiny study on disk."""
    study = open_study(finished.study)
    verdict = study.verdict()
    assert verdict.trial is not None

    status = json.loads(accepted("status", finished.study, "--format", "json").out)
    assert status["verdict"] == verdict.sentence
    page = (finished.study / "report.html").read_text()
    assert f"<h1>{html.escape(verdict.sentence, quote=False)}</h1>" in page.replace("&#39;", "'")
    assert json.dumps(verdict.kind) in page
    export_student(study, verdict.trial, tmp_path / "export")
    card = (tmp_path / "export" / "README.md").read_text()
    assert as_markdown(verdict.text, limit=2_000) in card
    assert as_markdown(verdict.text, limit=2_000) in study_note(study.snapshot(), verdict.text)


def test_the_teachers_predictions_are_judged_in_the_study_too(finished: Home) -> None:
    info = json.loads(accepted("teacher", "info", finished.space, "--format", "json").out)
    study = open_study(finished.study)
    verdict = study.snapshot().teacher["prediction_verdict"]
    assert verdict["level"] == info["prediction_verdict"]["level"]
    assert verdict["n"] == info["prediction_verdict"]["n"]
    assert verdict["nll_of_map"] == pytest.approx(info["prediction_verdict"]["nll_of_map"])
    assert verdict["interval"] == pytest.approx(info["prediction_verdict"]["interval"])

    status = json.loads(accepted("status", finished.study, "--format", "json").out)
    assert status["prediction_verdict"] == verdict["sentence"]
    page = html.unescape((finished.study / "report.html").read_text())
    assert page.count(verdict["sentence"]) >= 2
    # what the page embeds has the posterior's verdict beside it
    assert study.snapshot().teacher["verdict"]["sentence"] == info["verdict"]["sentence"]


def test_the_verdict_waits_for_no_figure(finished: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's importances load scikit-learn and pandas: a second, for which ``status`` waited."""
    study = open_study(finished.study)
    verdict, snapshot = study.verdict(), study.snapshot()
    assert snapshot.hypervolume and snapshot.random_order and snapshot.evidence

    def burst(*args: object) -> None:
        raise AssertionError("a verdict has no figures")

    monkeypatch.setattr("gped_nas.search.ledger.importances", burst)
    monkeypatch.setattr("gped_nas.api.snapshots.random_order", burst)
    assert study.verdict() == verdict
    with pytest.raises(AssertionError, match="no figures"):
        study.snapshot()


def test_the_verdict_of_another_trial_and_of_a_budget(finished: Home) -> None:
    study = open_study(finished.study)
    front = study.front_records()
    for record in front:
        assert study.verdict(record.trial).trial == record.trial
    cheapest = min(front, key=lambda record: record.costs["macs"])
    bounds = {"macs": float(cheapest.costs["macs"])}
    assert study.verdict(within=bounds).trial == study.pick(bounds).trial
    assert study.verdict(within={"macs": 1.0}).kind == "none_within"
    with pytest.raises(ConfigError, match="no trial 99"):
        study.verdict(99)


def test_a_run_warns_of_a_teacher_that_has_seen_validation(
    finished: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = open_study(finished.study)
    snapshot = study.snapshot()
    warn_of_teacher(study)
    assert "warning" not in capsys.readouterr().err

    metrics = {"accuracy": 0.99, "test_accuracy": 0.9}
    intervals = {"accuracy": (0.98, 1.0), "test_accuracy": (0.88, 0.92)}
    teacher = Reference("teacher", "teacher", from_public(metrics, intervals))
    changed = dataclasses.replace(snapshot, references=(teacher,))
    monkeypatch.setattr(Study, "snapshot", lambda self: changed)
    warn_of_teacher(study)
    said = capsys.readouterr().err
    assert said.startswith("warning: The teacher is much better on validation than on test")
    assert "accuracy 99.00 % against 90.00 %" in said
