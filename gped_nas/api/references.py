"""The predictors a front is compared with: teacher, its best single sample, a MAP network, an unpruned student."""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from gped_nas import rng
from gped_nas.api.students import Trainer
from gped_nas.api.teacher import Teacher, averaged
from gped_nas.data.base import Part
from gped_nas.device import threads_for
from gped_nas.distill.student import load_student, save_student
from gped_nas.errors import DataError
from gped_nas.evaluate.base import Predictions
from gped_nas.evaluate.student import student_predictions
from gped_nas.models.base import FAMILIES
from gped_nas.models.costs import cost_of, largest_product
from gped_nas.models.storage import read_weights, write_weights
from gped_nas.posterior.base import METHODS, classification, views
from gped_nas.posterior.map import MapConfig
from gped_nas.posterior.priors import GaussianPrior


@dataclass(frozen=True, eq=False)
class Contender:
    """A reference before it is measured.

    Attributes:
        name, label, note: as in ``Reference``.
        predictions: on validation and, where they could be made, on test.
        costs: of serving it once.
    """

    name: str
    label: str
    note: str
    predictions: dict[Part, Predictions]
    costs: dict[str, int]


def of_stream(trainer: Trainer) -> list[Contender]:
    """The teacher's average, then its best single sample.

    Raises:
        Interrupted: the session said stop.
    """
    teacher, session = trainer.teacher, trainer.session
    log_prob = {"validation": teacher.log_prob("validation", session)}
    with contextlib.suppress(DataError):  # an import without predictions at the test inputs: nothing is compared there
        log_prob["test"] = teacher.log_prob("test", session)
    return _of_stream(teacher, log_prob)


def trained(trainer: Trainer, folder: Path) -> list[Contender]:
    """A MAP network, where the teacher's weights are known, and an unpruned student; both are kept in ``folder``.

    Raises:
        Interrupted: the session said stop.
    """
    networks = [_map(trainer, folder / "map")] if trainer.teacher.stream.has_weights else []
    return [*networks, _unpruned(trainer, folder / "unpruned")]


def _of_stream(teacher: Teacher, log_prob: dict[str, torch.Tensor]) -> list[Contender]:
    stream, labels = teacher.stream, torch.from_numpy(teacher.dataset.labels("validation"))
    picked = labels[None, :, None].expand(len(log_prob["validation"]), -1, 1)
    nll_S = -log_prob["validation"].double().gather(2, picked).mean((1, 2))
    best = int(nll_S.argmin())
    costs: dict[str, int] = {}
    if stream.has_weights:
        cost = cost_of(teacher.space.genotype.family, stream.key.shapes, teacher.dataset.input_shape, "float32")
        costs = asdict(cost)
    parts: list[Part] = ["validation", "test"] if "test" in log_prob else ["validation"]
    one = torch.ones(1)
    return [
        Contender(
            "teacher",
            "teacher (average)",
            f"The average over {stream.num_samples} posterior samples ({teacher.space.method.name}).",
            {part: averaged(log_prob[part], stream.weight_S) for part in parts},
            {name: value * stream.num_samples for name, value in costs.items()},
        ),
        Contender(
            "single_sample",
            "best single sample",
            f"Posterior sample {best} of {stream.num_samples}: the lowest NLL on validation.",
            {part: averaged(log_prob[part][best : best + 1], one) for part in parts},
            costs,
        ),
    ]


def _map(trainer: Trainer, folder: Path) -> Contender:
    """A MAP network of the teacher's genotype, its prior precision tuned on validation."""
    teacher, session = trainer.teacher, trainer.session
    space, dataset = teacher.space, teacher.dataset
    family, shapes = FAMILIES[space.genotype.family], teacher.stream.key.shapes
    labels = torch.from_numpy(dataset.labels("validation"))
    cfg = MapConfig(name="map", steps=space.baseline.steps, lr=space.baseline.lr, batch_size=100)
    x = dataset.inputs("validation").to(session.device)
    scores: dict[float, float] = {}
    for i, precision in enumerate(space.baseline.precisions):
        path = folder / f"precision-{precision:g}.safetensors"
        if not path.exists():
            problem = classification(space.genotype, dataset, GaussianPrior(precision=precision), device=session.device)
            generator = rng.generator(space.seed, "map", i)
            theta = None
            with threads_for(largest_product(shapes, cfg.batch_size)):
                for step in METHODS["map"](problem, cfg, generator=generator):
                    session.raise_if_stopped()
                    theta = step.sample.theta_P if step.sample else None
            assert theta is not None, "map ends with its sample"
            folder.mkdir(parents=True, exist_ok=True)
            write_weights(path, views(theta, shapes), "float32")
        params = {name: p.to(session.device) for name, p in read_weights(path).items()}
        scores[precision] = float(F.cross_entropy(family.forward(params, x).cpu().double(), labels))
        session.progress("MAP baseline", i + 1, len(space.baseline.precisions))
    best = min(scores, key=lambda precision: scores[precision])
    params = read_weights(folder / f"precision-{best:g}.safetensors")
    parts: list[Part] = ["validation", "test"]
    predictions = {
        part: Predictions(F.log_softmax(family.forward(params, dataset.inputs(part)).double(), -1).numpy())
        for part in parts
    }
    return Contender(
        "map",
        "MAP network",
        f"One network of the teacher's genotype, Adam for {cfg.steps} steps; prior precision {best:g} of "
        f"{', '.join(f'{p:g}' for p in scores)} by validation NLL.",
        predictions,
        asdict(cost_of(space.genotype.family, shapes, dataset.input_shape, "float32")),
    )


def _unpruned(trainer: Trainer, folder: Path) -> Contender:
    """A student of the teacher's genotype, never pruned: Bayesian dark knowledge's choice of architecture."""
    genotype, dataset = trainer.teacher.space.genotype, trainer.teacher.dataset
    if not (folder / "weights.safetensors").exists():  # written last
        (student,) = trainer.distill([genotype])
        save_student(folder, trainer.spec(genotype, reference="unpruned"), student.params)
    student_read = load_student(folder)
    parts: list[Part] = ["validation", "test"]
    return Contender(
        "unpruned",
        "unpruned student",
        "A student of the teacher's genotype, float32 and never pruned, by the same recipe (Bayesian dark knowledge).",
        {part: student_predictions(student_read, dataset.raw(part)) for part in parts},
        asdict(cost_of(genotype.family, student_read.shapes, dataset.input_shape, "float32")),
    )
