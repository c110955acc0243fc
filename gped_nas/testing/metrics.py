"""What every metric promises, for every kind of label that it judges."""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.base import Normalization, Task
from gped_nas.evaluate.base import METRICS, LabelFacts, Metric, draw_resamples
from gped_nas.evaluate.judging import evaluate
from gped_nas.evaluate.measured import Key
from gped_nas.evaluate.predictions import AnyPredictions, Labels, NormalPredictions, Predictions
from gped_nas.evaluate.teacher import averaged
from gped_nas.search.objectives import axis_ends, objective
from gped_nas.targets.base import MAIN_TARGET, TARGETS, Target
from gped_nas.testing.promises import require, run_all

NUM_EXAMPLES, NUM_CLASSES, NUM_SAMPLES = 60, 5, 4
_SURE = 0.3
TASKS: tuple[Task, ...] = ("classification", "regression")


@dataclass(frozen=True)
class MetricCase:
    """A metric and a kind of label that it judges, with random predictions and labels."""

    name: str
    task: Task

    def __str__(self) -> str:
        return f"{self.name}-{self.task}"

    @property
    def metric(self) -> Metric:
        """The metric itself."""
        return METRICS[self.name]

    @property
    def labels(self) -> Labels:
        """Random labels (N,); where they say which inputs are from outside, the second half is."""
        generator = np.random.default_rng(2)
        if self.metric.task == "ood":
            is_outside = np.arange(NUM_EXAMPLES) >= NUM_EXAMPLES // 2
            return is_outside.astype(int if self.task == "classification" else float)
        if self.task == "classification":
            return generator.integers(NUM_CLASSES, size=NUM_EXAMPLES)
        return generator.normal(size=NUM_EXAMPLES)

    @property
    def facts(self) -> LabelFacts:
        """What the ends of its axis may depend on."""
        targets = {target.name: target for target in _targets(self.task)}
        if self.task == "classification":
            return LabelFacts(NUM_CLASSES, None, targets)
        return LabelFacts(1, float(self.labels.std()), targets)

    def predictions(self, seed: int) -> AnyPredictions:
        """What a teacher of random posterior samples predicts, every target among it."""
        return self.proven(_random_predictions(seed, self.task, tuple(TARGETS.values())))

    def proven(self, predictions: AnyPredictions) -> AnyPredictions:
        """The same with what is proven of it, where that is what is judged: of sure answers."""
        if self.metric.task != "certificate" or not isinstance(predictions, Predictions):
            return predictions
        return replace(predictions, certified_N=predictions.confidence_N > _SURE)

    def perfect(self) -> AnyPredictions:
        """What a predictor that is right, and almost sure of it, predicts.

        It is unsure of inputs from outside; and of some others, where a metric has no value of a
        predictor that is never wrong.
        """
        unsure = torch.zeros(NUM_EXAMPLES, dtype=torch.bool)
        if self.metric.task == "ood":
            unsure[:] = torch.from_numpy(self.labels > 0)
        elif self.metric.undefined:
            unsure[-NUM_EXAMPLES // 10 :] = True

        samples = torch.where(unsure[:, None], random_samples(5, self.task), self._sure())
        return self.proven(predictions_of(samples, self.task))

    def _sure(self) -> Tensor:
        """Samples that are right of every example, and almost sure of it, as ``random_samples``."""
        if self.task == "regression":
            narrow = np.full(NUM_EXAMPLES, (self.labels.std() / 50) ** 2)
            samples = torch.from_numpy(np.stack([self.labels, narrow], -1))
            return samples.expand(NUM_SAMPLES, -1, -1)
        prob = torch.full((NUM_SAMPLES, NUM_EXAMPLES, NUM_CLASSES), 1e-9, dtype=torch.float64)
        prob[:, torch.arange(NUM_EXAMPLES), torch.from_numpy(self.labels)] = 1.0
        return (prob / prob.sum(-1, keepdim=True)).log()

    def is_no_better(self, value: float, than: float) -> bool:
        """Whether a value is as good as another at most, but for rounding."""
        sign = -1 if self.metric.direction == "maximize" else 1
        return sign * value >= sign * than - 1e-6 * max(1.0, abs(than))


def metric_cases(name: str) -> list[MetricCase]:
    """A registered metric, with each kind of label that it judges."""
    return [MetricCase(name, task) for task in METRICS[name].tasks]


def check_metric(name: str) -> None:
    """Try a registered metric on random predictions, teachers and labels.

    Raises:
        AssertionError: it breaks a promise; the message says which.
    """
    run_all(METRIC_CHECKS, metric_cases(name))


def random_samples(seed: int, task: Task) -> Tensor:
    """What random posterior samples predict: log-probabilities (S, N, C), or mean and variance
    (S, N, 2).
    """
    generator = np.random.default_rng(seed)
    if task == "regression":
        mean = generator.normal(size=(NUM_SAMPLES, NUM_EXAMPLES))
        variance = 0.5 + generator.random((NUM_SAMPLES, NUM_EXAMPLES))
        return torch.from_numpy(np.stack([mean, variance], -1))
    prob = generator.dirichlet(np.ones(NUM_CLASSES), (NUM_SAMPLES, NUM_EXAMPLES))
    return torch.from_numpy(np.log(prob))


def predictions_of(samples: Tensor, task: Task) -> AnyPredictions:
    """What a teacher of equally likely posterior samples predicts: every target of such labels."""
    unit = Normalization(0.0, 1.0) if task == "regression" else None
    return averaged(samples, torch.ones(len(samples)), unit, _targets(task))


@cache
def _random_predictions(seed: int, task: Task, targets: tuple[Target, ...]) -> AnyPredictions:
    """Made once for all metrics and promises, as long as the same targets are registered."""
    return predictions_of(random_samples(seed, task), task)


def it_says_what_it_is(case: MetricCase) -> None:
    """Label, direction and tasks are there, and it reads targets that exist."""
    metric = case.metric
    require(bool(metric.label), f"metric '{case.name}': found no label, expected one with its unit")
    require(
        metric.direction in ("minimize", "maximize"),
        f"metric '{case.name}': direction is {metric.direction!r}, expected minimize or maximize",
    )
    for target in (*metric.reads, *(metric.teacher_reads or ())):
        require(target in TARGETS, f"metric '{case.name}': reads '{target}', which is no target")


def terms_are_numbers_of_each_example(case: MetricCase) -> None:
    """One row of real numbers an example; ``combine`` makes one value of each row of sums, and
    ``whole`` one of all terms.
    """
    student, teacher = case.predictions(0), case.predictions(1)
    terms: Any = case.metric.terms(student, case.labels, teacher)
    require(
        isinstance(terms, np.ndarray) and terms.ndim == 2 and len(terms) == NUM_EXAMPLES,
        f"metric '{case}': terms are {getattr(terms, 'shape', type(terms))}, expected an array "
        f"({NUM_EXAMPLES}, T): a row an example; a single number each is terms[:, None]",
    )
    if case.metric.whole is not None:
        value = case.metric.whole(terms)
        require(
            isinstance(value, float), f"metric '{case}': whole gives {value!r}, expected a float"
        )
        return

    values = case.metric.combine(np.stack([terms.sum(0), 2 * terms.sum(0)]), NUM_EXAMPLES)
    require(
        np.shape(values) == (2,),
        f"metric '{case}': combine gives {np.shape(values)} for two rows of sums, expected (2,)",
    )


def value_and_interval_are_finite_and_ordered(case: MetricCase) -> None:
    """On sane predictions there is a value, inside its interval; where none is, it says why."""
    measures = evaluate(
        case.predictions(0),
        case.labels,
        case.predictions(1),
        resamples=draw_resamples(NUM_EXAMPLES, root=0, part="validation", num_resamples=50),
        asked=[case.metric],
        task=case.metric.task,
    )

    measured = measures.get(Key(case.name))
    require(measured is not None, f"metric '{case}': it was not measured")
    assert measured is not None
    value = math.nan if measured.value is None else measured.value
    low, high = measured.interval or (value, value)
    require(
        -math.inf < low <= value <= high < math.inf,
        f"metric '{case}': found {measured}, expected a finite value inside its interval",
    )
    require(
        bool(measured.why) == (measured.interval is None),
        f"metric '{case}': found {measured}, expected an interval, or why there is none",
    )
    require(measured.n == NUM_EXAMPLES, f"metric '{case}': counts {measured.n} examples")


def the_order_of_examples_does_not_matter(case: MetricCase) -> None:
    """Sums do not know it, and what ranks examples must not either."""
    order = np.random.default_rng(3).permutation(NUM_EXAMPLES)
    student, teacher = (random_samples(seed, case.task) for seed in (0, 1))
    value = case.metric.value(
        case.proven(predictions_of(student, case.task)),
        case.labels,
        predictions_of(teacher, case.task),
    )
    again = case.metric.value(
        case.proven(predictions_of(student[:, order], case.task)),
        case.labels[order],
        predictions_of(teacher[:, order], case.task),
    )
    require(
        math.isclose(value, again, rel_tol=1e-9, abs_tol=1e-12),
        f"metric '{case}': {value} becomes {again} when examples are put in another order",
    )


def what_is_not_a_number_stays_visible(case: MetricCase) -> None:
    """A NaN in the predictions is never hidden behind a number."""
    samples = random_samples(0, case.task)
    samples[:, 7] = torch.nan
    broken = case.proven(predictions_of(samples, case.task))
    value = case.metric.value(broken, case.labels, case.predictions(1))
    require(
        not math.isfinite(value),
        f"metric '{case}': is {value} of predictions that hold NaN, expected NaN",
    )


def it_applies_only_where_all_that_it_reads_is_there(case: MetricCase) -> None:
    """What it reads is declared, so that it is left out where that is absent."""
    metric, given = case.metric, case.predictions(0)
    bare: AnyPredictions
    if isinstance(given, Predictions):
        bare = Predictions(given.log_prob_NC)
    else:
        bare = NormalPredictions(given.mean_N, given.variance_N)

    others = set(metric.reads) - set(MAIN_TARGET.values())
    needs_more = metric.needs_teacher or metric.needs_samples or bool(others)
    needs_more |= metric.task == "certificate"
    require(
        metric.applies(bare, None) == (not needs_more),
        f"metric '{case}': applies to bare predictions: {metric.applies(bare, None)}, expected "
        f"{not needs_more}",
    )
    if not needs_more:
        value = metric.value(bare, case.labels)
        require(
            math.isfinite(value),
            f"metric '{case}': is {value} of bare predictions; declare what it reads",
        )
    require(metric.applies(given, given), f"metric '{case}': does not apply where all is there")
    for task in set(TASKS) - set(metric.tasks):
        other = predictions_of(random_samples(0, task), task)
        require(not metric.applies(other, other), f"metric '{case}': applies to {task} too")


def its_ends_hold_what_is_measured(case: MetricCase) -> None:
    """``best`` is not beaten, and ``worst`` is beaten by who is right or agrees with the teacher.

    The hypervolume counts nothing beyond ``worst``. A metric without ends is no objective.
    """
    if case.metric.worst is None:
        return
    best, worst = axis_ends(objective(case.name, f"metric '{case}'"), case.facts, {}, {})
    require(
        case.is_no_better(worst, best) and worst != best,
        f"metric '{case}': worst is {worst} and best {best}, expected worst to be worse "
        f"({case.metric.direction})",
    )

    perfect = case.perfect()
    for seed in range(5):
        teacher = case.predictions(seed + 10)
        students = [teacher]
        if not case.metric.needs_teacher:  # a student may be better than its teacher
            students += [case.predictions(seed), perfect]
        for student in students:
            value = case.metric.value(student, case.labels, teacher)
            require(
                case.is_no_better(value, best),
                f"metric '{case}': found {value}, better than its best value {best}",
            )

        agreeing = case.metric.value(teacher, case.labels, teacher)
        right = case.metric.value(perfect, case.labels, perfect)
        is_beaten = any(not case.is_no_better(value, worst) for value in (agreeing, right))
        require(
            is_beaten,
            f"metric '{case}': a student like its teacher gets {agreeing}, one that is right "
            f"{right}; neither beats worst, which is {worst}, so every hypervolume would be 0",
        )


METRIC_CHECKS = (
    it_says_what_it_is,
    terms_are_numbers_of_each_example,
    value_and_interval_are_finite_and_ordered,
    the_order_of_examples_does_not_matter,
    what_is_not_a_number_stays_visible,
    it_applies_only_where_all_that_it_reads_is_there,
    its_ends_hold_what_is_measured,
)
"""Every promise of a metric: functions of a ``MetricCase``."""


def _targets(task: Task) -> list[Target]:
    prediction = "log_prob" if task == "classification" else "normal"
    return [target for target in TARGETS.values() if target.prediction == prediction]
