"""The predictors a front is compared with: teacher, its best single sample, a MAP network, an
unpruned student.
"""

import contextlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from gped_nas import rng
from gped_nas.api.measuring import ensemble, network
from gped_nas.api.sampling import posterior
from gped_nas.api.students import Trainer
from gped_nas.api.teacher import Teacher
from gped_nas.data.base import Part
from gped_nas.device import threads_for
from gped_nas.distill.student import load_student, save_student
from gped_nas.errors import DataError
from gped_nas.evaluate.conditions import Predictor
from gped_nas.evaluate.predictions import AnyPredictions
from gped_nas.evaluate.student import StudentPredictor, student_predictions
from gped_nas.evaluate.teacher import averaged, nll_by_sample
from gped_nas.models.base import FAMILIES
from gped_nas.models.costs import cost_of, largest_product
from gped_nas.models.storage import read_weights, write_weights
from gped_nas.posterior.base import METHODS, unflatten
from gped_nas.posterior.map import MapConfig
from gped_nas.posterior.priors import GaussianPrior


@dataclass(frozen=True, eq=False)
class Contender:
    """A reference before it is measured.

    Attributes:
        name, label, note: as in ``Reference``.
        predictions: on validation and, where they could be made, on test.
        costs: of serving it once.
        predictor: itself, to be asked under conditions; None where only its predictions are known.
    """

    name: str
    label: str
    note: str
    predictions: dict[Part, AnyPredictions]
    costs: dict[str, int]
    predictor: Predictor | None = None


def of_stream(trainer: Trainer) -> list[Contender]:
    """The teacher's average, then its best single sample.

    Raises:
        Interrupted: the session said stop.
    """
    teacher = trainer.teacher
    predicted: dict[Part, torch.Tensor] = {"validation": teacher.predicted("validation")}
    with contextlib.suppress(
        DataError
    ):  # an import without predictions at the test inputs: nothing is compared there
        predicted["test"] = teacher.predicted("test")
    return _of_stream(teacher, predicted)


def trained(trainer: Trainer, folder: Path) -> list[Contender]:
    """A MAP network, where the teacher's weights are known, and an unpruned student; both are kept
    in ``folder``.

    Raises:
        Interrupted: the session said stop.
    """
    networks = [_map(trainer, folder / "map")] if trainer.teacher.stream.has_weights else []
    return [*networks, _unpruned(trainer, folder / "unpruned")]


def _of_stream(teacher: Teacher, predicted: dict[Part, torch.Tensor]) -> list[Contender]:
    stream, own_unit = teacher.stream, teacher.dataset.label_normalization
    targets = teacher.space.targets
    best = int(
        nll_by_sample(
            predicted["validation"], teacher.dataset.labels("validation"), own_unit
        ).argmin()
    )
    costs: dict[str, int] = {}
    if stream.has_weights:
        cost = cost_of(
            teacher.space.genotype.family, stream.key.shapes, teacher.dataset.input_shape, "float32"
        )
        costs = asdict(cost)
    one = torch.ones(1)
    return [
        Contender(
            "teacher",
            "teacher (average)",
            f"The average over {stream.num_samples} posterior samples "
            f"({teacher.space.method.name}).",
            {
                part: averaged(rows, stream.weight_S, own_unit, targets)
                for part, rows in predicted.items()
            },
            {name: value * stream.num_samples for name, value in costs.items()},
            ensemble(teacher) if stream.has_weights else None,
        ),
        Contender(
            "single_sample",
            "best single sample",
            f"Posterior sample {best} of {stream.num_samples}: the lowest NLL on validation.",
            {
                part: averaged(rows[best : best + 1], one, own_unit, targets)
                for part, rows in predicted.items()
            },
            costs,
            ensemble(teacher, [best]) if stream.has_weights else None,
        ),
    ]


def _map(trainer: Trainer, folder: Path) -> Contender:
    """A MAP network of the teacher's genotype, its prior precision tuned on validation."""
    teacher, session = trainer.teacher, trainer.session
    space, dataset = teacher.space, teacher.dataset
    family, shapes = FAMILIES[space.genotype.family], teacher.stream.key.shapes
    labels = dataset.normalized_labels("validation")
    cfg = MapConfig(name="map", steps=space.baseline.steps, lr=space.baseline.lr, batch_size=100)
    x = dataset.inputs("validation").to(session.device)
    scores: dict[float, float] = {}
    folder = (
        folder / f"{cfg.steps}-steps-{cfg.lr:g}"
    )  # networks of other settings are no part of this choice
    for i, precision in enumerate(space.baseline.precisions):
        path = folder / f"precision-{precision:g}.safetensors"
        if not path.exists():
            prior = GaussianPrior(precision=precision)
            # whatever the teacher's networks see, this one sees what students do
            mine = replace(space, method=cfg)
            problem = posterior(mine, dataset, device=session.device, prior=prior)
            generator = rng.generator(space.seed, "map", i)
            theta = None
            with threads_for(
                largest_product(space.genotype.family, shapes, dataset.input_shape, cfg.batch_size)
            ):
                for step in METHODS["map"](problem, cfg, generator=generator):
                    session.raise_if_stopped()
                    theta = step.sample.theta_W if step.sample else None
            assert theta is not None, "map ends with its sample"
            folder.mkdir(parents=True, exist_ok=True)
            write_weights(path, unflatten(theta, shapes), "float32")
        params = {name: p.to(session.device) for name, p in read_weights(path).items()}
        outputs = family.forward(params, x).cpu().double()
        scores[precision] = -float(space.likelihood.log_density(outputs, labels).mean())
        session.progress("MAP baseline", i + 1, len(space.baseline.precisions))
    best = min(scores, key=lambda precision: scores[precision])
    params = read_weights(folder / f"precision-{best:g}.safetensors")

    def forward(raw: torch.Tensor) -> torch.Tensor:
        outputs = family.forward(params, dataset.normalization(raw))
        return space.likelihood.predict(outputs.double())

    parts: list[Part] = ["validation", "test"]
    one = torch.ones(1)
    predictions = {}
    for part in parts:
        predictions[part] = averaged(
            forward(dataset.raw(part))[None], one, dataset.label_normalization, space.targets
        )
    return Contender(
        "map",
        "MAP network",
        f"One network of the teacher's genotype, Adam for {cfg.steps} steps; prior precision "
        f"{best:g} of "
        f"{', '.join(f'{p:g}' for p in scores)} by validation NLL.",
        predictions,
        asdict(cost_of(space.genotype.family, shapes, dataset.input_shape, "float32")),
        network(teacher, forward),
    )


def _unpruned(trainer: Trainer, folder: Path) -> Contender:
    """A student of the teacher's genotype, never pruned: Bayesian dark knowledge's choice of
    architecture.
    """
    genotype, dataset = trainer.teacher.space.genotype, trainer.teacher.dataset
    if not (folder / "weights.safetensors").exists():  # written last
        (student,) = trainer.distill_sound([genotype])
        save_student(folder, trainer.spec(genotype, reference="unpruned"), student.params)
    student_read = load_student(folder)
    parts: list[Part] = ["validation", "test"]
    return Contender(
        "unpruned",
        "unpruned student",
        "A student of the teacher's genotype, float32 and never pruned, by the same recipe "
        "(Bayesian dark knowledge).",
        {part: student_predictions(student_read, dataset.raw(part)) for part in parts},
        asdict(cost_of(genotype.family, student_read.shapes, dataset.input_shape, "float32")),
        StudentPredictor(student_read),
    )
