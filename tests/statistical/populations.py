"""Populations whose truth is known, and the package's intervals on data sets drawn from them.

Those of metrics that rank examples, and of real labels, are in ``ranked``. See ``coverage``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from scipy import optimize, special

from gped_nas.evaluate.base import METRICS, draw_resamples
from gped_nas.evaluate.calibration import debias
from gped_nas.evaluate.intervals import (
    MIN_OF_A_CLASS,
    Bounds,
    around,
    exact_test,
    of_mean_of_shares,
    of_paired_means_of_shares,
    tango,
    wilson,
)
from gped_nas.evaluate.metrics import ECE_BINS, MIN_ERRORS
from gped_nas.evaluate.predictions import Predictions
from gped_nas.evaluate.resamples import Resamples
from gped_nas.posterior.diagnostics import configurational_temperature


class Draw(Protocol):
    """``draw(generator, n, repeats)``: ends of intervals, or NaN, and the truth."""

    def __call__(
        self, generator: np.random.Generator, n: int, repeats: int
    ) -> tuple[Any, Any, float]: ...


# ------------------------------------------------------------------------------------ shares


def share(rate: float) -> Draw:
    """Wilson's interval of the share of right examples."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        return *wilson(generator.binomial(n, 1 - rate, repeats), n), 1 - rate

    return draw


def paired_share(first: float, second: float) -> Draw:
    """Tango's interval, where these shares of examples are right of one predictor alone."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        counts = generator.multinomial(n, (first, second, 1 - first - second), repeats)
        return *tango(counts[:, 0], counts[:, 1], n), first - second

    return draw


def rejections(share_of_each: float) -> Draw:
    """Of equal predictors: an interval around 0, unless the exact test tells them apart."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        shares = (share_of_each, share_of_each, 1 - 2 * share_of_each)
        counts = generator.multinomial(n, shares, repeats)
        p = np.array([exact_test(int(first), int(second)) for first, second, _ in counts])
        return np.where(p > 0.05, 0.0, 1.0), np.ones(repeats), 0.0

    return draw


# ------------------------------------------------------------------- probabilities of classes


@dataclass(frozen=True)
class Classifier:
    """Top classes that are wrong at a rate, with logits that an overconfident model multiplies."""

    error_rate: float
    overconfidence: float = 1.0

    @property
    def mean_logit(self) -> float:
        """Of the true logit, normal with deviation 1.5."""
        return _mean_logit(self.error_rate)

    def confidence(self, logit: Any) -> Any:
        """What the model says of its top class."""
        return special.expit(np.clip(self.overconfidence * logit, -15, 15))

    def draw(self, generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any]:
        """Confidences and whether they are wrong, both (n, repeats)."""
        logit = generator.normal(self.mean_logit, 1.5, (n, repeats))
        is_wrong = generator.random((n, repeats)) > special.expit(logit)
        return self.confidence(logit), is_wrong

    def grid(self) -> tuple[Any, Any]:
        """Confidences and their true error rates, equally likely."""
        logit = self.mean_logit + 1.5 * _normal_grid()
        return self.confidence(logit), special.expit(-logit)


@cache
def _mean_logit(error_rate: float) -> float:
    def excess(mean: float) -> float:
        return float(special.expit(-mean - 1.5 * _normal_grid()).mean()) - error_rate

    return float(optimize.brentq(excess, -10, 20))


@cache
def _normal_grid(num: int = 200_000) -> Any:
    return special.ndtri((np.arange(num) + 0.5) / num)


def nll(confidence: Any, is_wrong: Any) -> Any:
    """In nats: all that a model does not give its top class it gives the label."""
    return -np.log(np.where(is_wrong, 1 - confidence, confidence))


def brier(confidence: Any, is_wrong: Any) -> Any:
    """Summed over two classes."""
    return 2 * np.square(np.where(is_wrong, confidence, 1 - confidence))


