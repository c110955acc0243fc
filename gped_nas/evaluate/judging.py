"""Predictions become measures: values, sizes, 95 % intervals and paired differences."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from gped_nas.errors import DataError, DivergenceError
from gped_nas.evaluate.base import METRICS, LabelMeaning, Metric, metrics_to_measure
from gped_nas.evaluate.intervals import (
    Bounds,
    around,
    of_mean_of_shares,
    of_paired_means_of_shares,
    of_paired_shares,
    of_share,
)
from gped_nas.evaluate.measured import CLEAN, VALIDATION, Key, Measured, PairedMeasured, public_name
from gped_nas.evaluate.predictions import AnyPredictions, Floats, Labels
from gped_nas.evaluate.resamples import Resamples


def evaluate(
    predictions: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None = None,
    *,
    resamples: Resamples,
    condition: str = CLEAN,
    part: str = VALIDATION,
    asked: Collection[str | Metric] = (),
    task: LabelMeaning = "prediction",
) -> dict[Key, Measured]:
    """Every metric of always or that is asked for, and applies, of a student.

    Those that read what is absent are left out.

    A metric that the teacher itself has no finite value of, such as the NLL above one that gave a
    label no probability, has no value here either, and says why. All others must be finite.

    Args:
        predictions: what is judged.
        labels_N: integer labels in [0, C), or real ones.
        teacher: the teacher's predictions for the same examples, or None.
        resamples: of the same examples; pass the same ones for every predictor.
        condition: under which condition of the inputs the predictions were made.
        part: of which part of the dataset the examples are.
        asked: metrics that are wanted beside those of always: names, or metrics that nobody
            registered.
        task: what the labels are, see ``Metric.task``; metrics of other labels are left out.

    Raises:
        DataError: labels, predictions, teacher and resamples do not fit each other.
        DivergenceError: a metric is not finite; the message names it.
        RegistryError: the function of a metric raised something, or gave another shape.
    """
    measures = evaluate_or_explain(
        predictions,
        labels_N,
        teacher,
        resamples=resamples,
        condition=condition,
        part=part,
        asked=asked,
        task=task,
    )

    # what is not finite may be so for its teacher alone
    for metric in metrics_to_measure(asked, task):
        measured = measures.get(Key(metric.name, condition, part))
        if measured is None or measured.value is not None:
            continue
        if is_finite_for(metric, teacher, labels_N):
            name = public_name(Key(metric.name, condition))
            _check_finite(name, metric.value(predictions, labels_N, teacher), metric.undefined)
    return measures


def evaluate_or_explain(
    predictions: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None = None,
    *,
    resamples: Resamples,
    condition: str = CLEAN,
    part: str = VALIDATION,
    asked: Collection[str | Metric] = (),
    task: LabelMeaning = "prediction",
) -> dict[Key, Measured]:
    """``evaluate`` of a teacher or another reference: what is not finite is None and says why.

    A predictor may give the right label no probability at all, and its NLL is then infinite. That
    is true, and no reason to end a search.

    Args, and errors but ``DivergenceError``, are those of ``evaluate``.
    """
    _check(predictions, labels_N, teacher, resamples)
    measures = {}
    finite = []
    for metric in metrics_to_measure(asked, task):
        if not metric.applies(predictions, teacher):
            continue

        terms_NT = metric.checked_terms(predictions, labels_N, teacher)
        value = metric.total(terms_NT)
        why = ""
        if np.isfinite(value):
            finite.append(Judged(metric, value, terms_NT))
        else:
            why = _why_not_finite(metric, value, terms_NT)
        # a finite one is measured below; the order of the table is that of the registry
        measures[Key(metric.name, condition, part)] = Measured(None, n=len(predictions), why=why)

    all_bounds = _intervals(finite, predictions, labels_N, teacher, resamples)
    for row, bounds in zip(finite, all_bounds, strict=True):
        key = Key(row.metric.name, condition, part)
        measures[key] = Measured(row.value, bounds.low, bounds.high, len(predictions), bounds.why)
    return measures


@dataclass(frozen=True, eq=False)
class Judged:
    """A metric with its value and its terms (N, T) of some predictions."""

    metric: Metric
    value: float
    terms_NT: Floats


def _intervals(
    judged: Sequence[Judged],
    predictions: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None,
    resamples: Resamples,
) -> list[Bounds]:
    """The interval of each value, or why it has none."""
    bounds: dict[int, Bounds] = {}
    for i, row in enumerate(judged):
        why = row.metric.why_no_interval(predictions, labels_N, teacher)
        if why:
            bounds[i] = Bounds(why=why)
        elif row.metric.interval == "share":
            bounds[i] = of_share(row.terms_NT[:, 0])
        elif row.metric.interval == "mean_of_shares":
            bounds[i] = of_mean_of_shares(row.terms_NT)
        elif callable(row.metric.interval):
            bounds[i] = row.metric.interval(row.terms_NT)

    # All others together: their resamples are one matrix product.
    others = [i for i in range(len(judged)) if i not in bounds]
    if others:
        values_Q = np.array([judged[i].value for i in others])
        pseudo_NQ = np.stack(
            [judged[i].metric.pseudo_values(judged[i].terms_NT) for i in others], axis=1
        )
        bounds |= dict(zip(others, around(values_Q, pseudo_NQ, resamples), strict=True))

    return [judged[i].metric.cut(bounds[i], predictions.task) for i in range(len(judged))]


def is_finite_for(metric: Metric, teacher: AnyPredictions | None, labels_N: Labels) -> bool:
    """Whether a metric can be finite beside this teacher: it is for the teacher itself."""
    if teacher is None or not metric.needs_teacher or not metric.applies(teacher, teacher):
        return True
    return bool(np.isfinite(metric.value(teacher, labels_N, teacher)))


def _why_not_finite(metric: Metric, value: float, terms_NT: Floats) -> str:
    what = "infinite" if np.isinf(value) else "not a number"
    if len(terms_NT) < metric.least_examples:
        return f"it is of {metric.least_examples} examples at least, and there are {len(terms_NT)}"
    if metric.undefined and not np.isnan(terms_NT).any():
        return metric.undefined
    num = int((~np.isfinite(terms_NT)).any(axis=1).sum())
    return f"it is {what}: {num} of {len(terms_NT)} examples have no finite term"


def paired_difference(
    metric_name: str,
    first: AnyPredictions,
    second: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None = None,
    *,
    resamples: Resamples,
) -> PairedMeasured:
    """``first - second`` of one metric on the same examples, with its 95 % interval.

    Where the metric is a share of examples, it has the p-value of the exact test too.

    Raises:
        RegistryError: unknown metric, or its function is wrong.
        DataError: sizes do not fit, or the metric reads something that is absent.
        DivergenceError: the metric of either is not finite.
    """
    metric = METRICS[metric_name]
    mine = _judge(metric, first, labels_N, teacher, resamples)
    theirs = _judge(metric, second, labels_N, teacher, resamples)

    why = ""
    for predictions in (first, second):
        why = why or metric.why_no_interval(predictions, labels_N, teacher)

    difference = mine.value - theirs.value
    if why:
        bounds = Bounds(why=why)
    elif metric.interval == "share":
        bounds = of_paired_shares(mine.terms_NT[:, 0], theirs.terms_NT[:, 0])
    elif metric.interval == "mean_of_shares":
        bounds = of_paired_means_of_shares(mine.terms_NT, theirs.terms_NT)
    elif not metric.has_differences:
        bounds = Bounds(why="no interval is known for a difference of such numbers")
    else:
        # Pseudo-values of the same examples make the difference a paired one.
        pseudo_N = metric.pseudo_values(mine.terms_NT) - metric.pseudo_values(theirs.terms_NT)
        (bounds,) = around(np.array([difference]), pseudo_N[:, None], resamples)

    n = resamples.n
    return PairedMeasured(difference, bounds.low, bounds.high, n, bounds.why, bounds.p_value)


def resampled(
    metric_name: str,
    predictions: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None = None,
    *,
    resamples: Resamples,
) -> tuple[float, Floats]:
    """The value of one metric, and its values on the resamples, (R,).

    Those of two predictors on the same resamples are paired.

    Raises as ``paired_difference``.
    """
    judged = _judge(METRICS[metric_name], predictions, labels_N, teacher, resamples)
    return judged.value, judged.metric.on_resamples(judged.terms_NT, resamples)


def _judge(
    metric: Metric,
    predictions: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None,
    resamples: Resamples,
) -> Judged:
    """A metric's finite value and its terms; raises as ``paired_difference``."""
    _check(predictions, labels_N, teacher, resamples)
    if not metric.applies(predictions, teacher):
        raise DataError(
            f"metric '{metric.name}': it reads teacher predictions or a target that is absent"
        )

    terms_NT = metric.checked_terms(predictions, labels_N, teacher)
    value = _check_finite(metric.name, metric.total(terms_NT), metric.undefined)
    return Judged(metric, value, terms_NT)


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


def _check_finite(name: str, value: float, undefined: str) -> float:
    if not np.isfinite(value):
        reason = f": {undefined}" if undefined else ""
        raise DivergenceError(f"metric '{name}' is {value}, expected a finite number{reason}")
    return value
