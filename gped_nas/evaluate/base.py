"""What a metric is.

A metric is a function of sums over examples: ``terms`` gives T numbers an example, ``combine``
turns their sums into the value. A metric says which interval is honest for it, see
``gped_nas.evaluate.intervals``, and where none is. Resamples weigh the examples by how often each
was drawn, so that all resamples of all metrics are one matrix product. ``judging`` measures.

Where a metric is not the mean of its only term, pseudo-values stand for the terms: what each
example adds to the value, ``n value - (n - 1) (value without the example)``. They are a closed form
of the sums too.

What ranks examples is no function of sums: such a metric gives ``whole``, a function of the terms
of all examples, and its resamples and pseudo-values are made by it.
"""

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from gped_nas.data.base import Task
from gped_nas.errors import RegistryError, calling
from gped_nas.evaluate.intervals import MIN_EXAMPLES, Bounds
from gped_nas.evaluate.measured import Direction, is_metric_name
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
Whole = Callable[[Floats], float]
"""``whole(terms_NT) -> value``; NaN where these examples have none."""


IntervalKind = Literal["bootstrap_t", "share", "mean_of_shares"]
Doubt = Callable[[Any, Labels, Any], str]
"""``doubt(predictions, labels_N, teacher)``: why no interval is honest; empty where one is."""
LabelMeaning = Literal["prediction", "certificate", "ood"]
"""What labels are: the dataset's own, the same beside what is proven of answers, or 1 for inputs
from outside and 0 for those from inside."""
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
MAIN_OF_TASK: dict[Task, str] = {"classification": "predictive", "regression": "predictive_normal"}


