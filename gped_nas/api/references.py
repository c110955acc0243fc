"""What a front is compared with: teacher, single sample, MAP network, unpruned student, guess."""

import contextlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from gped_nas import rng
from gped_nas.api import plain
from gped_nas.api.evidence_files import REMADE
from gped_nas.api.guess import LABEL, NAME, describe_guess, guess_predictor
from gped_nas.api.kept import KeptFiles
from gped_nas.api.measuring import ensemble, network
from gped_nas.api.plain import read_kept, write_kept
from gped_nas.api.sampling import posterior
from gped_nas.api.students import Trainer
from gped_nas.api.teacher import PREDICT_BATCH, Teacher
from gped_nas.data.base import Part
from gped_nas.data.rows import in_batches
from gped_nas.device import threads_for
from gped_nas.distill.student import WEIGHTS_FILE
from gped_nas.errors import DamageError, DataError
from gped_nas.evaluate.conditions import Predictor
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.student import StudentPredictor, student_predictions
from gped_nas.evaluate.teacher import averaged, nll_by_sample
from gped_nas.models.base import FAMILIES, Genotype, Params, Shapes, shapes_of
from gped_nas.models.costs import cost_of, largest_product
from gped_nas.models.storage import parse_weights, serialize
from gped_nas.posterior.base import METHODS, unflatten
from gped_nas.posterior.map import MapConfig
from gped_nas.posterior.priors import GaussianPrior

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
    """

    name: str
    label: str
    note: str
    predictions: dict[Part, AnyPredictions]
    costs: dict[str, int]
    predictor: Predictor | None = None
    is_control: bool = False


def average_of(teacher: Teacher) -> Contender:
    """The teacher's average.

    Raises:
        Interrupted: the session said stop.
    """
    stream = teacher.stream
    predictions: dict[Part, AnyPredictions] = {"validation": teacher.averaged("validation")}
    # an import may have no predictions at the test inputs: then nothing is compared there
    with contextlib.suppress(DataError):
        predictions["test"] = teacher.averaged("test")

    return Contender(
        name="teacher",
        label="teacher (average)",
        note=_describe_average(teacher),
        predictions=predictions,
        costs=_cost_of_average(teacher),
        predictor=ensemble(teacher) if stream.has_weights else None,
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


def others(
    trainer: Trainer, parts: Iterable[Part], kept: KeptFiles, chosen: Genotype | None = None
) -> list[Contender]:
    """The best single sample, a plain network, and an unpruned student of the teacher's genotype.

    The plain network is a MAP network where weights are known, else one of the chosen genotype that
    learned from labels alone.

    Args:
        trainer: that of the study.
        parts: where the teacher's predictions are known.
        kept: where those that are trained lie, and their digests.
        chosen: the genotype of the chosen student; None where there is none.

    Raises:
        DamageError: one of these files is not what was written.
        Interrupted: the session said stop.
    """
    folder = kept.folder / "references"
    contenders = [_best_sample(trainer.teacher, parts)]
    if trainer.teacher.stream.has_weights:
        contenders.append(_train_map(trainer, kept, folder / "map"))
    elif chosen is not None:
        contenders += _train_plain(trainer, kept, folder / plain.NAME, chosen)
    if trainer.teacher.space.genotype is not None:
        contenders.append(_train_unpruned(trainer, kept, folder / "unpruned"))
    return contenders


def _describe_average(teacher: Teacher) -> str:
    num_samples, given = teacher.stream.num_samples, teacher.space.given
    if given is None:
        return f"The average over {num_samples} posterior samples ({teacher.space.method.name})."
    members = "1 member" if num_samples == 1 else f"{num_samples} members"
    return f"The average over {members} of {given.name}, by predictions."


def _cost_of_average(teacher: Teacher) -> dict[str, int]:
    """Of serving all posterior samples: what is known of it."""
    if teacher.space.given is not None:
        return teacher.space.given.costs
    num_samples = teacher.stream.num_samples
    return {name: value * num_samples for name, value in _cost_of_sample(teacher).items()}


def _cost_of_network(teacher: Teacher) -> dict[str, int]:
    """Of one network of the teacher's genotype, float32."""
    family, shapes = teacher.space.network.family, teacher.stream.key.shapes
    return asdict(cost_of(family, shapes, teacher.dataset.input_shape, "float32"))


def _cost_of_sample(teacher: Teacher) -> dict[str, int]:
    """Of serving one posterior sample; none where it is known by its predictions alone."""
    return _cost_of_network(teacher) if teacher.stream.has_weights else {}


def _alone(teacher: Teacher, predicted_NG: torch.Tensor) -> AnyPredictions:
    """The predictions of one network of the teacher's kind."""
    label_normalization, targets = teacher.dataset.label_normalization, teacher.space.targets
    return averaged(predicted_NG[None], torch.ones(1), label_normalization, targets)


def _best_sample(teacher: Teacher, parts: Iterable[Part]) -> Contender:
    """The sample with the lowest NLL on validation."""
    stream = teacher.stream
    nll_S = nll_by_sample(
        teacher.predicted("validation"),
        teacher.dataset.labels("validation"),
        teacher.dataset.label_normalization,
    )
    best = int(nll_S.argmin())

    return Contender(
        name="single_sample",
        label="best single sample",
        note=f"Posterior sample {best} of {stream.num_samples}: the lowest NLL on validation.",
        predictions={part: _alone(teacher, teacher.predicted(part)[best]) for part in parts},
        costs=_cost_of_sample(teacher),
        predictor=ensemble(teacher, [best]) if stream.has_weights else None,
    )


