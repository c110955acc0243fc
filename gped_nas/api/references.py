"""What a front is compared with: teacher, single sample, MAP network, unpruned student, guess."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from gped_nas.api.certifying import network_of_params, network_of_sample
from gped_nas.api.guess import LABEL, NAME, describe_guess, guess_predictor
from gped_nas.api.kept import KeptFiles
from gped_nas.api.kept_students import read_kept, write_kept
from gped_nas.api.map_network import MapNetwork, tuned_map_networks
from gped_nas.api.measuring import (
    average_predictor,
    describe_attacked,
    ensemble,
    is_attack,
    network,
)
from gped_nas.api.sampling import PREDICT_BATCH
from gped_nas.api.students import Trainer
from gped_nas.api.teacher import Teacher
from gped_nas.data.base import Part
from gped_nas.data.rows import in_batches
from gped_nas.distill.student import WEIGHTS_FILE
from gped_nas.errors import DataError
from gped_nas.evaluate.conditions import Predictor
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.teacher import averaged, nll_by_sample
from gped_nas.models.costs import cost_of
from gped_nas.search.teacher_words import calibration_text

_PARTS: tuple[Part, Part] = ("validation", "test")


@dataclass(frozen=True, eq=False)
class Contender:
    """A reference before it is measured.

    Attributes:
        name, label, note: as in ``Reference``.
        predictions: on validation and, where they could be made, on test.
        costs: of serving it once.
        predictor: itself, to be asked under conditions; None where only its predictions are known.
        is_control: as in ``Reference``.
        further: what further trainings of it say of validation.
    """

    name: str
    label: str
    note: str
    predictions: dict[Part, AnyPredictions]
    costs: Mapping[str, int | float]
    predictor: Predictor | None = None
    is_control: bool = False
    further: tuple[AnyPredictions, ...] = ()


def average_of(teacher: Teacher) -> Contender:
    """The teacher's average.

    Raises:
        Interrupted: the session said stop.
    """
    predictions: dict[Part, AnyPredictions] = {"validation": teacher.averaged("validation")}
    # an import may have no predictions at the test inputs: then nothing is compared there
    with contextlib.suppress(DataError):
        predictions["test"] = teacher.averaged("test")

    return Contender(
        name="teacher",
        label="teacher (average)",
        note=_describe_average(teacher) + _describe_attacked(teacher),
        predictions=predictions,
        costs=_cost_of_average(teacher),
        predictor=average_predictor(teacher),
    )


def guess_of(teacher: Teacher) -> Contender:
    """What the training labels alone say, at no costs."""
    predictor = guess_predictor(teacher)
    return Contender(
        name=NAME,
        label=LABEL,
        note=describe_guess(teacher.dataset),
        predictions={part: predictor.predict(teacher.dataset.raw(part)) for part in _PARTS},
        costs={},
        predictor=predictor,
    )


def others(trainer: Trainer, parts: Iterable[Part], kept: KeptFiles) -> list[Contender]:
    """The best single sample, a MAP network, and an unpruned student of the teacher's genotype.

    Where predictions alone are known of the teacher, there is the first one alone; where no sample
    is stored, there is no first one. A module, which
    is no student, has no unpruned one.

    Args:
        trainer: that of the study.
        parts: where the teacher's predictions are known.
        kept: where those that are trained lie, and their digests.

    Raises:
        DamageError: one of these files is not what was written.
        Interrupted: the session said stop.
    """
    contenders = []
    if trainer.teacher.stream.is_stored:
        contenders.append(_best_sample(trainer.teacher, parts))
    if trainer.teacher.stream.has_weights:
        contenders.append(_map_of(trainer.teacher, kept))
    space = trainer.teacher.space
    if space.genotype is not None and space.module is None:  # a module is no student
        contenders.append(_train_unpruned(trainer, kept, kept.folder / "references" / "unpruned"))
    return contenders


def _describe_average(teacher: Teacher) -> str:
    num_samples, given = teacher.stream.num_samples, teacher.space.given
    fit = teacher.calibration
    read = "" if fit is None else f", {calibration_text(fit.to_json())} fitted on {fit.part}"
    if given is None:
        method = teacher.space.method.name
        return f"The average over {num_samples} posterior samples ({method}){read}."
    members = "1 member" if num_samples == 1 else f"{num_samples} members"
    return f"The average over {members} of {given.name}, by predictions{read}."


def _describe_attacked(teacher: Teacher) -> str:
    """What is said of the average of many samples where a condition or a set is an attack."""
    space = teacher.space
    conditions = (*space.conditions, *(outside.condition for outside in space.outside))
    if not any(map(is_attack, conditions)):
        return ""  # and averages that run along have no samples to tell of

    few = describe_attacked(teacher)
    return f" Attacked are {few}." if few else ""


def _cost_of_average(teacher: Teacher) -> dict[str, int]:
    """Of serving all posterior samples: what is known of it."""
    if teacher.space.given is not None:
        return teacher.space.given.costs
    num_samples = teacher.stream.num_samples
    return {name: value * num_samples for name, value in _cost_of_sample(teacher).items()}


def _cost_of_network(teacher: Teacher) -> dict[str, int]:
    """Of one network of the teacher's genotype, float32."""
    space, dataset = teacher.space, teacher.dataset
    if space.module is not None:
        num_outputs = space.likelihood.num_network_outputs(dataset.num_outputs)
        return space.module.costs(dataset.input_shape, num_outputs)
    shapes = teacher.stream.key.network_shapes
    return asdict(cost_of(space.network.family, shapes, dataset.input_shape, "float32"))


