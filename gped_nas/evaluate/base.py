"""What a metric is, and how predictions become measures: values, sizes and 95 % intervals.

A metric is a function of sums over examples: ``terms`` gives T numbers an example, ``combine``
turns their sums into the value. A metric says which interval is honest for it, see
``gped_nas.evaluate.intervals``, and where none is. Resamples weigh the examples by how often each
was drawn, so that all resamples of all metrics are one matrix product.

Where a metric is not the mean of its only term, pseudo-values stand for the terms: what each
example adds to the value, ``n value - (n - 1) (value without the example)``. They are a closed form
of the sums too.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from gped_nas.data.base import Task
from gped_nas.errors import DataError, DivergenceError, RegistryError, calling
from gped_nas.evaluate.intervals import (
    MIN_EXAMPLES,
    Bounds,
    around,
    of_mean_of_shares,
    of_paired_means_of_shares,
    of_paired_shares,
    of_share,
)
from gped_nas.evaluate.measured import (
    CLEAN,
    VALIDATION,
    Direction,
    Key,
    Measured,
    PairedMeasured,
    is_metric_name,
    public_name,
)
from gped_nas.evaluate.predictions import AnyPredictions, Floats, Labels
from gped_nas.evaluate.resamples import Resamples as Resamples
from gped_nas.evaluate.resamples import draw_resamples as draw_resamples
from gped_nas.models.labels import COSTS
from gped_nas.registry import Registry
from gped_nas.targets.base import Target

Terms = Callable[[Any, Labels, Any], Floats]
"""``terms(predictions, labels_N, teacher) -> terms_NT``; infinities and NaN are kept."""
Combine = Callable[[Floats, int], Floats]
"""``combine(sums_RT, n) -> values_R``."""


IntervalKind = Literal["bootstrap_t", "share", "mean_of_shares"]
Doubt = Callable[[Any, Labels, Any], str]
"""``doubt(predictions, labels_N, teacher)``: why no interval is honest; empty where one is."""
_OLD_KINDS = ("percentile", "basic")


def mean(sums_RT: Floats, n: int) -> Floats:
    """The mean over examples of the only term, shape (R,)."""
    return sums_RT[:, 0] / n


@dataclass(frozen=True)
class LabelFacts:
    """What the ends of a metric's axis may depend on.

    Attributes:
        num_classes: C; 1 for real labels.
        std: standard deviation of real labels; None for classes.
        targets: what is distilled, with its settings, by name.
    """

    num_classes: int
    std: float | None = None
    targets: Mapping[str, Target] = field(default_factory=dict)


_MEND = (
    "mend it: it may read the targets that it names in reads=, and has the teacher's predictions "
    "with needs_teacher=True alone"
)
End = float | Callable[[LabelFacts], float] | None
_MAIN: dict[Task, str] = {"classification": "predictive", "regression": "predictive_normal"}


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
        reads: targets whose expectations it reads; of a metric for both tasks, the main target of
            each.
        needs_teacher: compares with the teacher's predictions.
        teacher_reads: targets that it reads of the teacher; those of ``reads`` where None.
        needs_samples: reads what single posterior samples say: the teacher's, or where there is no
            teacher those of the predictions themselves.
        needs_spread: means nothing of one network alone, whose posterior has no spread.
        unit: of its values: ``"nats"``, ``"share"``, ``"euro"``; empty where it has none.
        worst: what a predictor that knows nothing pays, a number or a function of the labels: the
            end of its axis, beyond which the hypervolume counts nothing. None where it has no such
            value; it can then be recorded, and is no objective.
        best: the other end of its axis, likewise; a metric has both or neither.
        bounds: by kind of label, the value that no predictor can beat; a constraint beyond it is
            refused. ``best`` may be beaten where it only ends the axis.
        interval: ``bootstrap_t``, for any function of sums; ``share`` for the mean of terms that
            are 0 or 1; ``mean_of_shares`` for the mean over classes of such means, of terms as
            ``intervals.of_mean_of_shares`` takes them; or a function that makes it of the terms.
        doubt: says of predictions why no interval is honest for them; empty where one is. A text
            where none ever is. None where one always is.
    """

    name: str
    direction: Direction
    label: str
    terms: Terms
    combine: Combine = mean
    tasks: tuple[Task, ...] = ("classification",)
    reads: tuple[str, ...] = ()
    needs_teacher: bool = False
    teacher_reads: tuple[str, ...] | None = None
    needs_samples: bool = False
    needs_spread: bool = False
    interval: IntervalKind | Callable[[Floats], Bounds] = "bootstrap_t"
    doubt: Doubt | str | None = None
    unit: str = ""
    worst: End = None
    best: End = None
    bounds: Mapping[Task, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not is_metric_name(self.name):
            raise RegistryError(
                f"metric '{self.name}': expected a name that does not begin with 'test_' and holds "
                "no '@': these say on which part and under which condition it was measured"
            )
        if self.name in COSTS:
            raise RegistryError(
                f"metric '{self.name}': a cost is called so; choose another name for the metric"
            )
        if (self.worst is None) != (self.best is None):
            raise RegistryError(f"metric '{self.name}': found worst or best alone, expected both")
        self._check_interval()

    def _check_interval(self) -> None:
        if self.interval in _OLD_KINDS:
            warnings.warn(
                f"metric '{self.name}': interval={self.interval!r} is bootstrap_t now; "
                "leave interval= out",
                DeprecationWarning,
                stacklevel=4,
            )
            object.__setattr__(self, "interval", "bootstrap_t")
        elif self.interval not in get_args(IntervalKind) and not callable(self.interval):
            raise RegistryError(
                f"metric '{self.name}': found interval {self.interval!r}, expected one of "
                f"{', '.join(get_args(IntervalKind))}, or a function of the terms"
            )

    def read_of_student(self, task: Task) -> set[str]:
        """Targets that it reads of predictions for such labels."""
        return _of_task(self.reads, task)

    def read_of_teacher(self, task: Task) -> set[str]:
        """Targets that it reads of the teacher."""
        if not self.needs_teacher:
            return set()
        reads = self.reads if self.teacher_reads is None else self.teacher_reads
        return _of_task(reads, task)

    def applies(self, predictions: AnyPredictions, teacher: AnyPredictions | None) -> bool:
        """Whether it judges such labels and everything it reads is there."""
        task = predictions.task
        if task not in self.tasks:
            return False
        if self.needs_spread and (
            predictions.is_point or (teacher is not None and teacher.is_point)
        ):
            return False
        if not self.read_of_student(task) <= predictions.expectations.keys():
            return False
        if self.needs_samples and (teacher or predictions).samples is None:
            return False
        if not self.needs_teacher:
            return True
        return teacher is not None and self.read_of_teacher(task) <= teacher.expectations.keys()

    def value(
        self, predictions: AnyPredictions, labels_N: Labels, teacher: AnyPredictions | None = None
    ) -> float:
        """The plain value on all examples; infinities and NaN are kept."""
        return self._total(self._checked_terms(predictions, labels_N, teacher))

    def _checked_terms(
        self, predictions: AnyPredictions, labels_N: Labels, teacher: AnyPredictions | None
    ) -> Floats:
        """The terms, (N, T).

        Raises:
            RegistryError: the function raised something, or gave another shape.
        """
        # what two infinities differ by is NaN, which is kept
        with calling(f"metric '{self.name}'", _MEND), np.errstate(invalid="ignore"):
            terms_NT = np.asarray(self.terms(predictions, labels_N, teacher))

        if terms_NT.ndim != 2 or len(terms_NT) != len(predictions):
            raise RegistryError(
                f"metric '{self.name}': found terms of shape {terms_NT.shape}, expected a row "
                f"an example, ({len(predictions)}, T); one number an example is terms[:, None]"
            )
        return terms_NT

    def pseudo_values(self, terms_NT: Floats) -> Floats:
        """What each example adds to the value, (N,): of a mean, its term.

        Source: Tukey 1958; Efron & Tibshirani 1993, section 11.5.
        """
        n = len(terms_NT)
        if self.combine is mean and terms_NT.shape[1] == 1:
            return terms_NT[:, 0]
        if n < MIN_EXAMPLES:
            return np.zeros(n)

        without_NT = terms_NT.sum(axis=0) - terms_NT
        with np.errstate(invalid="ignore", divide="ignore"):
            without_N = self._combined(without_NT, n - 1)
        pseudo_N: Floats = n * self._total(terms_NT) - (n - 1) * without_N
        return pseudo_N

    def _why_none(
        self, predictions: AnyPredictions, labels_N: Labels, teacher: AnyPredictions | None
    ) -> str:
        """Why no interval is honest for these predictions; empty where one is."""
        if self.doubt is None or isinstance(self.doubt, str):
            return self.doubt or ""
        return self.doubt(predictions, labels_N, teacher)

    def _cut(self, bounds: Bounds, task: Task) -> Bounds:
        """An interval without the values that no predictor can have."""
        bound = self.bounds.get(task)
        if bound is None or bounds.low is None or bounds.high is None:
            return bounds
        if self.direction == "minimize":
            return replace(bounds, low=max(bounds.low, bound))
        return replace(bounds, high=min(bounds.high, bound))

    def _total(self, terms_NT: Floats) -> float:
        with np.errstate(invalid="ignore"):
            sums_1T = terms_NT.sum(axis=0, keepdims=True)
            return float(self._combined(sums_1T, len(terms_NT))[0])

    def _combined(self, sums_RT: Floats, n: int) -> Floats:
        """The value of each row of sums over n examples, (R,).

        Raises:
            RegistryError: ``combine`` raised something, or gave another shape.
        """
        with calling(f"metric '{self.name}'", "mend combine="):
            values_R = np.asarray(self.combine(sums_RT, n))

        if values_R.shape != (len(sums_RT),):
            raise RegistryError(
                f"metric '{self.name}': combine= made shape {values_R.shape} of {len(sums_RT)} "
                f"rows of sums, expected a value for each, ({len(sums_RT)},)"
            )
        return values_R


def _of_task(targets: tuple[str, ...], task: Task) -> set[str]:
    """The targets without the main one of the other task."""
    of_other_tasks = {main for other, main in _MAIN.items() if other != task}
    return set(targets) - of_other_tasks


METRICS: Registry[Metric] = Registry("metric", "gped_nas.evaluate", Metric)


def add_metric(
    name: str, direction: Direction, label: str, **settings: Any
) -> Callable[[Terms], Terms]:
    """Register the decorated function as the terms of a metric.

    Args:
        name: as search spaces call it.
        direction: what is better, ``"minimize"`` or ``"maximize"``.
        label: for axes and tables, with the unit.
        settings: other attributes of ``Metric``. Most metrics need ``reads``; ``needs_teacher``
            where they compare with the teacher; ``worst`` and ``best`` to be an objective.

    The function is given the predictions, the labels (N,), and the teacher's predictions or None.
    It returns an array (N, T), for example how far a target is from the teacher's::

        @add_metric("gap", "minimize", "gap", reads=("margin",), needs_teacher=True)
        def gap(predictions, labels, teacher):
            return abs(predictions.expectations["margin"] - teacher.expectations["margin"])
    """

    def add(terms: Terms) -> Terms:
        METRICS.register(name)(Metric(name, direction, label, terms, **settings))
        return terms

    return add


def evaluate(
    predictions: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None = None,
    *,
    resamples: Resamples,
    condition: str = CLEAN,
    part: str = VALIDATION,
) -> dict[Key, Measured]:
    """Every registered metric that applies, of a student; those that read what is absent are not.

    A metric that the teacher itself has no finite value of, such as the NLL above one that gave a
    label no probability, has no value here either, and says why. All others must be finite.

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
        RegistryError: the function of a metric raised something, or gave another shape.
    """
    measures = evaluate_or_explain(
        predictions, labels_N, teacher, resamples=resamples, condition=condition, part=part
    )
    for key, measured in measures.items():
        metric = METRICS[key.metric]
        if measured.value is None and is_finite_for(metric, teacher, labels_N):
            name = public_name(Key(metric.name, condition))
            _check_finite(name, metric.value(predictions, labels_N, teacher))
    return measures


def evaluate_or_explain(
    predictions: AnyPredictions,
    labels_N: Labels,
    teacher: AnyPredictions | None = None,
    *,
    resamples: Resamples,
    condition: str = CLEAN,
    part: str = VALIDATION,
) -> dict[Key, Measured]:
    """``evaluate`` of a teacher or another reference: what is not finite is None and says why.

    A predictor may give the right label no probability at all, and its NLL is then infinite. That
    is true, and no reason to end a search.

    Args, and errors but ``DivergenceError``, are those of ``evaluate``.
    """
    _check(predictions, labels_N, teacher, resamples)
    measures = {}
    finite = []
    for metric in METRICS.values():
        if not metric.applies(predictions, teacher):
            continue

        terms_NT = metric._checked_terms(predictions, labels_N, teacher)
        value = metric._total(terms_NT)
        key = Key(metric.name, condition, part)
        if np.isfinite(value):
            finite.append(Judged(metric, value, terms_NT))
        # a finite one is measured below; the order of the table is that of the registry
        why = _why_not_finite(value, terms_NT)
        measures[key] = Measured(None, n=len(predictions), why=why)

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
        why = row.metric._why_none(predictions, labels_N, teacher)
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

    return [judged[i].metric._cut(bounds[i], predictions.task) for i in range(len(judged))]


def is_finite_for(metric: Metric, teacher: AnyPredictions | None, labels_N: Labels) -> bool:
    """Whether a metric can be finite beside this teacher: it is for the teacher itself."""
    if teacher is None or not metric.needs_teacher or not metric.applies(teacher, teacher):
        return True
    return bool(np.isfinite(metric.value(teacher, labels_N, teacher)))


def _why_not_finite(value: float, terms_NT: Floats) -> str:
    what = "infinite" if np.isinf(value) else "not a number"
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
        why = why or metric._why_none(predictions, labels_N, teacher)

    difference = mine.value - theirs.value
    if why:
        bounds = Bounds(why=why)
    elif metric.interval == "share":
        bounds = of_paired_shares(mine.terms_NT[:, 0], theirs.terms_NT[:, 0])
    elif metric.interval == "mean_of_shares":
        bounds = of_paired_means_of_shares(mine.terms_NT, theirs.terms_NT)
    elif callable(metric.interval):
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
    return judged.value, judged.metric._combined(resamples.sums(judged.terms_NT), resamples.n)


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

    terms_NT = metric._checked_terms(predictions, labels_N, teacher)
    return Judged(metric, _check_finite(metric.name, metric._total(terms_NT)), terms_NT)


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


def _check_finite(name: str, value: float) -> float:
    if not np.isfinite(value):
        raise DivergenceError(f"metric '{name}' is {value}, expected a finite number")
    return value
