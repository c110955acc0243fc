"""What travels with an export: levels, plain data, intervals of real labels."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gped_nas.api import after
from gped_nas.errors import DataError
from gped_nas.evaluate.conformal import scores_of_labels, threshold
from gped_nas.evaluate.post_hoc import LEVELS, PostHoc, fit_post_hoc, post_hoc_of
from gped_nas.evaluate.predictions import NormalPredictions, Predictions


@pytest.fixture
def fitted() -> PostHoc:
    draw = np.random.default_rng(0)
    predictions = Predictions(np.log(draw.dirichlet(np.ones(4), 60)))
    return fit_post_hoc(predictions, draw.integers(0, 4, 60), "calibration")


def test_a_level_in_between_takes_the_next_one_above(fitted: PostHoc) -> None:
    """60 labels are enough for 60 / 61 = .983."""
    limits = dict(zip(LEVELS, fitted.thresholds["split"], strict=True))
    assert fitted.threshold(0.9, "split") == limits[0.9]
    assert fitted.threshold(0.901, "split") == limits[0.91] > limits[0.9]
    assert fitted.threshold(0.2, "split") == limits[0.5]
    assert np.isfinite(limits[0.98])
    assert limits[0.99] == fitted.threshold(0.9999, "split") == np.inf


def test_it_is_read_as_it_was_written(fitted: PostHoc) -> None:
    about = {"post_hoc": fitted.to_json()}
    assert post_hoc_of(about, "here") == fitted
    assert about["post_hoc"]["thresholds"]["aps"][-1] is None
    assert not fitted.is_approximate


@pytest.mark.parametrize("key", ["temperature", "thresholds", "n"])
def test_what_is_malformed_is_refused(fitted: PostHoc, key: str) -> None:
    data: dict[str, Any] = {**fitted.to_json(), key: {"split": [0.1]}}
    with pytest.raises(DataError, match=r"here: about.post_hoc: malformed; export"):
        post_hoc_of({"post_hoc": data}, "here")


def test_real_labels_have_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    mean, labels = draw.normal(size=30), draw.normal(size=30)
    predictions = NormalPredictions(mean, draw.uniform(1, 4, 30))
    monkeypatch.setattr(after, "student_predictions", lambda student, raw: predictions)
    about = {"post_hoc": fit_post_hoc(predictions, labels, "validation").to_json()}
    student: Any = SimpleNamespace(spec=SimpleNamespace(about=about, class_names=()))

    def asked(level: float) -> list[dict[str, Any]]:
        teller = after.After(student, "here", calibrated=True, set_level=level, set_rule="split")
        answers, sets = teller.rows(torch.zeros(30, 1), {})
        said = answers["predictive_normal"]
        temperature = about["post_hoc"]["temperature"]
        assert said[:, 1].tolist() == (predictions.variance_N * temperature).tolist()
        return list(sets)

    limit = threshold(scores_of_labels("split", predictions, labels), 0.2)
    half = limit * np.sqrt(predictions.variance_N)
    assert [row["low"] for row in asked(0.8)] == pytest.approx((mean - half).tolist())
    assert [row["high"] for row in asked(0.8)] == pytest.approx((mean + half).tolist())
    assert asked(0.99)[0] == {"low": None, "high": None}