def score(classifier: Classifier, loss: Callable[[Any, Any], Any]) -> Draw:
    """The mean of a loss that is large where the top class is wrong."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        confidence, is_wrong = classifier.draw(generator, n, repeats)
        low, high = of_means(loss(confidence, is_wrong))

        # the doubt of nll and brier
        num = np.maximum(is_wrong.sum(axis=0), (1 - confidence).sum(axis=0))
        low = np.where(num < MIN_ERRORS, np.nan, low)

        grid, rate = classifier.grid()
        truth = (1 - rate) * loss(grid, False) + rate * loss(grid, True)
        return low, high, float(truth.mean())

    return draw


def calibration_error(classifier: Classifier) -> Draw:
    """The debiased ECE."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        confidence, is_wrong = classifier.draw(generator, n, repeats)
        ends = []
        for i in range(repeats):
            index = _bins(confidence[:, i])
            gap = confidence[:, i] - ~is_wrong[:, i]
            sums = (np.bincount(index, w, ECE_BINS) for w in (gap, None, confidence[:, i]))
            debiased = debias(*sums)
            ends.append((debiased.low, debiased.high))

        grid, rate = classifier.grid()
        gaps = np.bincount(_bins(grid), grid - (1 - rate), ECE_BINS)
        truth = np.abs(gaps).sum() / len(grid) if classifier.overconfidence != 1 else 0.0
        return *np.transpose(ends), float(truth)

    return draw


def _bins(confidence: Any) -> Any:
    return np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)


# -------------------------------------------------------------------------------- means of losses


def mean_of(terms: Callable[[np.random.Generator, tuple[int, int]], Any], truth: float) -> Draw:
    """The mean of terms; of a paired difference they are differences."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        return *of_means(terms(generator, (n, repeats))), truth

    return draw


def root_mean_square(terms: Callable[[np.random.Generator, tuple[int, int]], Any]) -> Draw:
    """The RMSE of residuals of variance 1."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        squares = np.square(terms(generator, (n, repeats)))
        pseudo = [METRICS["rmse"].pseudo_values(square[:, None]) for square in squares.T]
        return *of_means(np.stack(pseudo, axis=1), np.sqrt(squares.mean(axis=0))), 1.0

    return draw


def of_means(terms: Any, center: Any = None) -> tuple[Any, Any]:
    """Both ends of each column's interval, NaN where it has none."""
    bounds = around(terms.mean(axis=0) if center is None else center, terms, _resamples(len(terms)))
    return ends_of_bounds(bounds)


def ends_of_bounds(bounds: Sequence[Bounds]) -> tuple[Any, Any]:
    """Both ends of each interval, NaN where there is none."""
    low, high = np.array([(bound.low, bound.high) for bound in bounds], np.float64).T
    return low, high


@cache
def _resamples(n: int) -> Resamples:
    return draw_resamples(n, root=0, part="validation")


def rare(rate: float, *, two_sided: bool = False) -> Draw:
    """Small differences, and at a rate large ones of mean 1, or of either sign and mean 0."""

    def terms(generator: np.random.Generator, shape: tuple[int, int]) -> Any:
        large = generator.normal(size=shape) if two_sided else generator.exponential(size=shape)
        return generator.normal(0, 0.05, shape) + (generator.random(shape) < rate) * large

    return mean_of(terms, 0.0 if two_sided else rate)


def regret(rate: float) -> Draw:
    """Zero, but at a rate uniform."""
    return mean_of(lambda g, shape: (g.random(shape) < rate) * g.random(shape), rate / 2)


def absolute_error(spread: float) -> Draw:
    """|normal| times a lognormal: errors of moments, of differing size."""
    truth = math.sqrt(2 / math.pi) * math.exp(spread**2 / 2)
    return mean_of(
        lambda g, shape: np.abs(g.normal(size=shape)) * np.exp(g.normal(0, spread, shape)), truth
    )


# --------------------------------------------------------------------------- unequal classes


