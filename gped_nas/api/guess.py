"""The guess: a predictor that knows the training labels and nothing of the input.

It says the frequencies of the classes, or the mean and the variance of real labels, whatever it is
asked. Who is not better than it has learned nothing that can be seen: see ``search.guess``.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gped_nas.api.measuring import Conditions, network
from gped_nas.api.teacher import Teacher
from gped_nas.data.base import Dataset
from gped_nas.errors import DivergenceError
from gped_nas.evaluate.base import METRICS, Resamples, draw_resamples
from gped_nas.evaluate.certify.networks import CertifiableNetwork
from gped_nas.evaluate.certify.radius import states_radius
from gped_nas.evaluate.conditions import Predictor
from gped_nas.evaluate.ignorance import know_nothing
from gped_nas.evaluate.judging import evaluate_or_explain, paired_difference
from gped_nas.evaluate.measured import CLEAN, parse_name
from gped_nas.evaluate.predictions import AnyPredictions, Labels, NormalPredictions
from gped_nas.evaluate.teacher import Ensemble
from gped_nas.models.elementary import Dense, Flatten
from gped_nas.search.guess import is_better_by
from gped_nas.search.record import Above
from gped_nas.search.snapshot import Reference

NAME, LABEL = "guess", "guess from the labels"


def guess_predictor(teacher: Teacher) -> Ensemble:
    """The guess as a network of the teacher's kind, to be asked at any raw inputs."""
    predicted_G = _say(teacher.dataset)

    def forward(raw: Tensor) -> Tensor:
        # of no weight, but a condition may ask for a gradient; a missing number is none here too
        nothing_B1 = 0 * raw.flatten(1)[:, :1].nan_to_num()
        return predicted_G + nothing_B1

    return replace(network(teacher, forward), certifiable=lambda: _as_layers(teacher, predicted_G))


def _as_layers(teacher: Teacher, predicted_G: Tensor) -> CertifiableNetwork:
    """A dense layer without weights."""
    shape = teacher.dataset.raw_shape
    weight = torch.zeros((len(predicted_G), math.prod(shape)), dtype=torch.float64)
    layers = (Flatten(), Dense(weight, predicted_G.double()))
    return CertifiableNetwork(layers, slice(0, len(predicted_G)), len(predicted_G), shape)


def describe_guess(dataset: Dataset) -> str:
    """How the guess is made, one sentence."""
    what = "The mean and the variance" if dataset.label_normalization else "The class frequencies"
    return f"{what} of the {len(dataset.train):,} training labels, whatever the input is."


def _say(dataset: Dataset) -> Tensor:
    """What it says of any input, (G,) float64: see ``evaluate.conditions.Forward``."""
    guess = know_nothing(dataset.train.y, dataset.num_outputs, 1)
    unit = dataset.label_normalization
    if isinstance(guess, NormalPredictions):
        assert unit is not None, "real labels are normalized"
        mean = (guess.mean_N - unit.mean) / unit.std
        return torch.from_numpy(np.concatenate([mean, guess.variance_N / unit.std**2]))
    return torch.from_numpy(guess.log_prob_NC[0])


def measure_guess(teacher: Teacher) -> Reference:
    """The guess on validation, under all conditions; a study has it from its start.

    Raises as ``Conditions.measure``.
    """
    dataset = teacher.dataset
    predictor = guess_predictor(teacher)
    resamples = draw_resamples(len(dataset.validation), root=teacher.space.seed, part="validation")

    conditions = Conditions(teacher)
    measures = evaluate_or_explain(
        predictor.predict(dataset.raw("validation")),
        dataset.labels("validation"),
        teacher.averaged("validation"),
        resamples=resamples,
        asked=conditions.asked(),
    )
    measures |= conditions.measure(
        predictor, "validation", resamples=resamples, evaluate=evaluate_or_explain
    )
    return Reference(NAME, LABEL, measures, note=describe_guess(dataset))


