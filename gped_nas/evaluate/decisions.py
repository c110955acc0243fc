"""What the actions of a predictor cost under the true labels.

The Bayes action has the least expected cost under the prediction; of equal ones the lowest is
taken. A cost matrix (C, A) has a row a label and a column an action.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS, Metric
from gped_nas.evaluate.posterior import realized_costs
from gped_nas.evaluate.predictions import Floats, Labels, Predictions


def bayes_actions(predictions: Predictions, costs_CA: Floats) -> NDArray[np.intp]:
    """The action of least expected cost for each example, (N,).

    Raises:
        ConfigError: the matrix has not a row a class, or holds what is no finite number.
    """
    num_classes = predictions.log_prob_NC.shape[1]
    if costs_CA.ndim != 2 or len(costs_CA) != num_classes or not costs_CA.size:
        raise ConfigError(
            f"cost matrix: found shape {costs_CA.shape}, expected a row a class and a column an "
            f"action, ({num_classes}, A)"
        )
    if not np.isfinite(costs_CA).all():
        raise ConfigError("cost matrix: found entries that are not finite, expected numbers")
    expected_NA = np.exp(predictions.log_prob_NC) @ costs_CA
    actions_N: NDArray[np.intp] = expected_NA.argmin(axis=1)
    return actions_N


def true_costs(predictions: Predictions, labels_N: Labels, costs_CA: Floats) -> Floats:
    """What the Bayes action of each example costs under its label, (N,).

    NaN where a probability is. Raises as ``bayes_actions``.
    """
    cost_N = costs_CA[labels_N, bayes_actions(predictions, costs_CA)]
    return np.where(predictions.is_nan_N, np.nan, cost_N)


def true_cost_metrics(costs_CA: Floats) -> tuple[Metric, Metric]:
    """``true_cost`` and ``true_cost_sum``: mean and sum over the examples, under a cost matrix.

    They are not registered: a task that has a matrix asks for them.
    """

    def terms(predictions: Any, labels_N: Labels, teacher: Any) -> Floats:
        return true_costs(predictions, labels_N, costs_CA)[:, None]

    mean = Metric(
        "true_cost",
        "minimize",
        "true cost of Bayes actions (mean)",
        terms,
        always=False,
        reads=("predictive",),
        unit="cost",
        worst=float(costs_CA.max()),
        best=float(costs_CA.min()),
    )
    return mean, _sum_metric(terms, reads=("predictive",))


def _sum(sums_RT: Floats, n: int) -> Floats:
    return sums_RT[:, 0]


def _sum_metric(terms: Any, *, reads: tuple[str, ...]) -> Metric:
    """The sum of costs. It grows with the examples, so it has no ends and is no objective."""
    return Metric(
        "true_cost_sum",
        "minimize",
        "true cost of Bayes actions (sum)",
        terms,
        combine=_sum,
        pseudo=lambda terms_N1: len(terms_N1) * terms_N1[:, 0],
        always=False,
        reads=reads,
        unit="cost",
    )


METRICS.add(_sum_metric(realized_costs, reads=("utility",)))
