"""Finalists: genotypes of the front and near it over fresh seeds, and all that tells of them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import gped_nas as gn
from gped_nas.api.kept import KeptFiles
from gped_nas.api.kept_students import read_kept
from gped_nas.api.students import Trainer
from gped_nas.errors import Interrupted
from gped_nas.evaluate.student import StudentPredictor
from gped_nas.models.base import Genotype
from tests.cli.harness import Home, accepted, call, refused

FINALISTS = ("--set", "finalists.seeds=2")


def trainings(patch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[Genotype]:
    """What is trained for finalists from now on; interrupted after so many populations."""
    trained: list[Genotype] = []
    populations: list[int] = []
    distill = Trainer.distill

    def counted(self: Trainer, genotypes: Sequence[Genotype], **settings: Any) -> Any:
        if "seed" in settings:
            if len(populations) == stop_after:
                raise Interrupted("stopped while distilling; run the same command again to go on")
            populations.append(len(genotypes))
            trained.extend(genotypes)
        return distill(self, genotypes, **settings)

    patch.setattr(Trainer, "distill", counted)
    return trained


def test_finalists_are_trained_and_told_everywhere(home: Home, finished: Home) -> None:
    ended = accepted("run", "tiny.yaml", *FINALISTS)
    study, plain = gn.open_study(home.study), gn.open_study(finished.study)
    assert study.finalists is not None and plain.finalists is None

    # the students of trials are those that were trained first, each with one test
    assert [r.spec_sha256 for r in study.records()] == [r.spec_sha256 for r in plain.records()]
    assert study.num_test_evaluations == len(study.front_records())
    front = [record.trial for record in study.front_records()]
    trials = [row.trial for row in study.finalists.students]
    assert trials[: len(front)] == front and study.finalists.seeds == 2

    # what is printed is the mean of the networks that are kept
    chosen = study.chosen()
    assert chosen is not None and "fresh seeds" in study.snapshot().rule
    row = study.finalists.of(chosen.trial)
    assert row is not None and row.is_on_front and row.num_seeds == 2
    measured = row.measured("nll")
    assert measured is not None and measured.value is not None and measured.interval is not None
    assert measured.value == pytest.approx(np.mean(losses_of(study, chosen.genotype)))
    assert measured.interval[0] < measured.value < measured.interval[1]

    for table in (ended.out, accepted("front", home.study).out):
        assert "front of tiny" in table or "genotypes over 2 fresh seeds" in table
    shown = accepted("show", home.study, chosen.trial).out
    assert "genotypes over 2 fresh seeds" in shown
    (told, *_) = json.loads(accepted("front", home.study, "-f", "json").out)
    first = study.finalists.of(told["trial"])
    assert first is not None and told["finalist"]["metrics"] == dict(first.metrics)
    told = json.loads(accepted("show", home.study, chosen.trial, "-f", "json").out)
    assert told["finalist"]["num_seeds"] == 2
    assert "fresh trainings each" in (home.study / "report.html").read_text()
    accepted("export", home.study, "chosen", "--into", home.root / "export")
    (card,) = (home.root / "export").rglob("*.md")
    assert "Means over 2 fresh trainings of the genotype" in card.read_text()


def losses_of(study: gn.Study, genotype: Any) -> list[float]:
    """The NLL on validation of the networks that are kept of a genotype."""
    dataset = gn.load_dataset(gn.load_space(study.path.parents[1] / "tiny.yaml"))
    kept = KeptFiles(study.path, study.ledger)
    losses = []
    for spec in sorted((study.path / "references" / "finalists").rglob("spec.json")):
        student = read_kept(kept, spec.parent)
        if student.spec.genotype == dict(genotype):
            raw, labels = dataset.raw("validation"), dataset.labels("validation")
            predictions = StudentPredictor(student, None).predict(raw)
            losses.append(-float(predictions.log_score(labels).mean()))
    assert len(losses) == 2
    return losses


def test_a_run_that_was_stopped_trains_what_is_missing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        begun = trainings(patch, stop_after=1)
        stopped = call("run", "tiny.yaml", *FINALISTS)
        assert stopped.code == 130, stopped.err
    assert begun and gn.open_study(home.study).finalists is None

    with monkeypatch.context() as patch:
        missing = trainings(patch)
        accepted("run", "tiny.yaml", *FINALISTS)
    finalists = gn.open_study(home.study).finalists
    assert finalists is not None
    records = gn.open_study(home.study).records()
    genotypes = {str(records[records[row.trial].trained_in].genotype) for row in finalists.students}
    # a training answers for all storage types, and each is done once with each seed
    assert len(begun) + len(missing) == 2 * len(genotypes)

    with monkeypatch.context() as patch:
        again = trainings(patch)
        accepted("run", "tiny.yaml", *FINALISTS)
    assert not again


def test_what_cannot_be_is_refused(home: Home) -> None:
    refused(2, "run", home.space, "--set", "finalists.seeds=-1", says=("finalists.seeds",))
    refused(2, "run", home.space, "--set", "finalists.near=close", says=("finalists.near",))
    refused(2, "run", home.space, "--set", "finalists.sedes=3", says=("did you mean 'seeds'",))
