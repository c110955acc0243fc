"""What a run measures: metrics of every target, clean and under conditions, against the files."""

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gped_nas as gn
from gped_nas import rng
from gped_nas.api import (
    Study,
    TeacherStream,
    load_dataset,
    load_space,
    load_stream,
    load_student,
)
from gped_nas.errors import ConfigError, StudyError
from gped_nas.evaluate.base import METRICS, add_metric
from gped_nas.evaluate.conditions import CONDITIONS, add_condition, permuted
from gped_nas.evaluate.measured import Key
from gped_nas.report.data import data_of
from gped_nas.targets.base import TARGETS
from tests.cli.harness import Home, accepted

COSTS = (1 - np.eye(10) + np.arange(10)[:, None] / 10).tolist()
"""Of an action (column) at a label (row): wrong ones cost 1, and later classes more."""
EVERY_TARGET: dict[str, Any] = {
    "targets": [
        "predictive",
        "expected_entropy",
        "second_moment",
        {"name": "utility", "costs": COSTS},
        "quantile",
        "variance",
        "mutual_information",
        "dirichlet",
    ],
    "recipe": {"steps": 40, "warmup": 5, "update": "newest"},
}
STATISTICS: dict[str, Any] = {
    "targets": [
        "predictive",
        {"name": "interval", "share": 0.8},
        "intersection",
        "logit_variance",
        {"name": "factors", "rank": 2},
    ],
    "recipe": {"steps": 40, "warmup": 5},
    "views": [{"policy": "clean"}, {"policy": "noise"}],
}
"""Of all samples, which the rule ``newest`` does not show."""
METRICS_OF = {
    "predictive": {"nll", "accuracy", "brier", "ece", "ece_debiased"},
    "expected_entropy": {"entropy_error"},
    "second_moment": {"second_moment_error"},
    "utility": {"utility_regret", "realized_cost"},
    "quantile": {"quantile_loss", "quantile_coverage_error"},
    "variance": {"posterior_variance_error"},
    "mutual_information": {"information_error"},
    "dirichlet": {"dirichlet_kl", "precision_error"},
    "interval": {"interval_error"},
    "intersection": {"intersection_nll"},
    "logit_variance": {"logit_variance_error"},
    "factors": {"factor_covariance_error", "factor_coupling_error"},
    "predictive_normal": {"nll", "rmse", "coverage_error"},
    "model_variance": {"model_variance_error"},
    "noise_variance": {"noise_variance_error"},
    "label_quantile": {
        "label_quantile_loss",
        "label_quantile_coverage_error",
        "label_quantile_error",
    },
    "exceedance": {"exceedance_brier", "exceedance_error"},
}
REAL_TARGETS = [
    "predictive_normal",
    "model_variance",
    "noise_variance",
    {"name": "label_quantile", "levels": [0.1, 0.9]},
    {"name": "exceedance", "thresholds": [150, 200]},
]
COMPARE = {name for name, metric in METRICS.items() if metric.needs_teacher}
PARTS = ("validation", "test")


def run(home: Home, **overrides: Any) -> Study:
    space = load_space(home.space, {"search.n_trials": 3, **overrides})
    return gn.run(space, out=home.out)


def names_of(targets: list[Any]) -> set[str]:
    return {target if isinstance(target, str) else target["name"] for target in targets}


def assert_whole(measures: Any, metrics: set[str], condition: str = "clean") -> None:
    """All are there on both parts, each inside its interval or with the reason why it has none."""
    for part in PARTS:
        for metric in metrics:
            measured = measures[Key(metric, condition, part)]
            low, high = measured.interval or (measured.value, measured.value)
            assert low <= measured.value <= high
            assert bool(measured.why) == (measured.interval is None)
            assert measured.n > 0


def test_every_target_is_listed_here() -> None:
    assert set(METRICS_OF) == set(TARGETS)
    of_classes = names_of(EVERY_TARGET["targets"]) | names_of(STATISTICS["targets"])
    assert of_classes | names_of(REAL_TARGETS) == set(TARGETS)


