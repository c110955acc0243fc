"""Costs of Bayes actions by hand, and matrices that are refused."""

import numpy as np
import pytest

from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import draw_resamples
from gped_nas.evaluate.decisions import bayes_actions, true_cost_metrics, true_costs
from gped_nas.evaluate.judging import evaluate
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.predictions import Predictions

COSTS = np.array([[0.0, 1.0, 0.2], [10.0, 0.0, 0.2]])
"""Two classes; the last action is to ask somebody."""


def test_actions_and_their_costs_by_hand():
    # expected costs: (1, .9, .2) (ask), (.01, .999, .2) (first), (9.9, .01, .2) (second)
    predictions = Predictions(np.log([[0.9, 0.1], [0.999, 0.001], [0.01, 0.99]]))
    labels = np.array([0, 1, 1])
    assert bayes_actions(predictions, COSTS).tolist() == [2, 0, 1]
    assert true_costs(predictions, labels, COSTS).tolist() == [0.2, 10.0, 0.0]


def test_mean_and_sum_are_measured_with_intervals():
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=200)
    prob = np.where(generator.random((200, 1)) < 0.8, np.eye(2)[labels], 0.5) * 0.9 + 0.05
    predictions = Predictions(np.log(prob))
    measures = evaluate(
        predictions,
        labels,
        resamples=draw_resamples(200, root=0, part="validation"),
        asked=true_cost_metrics(COSTS),
    )
    mean, total = measures[Key("true_cost")], measures[Key("true_cost_sum")]
    assert mean.value == pytest.approx(true_costs(predictions, labels, COSTS).mean())
    assert total.value == pytest.approx(200 * mean.value)
    assert total.interval == pytest.approx([200 * mean.low, 200 * mean.high])


@pytest.mark.parametrize(
    "costs", [np.ones((3, 2)), np.ones(2), np.ones((2, 0)), np.full((2, 2), np.inf)]
)
def test_a_matrix_that_does_not_fit_is_refused(costs):
    with pytest.raises(ConfigError, match=r"cost matrix: found (shape|entries)"):
        bayes_actions(Predictions(np.log([[0.5, 0.5]])), costs)
