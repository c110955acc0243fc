"""The mean of a metric over several conditions of the same examples, with its interval.

An example adds to the mean the mean of what it adds under each condition, so that the interval is
over examples: the conditions are those that were asked for, and no sample of anything.
"""

from collections.abc import Sequence

import numpy as np

from gped_nas.evaluate.base import Metric
from gped_nas.evaluate.intervals import around
from gped_nas.evaluate.measured import Measured
from gped_nas.evaluate.predictions import AnyPredictions, Labels
from gped_nas.evaluate.resamples import Resamples

WithTeacher = tuple[AnyPredictions, AnyPredictions | None]
"""What somebody, and the teacher, say of the examples under one condition."""
_NO_INTERVAL = "no interval is known for a mean over conditions of such numbers"


def mean_over_conditions(
    metric: Metric, answers: Sequence[WithTeacher], labels_N: Labels, *, resamples: Resamples
) -> Measured:
    """The mean of a metric over conditions; it has no value where one of them has none.

    Args:
        metric: which applies to all of the answers.
        answers: one a condition, of the same examples.
        labels_N: of the examples.
        resamples: of the examples.
    """
    terms, values, why = [], [], ""
    for predictions, teacher in answers:
        terms_NT = metric.checked_terms(predictions, labels_N, teacher)
        terms.append(terms_NT)
        values.append(metric.total(terms_NT))
        why = why or metric.why_no_interval(predictions, labels_N, teacher)

    value = float(np.mean(values))
    if not np.isfinite(value):
        return Measured(None, n=len(labels_N), why="it is not finite under every condition")
    if not why and metric.interval not in ("bootstrap_t", "share"):
        why = _NO_INTERVAL
    if why:
        return Measured(value, n=len(labels_N), why=why)

    # only now: where an interval is doubted, some have no pseudo-values, or dear ones
    pseudo_N = np.mean([metric.pseudo_values(terms_NT) for terms_NT in terms], axis=0)
    (bounds,) = around(np.array([value]), pseudo_N[:, None], resamples)
    cut = metric.cut(bounds, answers[0][0].task)
    return Measured(value, cut.low, cut.high, len(labels_N), cut.why)