def test_a_metric_of_every_target_is_recorded_for_everybody(home: Home) -> None:
    study = run(home, **EVERY_TARGET)
    metrics = set().union(*(METRICS_OF[target] for target in names_of(EVERY_TARGET["targets"])))
    front = study.front_records()
    assert front
    for record in front:
        assert_whole(record.measures, metrics)

    references = {reference.name: reference.measures for reference in study.snapshot().references}
    assert_whole(references["unpruned"], metrics)

    # One network has no spread that a Dirichlet could have the moments of.
    of_one_network = metrics - METRICS_OF["dirichlet"]
    assert_whole(references["single_sample"], of_one_network)
    assert_whole(references["map"], of_one_network)
    assert not {key.metric for key in references["map"]} & METRICS_OF["dirichlet"]

    # The teacher is compared with nobody.
    assert_whole(references["teacher"], metrics - COMPARE)
    assert not {key.metric for key in references["teacher"]} & COMPARE

    least_loss = references["teacher"][Key("quantile_loss")].value
    for record in front:
        assert record.metrics["quantile_loss"] >= least_loss > 0
        assert record.metrics["utility_regret"] >= 0


def test_statistics_of_all_samples_are_measured_against_these(home: Home) -> None:
    """Against the stream's samples and the student's own answers, both read here."""
    study = run(home, **STATISTICS)
    metrics = set().union(*(METRICS_OF[target] for target in names_of(STATISTICS["targets"])))
    references = {reference.name: reference.measures for reference in study.snapshot().references}
    assert_whole(references["teacher"], metrics - COMPARE)
    assert_whole(references["map"], metrics - METRICS_OF["factors"])

    dataset = load_dataset(load_space(home.space, STATISTICS))
    stream = load_stream(study.stream_path)
    (view,) = (name for name in stream.views if name.startswith("validation-clean"))
    log_prob = stream.stream.predictions(view).double()
    (record, *_) = study.front_records()
    assert_whole(record.measures, metrics)
    student = load_student(study.path / "students" / str(record.trial))
    raw = dataset.raw("validation")
    answers = {name: value.double() for name, value in student.predict(raw).items()}

    logits = log_prob.clamp_min(np.log(1e-6))
    logits = logits - logits.mean(-1, keepdim=True)
    error = (answers["logit_variance"] - logits.var(0, correction=0)).abs().sum(1).mean()
    assert record.metrics["logit_variance_error"] == pytest.approx(float(error), rel=1e-4)

    labels = torch.from_numpy(dataset.labels("validation"))
    nll = -answers["intersection"].log()[torch.arange(len(labels)), labels].mean()
    assert record.metrics["intersection_nll"] == pytest.approx(float(nll), abs=1e-5)

    # every pair of inputs at once
    theirs = (logits - logits.mean(0)).flatten(1)
    covariance = theirs.T @ theirs / len(theirs)
    loadings = answers["factors"].unflatten(1, (4, 10))[:, 1:3].movedim(1, -1).flatten(0, 1)
    error = (loadings @ loadings.T - covariance).norm() / covariance.norm()
    assert record.metrics["factor_coupling_error"] == pytest.approx(float(error), rel=1e-4)
    # two factors of the four that five samples have; another network than the teacher is worse
    of_teacher = references["teacher"][Key("factor_coupling_error")].value
    assert of_teacher is not None and 0 < of_teacher < record.metrics["factor_coupling_error"]


