"""MAP networks of the teacher's genotype, their prior precision tuned on validation.

One network a precision is trained, and validation chooses. What was chosen there looks better
there than it is. So ``baseline.seeds`` trains fresh networks of that precision,
which chose nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from gped_nas import rng
from gped_nas.api.evidence_files import REMADE
from gped_nas.api.kept import KeptFiles
from gped_nas.api.sampling import PREDICT_BATCH, posterior
from gped_nas.api.teacher import Teacher
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
    """A network of the prior precision that is best on validation.

    Attributes:
        teacher: whose genotype it has.
        params: its parameters, on the CPU.
        precision: its prior's.
        tried: the precisions of all that were trained to choose it.
        steps: optimizer steps of each.
        seed: its number among the fresh ones, from 1; 0 is the one that was chosen itself.
    """

    teacher: Teacher
    params: Params
    precision: float
    tried: Sequence[float]
    steps: int
    seed: int = 0

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """What it says at normalized inputs (B, *input_shape): (B, G), float64."""
        space = self.teacher.space
        outputs = space.family.forward(self.params, x)
        return space.likelihood.predict(outputs.double())

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """The same at raw inputs."""
        return self.predict(self.teacher.dataset.normalization(raw))


@dataclass(frozen=True)
class _Training:
    """One network to be trained.

    Attributes:
        place: of its precision in the grid.
        seed: its number among the fresh ones of that precision; 0 is the one of the grid.
    """

    place: int
    seed: int = 0

    def generator(self, root: int) -> torch.Generator:
        """Of its first parameters and its minibatches."""
        if not self.seed:
            return rng.generator(root, "map", self.place)
        return rng.generator(root, "map", self.place, "seed", self.seed)

    def path(self, kept: KeptFiles, cfg: MapConfig, precision: float) -> Path:
        """Where it lies; those of other settings are no part of the choice."""
        folder = kept.folder / "references" / "map" / f"{cfg.steps}-steps-{cfg.lr:g}"
        fresh = f"-seed-{self.seed}" if self.seed else ""
        return folder / f"precision-{precision:g}{fresh}.safetensors"


def tuned_map_network(teacher: Teacher, kept: KeptFiles | None = None) -> MapNetwork:
    """The MAP network that is the reference: the first of ``tuned_map_networks``."""
    return tuned_map_networks(teacher, kept)[0]


def tuned_map_networks(teacher: Teacher, kept: KeptFiles | None = None) -> tuple[MapNetwork, ...]:
    """The MAP networks of ``baseline``, of the precision with the lowest NLL on validation.

    They are ``baseline.seeds`` fresh ones; with 0 seeds the one that was chosen itself.

    Args:
        teacher: whose genotype they have.
        kept: where the networks lie: those that are there are not trained again. They are kept
            nowhere by default.

    Raises:
        DamageError: one of their files is not what was written.
        Interrupted: the session said stop.
    """
    space = teacher.space
    precisions, num_seeds = space.baseline.precisions, space.baseline.seeds
    cfg = MapConfig(name="map", steps=space.baseline.steps, lr=space.baseline.lr, batch_size=100)
    total = len(precisions) + num_seeds

    networks: dict[float, Params] = {}
    scores: dict[float, float] = {}
    grid = [_Training(place) for place in range(len(precisions))]
    for i, params in enumerate(_networks(teacher, cfg, grid, kept)):
        networks[precisions[i]] = params
        scores[precisions[i]] = _nll(teacher, params)
        teacher.session.progress("MAP baseline", i + 1, total)
    best = min(scores, key=lambda precision: scores[precision])
    if not num_seeds:
        return (MapNetwork(teacher, networks[best], best, tuple(scores), cfg.steps),)

    fresh: list[MapNetwork] = []
    place = precisions.index(best)
    trainings = [_Training(place, seed) for seed in range(1, num_seeds + 1)]
    for params in _networks(teacher, cfg, trainings, kept):
        seed = len(fresh) + 1
        fresh.append(MapNetwork(teacher, params, best, tuple(scores), cfg.steps, seed))
        teacher.session.progress("MAP baseline", len(precisions) + seed, total)
    return tuple(fresh)


def _nll(teacher: Teacher, params: Params) -> float:
    """NLL of a network on validation, in the label's normalized unit."""
    space, dataset, device = teacher.space, teacher.dataset, teacher.session.device
    x = dataset.inputs("validation").to(device)
    labels = dataset.normalized_labels("validation")
    there = {name: p.to(device) for name, p in params.items()}
    forward = partial(space.family.forward, there)
    outputs = in_batches(forward, x, PREDICT_BATCH).cpu().double()
    return -float(space.likelihood.log_density(outputs, labels).mean())


def _networks(
    teacher: Teacher, cfg: MapConfig, trainings: Sequence[_Training], kept: KeptFiles | None
) -> Iterator[Params]:
    """The network of each training in turn, read or trained."""
    trained = _train_at_once(teacher, cfg, trainings, kept)
    for training in trainings:
        yield _network(teacher, cfg, training, kept, trained.get(training))


def _network(
    teacher: Teacher,
    cfg: MapConfig,
    training: _Training,
    kept: KeptFiles | None,
    trained: torch.Tensor | None,
) -> Params:
    """One network, read or trained.

    Args:
        teacher, cfg, kept: see ``tuned_map_networks``.
        training: which one.
        trained: its flat parameters (W,) where it was trained beside others.
    """
    shapes, space = teacher.stream.key.shapes, teacher.space
    precision = space.baseline.precisions[training.place]

    def train() -> Params:
        if trained is not None:
            return unflatten(trained, shapes)
        generator = training.generator(space.seed)
        theta = _maximize_posterior(teacher, cfg, GaussianPrior(precision=precision), generator)
        return unflatten(theta, shapes)

    if kept is None:
        return {name: p.cpu() for name, p in train().items()}

    path = training.path(kept, cfg, precision)
    if not path.exists():
        kept.write(path, serialize(train(), "float32"))
    return _parse(kept.read(path), path, shapes)


def _train_at_once(
    teacher: Teacher, cfg: MapConfig, trainings: Sequence[_Training], kept: KeptFiles | None
) -> dict[_Training, torch.Tensor]:
    """Flat parameters (W,) of those networks that are missing, on a device.

    There are none where each is trained by itself.
    """
    space, session = teacher.space, teacher.session
    if not has_phases(session.device):
        return {}

    missing: list[_Training] = []
    for training in trainings:
        precision = space.baseline.precisions[training.place]
        if kept is None or not training.path(kept, cfg, precision).exists():
            missing.append(training)
    problem = posterior(replace(space, method=cfg), teacher.dataset, device=session.device)
    if not missing or not walks_fits(cfg, problem, space.likelihood, len(missing)):
        return {}

    fits, priors = [], []
    for training in missing:
        fits.append(begin_fit(problem, training.generator(space.seed)))
        priors.append(GaussianPrior(precision=space.baseline.precisions[training.place]))
    thetas: dict[_Training, torch.Tensor] = {}
    for steps in fit_together(problem, cfg, space.likelihood, fits, priors=priors):
        session.raise_if_stopped()
        thetas = {each: step.state["theta"] for each, step in zip(missing, steps, strict=True)}
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
