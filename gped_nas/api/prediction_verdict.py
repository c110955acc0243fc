"""Whether a teacher predicts better than one network of its size: the second verdict on it.

The first one, ``api.verdict``, says whether it is the posterior. It says nothing of predictions: a
chain that mixes may predict worse than one trained network, and members that are no draws of
anything may predict much better. Whether distilling makes sense hangs on this one.

The network is a MAP network of the teacher's genotype, the best on validation of the prior
precisions of ``baseline``. It is compared on validation, where it was chosen: that favors it. A
teacher that is calibrated was calibrated there too. Where that is a temperature, the network has
one of its own, fitted to the same examples: otherwise a temperature would pass for a posterior.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from gped_nas.api.map_network import tuned_map_network
from gped_nas.api.teacher import PREDICT_BATCH, Teacher
from gped_nas.data.rows import in_batches
from gped_nas.errors import DivergenceError
from gped_nas.evaluate.judging import paired_difference
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.evaluate.teacher import averaged
from gped_nas.evaluate.teacher_calibration import LabeledAnswers, fit_temperature
from gped_nas.io import canonical_json, sha256_text
from gped_nas.stream.calibration import Calibration

Level = Literal["better", "no better", "worse", "unknown"]
ADVICE = {
    "better": "distilling it makes sense",
    "no better": "nothing says that its students gain by it: try another teacher, or train on "
    "labels",
    "worse": "train on labels, or by that network, or try another teacher",
}
"""What follows from each level."""
_NAME = "map-validation"
"""Under which a stream has what the network says."""


@dataclass(frozen=True)
class PredictionVerdict:
    """What a teacher's predictions are worth.

    Attributes:
        level: how its average is beside the MAP network in NLL on validation.
        sentence: the verdict.
        nll, nll_of_map: of both, nats; None where they are not known.
        difference: the teacher's less the network's; None likewise.
        interval: its paired 95 % interval; None where none is honest.
        n: number of validation examples.
    """

    level: Level
    sentence: str
    nll: float | None = None
    nll_of_map: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "level": self.level,
            "sentence": self.sentence,
            "nll": self.nll,
            "nll_of_map": self.nll_of_map,
            "difference": self.difference,
            "interval": None if self.interval is None else list(self.interval),
            "n": self.n,
        }


WITHOUT_NETWORK = PredictionVerdict(
    "unknown",
    "Predictions unknown: the teacher is known by its predictions alone, so that no network of its "
    "size can be trained beside it.",
)


def judge_predictions(teacher: Teacher) -> PredictionVerdict:
    """The verdict on a teacher's predictions.

    The networks that this takes are trained once; what the best one says lies with the stream.

    Raises:
        Interrupted: the session said stop.
    """
    if not teacher.stream.has_weights:
        return WITHOUT_NETWORK

    module = teacher.space.module
    is_cached = teacher.stream.cached(_NAME, _digest(teacher)) is not None
    if module is not None and not module.is_bound and not is_cached:
        return PredictionVerdict(
            "unknown",
            "Predictions unknown: the teacher's module is built in Python alone, where a network "
            "of its size can be trained beside it.",
        )

    dataset = teacher.dataset
    said_NG = teacher.stream.derived(
        _NAME, _digest(teacher), lambda: _ask_map_network(teacher).float()
    )
    of_map = averaged(said_NG[None], torch.ones(1), dataset.label_normalization)
    return judge_beside(teacher, teacher.averaged("validation"), of_map)


def judge_beside(
    teacher: Teacher, average: AnyPredictions, of_map: AnyPredictions
) -> PredictionVerdict:
    """The verdict on a teacher's average beside the predictions of a MAP network on validation."""
    labels = teacher.dataset.labels("validation")
    resamples = draw_resamples(len(labels), root=teacher.space.seed, part="validation")
    of_map, fitted = _calibrated_alike(teacher, of_map)
    try:
        paired = paired_difference("nll", average, of_map, labels, resamples=resamples)
    except DivergenceError as error:
        return PredictionVerdict("unknown", f"Predictions unknown: {error}.", n=len(labels))

    nll = -float(average.log_score(labels).mean())
    level, outcome = grade(paired.interval)
    numbers = f"NLL {nll:.4f} against {nll - paired.value:.4f} on validation{fitted}"
    if paired.interval is None:
        sentence = f"Predictions unknown: {numbers}, and no interval is known ({paired.why})."
    else:
        low, high = paired.interval
        sentence = (
            f"Predictions {outcome} one tuned MAP network of its size: {numbers} "
            f"({paired.value:+.4f} [{low:.4f}, {high:.4f}], n = {len(labels):,}); {ADVICE[level]}."
        )
    return PredictionVerdict(
        level, sentence, nll, nll - paired.value, paired.value, paired.interval, len(labels)
    )


def _calibrated_alike(teacher: Teacher, of_map: AnyPredictions) -> tuple[AnyPredictions, str]:
    """The network's predictions as the teacher's are read, and what is said of that."""
    fit = teacher.calibration
    if fit is None:
        return of_map, ""
    if fit.kind != "temperature":
        return of_map, ", where the teacher's weights were fitted, which favors it"

    assert of_map.samples is not None, "a network is a teacher of one sample"
    dataset, predicted_SNG = teacher.dataset, of_map.samples.predicted_SNG
    answers = LabeledAnswers(
        predicted_SNG,
        of_map.samples.weight_S,
        dataset.labels("validation"),
        dataset.label_normalization,
    )
    temperature = fit_temperature(answers)
    tempered_SNG = Calibration(temperature).temper(predicted_SNG, answers.prediction)
    alike = averaged(tempered_SNG, of_map.samples.weight_S, dataset.label_normalization)
    return alike, f", both calibrated there (the network at temperature {temperature:g})"


def grade(interval: tuple[float, float] | None) -> tuple[Level, str]:
    """The level, and how the teacher's predictions are beside the network's."""
    if interval is None:
        return "unknown", ""
    low, high = interval
    if high < 0:
        return "better", "better than"
    return ("worse", "worse than") if low > 0 else ("no better", "not told apart from those of")


def _ask_map_network(teacher: Teacher) -> torch.Tensor:
    """What the tuned MAP network says of validation, (N, G)."""
    best = tuned_map_network(teacher)
    return in_batches(best.forward, teacher.dataset.raw("validation"), PREDICT_BATCH)


def _digest(teacher: Teacher) -> str:
    """Of all that the network is made of."""
    space = teacher.space
    parts = [
        space.baseline.model_dump(mode="json"),
        space.network.to_json(),
        space.likelihood.to_json(),
        space.seed,
        teacher.dataset.digest,
    ]
    return sha256_text(canonical_json(parts))