def test_metrics_of_students_are_those_of_what_they_predict(home: Home) -> None:
    """Against the stream's samples and the student's own answers, both read here."""
    study = run(home, **EVERY_TARGET)
    dataset = load_dataset(load_space(home.space, EVERY_TARGET))
    stream = load_stream(study.stream_path)
    (view,) = (name for name in stream.views if name.startswith("validation-clean"))
    prob_SNC = stream.stream.predictions(view).double().exp()

    (record, *_) = study.front_records()
    student = load_student(study.path / "students" / str(record.trial))
    answers = student.predict(dataset.raw("validation"))
    answers = {name: value.double() for name, value in answers.items()}

    second_moment = prob_SNC.square().mean(0)
    error = (answers["second_moment"] - second_moment).abs().sum(1).mean()
    assert record.metrics["second_moment_error"] == pytest.approx(float(error), abs=1e-5)

    variance = second_moment - prob_SNC.mean(0).square()
    error = (answers["variance"] - variance).abs().sum(1).mean()
    assert record.metrics["posterior_variance_error"] == pytest.approx(float(error), abs=1e-5)

    costs = torch.tensor(COSTS, dtype=torch.float64)
    labels = torch.from_numpy(dataset.labels("validation"))
    action = answers["utility"].argmin(1)
    cost = costs[labels, action].mean()
    assert record.metrics["realized_cost"] == pytest.approx(float(cost), abs=1e-9)

    expected_cost = prob_SNC.mean(0) @ costs
    cost_of_action = expected_cost.gather(1, action[:, None])[:, 0]
    regret = (cost_of_action - expected_cost.min(1).values).mean()
    assert record.metrics["utility_regret"] == pytest.approx(float(regret), abs=1e-5)

    level = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    above = prob_SNC[..., None] - answers["quantile"].unflatten(1, (10, 3))
    pinball = torch.maximum(level * above, (level - 1) * above).sum((-1, -2)).mean()
    assert record.metrics["quantile_loss"] == pytest.approx(float(pinball), abs=1e-5)


def test_a_regression_records_the_metrics_of_its_target(home: Home) -> None:
    overrides = {
        "search": {"n_trials": 2, "students_at_once": 2, "keep": {}, "every_dtype": False},
        "recipe": {"steps": 100, "warmup": 10, "lr": 0.05, "update": "newest"},
        "targets": REAL_TARGETS,
        "teacher.method.num_samples": 4,
        "baseline": {"steps": 100, "precisions": [1.0]},
        "objectives": ["nll", "crps", "params"],
        "constraints": {"coverage_95": 0.01},
    }
    study = gn.run(load_space("diabetes_mlp", overrides), out=home.out)
    metrics = set().union(*(METRICS_OF[target] for target in names_of(REAL_TARGETS)))
    metrics |= {"crps", "coverage_95"}
    for record in study.front_records():
        assert_whole(record.measures, metrics)

    # the teacher is compared with nobody
    for reference in study.snapshot().references:
        of_reference = metrics - COMPARE if reference.name == "teacher" else metrics
        assert_whole(reference.measures, of_reference)


def average_at(stream: TeacherStream, x: Tensor) -> Tensor:
    """Log-probabilities of the posterior average at flat normalized inputs, (N, C)."""
    members = []
    for index in range(len(stream.weight)):
        params = stream.params(index)
        hidden = F.relu(x @ params["layers.0.weight"].mT + params["layers.0.bias"])
        logits = hidden @ params["layers.1.weight"].mT + params["layers.1.bias"]
        members.append(logits.double().log_softmax(-1))
    return torch.stack(members).exp().mean(0).log()


ASKED, ASKED_CHANGED = "misclassification_auroc_total", "misclassification_aupr_confidence"


def check_that_only_what_is_asked_for_is_measured(study: Study) -> None:
    """An objective as inputs are, and a constraint under a condition, of everybody."""
    snapshot = study.snapshot()
    references = [row for row in snapshot.references if row.name != "guess"]
    references += [row for twins in snapshot.twins for row in twins.references]
    tables = [source.measures for source in (*study.front_records(), *references)]
    for measures in tables:
        keys = {key for key in measures if not METRICS[key.metric].always}
        assert keys == {
            Key(name, condition, part)
            for name, condition in ((ASKED, "clean"), (ASKED_CHANGED, "permuted"))
            for part in PARTS
        }
        for key in keys:
            assert 0 < measures[key].low < measures[key].value < measures[key].high < 1

    # the study has words for what it measured, and for nothing else
    stored = {name for name in snapshot.metrics if not METRICS[name].always}
    assert stored == {ASKED, ASKED_CHANGED}
    (axis,) = (axis for axis in data_of(snapshot)["axes"] if axis["name"] == ASKED)
    assert axis["label"] == "AUROC of wrong examples by total uncertainty"
    assert ASKED in study.front_records()[0].above_guess


