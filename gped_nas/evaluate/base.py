"""What a metric is, and how predictions become measures: values, sizes and 95 % intervals.

A metric is a function of sums over examples: ``terms`` gives T numbers an example, ``combine``
turns their sums into the value. The plain value uses the sums themselves; a bootstrap value uses
sums weighted by how often each example was drawn, so that all resamples of all metrics are one
matrix product. The draws are made once and shared by all students and the teacher, which makes
their differences paired.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile
intervals); Davison & Hinkley 1997, Bootstrap Methods and their Application, section 5.2 (basic
intervals).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gped_nas import rng
from gped_nas.data.base import Task
from gped_nas.errors import DataError, DivergenceError
from gped_nas.evaluate.measured import (
    CLEAN,
    VALIDATION,
    Direction,
    Interval,
    Key,
    Measured,
)
from gped_nas.evaluate.predictions import AnyPredictions, Floats, Labels, Predictions
from gped_nas.registry import Registry

_CHUNK = 128


Terms = Callable[[Any, Labels, Any], Floats]
"""``terms(predictions, labels_N, teacher) -> terms_NT``; infinities and NaN are kept."""
Combine = Callable[[Floats, int], Floats]
"""``combine(sums_RT, n) -> values_R``."""


def mean(sums_RT: Floats, n: int) -> Floats:
    """The mean over examples of the only term, shape (R,)."""
    return sums_RT[:, 0] / n


@dataclass(frozen=True)
class Metric:
    """A quality number.

    Attributes:
        name: as registered.
        direction: what is better.
        label: for axes and tables, with the unit: ``"NLL (nats)"``.
        terms: T numbers an example.
        combine: sums of the terms over n examples to the value.
        tasks: what kinds of label it can judge.
        needs_teacher: compares with the teacher's predictions.
        needs_entropy: reads the E[H] of the predictions that are judged.
        needs_teacher_entropy: reads the teacher's E[H].
        interval: ``percentile``; or ``basic`` for a non-negative metric that resampling pushes
            upwards, where the resampled values are reflected about the plain one.
    """

    name: str
    direction: Direction
    label: str
    terms: Terms
    combine: Combine = mean
    tasks: tuple[Task, ...] = ("classification",)
    needs_teacher: bool = False
    needs_entropy: bool = False
    needs_teacher_entropy: bool = False
    interval: Literal["percentile", "basic"] = "percentile"

    def applies(self, predictions: AnyPredictions, teacher: AnyPredictions | None) -> bool:
        """Whether it judges such labels and everything it reads is there."""
        if predictions.task not in self.tasks or (
            self.needs_entropy and not _has_entropy(predictions)
        ):
            return False
        if teacher is None:
            return not (self.needs_teacher or self.needs_teacher_entropy)
        return not (self.needs_teacher_entropy and not _has_entropy(teacher))

    def value(
        self, predictions: AnyPredictions, labels_N: Labels, teacher: AnyPredictions | None = None
    ) -> float:
        """The plain value on all examples; infinities and NaN are kept."""
        return self._total(self.terms(predictions, labels_N, teacher))

    def _total(self, terms_NT: Floats) -> float:
        with np.errstate(invalid="ignore"):
            return float(self.combine(terms_NT.sum(axis=0, keepdims=True), len(terms_NT))[0])


def _has_entropy(predictions: AnyPredictions) -> bool:
    return isinstance(predictions, Predictions) and predictions.expected_entropy_N is not None


METRICS: Registry[Metric] = Registry("metric", "gped_nas.evaluate")


def add_metric(
    name: str, direction: Direction, label: str, **settings: Any
) -> Callable[[Terms], Terms]:
    """Register the decorated function as the terms of a metric."""

    def add(terms: Terms) -> Terms:
        METRICS.register(name)(Metric(name, direction, label, terms, **settings))
        return terms

    return add


@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap draws of n examples with replacement, as counts.

    Attributes:
        counts_RN: how often each example is in each resample, uint8 (for n > 255 a count above 255
            has a probability below 1e-500).
    """

    counts_RN: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.counts_RN)

    @property
    def n(self) -> int:
        """Number of examples."""
        return int(self.counts_RN.shape[1])

    def sums(self, terms_NT: Floats) -> Floats:
        """Sums of the terms over each resample, shape (R, T), float64."""
        chunks = range(0, len(self), _CHUNK)
        return np.concatenate(
            [self.counts_RN[r : r + _CHUNK].astype(np.float64) @ terms_NT for r in chunks]
        )


