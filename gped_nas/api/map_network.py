"""One MAP network of the teacher's genotype, its prior precision tuned on validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from gped_nas import rng
from gped_nas.api.evidence_files import REMADE
from gped_nas.api.kept import KeptFiles
from gped_nas.api.sampling import posterior
from gped_nas.api.teacher import PREDICT_BATCH, Teacher
from gped_nas.data.rows import in_batches
from gped_nas.device import threads_for
from gped_nas.distill.phases import has_phases
from gped_nas.distill.phases.fits import begin_fit, fit_together, walks_fits
from gped_nas.errors import DamageError
from gped_nas.models.base import Params, Shapes, shapes_of
from gped_nas.models.costs import largest_product
from gped_nas.models.storage import parse_weights, serialize
from gped_nas.posterior.base import METHODS, unflatten
from gped_nas.posterior.map import MapConfig
from gped_nas.posterior.priors import GaussianPrior


@dataclass(frozen=True, eq=False)
class MapNetwork:
    """The best of the networks that were trained, one a prior precision.

    Attributes:
        teacher: whose genotype it has.
        params: its parameters, on the CPU.
        precision: its prior's.
        tried: the precisions of all of them.
        steps: optimizer steps of each.
    """

    teacher: Teacher
    params: Params
    precision: float
    tried: Sequence[float]
    steps: int

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """What it says at normalized inputs (B, *input_shape): (B, G), float64."""
        space = self.teacher.space
        outputs = space.family.forward(self.params, x)
        return space.likelihood.predict(outputs.double())

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """The same at raw inputs."""
        return self.predict(self.teacher.dataset.normalization(raw))


def tuned_map_network(teacher: Teacher, kept: KeptFiles | None = None) -> MapNetwork:
    """The MAP network with the lowest NLL on validation, of the precisions of ``baseline``.

    Args:
        teacher: whose genotype it has.
        kept: where the networks lie: those that are there are not trained again. They are kept
            nowhere by default.

    Raises:
        DamageError: one of their files is not what was written.
        Interrupted: the session said stop.
    """
    space, dataset, session = teacher.space, teacher.dataset, teacher.session
    family, likelihood = space.family, space.likelihood
    cfg = MapConfig(name="map", steps=space.baseline.steps, lr=space.baseline.lr, batch_size=100)

    x = dataset.inputs("validation").to(session.device)
    labels = dataset.normalized_labels("validation")
    networks: dict[float, Params] = {}
    scores: dict[float, float] = {}
    trained = _train_at_once(teacher, cfg, kept)
    for i, precision in enumerate(space.baseline.precisions):
        networks[precision] = _network(teacher, cfg, i, kept, trained.get(i))
        params = {name: p.to(session.device) for name, p in networks[precision].items()}
        outputs = in_batches(partial(family.forward, params), x, PREDICT_BATCH).cpu().double()
        scores[precision] = -float(likelihood.log_density(outputs, labels).mean())
        session.progress("MAP baseline", i + 1, len(space.baseline.precisions))

    best = min(scores, key=lambda precision: scores[precision])
    return MapNetwork(teacher, networks[best], best, tuple(scores), cfg.steps)


def _network(
    teacher: Teacher,
    cfg: MapConfig,
    place: int,
    kept: KeptFiles | None,
    trained: torch.Tensor | None,
) -> Params:
    """The network of the precision at a place of the grid, read or trained.

    Args:
        teacher, cfg, kept: see ``tuned_map_network``.
        place: in the grid.
        trained: its flat parameters (W,) where it was trained beside others.
    """
    shapes, space = teacher.stream.key.shapes, teacher.space
    precision = space.baseline.precisions[place]

    def train() -> Params:
        if trained is not None:
            return unflatten(trained, shapes)
        generator = rng.generator(space.seed, "map", place)
        theta = _maximize_posterior(teacher, cfg, GaussianPrior(precision=precision), generator)
        return unflatten(theta, shapes)

    if kept is None:
        return {name: p.cpu() for name, p in train().items()}

    path = _path(kept, cfg, precision)
    if not path.exists():
        kept.write(path, serialize(train(), "float32"))
    return _parse(kept.read(path), path, shapes)


def _path(kept: KeptFiles, cfg: MapConfig, precision: float) -> Path:
    """Where a network lies; those of other settings are no part of the choice."""
    folder = kept.folder / "references" / "map" / f"{cfg.steps}-steps-{cfg.lr:g}"
    return folder / f"precision-{precision:g}.safetensors"


def _train_at_once(
    teacher: Teacher, cfg: MapConfig, kept: KeptFiles | None
) -> dict[int, torch.Tensor]:
    """Flat parameters (W,) of the grid's networks that are missing, by place, on a device.

    There are none where each is trained by itself.
    """
    space, session = teacher.space, teacher.session
    if not has_phases(session.device):
        return {}

    missing = []
    for i, precision in enumerate(space.baseline.precisions):
        if kept is None or not _path(kept, cfg, precision).exists():
            missing.append(i)
    problem = posterior(replace(space, method=cfg), teacher.dataset, device=session.device)
    if not missing or not walks_fits(cfg, problem, space.likelihood, len(missing)):
        return {}

    fits = []
    for place in missing:
        fits.append(begin_fit(problem, rng.generator(space.seed, "map", place)))
    priors = [GaussianPrior(precision=space.baseline.precisions[place]) for place in missing]
    thetas: dict[int, torch.Tensor] = {}
    for steps in fit_together(problem, cfg, space.likelihood, fits, priors=priors):
        session.raise_if_stopped()
        thetas = {place: step.state["theta"] for place, step in zip(missing, steps, strict=True)}
    return thetas


def _parse(data: bytes, path: Path, shapes: Shapes) -> Params:
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
    family, shapes = space.family, teacher.stream.key.shapes
    macs = largest_product(family, shapes, dataset.input_shape, cfg.batch_size)

    theta = None
    with threads_for(macs):
        for step in METHODS["map"](problem, cfg, generator=generator):
            session.raise_if_stopped()
            theta = step.sample.theta_W if step.sample else None
    assert theta is not None, "map ends with its sample"
    return theta