def test_students_and_teacher_are_measured_at_the_same_changed_inputs(home: Home) -> None:
    study = run(
        home,
        conditions=["clean", "permuted"],
        objectives=["nll", "nll@permuted", ASKED, "params"],
        constraints={f"{ASKED_CHANGED}@permuted": 0.01},
    )
    check_that_only_what_is_asked_for_is_measured(study)
    space = load_space(home.space)
    dataset = load_dataset(space)
    stream = load_stream(study.stream_path)
    (teacher,) = (r for r in study.snapshot().references if r.name == "teacher")
    for part in PARTS:
        prefix = "test_" if part == "test" else ""
        generator = rng.generator(space.seed, "condition", "permuted", part)
        raw = permuted(dataset.raw(part), generator=generator)  # type: ignore[arg-type]
        labels = torch.from_numpy(dataset.labels(part))  # type: ignore[arg-type]
        row = torch.arange(len(labels))

        average = average_at(stream, dataset.normalization(raw).flatten(1))
        nll = -float(average[row, labels].mean())
        assert teacher.metrics[f"{prefix}nll@permuted"] == pytest.approx(nll, abs=1e-5)
        assert nll > teacher.metrics[f"{prefix}nll"] + 0.1
        assert f"{prefix}kl_to_teacher@permuted" not in teacher.metrics

        for record in study.front_records():
            student = load_student(study.path / "students" / str(record.trial))
            log_prob = student.predict(raw)["predictive"].double().log()
            nll = -float(log_prob[row, labels].mean())
            assert record.metrics[f"{prefix}nll@permuted"] == pytest.approx(nll, abs=1e-5)
            kl = float((average.exp() * (average - log_prob)).sum(1).mean())
            assert record.metrics[f"{prefix}kl_to_teacher@permuted"] == pytest.approx(kl, abs=1e-5)

    # whoever shows the study shows them
    for reference in study.snapshot().references:
        assert_whole(reference.measures, {"nll", "accuracy"}, "permuted")
    assert study.objectives[1].label == "NLL (nats), permuted"
    rows = json.loads(accepted("front", study.path, "--format", "json").out)
    assert all("nll@permuted" in row["intervals"] for row in rows)
    assert all("test_nll@permuted" in row["metrics"] for row in rows)


