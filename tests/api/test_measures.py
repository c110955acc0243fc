"""What a run measures: a metric of every target, and the same metrics under conditions, against
numbers computed here from the files.
"""

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gped_nas as gn
from gped_nas import rng
from gped_nas.api import Study, load_dataset, load_space, load_stream, load_student
from gped_nas.evaluate import METRICS
from gped_nas.evaluate.base import add_metric
from gped_nas.evaluate.conditions import permuted
from gped_nas.evaluate.measured import Key
from gped_nas.report.data import data_of
from gped_nas.targets.base import TARGETS
from tests.cli.harness import Home, accepted

NINE = {
    "targets": [
        "predictive",
        "expected_entropy",
        "second_moment",
        {
            "name": "utility",
            "costs": [[float(i != j) + i / 10 for j in range(10)] for i in range(10)],
        },
        "quantile",
        "variance",
        "mutual_information",
        "dirichlet",
    ],
    "recipe": {"steps": 40, "warmup": 5, "update": "newest"},
}
METRICS_OF = {
    "predictive": {"nll", "accuracy", "brier", "ece"},
    "expected_entropy": {"entropy_error"},
    "second_moment": {"second_moment_error"},
    "utility": {"utility_regret", "realized_cost"},
    "quantile": {"quantile_loss", "quantile_coverage_error"},
    "variance": {"posterior_variance_error"},
    "mutual_information": {"information_error"},
    "dirichlet": {"dirichlet_kl", "precision_error"},
    "predictive_normal": {"nll", "rmse", "coverage_error"},
}
COMPARE = {name for name, metric in METRICS.items() if metric.needs_teacher}
PARTS = ("validation", "test")


def run(home: Home, **overrides: Any) -> Study:
    space = load_space(home.space, {"search.n_trials": 3, **overrides})
    return gn.run(space, out=home.out)


def assert_whole(measures: Any, metrics: set[str], condition: str = "clean") -> None:
    """All of these metrics are there on both parts, with an interval that holds each."""
    for part in PARTS:
        for metric in metrics:
            measured = measures[Key(metric, condition, part)]
            low, high = measured.interval
            assert low <= measured.value <= high
            assert measured.n > 0


def test_the_nine_targets_are_all(home: Home) -> None:
    assert set(METRICS_OF) == set(TARGETS)
    listed = {t if isinstance(t, str) else t["name"] for t in NINE["targets"]}
    assert listed | {"predictive_normal"} == set(TARGETS)


def test_a_metric_of_every_target_is_recorded_for_everybody(home: Home) -> None:
    study = run(home, **NINE)
    wanted = set().union(*(METRICS_OF[t] for t in METRICS_OF if t != "predictive_normal"))
    front = study.front_records()
    assert front
    for record in front:
        assert_whole(record.measures, wanted)

    references = {reference.name: reference.measures for reference in study.snapshot().references}
    # One network has no spread that a Dirichlet could have the moments of.
    of_one_network = wanted - METRICS_OF["dirichlet"]
    assert_whole(references["unpruned"], wanted)
    assert_whole(references["single_sample"], of_one_network)
    assert_whole(references["map"], of_one_network)
    assert not {key.metric for key in references["map"]} & METRICS_OF["dirichlet"]
    # The teacher is compared with nobody.
    assert_whole(references["teacher"], wanted - COMPARE)
    assert not {key.metric for key in references["teacher"]} & COMPARE

    teacher = {key: measured.value for key, measured in references["teacher"].items()}
    for record in front:
        least = teacher[Key("quantile_loss")]
        assert record.metrics["quantile_loss"] >= least > 0
        assert record.metrics["utility_regret"] >= 0


