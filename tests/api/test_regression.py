"""A regression search from the shipped space to its student, and what is refused on the way."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import gped_nas as gn
from gped_nas.api.comparison import _settings_of_all
from gped_nas.data.base import Split, build
from gped_nas.errors import ConfigError, DataError, GpedError, StreamError
from tests.cli.harness import Home, refused

OVERRIDES = {
    "teacher.genotype": {"depth": 1, "width": 8},
    "teacher.method.num_samples": 4,
    "teacher.method.burn_in": 20,
    "teacher.method.thinning": 10,
    "recipe": {"steps": 200, "warmup": 5},
    "baseline": {"steps": 100, "precisions": [1.0]},
    "search": {"n_trials": 3, "students_at_once": 3, "keep": {}, "every_dtype": False},
    "twins": {"seeds": 2, "students": 1},
}


METRICS = ("nll", "rmse", "coverage_error", "kl_to_teacher", "mean_error", "variance_error")

REFERENCES = ["teacher", "single_sample", "map", "unpruned", "guess", "label_twin", "map_twin"]


def test_a_regression_search_and_its_student(home: Home) -> None:
    study = gn.run(gn.load_space("diabetes_mlp", OVERRIDES), out=home.root / "reports")
    records = [record for record in study.records() if record.state == "complete"]
    assert records
    for record in records:
        assert set(METRICS) <= set(record.metrics)
        assert "accuracy" not in record.metrics

    snapshot = study.snapshot()
    assert {c.metric for c in snapshot.paired_differences} == {"nll", "rmse"}
    assert [r.name for r in snapshot.references] == REFERENCES
    assert snapshot.hypervolume[-1] >= 0

    (twins,) = study.twins()
    assert {"test_nll", "test_rmse"} <= set(twins.references[1].metrics)
    assert {"nll", "rmse", "mean_error"} <= {row.metric for row in twins.comparisons}

    dataset = gn.load_dataset(gn.load_space("diabetes_mlp"))
    guess, labels = study.reference("guess").metrics, dataset.labels("train")
    squared_error = (dataset.labels("test") - labels.mean()) ** 2
    assert guess["test_rmse"] == pytest.approx(squared_error.mean() ** 0.5)
    nll = 0.5 * (squared_error.mean() / labels.var() + math.log(2 * math.pi * labels.var()))
    assert guess["test_nll"] == pytest.approx(nll)

    student = gn.load_student(study.path / "students" / str(study.chosen().trial))
    normal_N2 = student.predict(dataset.raw("test"))["predictive_normal"]
    assert normal_N2.shape == (len(dataset.labels("test")), 2)
    mean, variance = normal_N2.unbind(1)
    assert 60 < float(mean.mean()) < 250, "in the labels' own unit: they run from 25 to 346"
    assert bool((variance > 0).all())

    stream = gn.load_stream(study.stream_path)
    assert stream.predictions.shape[-1] == 2
    assert stream.expectation("predictive_normal").shape[-1] == 2
    with pytest.raises(StreamError, match="no classes"):
        _ = stream.log_prob


ALL_TARGETS = ["predictive_normal", "model_variance", "noise_variance", "label_quantile"]


def test_all_that_can_be_said_of_a_label_is_searched_measured_and_served(home: Home) -> None:
    exceedance = {"name": "exceedance", "thresholds": [150, 200.5]}
    overrides = {
        **OVERRIDES,
        "teacher.likelihood": {"name": "heteroscedastic", "noise_std": 0.7},
        "targets": [*ALL_TARGETS, exceedance],
        "recipe": {"update": "newest", "steps": 300, "warmup": 5, "lr": 0.01},
        "teacher.method": {"name": "deep_ensemble", "num_samples": 3, "steps": 300, "lr": 0.01},
        "objectives": ["exceedance_brier", "label_quantile_loss", "flops"],
        "search": {"n_trials": 2, "students_at_once": 2, "keep": {}, "every_dtype": False},
        "twins": {"seeds": 0},
    }
    study = gn.run(gn.load_space("diabetes_mlp", overrides), out=home.root / "reports")
    records = [record for record in study.records() if record.state == "complete"]
    expected = {"model_variance_error", "noise_variance_error", "label_quantile_loss"}
    expected |= {"label_quantile_error", "label_quantile_coverage_error"}
    expected |= {"exceedance_error", "exceedance_brier"}
    assert records and all(expected <= record.metrics.keys() for record in records)
    # both in the labels' own unit; else they would be a whole mean apart, about three deviations
    assert min(record.metrics["label_quantile_error"] for record in records) < 1
    of_teacher = study.reference("teacher").metrics
    assert {"test_label_quantile_loss", "test_exceedance_brier"} <= of_teacher.keys()

    dataset = gn.load_dataset(gn.load_space("diabetes_mlp"))
    folder = study.path / "students" / str(records[0].trial)
    said = gn.load_student(folder).predict(dataset.raw("test"))
    mean, variance = said["predictive_normal"].unbind(1)
    parts = (said["model_variance"] + said["noise_variance"])[:, 0]
    assert parts.tolist() == pytest.approx(variance.tolist(), rel=1e-4)
    low, middle, high = said["label_quantile"].unbind(1)
    assert bool((low < middle).all()) and bool((middle < high).all())
    # in the labels' own unit, and near those of a normal label
    assert middle.mean().item() == pytest.approx(mean.mean().item(), abs=15)
    width = 2 * 1.645 * variance.sqrt().mean().item()
    assert (high - low).mean().item() == pytest.approx(width, rel=0.2)
    assert said["exceedance"].shape == (len(mean), 2)
    chance = 1 - torch.special.ndtr((200.5 - mean) / variance.sqrt())
    assert (said["exceedance"][:, 1] - chance).abs().mean() < 0.1

    (row,) = gn.predict_files(folder, [write_rows(home.root, dataset.raw("test")[:1])])
    assert row["model_variance"] == pytest.approx(said["model_variance"][0].item(), rel=1e-4)
    assert row["exceedance"] == pytest.approx(said["exceedance"][0].tolist(), rel=1e-4)


def test_labels_of_several_columns_are_refused_with_that_sentence(tmp_path: Path) -> None:
    said = "labels of several columns, expected .*; make a study of each column"
    x = np.random.default_rng(0).normal(size=(40, 2))
    np.savez(tmp_path / "two.npz", x_train=x, y_train=x)
    (tmp_path / "two.csv").write_text("a,b,c\n1,2,3\n")
    with pytest.raises(DataError, match=said):
        gn.load_dataset(of_data(name="npz", path=str(tmp_path / "two.npz")))
    with pytest.raises(ConfigError, match=said):
        gn.load_dataset(of_data(name="csv", path=str(tmp_path / "two.csv"), label=["a", "b"]))

    # as a plug-in or a Python call brings them
    both = Split(torch.from_numpy(x), torch.from_numpy(x))
    with pytest.raises(DataError, match=said):
        build("mine", both, class_names=(), test=0.2, validation=0.2, seed=0, where="here")


def test_a_comparison_leaves_out_a_method_whose_closed_form_does_not_hold() -> None:
    noisy = gn.load_space("diabetes_mlp", {"teacher.likelihood": {"name": "heteroscedastic"}})
    settings, skipped = _settings_of_all(noisy, gn.load_dataset(noisy), 10)
    assert "laplace" in skipped and "laplace" not in [cfg.name for cfg in settings]


def of_data(**dataset: object) -> gn.SearchSpace:
    return gn.load_space("diabetes_mlp", {"dataset": {"task": "regression", **dataset}})


def write_rows(root: Path, inputs: torch.Tensor) -> Path:
    path = root / "rows.npy"
    np.save(path, inputs.numpy())
    return path


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dataset": {"name": "digits"}}, "is for classification; expected categorical"),
        ({"teacher.likelihood": {"name": "gausian"}}, "did you mean 'gaussian'"),
        ({"teacher.likelihood": {"name": "gaussian", "noise_std": 0}}, "noise_std"),
        ({"teacher.likelihood": {}}, "is for regression; expected gaussian"),
        ({"targets": ["predictive"]}, r"expected \['predictive_normal'\]"),
        (
            {"targets": ["predictive_normal", "expected_entropy"]},
            "different kinds of label|list 'predictive' before",
        ),
        (
            {
                "teacher.likelihood": {"name": "heteroscedastic"},
                "teacher.method": {"name": "laplace"},
            },
            "found 'laplace' with the likelihood 'heteroscedastic'.*needs a log-likelihood that is",
        ),
        (
            {"targets": ["predictive_normal", "label_quantile"]},
            "found averaged, expected newest for the target 'label_quantile'",
        ),
        ({"targets": ["predictive_normal", "noise_variance"]}, "list 'model_variance' before it"),
        (
            {
                "targets": ["predictive_normal", {"name": "exceedance", "thresholds": [2, 1]}],
            },
            "expected finite numbers that rise",
        ),
        ({"objectives": ["exceedance_brier", "flops"]}, "needs 'exceedance' among the targets"),
        (
            {"recipe.label_weight": 0.5, "views": [{"policy": "mixup"}]},
            "label_weight: found 0.5 with views .mixup. at which no label is known, expected 0",
        ),
        ({"objectives": ["accuracy", "flops"]}, "'accuracy' is not defined for regression"),
    ],
)
def test_what_does_not_fit_together_is_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigError, GpedError), match=message):
        gn.load_dataset(gn.load_space("diabetes_mlp", overrides))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            ("teacher.likelihood={name: heteroscedastic}", "teacher.method={name: laplace}"),
            ("teacher.method.name: found 'laplace'", "'heteroscedastic'", "concave", "sghmc"),
        ),
        (
            ("recipe.label_weight=0.5", "views=[{policy: mixup}]"),
            ("recipe.label_weight: found 0.5", "no label is known", "{policy: clean}"),
        ),
        (
            ("targets=[predictive_normal, {name: exceedance, thresholds: [5, 2]}]",),
            ("thresholds", "[5.0, 2.0]", "rise"),
        ),
    ],
)
def test_the_command_refuses_what_a_regression_cannot_have(
    home: Home, settings: tuple[str, ...], says: tuple[str, ...]
) -> None:
    options = [word for setting in settings for word in ("--set", setting)]
    refused(2, "run", "diabetes_mlp", *options, says=says)
    assert not (home.root / "reports").exists()
