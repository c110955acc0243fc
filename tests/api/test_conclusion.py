"""References and tested students against numbers computed here from the study's files."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.api import Study, load_dataset, load_space, load_stream, load_student, open_study
from gped_nas.data.base import Dataset
from gped_nas.evaluate.measured import to_public
from gped_nas.models.storage import read_weights
from tests.cli.harness import Home, accepted, contents, refused, snapshot_of

PARTS = {"": "validation", "test_": "test"}
READ_THE_TEACHER = {"nll_above_teacher", "kl_to_teacher", "agreement"}
PRECISIONS = "baseline={steps: 100, precisions: [1.0e+5, 1.0, 1.0e+4]}"


def log_prob_of(params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Log-probabilities (N, C) of a network with one hidden layer at normalized inputs."""
    hidden = F.relu(x.flatten(1) @ params["layers.0.weight"].mT + params["layers.0.bias"])
    logits = hidden @ params["layers.1.weight"].mT + params["layers.1.bias"]
    return F.log_softmax(logits.double(), -1)


def nll(log_prob: Tensor, labels: Any) -> float:
    return -float(log_prob[torch.arange(len(labels)), torch.from_numpy(labels)].mean())


def kl(log_prob: Tensor, other: Tensor) -> float:
    return float((log_prob.exp() * (log_prob - other)).sum(1).mean())


def predictors(study: Study, dataset: Dataset, part: Any) -> tuple[list[Tensor], Tensor]:
    """Log-probabilities of each posterior sample, and of their average."""
    stream = load_stream(study.stream_path)
    x = dataset.inputs(part)
    samples = [log_prob_of(stream.params(i), x) for i in range(len(stream.weight))]
    return samples, torch.stack(samples).exp().mean(0).log()


def test_teacher_and_best_single_sample_are_those_of_the_stream(finished: Home) -> None:
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    references = {reference.name: reference for reference in study.snapshot().references}

    on_validation, _ = predictors(study, dataset, "validation")
    nlls = [nll(log_prob, dataset.labels("validation")) for log_prob in on_validation]
    best = nlls.index(min(nlls))
    assert max(nlls) - min(nlls) > 0.01
    assert f"Posterior sample {best} of 4" in references["single_sample"].note

    for prefix, part in PARTS.items():
        samples, average = predictors(study, dataset, part)
        labels = dataset.labels(part)  # type: ignore[arg-type]
        name = f"{prefix}nll"
        expected = pytest.approx(nll(average, labels), abs=1e-5)
        assert references["teacher"].metrics[name] == expected
        expected = pytest.approx(nll(samples[best], labels), abs=1e-5)
        assert references["single_sample"].metrics[name] == expected


def test_the_map_network_is_the_best_of_its_precisions_by_validation(home: Home) -> None:
    home.run("--n-trials", "1", "--set", PRECISIONS)
    dataset = load_dataset(load_space(home.space))
    labels = dataset.labels("validation")

    networks = {}
    scores = {}
    for path in (home.study / "references" / "map").rglob("*.safetensors"):
        networks[path.stem] = read_weights(path)
        log_prob = log_prob_of(networks[path.stem], dataset.inputs("validation"))
        scores[path.stem] = nll(log_prob, labels)
    assert sorted(scores) == ["precision-1", "precision-10000", "precision-100000"]
    best = min(scores, key=lambda name: scores[name])
    assert best == "precision-1"

    (reference,) = (r for r in snapshot_of(home).references if r.name == "map")
    assert "prior precision 1 of" in reference.note
    assert reference.metrics["nll"] == pytest.approx(scores[best], abs=1e-5)
    on_test = nll(log_prob_of(networks[best], dataset.inputs("test")), dataset.labels("test"))
    assert reference.metrics["test_nll"] == pytest.approx(on_test, abs=1e-5)


def test_a_changed_baseline_is_trained_anew_and_nothing_else_is(home: Home) -> None:
    def note_of(name: str) -> str:
        return next(r.note for r in snapshot_of(home).references if r.name == name)

    home.run("--n-trials", "1", "--set", PRECISIONS)
    unpruned = home.study / "references" / "unpruned" / "weights.safetensors"
    written_at = unpruned.stat().st_mtime_ns
    num_tested = snapshot_of(home).num_test_evaluations
    assert "Adam for 100 steps" in note_of("map")

    home.run("--n-trials", "1", "--set", "baseline={steps: 200, precisions: [1.0]}")
    assert "Adam for 200 steps; prior precision 1 of 1 " in note_of("map")
    assert unpruned.stat().st_mtime_ns == written_at
    assert snapshot_of(home).num_test_evaluations == num_tested


OTHER_BASELINE = "baseline={steps: 100, precisions: [1.0, 10.0]}"
"""Settings of the references that make them anew, from files that are there but for one."""


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x10
    path.write_bytes(bytes(data))


def _strip(path: Path) -> None:
    """The spec as of before digests, of weights that were changed since."""
    data = json.loads(path.read_text())
    del data["digest"], data["files"]
    path.write_text(json.dumps(data))
    _flip(path.with_name("weights.safetensors"))


