"""nDCG by hand, and what is refused; ``test_oracles.py`` has scikit-learn's."""

import math

import numpy as np
import pytest

from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.judging import evaluate_or_explain
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.ranking import ndcg, ndcg_metric
from gped_nas.evaluate.scores import SCORES


def test_the_gain_of_the_first_two_places_by_hand():
    # ranked: 3, then 1 or 2 at the second place
    value = ndcg(np.array([0.1, 0.1, 0.9]), np.array([1.0, 2.0, 3.0]), 2)
    second = 1 / math.log2(3)
    assert value == pytest.approx((3 + 1.5 * second) / (3 + 2 * second))
    assert math.isnan(ndcg(np.arange(3.0), np.array([0, -1e-17, 0]), 2))
    assert ndcg(np.arange(3.0), np.array([1.0, 0.0, -9.0]), 2) == 0.0


def test_more_places_than_inputs_are_refused():
    for k in (0, 4):
        with pytest.raises(ConfigError, match=f"nDCG: found k={k} of 3 inputs, expected 1 to 3"):
            ndcg(np.arange(3.0), np.ones(3), k)
    with pytest.raises(ConfigError, match="k=0"):
        ndcg_metric(SCORES["total"], 0)


def test_a_part_of_too_few_examples_has_no_value_and_says_so():
    prob = np.random.default_rng(0).dirichlet(np.ones(3), 19)
    predictions = Predictions(np.log(prob), {"expected_entropy": prob[:, 0]})
    measured = evaluate_or_explain(
        predictions,
        np.zeros(19, int),
        predictions,
        resamples=draw_resamples(19, root=0, part="validation", num_resamples=20),
        asked=["ndcg20_expected", ndcg_metric(SCORES["expected"], 5)],
    )
    assert measured[Key("ndcg20_expected")].value is None
    assert measured[Key("ndcg20_expected")].why == "it is of 20 examples at least, and there are 19"
    assert measured[Key("ndcg5_expected")].value == 1.0
    assert measured[Key("ndcg5_expected")].why.startswith("it hangs on the 5 first inputs alone")
    assert METRICS["ndcg20_expected"].needs_teacher