def test_metrics_of_students_are_those_of_what_they_predict(home: Home) -> None:
    """Against the stream's samples and the student's own answers, both read here."""
    study = run(home, **NINE)
    space = load_space(home.space, NINE)
    dataset = load_dataset(space)
    stream = load_stream(study.stream_path)
    (record, *_) = study.front_records()
    said = load_student(study.path / "students" / str(record.trial)).predict(
        dataset.raw("validation")
    )
    said = {name: value.double() for name, value in said.items()}
    (view,) = (name for name in stream.views if name.startswith("validation-clean"))
    prob_SNC = stream.stream.predictions(view).double().exp()

    second = prob_SNC.square().mean(0)
    error = (said["second_moment"] - second).abs().sum(1).mean()
    assert record.metrics["second_moment_error"] == pytest.approx(float(error), abs=1e-5)

    variance = second - prob_SNC.mean(0).square()
    error = (said["variance"] - variance).abs().sum(1).mean()
    assert record.metrics["posterior_variance_error"] == pytest.approx(float(error), abs=1e-5)

    costs = torch.tensor(NINE["targets"][3]["costs"], dtype=torch.float64)  # type: ignore[index]
    labels = torch.from_numpy(dataset.labels("validation"))
    action = said["utility"].argmin(1)
    cost = costs[labels, action].mean()
    assert record.metrics["realized_cost"] == pytest.approx(float(cost), abs=1e-9)
    expected = prob_SNC.mean(0) @ costs
    regret = (expected.gather(1, action[:, None])[:, 0] - expected.min(1).values).mean()
    assert record.metrics["utility_regret"] == pytest.approx(float(regret), abs=1e-5)

    level = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    above = prob_SNC[..., None] - said["quantile"].unflatten(1, (10, 3))
    pinball = torch.maximum(level * above, (level - 1) * above).sum((-1, -2)).mean()
    assert record.metrics["quantile_loss"] == pytest.approx(float(pinball), abs=1e-5)


def test_a_regression_records_the_metrics_of_its_target(home: Home) -> None:
    overrides = {
        "search": {"n_trials": 2, "students_at_once": 2},
        "recipe": {"steps": 100, "warmup": 10},
        "teacher.method.num_samples": 4,
        "baseline": {"steps": 100, "precisions": [1.0]},
    }
    space = load_space("diabetes_mlp", overrides)
    study = gn.run(space, out=home.out)
    for record in study.front_records():
        assert_whole(record.measures, METRICS_OF["predictive_normal"])
    for reference in study.snapshot().references:
        assert_whole(reference.measures, METRICS_OF["predictive_normal"])


def test_students_and_teacher_are_measured_at_the_same_changed_inputs(home: Home) -> None:
    study = run(
        home, conditions=["clean", "permuted"], objectives=["nll", "nll@permuted", "params"]
    )
    dataset, space = load_dataset(load_space(home.space)), load_space(home.space)
    stream = load_stream(study.stream_path)
    assert [o.label for o in study.objectives][1] == "NLL (nats), permuted"
    references = {r.name: r for r in study.snapshot().references}
    for part in PARTS:
        prefix = "test_" if part == "test" else ""
        raw = permuted(
            dataset.raw(part),  # type: ignore[arg-type]
            generator=rng.generator(space.seed, "condition", "permuted", part),
        )
        labels = torch.from_numpy(dataset.labels(part))  # type: ignore[arg-type]
        row = torch.arange(len(labels))

        members = []
        for index in range(len(stream.weight)):
            p = stream.params(index)
            x = dataset.normalization(raw).flatten(1)
            hidden = F.relu(x @ p["layers.0.weight"].mT + p["layers.0.bias"])
            members.append(
                (hidden @ p["layers.1.weight"].mT + p["layers.1.bias"]).double().log_softmax(-1)
            )
        average = torch.stack(members).exp().mean(0).log()
        nll = -float(average[row, labels].mean())
        name = f"{prefix}nll@permuted"
        assert references["teacher"].metrics[name] == pytest.approx(nll, abs=1e-5)
        assert nll > references["teacher"].metrics[f"{prefix}nll"] + 0.1
        assert f"{prefix}kl_to_teacher@permuted" not in references["teacher"].metrics

        for record in study.front_records():
            student = load_student(study.path / "students" / str(record.trial))
            log_prob = student.predict(raw)["predictive"].double().log()
            own = -float(log_prob[row, labels].mean())
            assert record.metrics[name] == pytest.approx(own, abs=1e-5)
            kl = float((average.exp() * (average - log_prob)).sum(1).mean())
            compared = record.metrics[f"{prefix}kl_to_teacher@permuted"]
            assert compared == pytest.approx(kl, abs=1e-5)

    for reference in references.values():
        assert_whole(reference.measures, {"nll", "accuracy"}, "permuted")
    shown = json.loads(accepted("front", study.path, "--format", "json").out)
    assert all("nll@permuted" in row["intervals"] for row in shown)
    assert all("test_nll@permuted" in row["metrics"] for row in shown)


