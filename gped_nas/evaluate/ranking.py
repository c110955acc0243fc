"""How well uncertainty ranks inputs: nDCG of the first k, against the teacher's uncertainty.

A predictor ranks the inputs by a score, the least sure first. The relevance of an input is the
teacher's score for it. The paper's nDCG@20 is ``ndcg20_expected``: both are expected entropies.
"""

import math
from typing import Any

import numpy as np

from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import METRICS, Metric
from gped_nas.evaluate.predictions import Floats, Labels
from gped_nas.evaluate.scores import SCORES, Score

K = 20
"""How many inputs the registered metrics look at."""
RANKED = ("total", "expected", "model", "logit_variance", "variance")
"""Scores that are never negative, so that they can be a relevance."""


def ndcg(scores_N: Floats, relevance_N: Floats, k: int) -> float:
    """The discounted cumulative gain of the k highest scores over the greatest there can be.

    The gain of the input at place i, from 1, is its relevance over ``log2(1 + i)``. Inputs of equal
    scores have the mean discount of their places. Negative relevances, which rounding makes, count
    as 0. NaN where all are 0.

    Args:
        scores_N: by which inputs are ranked.
        relevance_N: how much they should be found.
        k: how many places count.

    Raises:
        ConfigError: k is below 1, or more than the inputs.

    Source: Järvelin & Kekäläinen 2002, ACM TOIS 20; McSherry & Najork 2008, ECIR (ties).
    """
    if not 1 <= k <= len(scores_N):
        raise ConfigError(
            f"nDCG: found k={k} of {len(scores_N)} inputs, expected 1 to {len(scores_N)}"
        )
    relevance_N = np.maximum(relevance_N, 0.0)
    best = _gain(relevance_N, relevance_N, k)
    return _gain(scores_N, relevance_N, k) / best if best > 0 else math.nan


def _gain(scores_N: Floats, relevance_N: Floats, k: int) -> float:
    """The discounted cumulative gain of the k highest scores."""
    discounts = np.zeros(len(scores_N))
    discounts[:k] = 1 / np.log2(np.arange(2, k + 2))
    sums = np.append(0.0, np.cumsum(discounts))

    _, group_N, size_G = np.unique(-scores_N, return_inverse=True, return_counts=True)
    last_G = np.cumsum(size_G)
    discount_G = (sums[last_G] - sums[last_G - size_G]) / size_G
    return float(relevance_N @ discount_G[group_N])


def ndcg_metric(score: Score, k: int = K) -> Metric:
    """``ndcg20_<score>``: the nDCG@k of a predictor's score, relevance the teacher's.

    Raises:
        ConfigError: k is below 1.
    """
    if k < 1:
        raise ConfigError(f"nDCG: found k={k}, expected at least 1")

    def terms(predictions: Any, labels_N: Labels, teacher: Any) -> Floats:
        return np.stack([score.of(predictions), score.of(teacher)], axis=1)

    return Metric(
        f"ndcg{k}_{score.name}",
        "maximize",
        f"nDCG@{k} by {score.label}",
        terms,
        whole=lambda terms_N2: ndcg(terms_N2[:, 0], terms_N2[:, 1], k),
        undefined="the teacher is sure of every input: there is nothing to find",
        least_examples=k,
        needs_teacher=True,
        doubt=f"it hangs on the {k} first inputs alone, and which these are is drawn by chance",
        worst=0.0,
        best=1.0,
        bounds=dict.fromkeys(score.tasks, 1.0),
        **score.of_metrics,
    )


def _register() -> None:
    """The metric of every score that ranks."""
    for name in RANKED:
        METRICS.add(ndcg_metric(SCORES[name]))


_register()
