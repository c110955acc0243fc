"""Ends of the axes of scores of real labels, and what is refused; values: ``test_oracles.py``."""

import math

import numpy as np
import pytest

from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS, LabelFacts
from gped_nas.evaluate.normal_scores import coverage_metric
from gped_nas.evaluate.predictions import NormalPredictions

FACTS = LabelFacts(1, std=2.0)


def test_what_who_knows_nothing_pays_at_most_by_hand():
    # E|X - y| is at most sqrt(2) std, E|X - X'| / 2 is std / sqrt(pi)
    assert METRICS["crps"].worst(FACTS) == pytest.approx(
        2 * (math.sqrt(2) - 1 / math.sqrt(math.pi))
    )

    # the labels that cost the most lie 2 z std away, or at the mean: 1 / (4 z^2) of them are away
    z = 1.959964
    share = 1 / (4 * z**2)
    assert METRICS["interval_score"].worst(FACTS) == pytest.approx(2 * (2 * z + 40 * share * z))
    num_away = 1000
    n = round(num_away / share)
    labels = np.where(np.arange(n) < num_away, 2 * z * 2.0, 0.0)
    guess = NormalPredictions(np.zeros(n), np.full(n, 4.0))
    value = METRICS["interval_score"].value(guess, labels)
    assert value == pytest.approx(METRICS["interval_score"].worst(FACTS), rel=1e-3)


def test_a_few_labels_outside_make_no_interval():
    labels = np.zeros(100)
    labels[:9] = 5.0
    guess = NormalPredictions(np.zeros(100), np.ones(100))
    why = METRICS["interval_score"].why_no_interval(guess, labels, None)
    assert why.startswith("only 9 of 100 labels are outside")
    labels[9] = -5.0
    assert not METRICS["interval_score"].why_no_interval(guess, labels, None)


def test_a_level_is_a_share():
    assert coverage_metric(0.975).name == "coverage_97.5"
    for level in (0.0, 1.0, 95):
        with pytest.raises(ConfigError, match=f"coverage: found level {level}"):
            coverage_metric(level)
