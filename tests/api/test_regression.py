"""A regression search from the shipped space to its student, and what is refused on the way."""

import math

import pytest

import gped_nas as gn
from gped_nas.errors import ConfigError, GpedError, StreamError
from tests.cli.harness import Home

OVERRIDES = {
    "teacher.genotype": {"depth": 1, "width": 8},
    "teacher.method.num_samples": 4,
    "teacher.method.burn_in": 20,
    "teacher.method.thinning": 10,
    "recipe": {"steps": 200, "warmup": 5},
    "baseline": {"steps": 100, "precisions": [1.0]},
    "search": {"n_trials": 3, "students_at_once": 3},
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
        ({"objectives": ["accuracy", "flops"]}, "'accuracy' is not defined for regression"),
    ],
)
def test_what_does_not_fit_together_is_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigError, GpedError), match=message):
        gn.load_dataset(gn.load_space("diabetes_mlp", overrides))
