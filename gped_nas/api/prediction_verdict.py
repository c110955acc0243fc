"""Whether a teacher predicts better than one network of its size: the second verdict on it.

The first one, ``api.verdict``, says whether it is the posterior. It says nothing of predictions: a
chain that mixes may predict worse than one trained network, and members that are no draws of
anything may predict much better. Whether distilling makes sense hangs on this one.

The network is a MAP network of the teacher's genotype, of the prior precision of ``baseline`` that
is best on validation. With ``baseline.seeds`` the teacher is compared with the mean over so many
fresh networks, which chose nothing. Without, with the very network that was chosen on validation,
where it is compared: that favors it.

A teacher that is calibrated was calibrated on validation too. Where that is a temperature, each
network has one of its own, fitted to the same examples: otherwise a temperature would pass for a
posterior. Where the teacher was calibrated on a part of its own, the networks still have theirs
from validation: that favors them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from gped_nas.api.map_network import tuned_map_networks
from gped_nas.api.sampling import PREDICT_BATCH
from gped_nas.api.teacher import Teacher
from gped_nas.data.rows import in_batches
from gped_nas.errors import DivergenceError
from gped_nas.evaluate.judging import paired_difference
from gped_nas.evaluate.measured import Measured
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.resamples import draw_resamples
from gped_nas.evaluate.seeds import Sampled, differences, sample_metrics
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
        nll_of_map_by_seed: of each fresh network; none where it is the one that was chosen.
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
    nll_of_map_by_seed: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        data = {
            "level": self.level,
            "sentence": self.sentence,
            "nll": self.nll,
            "nll_of_map": self.nll_of_map,
            "difference": self.difference,
            "interval": None if self.interval is None else list(self.interval),
            "n": self.n,
        }
        if self.nll_of_map_by_seed:
            data["nll_of_map_by_seed"] = list(self.nll_of_map_by_seed)
        return data


WITHOUT_NETWORK = PredictionVerdict(
    "unknown",
    "Predictions unknown: the teacher is known by its predictions alone, so that no network of its "
    "size can be trained beside it.",
)


def judge_predictions(teacher: Teacher) -> PredictionVerdict:
    """The verdict on a teacher's predictions.

    The networks that this takes are trained once; what they say lies with the stream.

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

    said = teacher.stream.derived(
        _NAME, _digest(teacher), lambda: _ask_map_networks(teacher).float()
    )
    unit = teacher.dataset.label_normalization
    said_KNG = said.reshape(-1, *said.shape[-2:])
    of_map = [averaged(said_NG[None], torch.ones(1), unit) for said_NG in said_KNG]
    return judge_beside(teacher, teacher.averaged("validation"), of_map)


def judge_beside(
    teacher: Teacher, average: AnyPredictions, of_map: Sequence[AnyPredictions]
) -> PredictionVerdict:
    """The verdict on a teacher's average beside what the MAP networks of its space say.

    Args:
        teacher: who is judged.
        average: its average on validation.
        of_map: what each of ``tuned_map_networks`` says there.
    """
    alike, fitted = _calibrated_alike(teacher, of_map)
    if teacher.space.baseline.seeds:
        return _judge_beside_seeds(teacher, average, alike, fitted)

    (network,) = alike
    labels = teacher.dataset.labels("validation")
    resamples = draw_resamples(len(labels), root=teacher.space.seed, part="validation")
    try:
        paired = paired_difference("nll", average, network, labels, resamples=resamples)
    except DivergenceError as error:
        return PredictionVerdict("unknown", f"Predictions unknown: {error}.", n=len(labels))
    return _verdict(-float(average.log_score(labels).mean()), paired, paired.value, fitted)


def _judge_beside_seeds(
    teacher: Teacher, average: AnyPredictions, of_map: Sequence[AnyPredictions], fitted: str
) -> PredictionVerdict:
    """The verdict beside the mean of fresh networks."""
    labels = teacher.dataset.labels("validation")
    for predictions in (average, *of_map):
        if not np.isfinite(predictions.log_score(labels).mean()):
            sentence = "Predictions unknown: the NLL of the teacher or of a network is not finite."
            return PredictionVerdict("unknown", sentence, n=len(labels))

    measured, nll, networks = beside_seeds(teacher, average, of_map)
    assert measured.value is not None, "all NLLs are finite"
    by_seed = tuple(networks.values_K.tolist())
    seeds = "1 seed" if len(by_seed) == 1 else f"{len(by_seed)} seeds"
    verdict = _verdict(nll, measured, measured.value, f", mean of {seeds}{fitted}")
    return replace(verdict, nll_of_map_by_seed=by_seed)