@dataclass(frozen=True)
class Classes:
    """Classes of these shares, of which a predictor finds these shares; wrong answers are spread.

    Attributes:
        shares: of all examples, by class.
        recalls: of the class' examples that are found.
    """

    shares: tuple[float, ...]
    recalls: tuple[float, ...]

    def draw(self, generator: np.random.Generator, n: int) -> tuple[Any, Any]:
        """Labels and answers of n examples, at least one of each class."""
        num = len(self.shares)
        labels = np.append(np.arange(num), generator.choice(num, n - num, p=self.shares))
        is_found = generator.random(n) < np.array(self.recalls)[labels]
        other = (labels + generator.integers(1, num, n)) % num
        return labels, np.where(is_found, labels, other)

    def terms(self, labels: Any, answers: Any, metric: str) -> Any:
        """The terms of a metric."""
        log_prob = np.log(np.full((len(labels), len(self.shares)), 1e-3))
        log_prob[np.arange(len(labels)), answers] = 0.0
        return METRICS[metric].terms(Predictions(log_prob), labels, None)

    @property
    def macro_f1(self) -> float:
        """Of infinitely many examples."""
        share, recall = np.array(self.shares), np.array(self.recalls)
        missed = share * (1 - recall) / (len(share) - 1)
        answered = share * recall + missed.sum() - missed
        return float((2 * share * recall / (share + answered)).mean())


def balanced_accuracy(classes: Classes) -> Draw:
    """The mean of the recalls, by their intervals."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        ends = []
        for _ in range(repeats):
            terms = classes.terms(*classes.draw(generator, n), "balanced_accuracy")
            bounds = of_mean_of_shares(terms)
            ends.append((bounds.low, bounds.high))
        return *np.transpose(ends), float(np.mean(classes.recalls))

    return draw


def paired_balanced_accuracy(classes: Classes, drop: float) -> Draw:
    """Of a predictor, and one that misses a share of what it finds."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        ends = []
        for _ in range(repeats):
            labels, answers = classes.draw(generator, n)
            others = np.where(
                generator.random(n) < drop, (labels + 1) % len(classes.shares), answers
            )
            first = classes.terms(labels, answers, "balanced_accuracy")
            second = classes.terms(labels, others, "balanced_accuracy")
            bounds = of_paired_means_of_shares(first, second)
            ends.append((bounds.low, bounds.high))
        return *np.transpose(ends), drop * float(np.mean(classes.recalls))

    return draw


def macro_f1(classes: Classes) -> Draw:
    """The mean of F1 scores, where its doubt allows an interval."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        metric = METRICS["macro_f1"]
        pseudo, center, is_doubted = [], [], []
        for _ in range(repeats):
            labels, answers = classes.draw(generator, n)
            terms = classes.terms(labels, answers, "macro_f1")
            sums = terms.sum(axis=0)
            pseudo.append(metric.pseudo_values(terms))
            center.append(metric.combine(sums[None], n)[0])
            both = np.split(sums, 2)[1]
            is_doubted.append(both[both > 0].min() < 2 * MIN_OF_A_CLASS)

        low, high = of_means(np.stack(pseudo, axis=1), np.array(center))
        return np.where(is_doubted, np.nan, low), high, classes.macro_f1

    return draw


# -------------------------------------------------------------------------------- temperatures


def temperature(correlation: float, chains: int) -> Draw:
    """The configurational temperature of n states in all, of chains that are AR(1), around 1."""

    def draw(generator: np.random.Generator, n: int, repeats: int) -> tuple[Any, Any, float]:
        steps = n // chains
        state = generator.normal(size=(repeats, chains))
        states = np.empty((repeats, steps, chains))
        for step in range(steps):
            states[:, step] = state
            noise = generator.normal(size=(repeats, chains))
            state = correlation * state + math.sqrt(1 - correlation**2) * noise

        chain = torch.arange(chains).repeat(steps)
        virial = torch.from_numpy(1 + states.reshape(repeats, -1))
        temperatures = [configurational_temperature(row, 1, chain) for row in virial]
        return (
            np.array([t.low for t in temperatures]),
            np.array([t.high for t in temperatures]),
            1.0,
        )

    return draw