def _train_map(trainer: Trainer, kept: KeptFiles, folder: Path) -> Contender:
    """A MAP network of the teacher's genotype, its prior precision tuned on validation."""
    teacher, session = trainer.teacher, trainer.session
    space, dataset = teacher.space, teacher.dataset
    family, likelihood = FAMILIES[space.network.family], space.likelihood
    cfg = MapConfig(name="map", steps=space.baseline.steps, lr=space.baseline.lr, batch_size=100)

    # networks of other settings are no part of this choice
    folder = folder / f"{cfg.steps}-steps-{cfg.lr:g}"
    x = dataset.inputs("validation").to(session.device)
    labels = dataset.normalized_labels("validation")
    networks: dict[float, Params] = {}
    scores: dict[float, float] = {}
    for i, precision in enumerate(space.baseline.precisions):
        path = folder / f"precision-{precision:g}.safetensors"
        if not path.exists():
            generator = rng.generator(space.seed, "map", i)
            theta = _maximize_posterior(teacher, cfg, GaussianPrior(precision=precision), generator)
            kept.write(path, serialize(unflatten(theta, teacher.stream.key.shapes), "float32"))

        networks[precision] = _parse_map(kept.read(path), path, teacher.stream.key.shapes)
        params = {name: p.to(session.device) for name, p in networks[precision].items()}
        outputs = in_batches(partial(family.forward, params), x, PREDICT_BATCH).cpu().double()
        scores[precision] = -float(likelihood.log_density(outputs, labels).mean())
        session.progress("MAP baseline", i + 1, len(space.baseline.precisions))

    best = min(scores, key=lambda precision: scores[precision])

    def forward(raw: torch.Tensor) -> torch.Tensor:
        outputs = family.forward(networks[best], dataset.normalization(raw))
        return likelihood.predict(outputs.double())

    precisions = ", ".join(f"{precision:g}" for precision in scores)
    return Contender(
        name="map",
        label="MAP network",
        note=f"One network of the teacher's genotype, Adam for {cfg.steps} steps; prior precision "
        f"{best:g} of {precisions} by validation NLL.",
        predictions={
            part: _alone(teacher, in_batches(forward, dataset.raw(part), PREDICT_BATCH))
            for part in _PARTS
        },
        costs=_cost_of_network(teacher),
        predictor=network(teacher, forward),
        is_control=True,
    )


def _parse_map(data: bytes, path: Path, shapes: Shapes) -> Params:
    """A MAP network's parameters; one of before digests may be damaged, and fit no more."""
    params = parse_weights(data, path)
    if shapes_of(params) != shapes:
        raise DamageError(
            f"{path}: found parameters of the shapes {str(shapes_of(params))[:200]}, expected "
            f"{shapes}; delete it, and {REMADE}"
        )
    return params


def _maximize_posterior(
    teacher: Teacher, cfg: MapConfig, prior: GaussianPrior, generator: torch.Generator
) -> torch.Tensor:
    """Flat parameters (W,) of a MAP network under a prior."""
    dataset, session = teacher.dataset, teacher.session
    # whatever the teacher's networks see, this one sees what students do
    space = replace(teacher.space, method=cfg)
    problem = posterior(space, dataset, device=session.device, prior=prior)
    family, shapes = space.network.family, teacher.stream.key.shapes
    macs = largest_product(family, shapes, dataset.input_shape, cfg.batch_size)

    theta = None
    with threads_for(macs):
        for step in METHODS["map"](problem, cfg, generator=generator):
            session.raise_if_stopped()
            theta = step.sample.theta_W if step.sample else None
    assert theta is not None, "map ends with its sample"
    return theta


def _train_unpruned(trainer: Trainer, kept: KeptFiles, folder: Path) -> Contender:
    """A student of the teacher's genotype, never pruned: Bayesian dark knowledge's choice."""
    genotype, dataset = trainer.teacher.space.network, trainer.teacher.dataset
    if not (folder / WEIGHTS_FILE).exists():  # written last
        (trained_student,) = trainer.distill_sound([genotype])
        spec = trainer.spec(genotype, reference="unpruned")
        write_kept(kept, folder, spec, trained_student.params)

    student = read_kept(kept, folder)
    cost = cost_of(genotype.family, student.shapes, dataset.input_shape, "float32")
    return Contender(
        name="unpruned",
        label="unpruned student",
        note="A student of the teacher's genotype, float32 and never pruned, by the same recipe "
        "(Bayesian dark knowledge).",
        predictions={part: student_predictions(student, dataset.raw(part)) for part in _PARTS},
        costs=asdict(cost),
        predictor=StudentPredictor(student),
    )


def _train_plain(
    trainer: Trainer, kept: KeptFiles, folder: Path, genotype: Genotype
) -> list[Contender]:
    """A network of a student's genotype that learned from labels alone; none where it cannot be."""
    network = plain.plain_network(trainer, kept, folder, genotype)
    if network is None:
        return []

    dataset, dtype = trainer.teacher.dataset, network.spec.storage_dtype
    cost = cost_of(genotype.family, network.shapes, dataset.input_shape, dtype)
    contender = Contender(
        name=plain.NAME,
        label="plain network (labels alone)",
        note="A network of the chosen student's genotype, trained on labels alone by the same "
        "recipe, views and number of steps.",
        predictions={part: student_predictions(network, dataset.raw(part)) for part in _PARTS},
        costs=asdict(cost),
        predictor=StudentPredictor(network),
        is_control=True,
    )
    return [contender]
