"""Populations of metrics that rank examples, and of scores of real labels; see ``coverage``."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from scipy import special

from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.intervals import MIN_OF_A_CLASS
from gped_nas.evaluate.metrics import MIN_ERRORS
from gped_nas.evaluate.predictions import NormalPredictions
from tests.statistical.populations import Classifier, Draw, ends_of_bounds, of_means

TruthOf = Callable[[Any, Any], float]


def ends_of(name: str, terms_RNT: Any) -> tuple[Any, Any]:
    """Both ends of the metric's interval on each data set, of its terms; NaN where it has none."""
    metric = METRICS[name]
    if callable(metric.interval):
        return ends_of_bounds([metric.interval(terms) for terms in terms_RNT])
    pseudo = np.stack([metric.pseudo_values(terms) for terms in terms_RNT], axis=1)
    return of_means(pseudo, np.array([metric.total(terms) for terms in terms_RNT]))


# ------------------------------------------------------------------------- wrong and outside ones


def auroc(score: Any, rate: Any) -> float:
    """Of equally likely scores and the rates at which they are of positive examples."""
    order = np.argsort(score)
    positive = rate[order]
    below = np.cumsum(1 - positive) - (1 - positive) / 2
    return float(positive @ below / positive.sum() / (1 - positive).sum())


def aupr(score: Any, rate: Any) -> float:
    positive = rate[np.argsort(-score)]
    precision = np.cumsum(positive) / np.arange(1, len(positive) + 1)
    return float(positive @ precision / positive.sum())


def aurc(score: Any, rate: Any) -> float:
    loss = rate[np.argsort(score)]
    return float((np.cumsum(loss) / np.arange(1, len(loss) + 1)).mean())


def augrc(score: Any, rate: Any) -> float:
    return float(np.cumsum(rate[np.argsort(score)]).mean() / len(rate))


def accuracy_rejecting(score: Any, rate: Any) -> float:
    num_kept = int(0.8 * len(rate))
    return 1 - float(rate[np.argsort(score)][:num_kept].mean())


OF_WRONG: dict[str, TruthOf] = {
    "misclassification_auroc_confidence": auroc,
    "misclassification_aupr_confidence": aupr,
    "aurc_confidence": aurc,
    "augrc_confidence": augrc,
    "accuracy_rejecting20_confidence": accuracy_rejecting,
}


@cache
def truth_of_wrong(name: str, classifier: Classifier) -> float:
    confidence, rate = classifier.grid()
    return OF_WRONG[name](-confidence, rate)


