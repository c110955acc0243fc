"""Metrics of what is said of real labels, by hand."""

import numpy as np
import pytest

from gped_nas.data.base import Normalization
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.predictions import NormalPredictions
from gped_nas.targets.base import TARGETS, Target, for_labels
from gped_nas.targets.label import (
    ExceedanceSettings,
    LabelQuantileSettings,
    exceedance,
    label_quantile,
)

LABELS = np.array([1.0, 5.0])
TEACHER_VARIANCE = np.array([4.0, 16.0])


def said(targets: list[Target], **expectations: list[list[float]]) -> NormalPredictions:
    arrays = {name: np.array(values) for name, values in expectations.items()}
    return NormalPredictions(LABELS, TEACHER_VARIANCE, arrays, tuple(targets))


def value(name: str, student: NormalPredictions, teacher: NormalPredictions | None = None) -> float:
    return METRICS[name].value(student, LABELS, teacher)


def test_parts_of_the_variance_are_compared_as_shares_of_the_whole() -> None:
    targets = [TARGETS["model_variance"]]
    student = said(targets, model_variance=[[2.0], [4.0]], noise_variance=[[2.0], [12.0]])
    teacher = said(targets, model_variance=[[1.0], [8.0]], noise_variance=[[3.0], [8.0]])
    # |2 - 1| / 4 and |4 - 8| / 16
    assert value("model_variance_error", student, teacher) == pytest.approx(0.25)
    assert value("noise_variance_error", student, teacher) == pytest.approx(0.25)


def test_quantiles_of_the_label() -> None:
    targets = [label_quantile(LabelQuantileSettings(levels=(0.2, 0.5)))]
    student = said(targets, label_quantile=[[0.0, 2.0], [6.0, 7.0]])
    teacher = said(targets, label_quantile=[[1.0, 3.0], [2.0, 7.0]])
    # at 1: .2 * 1 and .5 * 1; at 5: .8 * 1 and .5 * 2
    assert value("label_quantile_loss", student) == pytest.approx((0.7 + 1.8) / 2)
    # (1 + 1) / 2 in std 2, (4 + 0) / 2 in std 4
    assert value("label_quantile_error", student, teacher) == pytest.approx(0.5)
    # labels below: one of two, two of two
    assert value("label_quantile_coverage_error", student) == pytest.approx((0.3 + 0.5) / 2)


def test_exceedance_of_the_label() -> None:
    targets = [exceedance(ExceedanceSettings(thresholds=(0.0, 4.0)))]
    student = said(targets, exceedance=[[0.9, 0.2], [1.0, 0.5]])
    teacher = said(targets, exceedance=[[0.7, 0.2], [1.0, 0.9]])
    # 1 exceeds 0 alone, 5 exceeds both: (.1^2 + .2^2) / 2 and (0 + .5^2) / 2
    assert value("exceedance_brier", student) == pytest.approx((0.025 + 0.125) / 2)
    assert value("exceedance_error", student, teacher) == pytest.approx((0.1 + 0.2) / 2)


def test_a_default_threshold_is_known_to_the_metric() -> None:
    targets = for_labels(["exceedance"], Normalization(3.0, 2.0))
    student = said(list(targets), exceedance=[[0.25], [0.75]])
    # 1 is not above 3, 5 is
    assert value("exceedance_brier", student) == pytest.approx(0.0625)
