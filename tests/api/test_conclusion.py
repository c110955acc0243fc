"""References and tested students against numbers computed here from the files: weights, dataset,
written students.
"""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.api import Study, load_dataset, load_space, load_stream, load_student, open_study
from gped_nas.data.base import Dataset
from gped_nas.evaluate.measured import to_public
from gped_nas.models.storage import read_weights
from tests.cli.harness import Home, snapshot_of

PARTS = {"": "validation", "test_": "test"}
READ_THE_TEACHER = {"nll_above_teacher", "kl_to_teacher", "agreement"}
PRECISIONS = "baseline={steps: 100, precisions: [1.0e+5, 1.0, 1.0e+4]}"


def log_prob_of(params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Log-probabilities (N, C) of a network with one hidden layer at normalized inputs."""
    hidden = F.relu(x.flatten(1) @ params["layers.0.weight"].mT + params["layers.0.bias"])
    return F.log_softmax(
        (hidden @ params["layers.1.weight"].mT + params["layers.1.bias"]).double(), -1
    )


def nll(log_prob: Tensor, labels: Any) -> float:
    return -float(log_prob[torch.arange(len(labels)), torch.from_numpy(labels)].mean())


def predictors(study: Study, dataset: Dataset, part: Any) -> tuple[list[Tensor], Tensor]:
    """Log-probabilities of each posterior sample, and of their average."""
    stream = load_stream(study.stream_path)
    samples = [
        log_prob_of(stream.params(i), dataset.inputs(part)) for i in range(len(stream.weight))
    ]
    return samples, torch.stack(samples).exp().mean(0).log()


def test_teacher_and_best_single_sample_are_those_of_the_stream(finished: Home) -> None:
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    found = {r.name: r for r in study.snapshot().references}
    on_validation, _ = predictors(study, dataset, "validation")
    nlls = [nll(one, dataset.labels("validation")) for one in on_validation]
    best = nlls.index(min(nlls))
    assert max(nlls) - min(nlls) > 0.01
    assert f"Posterior sample {best} of 4" in found["single_sample"].note
    for prefix, part in PARTS.items():
        samples, average = predictors(study, dataset, part)
        labels = dataset.labels(part)  # type: ignore[arg-type]
        assert found["teacher"].metrics[f"{prefix}nll"] == pytest.approx(
            nll(average, labels), abs=1e-5
        )
        assert found["single_sample"].metrics[f"{prefix}nll"] == pytest.approx(
            nll(samples[best], labels), abs=1e-5
        )


def test_the_map_network_is_the_best_of_its_precisions_by_validation(home: Home) -> None:
    home.run("--n-trials", "1", "--set", PRECISIONS)
    dataset = load_dataset(load_space(home.space))
    labels = dataset.labels("validation")
    networks = {
        path.stem: read_weights(path)
        for path in (home.study / "references" / "map").rglob("*.safetensors")
    }
    scores = {
        name: nll(log_prob_of(p, dataset.inputs("validation")), labels)
        for name, p in networks.items()
    }
    assert sorted(scores) == ["precision-1", "precision-10000", "precision-100000"]
    best = min(scores, key=lambda name: scores[name])
    assert best == "precision-1"
    (found,) = (r for r in snapshot_of(home).references if r.name == "map")
    assert "prior precision 1 of" in found.note
    assert found.metrics["nll"] == pytest.approx(scores[best], abs=1e-5)
    on_test = nll(log_prob_of(networks[best], dataset.inputs("test")), dataset.labels("test"))
    assert found.metrics["test_nll"] == pytest.approx(on_test, abs=1e-5)


def test_a_changed_baseline_is_trained_anew_and_nothing_else_is(home: Home) -> None:
    def note_of(name: str) -> str:
        return next(r.note for r in snapshot_of(home).references if r.name == name)

    home.run("--n-trials", "1", "--set", PRECISIONS)
    unpruned = home.study / "references" / "unpruned" / "weights.safetensors"
    before, students = unpruned.stat().st_mtime_ns, snapshot_of(home).num_test_evaluations
    assert "Adam for 100 steps" in note_of("map")
    home.run("--n-trials", "1", "--set", "baseline={steps: 200, precisions: [1.0]}")
    assert "Adam for 200 steps; prior precision 1 of 1 " in note_of("map")
    assert (unpruned.stat().st_mtime_ns, snapshot_of(home).num_test_evaluations) == (
        before,
        students,
    )


def test_everyone_but_the_teacher_is_measured_against_it(finished: Home) -> None:
    study, dataset = open_study(finished.study), load_dataset(load_space(finished.space))
    for prefix, part in PARTS.items():
        wanted = {prefix + name for name in READ_THE_TEACHER}
        samples, average = predictors(study, dataset, part)
        labels = dataset.labels(part)  # type: ignore[arg-type]
        for reference in study.snapshot().references:
            assert wanted & set(reference.metrics) == (
                set() if reference.name == "teacher" else wanted
            )
            if reference.name == "single_sample":
                one = min(
                    samples,
                    key=lambda each: abs(nll(each, labels) - reference.metrics[f"{prefix}nll"]),
                )
                kl = float((average.exp() * (average - one)).sum(1).mean())
                assert reference.metrics[f"{prefix}kl_to_teacher"] == pytest.approx(kl, abs=1e-5)
        for record in study.front_records():
            student = load_student(study.path / "students" / str(record.trial))
            prob = student.predict(dataset.raw(part))["predictive"].double()  # type: ignore[arg-type]
            kl = float((average.exp() * (average - prob.log())).sum(1).mean())
            assert record.metrics[f"{prefix}kl_to_teacher"] == pytest.approx(kl, abs=1e-5)


def test_comparisons_are_differences_to_the_teacher_with_its_sign(finished: Home) -> None:
    """A row is the first predictor's test figure less the teacher's; that of NLL is also a metric."""
    study = open_study(finished.study)
    references = study.ledger.document.references
    assert references is not None
    of = {r.name: r.metrics for r in references.references}
    rows = [(row, of[row.first]) for row in references.comparisons]
    front = {record.trial: record for record in study.front_records()}
    for trial, stored in study.ledger.tests().items():
        rows += [(row, front[trial].metrics) for row in stored.comparisons]
    expected = ["single_sample", "map", "unpruned", *["student"] * len(front)]
    assert [(row.first, row.metric) for row, _ in rows] == [
        (n, m) for n in expected for m in ("nll", "accuracy")
    ]
    assert sum(abs(row.difference) > 0.005 for row, _ in rows) > len(rows) / 2
    for row, metrics in rows:
        metric, (low, high) = f"test_{row.metric}", row.interval
        assert (row.second, row.part, row.n) == ("teacher", "test", 359)
        assert row.difference == pytest.approx(metrics[metric] - of["teacher"][metric], abs=1e-9)
        assert low <= row.difference <= high and high - low > 1e-3
        if row.metric == "nll":
            assert row.difference == pytest.approx(metrics["test_nll_above_teacher"], abs=1e-9)
            assert math.dist((low, high), study_interval(study, metrics)) < 1e-9


def study_interval(study: Study, metrics: Mapping[str, float]) -> tuple[float, float]:
    """The interval of ``test_nll_above_teacher`` that belongs to the same predictor's ``metrics``."""
    measured = [
        *((r.metrics, to_public(r.measures)["intervals"]) for r in study.snapshot().references),
        *((r.metrics, to_public(r.measures)["intervals"]) for r in study.front_records()),
    ]
    (low, high) = next(i["test_nll_above_teacher"] for m, i in measured if m == metrics)
    return low, high