def above_guess(
    guess: AnyPredictions,
    predictor: Predictor,
    predictions: AnyPredictions,
    conditions: Conditions,
    resamples: Resamples,
) -> dict[str, Above]:
    """A student less the guess in each quality objective that can be compared.

    The guess must have a value for it, and an interval must be known of the difference.

    Args:
        guess: what the guess says of validation, under any condition.
        predictor: the student.
        predictions: what it says of validation as it is.
        conditions: those of the study.
        resamples: of validation.
    """
    teacher = conditions.teacher
    labels = teacher.dataset.labels("validation")
    rows: dict[str, Above] = {}
    for goal in teacher.space.objectives:
        if goal.kind != "metric":
            continue

        key = parse_name(goal.name)
        if METRICS[key.metric].task == "ood":
            rows |= _above_guess_outside(goal.name, predictor, conditions)
            continue

        student, guess_there = predictions, guess
        average: AnyPredictions | None = teacher.averaged("validation")
        if key.condition != CLEAN:
            student, average = conditions.predict(predictor, "validation", key.condition)
        if states_radius(conditions.named(key.condition)):
            guesser = guess_predictor(teacher)
            guess_there, _ = conditions.predict(guesser, "validation", key.condition)
        metric = METRICS[key.metric]
        if metric.applies(guess_there, average) and metric.has_differences:
            rows[goal.name] = subtract_guess(
                key.metric, student, guess_there, labels, average, resamples=resamples
            )
    return rows


def _above_guess_outside(
    name: str, predictor: Predictor, conditions: Conditions
) -> dict[str, Above]:
    """The same of an objective of inputs from outside."""
    key = parse_name(name)
    metric, outside = METRICS[key.metric], conditions.outside(key.condition)
    student = conditions.detect(predictor, "validation", outside)
    guess = conditions.detect(guess_predictor(conditions.teacher), "validation", outside)
    if not metric.applies(guess.predictions, None) or not metric.has_differences:
        return {}
    above = subtract_guess(
        key.metric,
        student.predictions,
        guess.predictions,
        student.labels,
        resamples=student.resamples,
    )
    return {name: above}


def subtract_guess(
    metric: str,
    predictions: AnyPredictions,
    guess: AnyPredictions,
    labels: Labels,
    teacher: AnyPredictions | None = None,
    *,
    resamples: Resamples,
) -> Above:
    """The paired difference ``predictions - guess`` of a metric with the ends of its interval.

    The ends are the difference itself where the examples are too few, or too alike, for an
    interval: the value alone decides then. None where the guess has no finite value.

    Raises:
        DivergenceError: it has one, and the predictions have none.
    """
    if not math.isfinite(METRICS[metric].value(guess, labels, teacher)):
        return None
    paired = paired_difference(metric, predictions, guess, labels, teacher, resamples=resamples)
    low, high = paired.interval or (paired.value, paired.value)
    return paired.value, low, high


@dataclass(frozen=True)
class BesideGuess:
    """The teacher's NLL on validation beside the guess's.

    Attributes:
        nll: the guess's; infinite where a class is not among the training labels.
        above: the teacher's less the guess's, with the ends of its 95 % interval; None where one of
            them is infinite.
        is_better: whether the teacher is better than the guess: the interval lies below 0.
        n: number of examples.
    """

    nll: float
    above: Above
    is_better: bool
    n: int


def beside_guess(teacher: Teacher) -> BesideGuess:
    """The teacher's average beside the guess."""
    dataset = teacher.dataset
    labels, average = dataset.labels("validation"), teacher.averaged("validation")
    guess = know_nothing(dataset.train.y, dataset.num_outputs, len(labels))
    nll = METRICS["nll"].value(guess, labels)
    resamples = draw_resamples(len(labels), root=teacher.space.seed, part="validation")
    try:
        above = subtract_guess("nll", average, guess, labels, resamples=resamples)
        is_better = is_better_by(above, "minimize")
    except DivergenceError:
        above, is_better = None, False
    return BesideGuess(nll, above, is_better, len(labels))