def test_a_reference_that_is_not_what_was_written_is_refused(own: Home) -> None:
    own.run("--set", OTHER_BASELINE)
    references, sound = own.study / "references", own.root / "sound"
    shutil.copytree(references, sound)
    (network,) = references.rglob("precision-1.safetensors")
    unpruned = references / "unpruned"
    (trial, *_) = (own.study / "students").iterdir()

    damages: list[tuple[Path, Callable[[], object]]] = [
        (network, lambda: _flip(network)),
        (network, lambda: shutil.copy(network.with_name("precision-10.safetensors"), network)),
        (unpruned / "weights.safetensors", lambda: _flip(unpruned / "weights.safetensors")),
        (unpruned / "spec.json", lambda: shutil.copytree(trial, unpruned, dirs_exist_ok=True)),
        (unpruned / "spec.json", lambda: _strip(unpruned / "spec.json")),
    ]
    run = ("run", own.space, "--out", own.out)
    for path, damage in damages:
        damage()
        before = contents(references)
        refused(4, *run, says=(str(path), "delete", "gped-search run"))
        assert contents(references) == before, "something got a new digest"
        shutil.copytree(sound, references, dirs_exist_ok=True)

    network.unlink()
    accepted(*run)
    assert contents(references) == contents(sound)


@pytest.mark.filterwarnings("always::gped_nas.errors.UndigestedWarning")
def test_references_of_before_digests_are_read_with_a_warning_and_get_them(own: Home) -> None:
    before = open_study(own.study).ledger.document
    assert len(before.files) == 2
    spec_path = own.study / "references" / "unpruned" / "spec.json"
    text = spec_path.read_text()
    spec = json.loads(text)
    del spec["digest"], spec["files"]
    spec_path.write_text(json.dumps(spec))
    open_study(own.study).ledger.change(files={}, references=None)

    assert own.run().err.count("is read unchecked") == 2  # a line for each kind
    after = open_study(own.study).ledger.document
    assert (after.files, after.references) == (before.files, before.references)
    assert spec_path.read_text() == text


def test_everyone_but_the_teacher_is_measured_against_it(finished: Home) -> None:
    study = open_study(finished.study)
    for prefix in PARTS:
        names = {prefix + name for name in READ_THE_TEACHER}
        for reference in study.snapshot().references:
            expected = set() if reference.name == "teacher" else names
            assert names & set(reference.metrics) == expected


def test_the_divergence_to_the_teacher_is_that_of_the_files(finished: Home) -> None:
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    (single,) = (r for r in study.snapshot().references if r.name == "single_sample")
    for prefix, part in PARTS.items():
        samples, average = predictors(study, dataset, part)
        labels = dataset.labels(part)  # type: ignore[arg-type]

        gaps = [abs(nll(log_prob, labels) - single.metrics[f"{prefix}nll"]) for log_prob in samples]
        expected = kl(average, samples[gaps.index(min(gaps))])
        assert single.metrics[f"{prefix}kl_to_teacher"] == pytest.approx(expected, abs=1e-5)

        for record in study.front_records():
            student = load_student(study.path / "students" / str(record.trial))
            prob = student.predict(dataset.raw(part))["predictive"].double()  # type: ignore[arg-type]
            expected = kl(average, prob.log())
            assert record.metrics[f"{prefix}kl_to_teacher"] == pytest.approx(expected, abs=1e-5)


def test_comparisons_are_differences_with_their_signs(finished: Home) -> None:
    """A row is the first one's test figure less the second one's; of NLL also a metric.

    All are compared with the teacher, students with the plain network too.
    """
    study = open_study(finished.study)
    references = study.ledger.document.references
    assert references is not None
    metrics_of = {reference.name: reference.metrics for reference in references.references}
    front = {record.trial: record for record in study.front_records()}

    rows = [(row, metrics_of[row.first]) for row in references.comparisons]
    for trial, stored in study.ledger.tests().items():
        rows += [(row, front[trial].metrics) for row in stored.comparisons]
    names = [(name, "teacher") for name in ("single_sample", "map", "unpruned", "guess")]
    names += [("student", "teacher"), ("student", "map")] * len(front)
    expected = [(*both, metric) for both in names for metric in ("nll", "accuracy")]
    assert [(row.first, row.second, row.metric) for row, _ in rows] == expected
    assert sum(abs(row.difference) > 0.005 for row, _ in rows) > len(rows) / 2

    for row, metrics in rows:
        assert (row.part, row.n) == ("test", 359)
        name = f"test_{row.metric}"
        difference = metrics[name] - metrics_of[row.second][name]
        assert row.difference == pytest.approx(difference, abs=1e-9)
        low, high = row.interval
        assert low <= row.difference <= high and high - low > 1e-3
        if row.metric == "nll" and row.second == "teacher":
            assert row.difference == pytest.approx(metrics["test_nll_above_teacher"], abs=1e-9)
            assert math.dist(row.interval, study_interval(study, metrics)) < 1e-9


def study_interval(study: Study, metrics: Mapping[str, float]) -> tuple[float, float]:
    """The interval of ``test_nll_above_teacher`` of the predictor that has these ``metrics``."""
    predictors = [*study.snapshot().references, *study.front_records()]
    predictor = next(predictor for predictor in predictors if predictor.metrics == metrics)
    low, high = to_public(predictor.measures)["intervals"]["test_nll_above_teacher"]
    return low, high