def test_a_teacher_known_by_predictions_alone_is_not_measured_under_conditions(home: Home) -> None:
    dataset = load_dataset(load_space(home.space))
    raw = torch.cat([dataset.raw(part) for part in ("train", "validation", "test")])  # type: ignore[arg-type]
    prob = np.random.default_rng(0).dirichlet(np.ones(10), (3, len(raw)))
    np.savez("ensemble.npz", inputs=raw.numpy(), prob=prob)
    method = {"name": "import", "path": "ensemble.npz"}
    study = run(home, conditions=["clean", "permuted"], **{"teacher.method": method})
    references = {r.name: r for r in study.snapshot().references}
    for name in ("teacher", "single_sample"):
        assert {key.condition for key in references[name].measures} == {"clean"}
    for measures in (references["unpruned"].measures, study.front_records()[0].measures):
        under = {key.metric for key in measures if key.condition == "permuted"}
        assert "nll" in under and not under & COMPARE


def test_other_conditions_are_another_study(home: Home) -> None:
    run(home)
    with pytest.raises(
        gn.StudyError if hasattr(gn, "StudyError") else Exception, match="conditions"
    ):
        run(home, conditions=["clean", "permuted"])


def test_a_metric_in_euro_spans_a_box_and_has_a_direction(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A metric of another unit is an objective with ends of its own; the report says what is
    better of it.
    """
    METRICS["nll"]  # those that come with the package are there
    monkeypatch.setattr(METRICS, "_items", dict(METRICS.items()))

    @add_metric("bill", "minimize", "bill (euro)", unit="euro", worst=100.0, best=0.0)
    def bill(predictions: Any, labels: Any, teacher: Any) -> Any:
        return (100 * (predictions.log_prob_NC.argmax(1) != labels))[:, None].astype(np.float64)

    @add_metric("profit", "maximize", "profit (euro)", unit="euro", worst=-50.0, best=0.0)
    def profit(predictions: Any, labels: Any, teacher: Any) -> Any:
        return -0.5 * bill(predictions, labels, teacher)

    study = run(home, objectives=["bill", "profit", "params"])
    # its words lie in the study: they are there where the plug-in is not
    monkeypatch.delitem(METRICS._items, "profit")
    snapshot = study.snapshot()
    assert snapshot.hypervolume[-1] > 0.01
    assert snapshot.reference_point["bill"] == 100.0 and snapshot.best_point["bill"] == 0.0
    assert snapshot.reference_point["profit"] == -50.0
    for name, direction in (("bill", "minimize"), ("profit", "maximize")):
        (axis,) = (axis for axis in data_of(snapshot)["axes"] if axis["name"] == name)
        assert (axis["direction"], axis["label"]) == (direction, f"{name} (euro)")
        assert snapshot.metrics[name].unit == "euro"
    assert study.front_records()[0].metrics["bill"] == min(
        record.metrics["bill"] for record in study.records() if record.state == "complete"
    )