def _cost_of_sample(teacher: Teacher) -> dict[str, int]:
    """Of serving one posterior sample; none where it is known by its predictions alone."""
    return _cost_of_network(teacher) if teacher.stream.has_weights else {}


def alone(teacher: Teacher, predicted_NG: torch.Tensor) -> AnyPredictions:
    """The predictions of one network of the teacher's kind."""
    label_normalization, targets = teacher.dataset.label_normalization, teacher.space.targets
    return averaged(predicted_NG[None], torch.ones(1), label_normalization, targets)


def best_sample_index(teacher: Teacher) -> int:
    """The number of the posterior sample with the lowest NLL on validation."""
    nll_S = nll_by_sample(
        teacher.predicted("validation"),
        teacher.dataset.labels("validation"),
        teacher.dataset.label_normalization,
    )
    return int(nll_S.argmin())


def _best_sample(teacher: Teacher, parts: Iterable[Part]) -> Contender:
    """The sample with the lowest NLL on validation."""
    stream = teacher.stream
    best = best_sample_index(teacher)
    return Contender(
        name="single_sample",
        label="best single sample",
        note=f"Posterior sample {best} of {stream.num_samples}: the lowest NLL on validation.",
        predictions={part: alone(teacher, teacher.predicted(part)[best]) for part in parts},
        costs=_cost_of_sample(teacher),
        predictor=_sample_alone(teacher, best) if stream.has_weights else None,
    )


def _sample_alone(teacher: Teacher, index: int) -> Predictor:
    """One posterior sample, to be asked under conditions."""
    certifiable = partial(network_of_sample, teacher, index)
    return replace(ensemble(teacher, [index]), certifiable=certifiable)


def _map_of(teacher: Teacher, kept: KeptFiles) -> Contender:
    """The MAP network of the teacher's genotype: with seeds the first of the fresh ones."""
    dataset = teacher.dataset
    best, *further = tuned_map_networks(teacher, kept)

    def predict(trained: MapNetwork, part: Part) -> AnyPredictions:
        return alone(teacher, in_batches(trained.forward, dataset.raw(part), PREDICT_BATCH))

    precisions = ", ".join(f"{precision:g}" for precision in best.tried)
    fresh = "; trained anew, it chose nothing" if best.seed else ""
    return Contender(
        name="map",
        label="MAP network",
        note=f"One network of the teacher's genotype, Adam for {best.steps} steps; prior precision "
        f"{best.precision:g} of {precisions} by validation NLL{fresh}.",
        predictions={part: predict(best, part) for part in _PARTS},
        costs=_cost_of_network(teacher),
        predictor=replace(
            network(teacher, best.forward),
            certifiable=partial(network_of_params, teacher, best.params),
        ),
        is_control=True,
        further=tuple(predict(trained, "validation") for trained in further),
    )


def _train_unpruned(trainer: Trainer, kept: KeptFiles, folder: Path) -> Contender:
    """A student of the teacher's genotype, never pruned: Bayesian dark knowledge's choice."""
    genotype, dataset = trainer.teacher.space.network, trainer.teacher.dataset
    if not (folder / WEIGHTS_FILE).exists():  # written last
        (trained_student,) = trainer.distill_sound([genotype])
        spec = trainer.spec(genotype, reference="unpruned")
        write_kept(kept, [(folder, spec, trained_student.params)])

    student = read_kept(kept, folder)
    cost = cost_of(genotype.family, student.shapes, dataset.input_shape, "float32")
    predictor = trainer.predictor(student)
    return Contender(
        name="unpruned",
        label="unpruned student",
        note="A student of the teacher's genotype, float32 and never pruned, by the same recipe "
        "(Bayesian dark knowledge).",
        predictions={part: predictor.predict(dataset.raw(part)) for part in _PARTS},
        costs=asdict(cost),
        predictor=predictor,
    )
