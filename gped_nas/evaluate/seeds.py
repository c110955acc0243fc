"""Metrics of several trainings of one network: their mean, and how sure it is.

Two things are drawn by chance: the examples, and the seeds that networks were trained with. The
95 % interval is of both. Where the same seeds are on both sides of a difference, it is paired in
the seeds as in the examples.

Each end is the farther one of two:

* of the bootstrap that draws examples and seeds anew, each on its own, around the mean;
* of Student's t, with the variance over examples plus that over seeds, and the degrees of freedom
  of Satterthwaite. A bootstrap of three seeds sees two thirds of their variance; this sees it all.

Of one seed it is an interval over the examples alone. A difference of shares reaches at least as
far as Tango's interval of two predictors that never differ: few examples differ, and a bootstrap of
these is too sure.

Source: Owen 2007, Annals of Applied Statistics 1(2), sections 3 and 4 (both factors drawn anew,
which errs on the wide side); Satterthwaite 1946, Biometrics Bulletin 2.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gped_nas import rng
from gped_nas.data.base import Task
from gped_nas.evaluate.base import LabelMeaning, Metric, metrics_to_measure
from gped_nas.evaluate.intervals import MIN_EXAMPLES, TAIL, Bounds
from gped_nas.evaluate.measured import Measured
from gped_nas.evaluate.predictions import AnyPredictions, Floats, Labels
from gped_nas.evaluate.resamples import Resamples
from gped_nas.evaluate.shares import Z95
from gped_nas.posterior.diagnostics import t_quantile

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, eq=False)
class Sampled:
    """One metric of the same network, trained with several seeds.

    Attributes:
        metric: the metric.
        task: what the labels are.
        values_K: its value by seed.
        values_RK: the same on each resample of the examples; None where it is not resampled: no
            interval is made of it.
        n: number of examples.
        why: why no interval is honest for a value; empty where one is.
    """

    metric: Metric
    task: Task
    values_K: Floats
    values_RK: Floats | None
    n: int
    why: str = ""


def sample_metrics(
    predictions_K: Sequence[AnyPredictions],
    labels_N: Labels,
    teachers_K: Sequence[AnyPredictions | None],
    *,
    resamples: Resamples,
    asked: Collection[str] = (),
    task: LabelMeaning = "prediction",
) -> dict[str, Sampled]:
    """Every metric of always or asked for that applies to all of these predictions, by its name.

    Args:
        predictions_K: by the network of each seed, on the same examples.
        labels_N: integer or real labels.
        teachers_K: what the teacher says there, for each of them; None where it is not compared.
        resamples: of the same examples; pass the same ones for every network.
        asked: metrics that are wanted beside those of always.
        task: what the labels are, see ``Metric.task``.

    Raises:
        RegistryError: the function of a metric raised something, or gave another shape.
    """
    pairs = list(zip(predictions_K, teachers_K, strict=True))
    metrics = []
    for metric in metrics_to_measure(asked, task):
        if all(metric.applies(predictions, teacher) for predictions, teacher in pairs):
            metrics.append(metric)
    if not metrics:
        return {}

    whys = []
    for metric in metrics:
        doubts = (metric.why_no_interval(predictions, labels_N, t) for predictions, t in pairs)
        whys.append(next(filter(None, doubts), ""))

    values: list[list[float]] = []
    on_resamples: list[list[Floats | None]] = []
    for predictions, teacher in pairs:
        terms = [metric.checked_terms(predictions, labels_N, teacher) for metric in metrics]
        totals = [metric.total(terms_NT) for metric, terms_NT in zip(metrics, terms, strict=True)]
        values.append(totals)
        on_resamples.append(_on_resamples(metrics, terms, whys, resamples))

    sampled = {}
    for i, metric in enumerate(metrics):
        rows = [columns[i] for columns in on_resamples]
        known = [row for row in rows if row is not None]
        values_RK = np.stack(known, axis=1) if len(known) == len(rows) else None
        values_K = np.array([row[i] for row in values])
        labels = predictions_K[0].task
        sampled[metric.name] = Sampled(metric, labels, values_K, values_RK, resamples.n, whys[i])
    return sampled


def _on_resamples(
    metrics: Sequence[Metric],
    terms: Sequence[Floats],
    whys: Sequence[str],
    resamples: Resamples,
) -> list[Floats | None]:
    """Each metric of one network on the resamples, (R,); None of one that needs no such values.

    It has an interval of its own, or none. The sums of all of them are one matrix product; metrics
    that are no function of sums are dear.
    """
    of_sums = [x for metric, x in zip(metrics, terms, strict=True) if metric.whole is None]
    sums_RT = resamples.sums(np.hstack(of_sums)) if of_sums else np.empty((len(resamples), 0))

    values: list[Floats | None] = []
    start = 0
    for metric, terms_NT, why in zip(metrics, terms, whys, strict=True):
        is_needed = metric.has_differences and (not why or metric.doubt_cancels)
        if metric.whole is not None:
            values.append(metric.on_resamples(terms_NT, resamples) if is_needed else None)
            continue

        stop = start + terms_NT.shape[1]
        values.append(metric.combined(sums_RT[:, start:stop], resamples.n) if is_needed else None)
        start = stop
    return values


def means(sampled: Mapping[K, Sampled], *, root: int) -> dict[K, Measured]:
    """Each metric's mean over the seeds, with its interval over examples and seeds.

    Args:
        sampled: as ``sample_metrics`` gave it, under any keys.
        root: the study's root seed, for the draws of seeds.
    """
    measured = {}
    for name, row in sampled.items():
        bounds = _bounds(row.values_K, row.values_RK, row.n, row.why, root)
        cut = row.metric.cut(bounds, row.task)
        measured[name] = _measured(row.values_K, cut, row.n)
    return measured


def differences(
    first: Mapping[K, Sampled], second: Mapping[K, Sampled], *, root: int
) -> dict[K, Measured]:
    """``first - second`` of each metric that both have, as ``means``; paired in the seeds.

    Args:
        first, second: of the same examples, resamples and seeds.
        root: the study's root seed, for the draws of seeds.
    """
    measured = {}
    for name, mine in first.items():
        theirs = second.get(name)
        if theirs is None:
            continue

        why = "" if mine.metric.doubt_cancels else mine.why or theirs.why
        values_K = mine.values_K - theirs.values_K
        values_RK = None
        if mine.values_RK is not None and theirs.values_RK is not None:
            values_RK = mine.values_RK - theirs.values_RK
        least = Z95**2 / (mine.n + Z95**2) if mine.metric.interval == "share" else 0.0
        bounds = _bounds(values_K, values_RK, mine.n, why, root, least=least)
        measured[name] = _measured(values_K, bounds, mine.n)
    return measured


def difference_error(first: Sampled, second: Sampled) -> tuple[float, float]:
    """``first - second`` in the mean over seeds, and its standard error over examples and seeds.

    Args:
        first, second: the same metric of the same examples, resamples and seeds.
    """
    assert first.values_RK is not None and second.values_RK is not None, "it is resampled"
    values_K = first.values_K - second.values_K
    values_RK = first.values_RK - second.values_RK
    return float(values_K.mean()), sum(_variances(values_K, values_RK)) ** 0.5


def _variances(values_K: Floats, values_RK: Floats) -> tuple[float, float]:
    """Of a mean over seeds: over examples, and over seeds."""
    num_seeds = len(values_K)
    of_seeds = float(values_K.var(ddof=1)) / num_seeds if num_seeds > 1 else 0.0
    return float(values_RK.mean(axis=1).var()), of_seeds


def _measured(values_K: Floats, bounds: Bounds, n: int) -> Measured:
    value = float(values_K.mean())
    if not np.isfinite(value):
        return Measured(None, n=n, why="it is not finite with one of the seeds")
    return Measured(value, bounds.low, bounds.high, n, bounds.why)


def _bounds(
    values_K: Floats,
    values_RK: Floats | None,
    n: int,
    why: str,
    root: int,
    *,
    least: float = 0.0,
) -> Bounds:
    """The interval of the mean of values by seed; see the module docstring.

    Args:
        values_K: by seed.
        values_RK: on each resample of the examples.
        n: number of examples.
        why: why there is none.
        root: of the draws of seeds.
        least: how far each end is away at least.
    """
    if why:
        return Bounds(why=why)
    if values_RK is None:
        return Bounds(why="no interval is known for the mean over seeds of such numbers")
    if n < MIN_EXAMPLES:
        return Bounds(why=f"{n} examples are too few to know their spread: it needs {MIN_EXAMPLES}")
    if not np.isfinite(values_RK).all():
        return Bounds(why="it is not finite on some draws of the examples")

    num_seeds = len(values_K)
    of_examples, of_seeds = _variances(values_K, values_RK)
    total = of_examples + of_seeds
    if total <= (1e-12 * max(1.0, abs(float(values_K.mean())))) ** 2 and not least:
        return Bounds(why=f"all {n} examples give the same: their spread is not known")

    half = least
    if total > 0:
        weights = of_examples**2 / (n - 1) + of_seeds**2 / max(1, num_seeds - 1)
        half = max(half, t_quantile(max(1, int(total**2 / weights))) * total**0.5)

    drawn_R = (values_RK * _draw_seeds(len(values_RK), num_seeds, root)).sum(axis=1) / num_seeds
    low, high = np.quantile(drawn_R, (TAIL, 1 - TAIL)) - drawn_R.mean()
    value = float(values_K.mean())
    return Bounds(value - max(half, -float(low)), value + max(half, float(high)))


def _draw_seeds(num_resamples: int, num_seeds: int, root: int) -> Floats:
    """How often each seed is in each resample, (R, K)."""
    generator = np.random.default_rng(rng.seed(root, "bootstrap", "seeds"))
    drawn_RK = generator.integers(num_seeds, size=(num_resamples, num_seeds))
    is_drawn_RKK = drawn_RK[:, :, None] == np.arange(num_seeds)
    counts_RK: Floats = is_drawn_RKK.sum(axis=1).astype(np.float64)
    return counts_RK