def beside_seeds(
    teacher: Teacher, average: AnyPredictions, networks_K: Sequence[AnyPredictions]
) -> tuple[Measured, float, Sampled]:
    """NLL on validation: the teacher's less the networks' mean, the teacher's, and each network's.

    The interval of the difference is paired in examples, over examples and seeds.

    Args:
        teacher: whose average it is.
        average: what it says of validation.
        networks_K: what networks that differ in their seeds say there.
    """
    labels = teacher.dataset.labels("validation")
    resamples = draw_resamples(len(labels), root=teacher.space.seed, part="validation")
    unknown = [None] * len(networks_K)

    # the same teacher beside every seed: its own seed is part of what it is
    averages = [average] * len(networks_K)
    mine = sample_metrics(averages, labels, unknown, resamples=resamples)["nll"]
    theirs = sample_metrics(networks_K, labels, unknown, resamples=resamples)["nll"]
    measured = differences({"nll": mine}, {"nll": theirs}, root=teacher.space.seed)["nll"]
    return measured, float(mine.values_K[0]), theirs


def _verdict(nll: float, measured: Measured, difference: float, what: str) -> PredictionVerdict:
    """The verdict that follows from a difference.

    Args:
        nll: the teacher's, nats.
        measured: the difference to the network's, with its interval.
        difference: its value.
        what: what is said of the figures.
    """
    n, nll_of_map = measured.n or 0, nll - difference
    level, outcome = grade(measured.interval)
    numbers = f"NLL {nll:.4f} against {nll_of_map:.4f} on validation{what}"
    if measured.interval is None:
        sentence = f"Predictions unknown: {numbers}, and no interval is known ({measured.why})."
    else:
        low, high = measured.interval
        sentence = (
            f"Predictions {outcome} one tuned MAP network of its size: {numbers} "
            f"({difference:+.4f} [{low:.4f}, {high:.4f}], n = {n:,}); {ADVICE[level]}."
        )
    return PredictionVerdict(level, sentence, nll, nll_of_map, difference, measured.interval, n)


def _calibrated_alike(
    teacher: Teacher, of_map: Sequence[AnyPredictions]
) -> tuple[Sequence[AnyPredictions], str]:
    """The networks' predictions as the teacher's are read, and what is said of that."""
    fit = teacher.calibration
    if fit is None:
        return of_map, ""
    is_elsewhere = fit.part != "validation"
    if fit.kind != "temperature" and is_elsewhere:
        return of_map, ", with the teacher's weights fitted on the calibration part"
    if fit.kind != "temperature":
        return of_map, ", where the teacher's weights were fitted, which favors it"

    alike = []
    temperatures = []
    for predictions in of_map:
        tempered, temperature = _tempered(teacher, predictions)
        alike.append(tempered)
        temperatures.append(f"{temperature:g}")
    which = "the network at temperature"
    if teacher.space.baseline.seeds:
        which = "each network at its own temperature:"
    networks = f"{which} {', '.join(temperatures)}"
    if is_elsewhere:
        return (
            alike,
            f", {networks} fitted there and the teacher elsewhere, which favors it",
        )
    return alike, f", both calibrated there ({networks})"


def _tempered(teacher: Teacher, of_map: AnyPredictions) -> tuple[AnyPredictions, float]:
    """A network's predictions at the temperature that suits them best, and that."""
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
    return alike, temperature


def grade(interval: tuple[float, float] | None) -> tuple[Level, str]:
    """The level, and how the teacher's predictions are beside the network's."""
    if interval is None:
        return "unknown", ""
    low, high = interval
    if high < 0:
        return "better", "better than"
    return ("worse", "worse than") if low > 0 else ("no better", "not told apart from those of")


def _ask_map_networks(teacher: Teacher) -> torch.Tensor:
    """What fresh MAP networks say of validation, (K, N, G); the chosen one alone, (N, G)."""
    raw = teacher.dataset.raw("validation")
    networks = tuned_map_networks(teacher)
    said = [in_batches(network.forward, raw, PREDICT_BATCH) for network in networks]
    return torch.stack(said) if teacher.space.baseline.seeds else said[0]


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
