"""Problems with known answers, and small real ones, shared by the tests of several floors."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas import rng
from gped_nas.models.base import FAMILIES, Genotype, Params, initialise
from gped_nas.posterior import conjugate
from gped_nas.posterior.base import METHODS, Problem, State, Step, supervised_network
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from gped_nas.posterior.priors import GaussianPrior
from gped_nas.posterior.schedule import StepSize
from gped_nas.posterior.sgld import SgldConfig
from gped_nas.stream.key import StreamKey

INPUT_SHAPE, NUM_CLASSES, NUM_EXAMPLES = (4,), 3, 24
TEACHER = Genotype("mlp", depth=1, width=5)


def gaussian(num: int, *, precision: float, start: float = 0.0) -> Problem:
    """``num`` independent N(0, 1 / precision) posteriors as one tensor: no data, the prior alone."""

    def log_prior(params: Params) -> Tensor:
        return -0.5 * precision * params["theta"].square().sum()

    return Problem(
        shapes={"theta": (num,)},
        log_likelihood=lambda params, x, y: torch.zeros(len(x)),
        log_prior=log_prior,
        initialise=lambda generator: {"theta": torch.full((num,), start)},
        x=torch.zeros(1, 1),
        y=torch.zeros(1, dtype=torch.int64),
    )


def classifier(genotype: Genotype = TEACHER, input_shape: tuple[int, ...] | None = None) -> Problem:
    """A small classifier's posterior: 24 examples of 3 classes, prior precision 2."""
    family = FAMILIES[genotype.family]
    input_shape = input_shape or INPUT_SHAPES[genotype.family][0]
    shapes = genotype.shapes(input_shape, NUM_CLASSES)
    x = torch.randn(NUM_EXAMPLES, *input_shape, generator=rng.generator(0, "scenario", "x"))

    return Problem(
        shapes=shapes,
        log_likelihood=supervised_network(family, shapes, CategoricalLikelihood()),
        log_prior=GaussianPrior(precision=2.0),
        initialise=lambda generator: initialise(shapes, generator=generator),
        x=x,
        y=(x.flatten(1)[:, 0] > 0).long() + (x.flatten(1)[:, 1] > 0).long(),
    )


def unstructured(problem: Problem) -> Problem:
    """The same posterior without a network to look into."""
    return replace(problem, log_likelihood=lambda *args: problem.log_likelihood(*args))


def with_bare_prior(problem: Problem) -> Problem:
    """The same posterior without a prior to draw from or to average over."""
    return replace(problem, log_prior=lambda params: problem.log_prior(params))


def regression(*, noise_std: float = 0.7, precision: float = 1.5) -> tuple[Problem, Tensor, Tensor]:
    """Linear regression with normal noise and prior: the problem, its posterior's mean (W,) and
    precision (W, W).
    """
    known = conjugate.regression(noise_std=noise_std, precision=precision)
    return known.problem, known.mean_W, known.precision_WW


def sgld_config(*, burn_in: int = 6, thinning: int = 2, chains: int = 2) -> SgldConfig:
    """SGLD settings for ``classifier``, with a step size that halves during and after burn-in."""
    return SgldConfig(
        name="sgld",
        chains=chains,
        step_size=StepSize(initial=0.01, halve_at=(3, 9)),
        batch_size=5,
        burn_in=burn_in,
        thinning=thinning,
    )


def stream_key(*, seed: int = 0, chains: int = 2) -> StreamKey:
    """The key of a stream of ``classifier`` sampled with ``sgld_config``."""
    method = sgld_config(chains=chains).model_dump(mode="json")
    del method["num_samples"]
    return StreamKey(
        dataset="d" * 64,
        input_shape=INPUT_SHAPE,
        num_outputs=NUM_CLASSES,
        genotype={"family": TEACHER.family, **TEACHER.architecture()},
        prior={"precision": 2.0},
        method=method,
        seed=seed,
    )