def test_the_teacher_is_asked_at_the_inputs_made_for_each_student(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attack gives every predictor inputs of its own."""
    CONDITIONS["clean"]  # those that come with the package are there
    monkeypatch.setattr(CONDITIONS, "_items", dict(CONDITIONS.items()))

    @add_condition("aimed", "inputs brightened by how sure the predictor is")
    def aimed(raw: Tensor, *, predictor: Any, **_: Any) -> Tensor:
        top_N = torch.from_numpy(predictor.predict(raw).log_prob_NC.max(1)).exp().float()
        return raw + 8 * top_N[:, None, None, None]

    study = run(home, conditions=["clean", "aimed"])
    dataset, stream = load_dataset(load_space(home.space)), load_stream(study.stream_path)
    for record in study.front_records():
        student = load_student(study.path / "students" / str(record.trial))
        for part in PARTS:
            raw = dataset.raw(part)  # type: ignore[arg-type]
            top_N = student.predict(raw)["predictive"].max(1).values
            aimed_at = raw + 8 * top_N[:, None, None, None]

            average = average_at(stream, dataset.normalization(aimed_at).flatten(1))
            log_prob = student.predict(aimed_at)["predictive"].double().log()
            kl = float((average.exp() * (average - log_prob)).sum(1).mean())
            name = "test_kl_to_teacher@aimed" if part == "test" else "kl_to_teacher@aimed"
            assert record.metrics[name] == pytest.approx(kl, abs=1e-4)


def test_a_teacher_known_by_predictions_alone_is_not_measured_under_conditions(home: Home) -> None:
    dataset = load_dataset(load_space(home.space))
    raw = torch.cat([dataset.raw(part) for part in ("train", "validation", "test")])  # type: ignore[arg-type]
    prob = np.random.default_rng(0).dirichlet(np.ones(10), (3, len(raw)))
    np.savez("ensemble.npz", inputs=raw.numpy(), prob=prob)
    method = {"name": "import", "path": "ensemble.npz", "at_chance": True}

    study = run(home, conditions=["clean", "permuted"], **{"teacher.method": method})

    references = {r.name: r for r in study.snapshot().references}
    for name in ("teacher", "single_sample"):
        assert {key.condition for key in references[name].measures} == {"clean"}
    for measures in (references["unpruned"].measures, study.front_records()[0].measures):
        metrics = {key.metric for key in measures if key.condition == "permuted"}
        assert "nll" in metrics and not metrics & COMPARE

    evaluation = study.evaluate(["prediction", "shift:permuted", "attack:fgsm-0.1"])
    asked = {(row["task"], row["predictor"]) for row in evaluation.rows}
    assert ("prediction", "teacher") in asked
    for task in ("shift:permuted", "attack:fgsm-0.1"):
        trial = f"trial {study.find('chosen').trial}"
        assert {name for each, name in asked if each == task} == {"unpruned", trial}
        left_out = [note for note in evaluation.notes if note.startswith(f"{task}: ")]
        assert [note.split()[1] for note in left_out] == ["teacher", "single_sample"]
        assert all("by its predictions alone" in note for note in left_out)


def test_a_teacher_without_test_predictions_is_left_out_of_an_evaluation(home: Home) -> None:
    dataset = load_dataset(load_space(home.space))
    raw = torch.cat([dataset.raw("train"), dataset.raw("validation")])
    prob = np.random.default_rng(0).dirichlet(np.ones(10), (3, len(raw)))
    np.savez("ensemble.npz", inputs=raw.numpy(), prob=prob)
    study = run(
        home, **{"teacher.method": {"name": "import", "path": "ensemble.npz", "at_chance": True}}
    )

    evaluation = study.evaluate("prediction")
    trial = f"trial {study.find('chosen').trial}"
    assert {row["part"] for row in evaluation.rows} == {"test"}
    assert {row["predictor"] for row in evaluation.rows} == {"unpruned", trial}
    assert not {row["metric"] for row in evaluation.rows} & COMPARE
    assert [note.split()[1] for note in evaluation.notes] == ["teacher", "single_sample"]


def test_other_conditions_are_another_study(home: Home) -> None:
    run(home)
    with pytest.raises(StudyError, match="conditions"):
        run(home, conditions=["clean", "permuted"])


def test_a_metric_in_euro_spans_a_box_and_has_a_direction(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has ends of its own as an objective, and the report says which way is better."""
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
    # what the guess pays, which is less than the declared worst
    (guess,) = (r for r in snapshot.references if r.name == "guess")
    assert snapshot.reference_point["bill"] == guess.metrics["bill"] < 100.0
    assert snapshot.best_point["bill"] == 0.0
    assert snapshot.reference_point["profit"] == guess.metrics["profit"] > -50.0

    for name, direction in (("bill", "minimize"), ("profit", "maximize")):
        (axis,) = (axis for axis in data_of(snapshot)["axes"] if axis["name"] == name)
        assert (axis["direction"], axis["label"]) == (direction, f"{name} (euro)")
        assert snapshot.metrics[name].unit == "euro"

    complete = [record for record in study.records() if record.state == "complete"]
    best_bill = min(record.metrics["bill"] for record in complete)
    assert study.front_records()[0].metrics["bill"] == best_bill


def test_a_teacher_of_one_sample_bounds_no_metric_of_its_spread(home: Home) -> None:
    changes = {
        "targets": EVERY_TARGET["targets"][:3],
        "teacher.method": {"name": "map", "steps": 100},
        "constraints": {"dirichlet_kl": 5.0},
    }
    with pytest.raises(ConfigError, match="means nothing beside a teacher of one posterior sample"):
        gn.run(load_space(home.space, changes), out=home.out)
    assert not (home.study / "study.db").exists()


def test_an_axis_without_ends_is_refused_before_there_is_a_study(home: Home) -> None:
    alike = {"name": "utility", "costs": [[1.0, 1.0]] * 10}
    changes = {"targets": ["predictive", alike], "objectives": ["utility_regret", "params"]}
    with pytest.raises(ConfigError, match="found best 0 and worst 0"):
        gn.run(load_space(home.space, changes), out=home.out)
    assert not (home.study / "study.db").exists()