def draw_resamples(n: int, *, root: int, part: str, num_resamples: int = 1000) -> Resamples:
    """The bootstrap draws of one part of a dataset, the same ones on every call.

    Args:
        n: number of examples in the part.
        root: the study's root seed.
        part: the part's name; validation and test have draws of their own.
        num_resamples: R.

    Raises:
        DataError: there are no examples.
    """
    if n < 1:
        raise DataError(f"{part}: found no examples, expected at least one to evaluate on")
    generator = np.random.default_rng(rng.seed(root, "bootstrap", part))
    counts = np.empty((num_resamples, n), np.uint8)
    for row in counts:
        row[:] = np.bincount(generator.integers(n, size=n), minlength=n)
    return Resamples(counts)


def evaluate(
    predictions: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None = None,
    *,
    resamples: Resamples,
    condition: str = CLEAN,
    part: str = VALIDATION,
) -> dict[Key, Measured]:
    """Every registered metric that applies; those that read what is absent are left out.

    Args:
        predictions: what is judged.
        labels_N: integer labels in [0, C), or real ones.
        teacher: the teacher's predictions for the same examples, or None.
        resamples: of the same examples; pass the same ones for every predictor.
        condition: under which condition of the inputs the predictions were made.
        part: of which part of the dataset the examples are.

    Raises:
        DataError: labels, predictions, teacher and resamples do not fit each other.
        DivergenceError: a metric is not finite; the message names it.
    """
    _check(predictions, labels_N, teacher, resamples)
    metrics = [metric for metric in METRICS.values() if metric.applies(predictions, teacher)]
    terms = [metric.terms(predictions, labels_N, teacher) for metric in metrics]
    values = [
        _finite(metric, metric._total(terms_NT))
        for metric, terms_NT in zip(metrics, terms, strict=True)
    ]

    # All resamples of all metrics are one matrix product.
    ends = np.cumsum([terms_NT.shape[1] for terms_NT in terms])[:-1]
    sums = np.split(resamples.sums(np.concatenate(terms, axis=1)), ends, axis=1)

    measures = {}
    for metric, value, sums_RT in zip(metrics, values, sums, strict=True):
        low, high = _interval(metric, value, metric.combine(sums_RT, resamples.n))
        key = Key(metric.name, condition, part)
        measures[key] = Measured(value, low, high, len(predictions))
    return measures


def paired_difference(
    metric_name: str,
    first: AnyPredictions,
    second: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None = None,
    *,
    resamples: Resamples,
) -> tuple[float, Interval, int]:
    """``first - second`` of one metric on the same examples, its 95 % interval (low, high), and n.

    Raises:
        RegistryError: unknown metric.
        DataError: sizes do not fit, or the metric reads something that is absent.
        DivergenceError: the metric of either is not finite.
    """
    metric = METRICS[metric_name]
    values, resampled = [], []
    for predictions in (first, second):
        _check(predictions, labels_N, teacher, resamples)
        if not metric.applies(predictions, teacher):
            raise DataError(
                f"metric '{metric_name}': it reads teacher predictions or an E[H] that is absent"
            )
        terms_NT = metric.terms(predictions, labels_N, teacher)
        values.append(_finite(metric, metric._total(terms_NT)))
        resampled.append(metric.combine(resamples.sums(terms_NT), resamples.n))
    difference = values[0] - values[1]
    return difference, _bounds(metric, difference, resampled[0] - resampled[1]), resamples.n


def _check(
    predictions: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None,
    resamples: Resamples,
) -> None:
    if resamples.n != len(predictions):
        raise DataError(f"resamples: drawn for {resamples.n} examples, expected {len(predictions)}")
    predictions.check(labels_N)
    if teacher is not None:
        predictions.check_like(teacher)


def _finite(metric: Metric, value: float) -> float:
    if not np.isfinite(value):
        raise DivergenceError(f"metric '{metric.name}' is {value}, expected a finite number")
    return value


def _bounds(metric: Metric, value: float, values_R: Floats) -> Interval:
    """The 95 % interval of a value from its resampled values, widened to hold the value itself."""
    low, high = (float(q) for q in np.quantile(values_R, (0.025, 0.975)))
    if metric.interval == "basic":
        low, high = 2 * value - high, 2 * value - low
    return min(low, value), max(high, value)


def _interval(metric: Metric, value: float, values_R: Floats) -> Interval:
    """``_bounds``, cut at zero where reflection may have crossed it."""
    low, high = _bounds(metric, value, values_R)
    return (max(low, 0.0), high) if metric.interval == "basic" else (low, high)