class Chains:
    """``run_chain`` of a stream build, counting the steps that were asked for."""

    def __init__(self, *, seed: int = 0, chains: int = 2) -> None:
        self.problem, self.cfg, self.seed, self.num_steps = (
            classifier(),
            sgld_config(chains=chains),
            seed,
            0,
        )

    def __call__(self, chain: int, state: State | None) -> Iterator[Step]:
        generator = rng.generator(self.seed, "posterior", chain)
        for step in METHODS["sgld"](self.problem, self.cfg, generator=generator, state=state):
            self.num_steps += 1
            yield step


def predict(theta_W: Tensor) -> Tensor:
    """Log-probabilities (24, 3) of the teacher with flat parameters at the inputs of
    ``classifier``.
    """
    from gped_nas.posterior.base import unflatten

    problem = classifier()
    params = unflatten(theta_W, problem.shapes)
    return F.log_softmax(FAMILIES[TEACHER.family].forward(params, problem.x), -1)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


# One small setting of every registered method, and small genotypes of every registered family: what
# the contract tests run. A contract test fails when a registered name has no entry here.
METHOD_SETTINGS: dict[str, dict[str, object]] = {
    "sgld": {"step_size": {"initial": 0.01, "halve_at": [3, 9]}, "burn_in": 4, "thinning": 2},
    "map": {"steps": 300, "batch_size": 4},
    "import": {"path": "samples.safetensors"},
    "vi": {"steps": 300, "batch_size": 4},
    "mc_dropout": {"steps": 300, "batch_size": 4, "rate": 0.3},
    "swag": {"steps": 100, "batch_size": 4, "collect_every": 3, "collections": 3, "rank": 2},
    "laplace": {"steps": 300, "batch_size": 4},
    "deep_ensemble": {"steps": 200, "batch_size": 4, "regulariser": "anchor"},
    "psgld": {"step_size": {"initial": 0.001, "halve_at": [3, 9]}, "burn_in": 4, "thinning": 2},
    "sghmc": {"step_size": {"initial": 0.05, "halve_at": [3, 9]}, "burn_in": 4, "thinning": 2},
    "csgld": {
        "step_size": {"initial": 0.01, "length": 6},
        "thinning": 2,
        "samples_per_cycle": 2,
        "exploration": 0.3,
    },
    "csghmc": {
        "step_size": {"initial": 0.05, "length": 6},
        "thinning": 2,
        "samples_per_cycle": 2,
        "exploration": 0.3,
    },
    "hmc": {"step_size": 0.05, "leapfrog_steps": 3, "burn_in": 4, "thinning": 2},
}
GENOTYPES: dict[str, list[Genotype]] = {
    "mlp": [
        Genotype("mlp", depth=0),
        Genotype("mlp", depth=1, width=1),
        Genotype("mlp", depth=1, width=7),
        Genotype("mlp", depth=2, width=[5, 3]),
        Genotype("mlp", depth=3, width=[2, 9, 4]),
        Genotype("mlp", depth=12, width=3),
    ],
    "cnn": [
        Genotype("cnn", depth=1, width=1, kernel=1),
        Genotype("cnn", depth=1, width=3, kernel=6, head_width=[4]),
        Genotype("cnn", depth=2, width=[4, 5], kernel=[3, 2], pool=[2, 1], head_width=[6, 3]),
        Genotype("cnn", depth=3, width=[2, 6, 3], kernel=2, pool=[1, 1, 2]),
    ],
    "resnet": [
        Genotype("resnet", depth=1, width=[1]),
        Genotype("resnet", depth=2, width=[3]),
        Genotype("resnet", depth=[1, 2], width=[4, 6]),
        Genotype("resnet", depth=[2, 1, 1], width=[3, 5, 2]),
    ],
}
INPUT_SHAPES: dict[str, list[tuple[int, ...]]] = {
    "mlp": [INPUT_SHAPE, (1, 3, 3)],
    "cnn": [(1, 6, 7), (3, 9, 8)],
    "resnet": [(1, 5, 6), (3, 8, 7)],
}
"""Shapes of inputs that every genotype of a family can read; the first one is that of
``classifier``.
"""
FAMILY_CASES = [
    (genotype, shape)
    for family in GENOTYPES
    for genotype in GENOTYPES[family]
    for shape in INPUT_SHAPES[family]
]
