"""The mean of a metric over conditions: as the metric of examples that are each of them."""

import numpy as np
import pytest

from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.judging import evaluate
from gped_nas.evaluate.over_conditions import mean_over_conditions
from gped_nas.evaluate.predictions import Predictions


def answers(seed: int, n: int = 60) -> Predictions:
    draws = np.random.default_rng(seed).dirichlet([1.0, 1.0, 1.0], size=n)
    return Predictions(np.log(draws))


LABELS = np.random.default_rng(0).integers(3, size=60)
RESAMPLES = draw_resamples(60, root=0, part="validation")


def test_of_one_condition_it_is_the_metric_itself() -> None:
    alone = {key.metric: m for key, m in evaluate(answers(1), LABELS, resamples=RESAMPLES).items()}
    for name in ("nll", "brier"):
        mean = mean_over_conditions(
            METRICS[name], [(answers(1), None)], LABELS, resamples=RESAMPLES
        )
        assert mean.n == 60 and not mean.why
        numbers = [mean.value, mean.low, mean.high]
        assert numbers == pytest.approx([alone[name].value, alone[name].low, alone[name].high])


def test_its_interval_is_that_of_each_examples_own_mean() -> None:
    both = [(answers(1), None), (answers(2), None)]
    mean = mean_over_conditions(METRICS["nll"], both, LABELS, resamples=RESAMPLES)
    scores = np.stack([predictions.log_score(LABELS) for predictions, _ in both])
    assert mean.value == pytest.approx(-scores.mean())
    assert mean.low is not None and mean.high is not None

    # two independent conditions of one variance: the spread of a mean is 1 / sqrt(2) of each
    alone = mean_over_conditions(METRICS["nll"], both[:1], LABELS, resamples=RESAMPLES)
    assert alone.low is not None and alone.high is not None
    expected = scores.mean(0).std() / scores[0].std()
    assert (mean.high - mean.low) / (alone.high - alone.low) == pytest.approx(expected, rel=0.25)


def test_without_a_value_under_each_it_has_none() -> None:
    log_prob = np.full((60, 3), -np.inf)
    log_prob[:, 0] = 0.0  # a certain one, and wrong now and then
    sure = Predictions(log_prob)
    mean = mean_over_conditions(
        METRICS["nll"], [(answers(1), None), (sure, None)], LABELS, resamples=RESAMPLES
    )
    assert mean.value is None and "not finite" in mean.why


def test_bins_have_no_interval() -> None:
    mean = mean_over_conditions(METRICS["ece"], [(answers(1), None)], LABELS, resamples=RESAMPLES)
    assert mean.value is not None and mean.low is None and mean.why


def test_an_area_of_one_wrong_example_has_a_mean_without_an_interval() -> None:
    """Nothing is known of how the score of a wrong one spreads: it has no pseudo-values."""
    both = [answers(1), answers(1)]
    labels = both[0].answer_N.copy()
    labels[0] = (labels[0] + 1) % 3
    metric = METRICS["misclassification_auroc_confidence"]
    mean = mean_over_conditions(
        metric, [(predictions, None) for predictions in both], labels, resamples=RESAMPLES
    )
    assert mean.value == metric.value(both[0], labels)
    assert mean.low is None and "only 1 of 60 examples" in mean.why