@dataclass(frozen=True)
class Metric:
    """A quality number.

    Attributes:
        name: as registered.
        direction: what is better.
        label: for axes and tables, with the unit: ``"NLL (nats)"``.
        terms: T numbers an example.
        combine: sums of the terms over n examples to the value.
        whole: in place of ``combine``, the terms of all examples to the value, where that is no
            function of their sums.
        pseudo: the terms (N, T) to what each example adds to the value, (N,); its interval is of
            their spread. None makes them of the value without each example.
        undefined: of a metric that has no value on some sound predictions, why that is.
        least_examples: below which there is no value.
        tasks: what kinds of label it can judge.
        task: what the labels are that it is given: ``prediction``, those of the dataset;
            ``certificate``, the same, within the radius of a condition that states one; ``ood``, 1
            where an input is from outside and 0 where it is not.
        always: whether it is measured wherever it applies; else where somebody asks for it: as an
            objective, a constraint, or by a task.
        reads: targets whose expectations it reads; of a metric for both tasks, the main target of
            each.
        needs_teacher: compares with the teacher's predictions.
        teacher_reads: targets that it reads of the teacher; those of ``reads`` where None.
        needs_samples: reads what single posterior samples say: the teacher's, or where there is no
            teacher those of the predictions themselves.
        needs_spread: means nothing of one network alone, whose posterior has no spread.
        samples_suffice: where a target of ``reads`` is absent, posterior samples of the predictions
            themselves stand for it.
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
        doubt_cancels: whether the doubt is in a bias that two predictors have alike on the same
            examples, so that it says nothing against an interval of their difference over seeds.
    """

    name: str
    direction: Direction
    label: str
    terms: Terms
    combine: Combine = mean
    whole: Whole | None = None
    pseudo: Callable[[Floats], Floats] | None = None
    undefined: str = ""
    least_examples: int = 1
    tasks: tuple[Task, ...] = ("classification",)
    task: LabelMeaning = "prediction"
    always: bool = True
    reads: tuple[str, ...] = ()
    needs_teacher: bool = False
    teacher_reads: tuple[str, ...] | None = None
    needs_samples: bool = False
    needs_spread: bool = False
    samples_suffice: bool = False
    interval: IntervalKind | Callable[[Floats], Bounds] = "bootstrap_t"
    doubt: Doubt | str | None = None
    doubt_cancels: bool = False
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
        if self.whole is not None and self.combine is not mean:
            raise RegistryError(f"metric '{self.name}': found combine and whole, expected one")
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

    @property
    def has_differences(self) -> bool:
        """Whether an interval is known of the difference of two values."""
        return not callable(self.interval) or self.pseudo is not None

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
        if self.task == "certificate" and getattr(predictions, "certified_N", None) is None:
            return False
        if self.needs_spread and (
            predictions.is_point or (teacher is not None and teacher.is_point)
        ):
            return False
        is_read = self.read_of_student(task) <= predictions.expectations.keys()
        if not is_read and not (self.samples_suffice and predictions.samples is not None):
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
        return self.total(self.checked_terms(predictions, labels_N, teacher))

    def checked_terms(
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
        is_plain = self.whole is None and self.pseudo is None and self.combine is mean
        if is_plain and terms_NT.shape[1] == 1:
            return terms_NT[:, 0]
        if n < MIN_EXAMPLES:
            return np.zeros(n)
        if self.pseudo is not None:
            return self.pseudo(terms_NT)
        if self.whole is not None:
            return self._leave_out_each(terms_NT)

        without_NT = terms_NT.sum(axis=0) - terms_NT
        with np.errstate(invalid="ignore", divide="ignore"):
            without_N = self.combined(without_NT, n - 1)
        pseudo_N: Floats = n * self.total(terms_NT) - (n - 1) * without_N
        return pseudo_N

    def why_no_interval(
        self, predictions: AnyPredictions, labels_N: Labels, teacher: AnyPredictions | None
    ) -> str:
        """Why no interval is honest for these predictions; empty where one is."""
        if self.doubt is None or isinstance(self.doubt, str):
            return self.doubt or ""
        return self.doubt(predictions, labels_N, teacher)

    def cut(self, bounds: Bounds, task: Task) -> Bounds:
        """An interval without the values that no predictor can have."""
        bound = self.bounds.get(task)
        if bound is None or bounds.low is None or bounds.high is None:
            return bounds
        if self.direction == "minimize":
            return replace(bounds, low=max(bounds.low, bound))
        return replace(bounds, high=min(bounds.high, bound))

    def total(self, terms_NT: Floats) -> float:
        """The value on all examples, of their terms; infinities and NaN are kept."""
        if self.whole is not None:
            return self._of_all(terms_NT)
        with np.errstate(invalid="ignore"):
            sums_1T = terms_NT.sum(axis=0, keepdims=True)
            return float(self.combined(sums_1T, len(terms_NT))[0])

    def on_resamples(self, terms_NT: Floats, resamples: Resamples) -> Floats:
        """The value on each resample of the examples, (R,)."""
        if self.whole is None:
            return self.combined(resamples.sums(terms_NT), resamples.n)

        values = []
        for counts_N in resamples.counts_RN:
            values.append(self._of_all(np.repeat(terms_NT, counts_N, axis=0)))
        return np.array(values)

    def _of_all(self, terms_NT: Floats) -> float:
        """What ``whole`` makes of the terms; NaN where one of them is."""
        assert self.whole is not None, "a metric of sums is combined"
        if np.isnan(terms_NT).any() or len(terms_NT) < self.least_examples:
            return float("nan")
        with calling(f"metric '{self.name}'", "mend whole="), np.errstate(invalid="ignore"):
            return float(self.whole(terms_NT))

    def _leave_out_each(self, terms_NT: Floats) -> Floats:
        """Pseudo-values by leaving out each example in turn."""
        n = len(terms_NT)
        without = [self._of_all(np.delete(terms_NT, i, axis=0)) for i in range(n)]
        pseudo_N: Floats = n * self._of_all(terms_NT) - (n - 1) * np.array(without)
        return pseudo_N

    def combined(self, sums_RT: Floats, n: int) -> Floats:
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
    of_other_tasks = {main for other, main in MAIN_OF_TASK.items() if other != task}
    return set(targets) - of_other_tasks


METRICS: Registry[Metric] = Registry("metric", "gped_nas.evaluate", Metric)


def metrics_to_measure(
    asked: Collection[str | Metric] = (), task: LabelMeaning = "prediction"
) -> list[Metric]:
    """The metrics that are measured, by name: those of always, and those that are asked for.

    Args:
        asked: names of registered metrics, or metrics that are not registered.
        task: what the labels are; metrics of other labels are left out.

    Raises:
        RegistryError: a name that nobody registered.
    """
    metrics = {metric.name: metric for metric in METRICS.values() if metric.always}
    for wanted in asked:
        metric = METRICS[wanted] if isinstance(wanted, str) else wanted
        metrics[metric.name] = metric
    return [metrics[name] for name in sorted(metrics) if metrics[name].task == task]


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