def wrong_ones(name: str, classifier: Classifier) -> Draw:
    """The metric of who is more often wrong where it is less confident."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        confidence, is_wrong = classifier.draw(generator, n, repeats)
        terms = np.stack([-confidence.T, is_wrong.T.astype(float)], axis=-1)
        low, high = ends_where_known(name, terms)
        return low, high, truth_of_wrong(name, classifier)

    return draw


def outside_ones(area: str, share: float, auroc: float) -> Draw:
    """Normal scores of variance 1; those of inputs from outside, a share, have another mean."""
    shift = float(special.ndtri(auroc)) * math.sqrt(2)

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        is_outside = generator.random((repeats, n)) < share
        scores = generator.normal(size=(repeats, n)) + shift * is_outside
        terms = np.stack([scores, is_outside.astype(float)], axis=-1)
        low, high = ends_where_known(f"ood_{area}_total", terms)
        return low, high, auroc if area == "auroc" else precision_of(share, shift)

    return draw


def precision_of(share: float, shift: float) -> float:
    """The average precision of normal scores; see ``outside_ones``."""
    score = np.linspace(-8, 8 + shift, 20_000)
    found = special.ndtr(shift - score)
    precision = share * found / (share * found + (1 - share) * special.ndtr(-score))
    density = np.exp(-np.square(score - shift) / 2) / math.sqrt(2 * math.pi)
    return float(np.trapezoid(precision * density, score))


ALIKE = 0.9
"""Correlation of the scores of two predictors at an input."""


def paired_outside_ones(area: str, share: float, first: float, second: float) -> Draw:
    """The difference of two predictors of these AUROC, whose scores have a common part."""
    metric = METRICS[f"ood_{area}_total"]
    shifts = [float(special.ndtri(auroc)) * math.sqrt(2) for auroc in (first, second)]

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        is_outside = generator.random((repeats, n)) < share
        common = math.sqrt(ALIKE) * generator.normal(size=(repeats, n))
        terms = []
        for shift in shifts:
            alone = math.sqrt(1 - ALIKE) * generator.normal(size=(repeats, n))
            scores = common + alone + shift * is_outside
            terms.append(np.stack([scores, is_outside.astype(float)], axis=-1))

        num = np.minimum(is_outside.sum(axis=1), n - is_outside.sum(axis=1))
        is_known = num >= MIN_OF_A_CLASS
        low, high = np.full((2, repeats), np.nan)
        if is_known.any():
            pairs = list(zip(*(rows[is_known] for rows in terms), strict=True))
            values = np.array([metric.total(mine) - metric.total(theirs) for mine, theirs in pairs])
            pseudo = [metric.pseudo_values(x) - metric.pseudo_values(y) for x, y in pairs]
            low[is_known], high[is_known] = of_means(np.stack(pseudo, axis=1), values)

        if area == "auroc":
            return low, high, first - second
        return low, high, precision_of(share, shifts[0]) - precision_of(share, shifts[1])

    return draw


def ends_where_known(name: str, terms_RN2: Any) -> tuple[Any, Any]:
    """The ends of data sets that the metric's doubt lets have an interval."""
    is_area = "auroc" in name or "aupr" in name
    num_R = terms_RN2[:, :, 1].sum(axis=1)
    num_R = np.minimum(num_R, terms_RN2.shape[1] - num_R) if is_area else num_R
    least = MIN_OF_A_CLASS if is_area else MIN_ERRORS
    is_known_R = num_R >= (0 if "rejecting" in name else least)

    low, high = np.full((2, len(terms_RN2)), np.nan)
    if is_known_R.any():
        low[is_known_R], high[is_known_R] = ends_of(name, terms_RN2[is_known_R])
    return low, high


# ------------------------------------------------------------------------------------ real labels

SPREAD = 0.5
"""Standard deviation of the logarithm of the predicted standard deviations."""


def crps(miss: float) -> float:
    return math.sqrt(2 * (1 + miss**2) / math.pi) - 1 / math.sqrt(math.pi)


def interval_score(miss: float) -> float:
    z = float(special.ndtri(0.975))
    density = math.exp(-((z / miss) ** 2) / 2) / math.sqrt(2 * math.pi)
    return 2 * z + 40 * 2 * (miss * density - z * float(special.ndtr(-z / miss)))


def squares(miss: float) -> Any:
    """Expected squared errors of equally likely variances, the least first."""
    place = (np.arange(20_000) + 0.5) / 20_000
    return np.exp(2 * SPREAD * special.ndtri(place)) * miss**2


def real_labels(name: str, miss: float) -> Draw:
    """The metric of normals whose labels spread ``miss`` times as much as they say."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        metric, terms, is_doubted = METRICS[name], [], []
        for _ in range(repeats):
            std = np.exp(SPREAD * generator.normal(size=n))
            labels = miss * std * generator.normal(size=n)
            predictions = NormalPredictions(np.zeros(n), std**2)
            terms.append(metric.terms(predictions, labels, None))
            is_doubted.append(bool(metric.why_no_interval(predictions, labels, None)))

        mean_std = math.exp(SPREAD**2 / 2)
        truths = {
            "crps": crps(miss) * mean_std,
            "interval_score": interval_score(miss) * mean_std,
            "aurc_variance": aurc(np.arange(20_000), squares(miss)),
            "augrc_variance": augrc(np.arange(20_000), squares(miss)),
        }
        low, high = ends_of(name, np.stack(terms))
        return np.where(is_doubted, np.nan, low), high, truths[name]

    return draw
