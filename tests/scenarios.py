"""Problems with known answers, and small real ones, shared by the tests of several floors."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas import rng
from gped_nas.models.base import FAMILIES, Genotype, Params
from gped_nas.posterior import conjugate
from gped_nas.posterior.base import METHODS, Problem, State, Step
from gped_nas.posterior.schedule import StepSize
from gped_nas.posterior.sgld import SgldConfig
from gped_nas.stream.key import StreamKey
from gped_nas.testing.problems import NUM_CLASSES, NUM_EXAMPLES, TEACHER, classifier

__all__ = ["NUM_CLASSES", "NUM_EXAMPLES", "TEACHER", "classifier"]

INPUT_SHAPE = (4,)


def gaussian(num: int, *, precision: float, start: float = 0.0) -> Problem:
    """``num`` independent N(0, 1 / precision) posteriors as one tensor: the prior alone."""

    def log_prior(params: Params) -> Tensor:
        return -0.5 * precision * params["theta"].square().sum()

    return Problem(
        shapes={"theta": (num,)},
        log_likelihood=lambda params, x, y: torch.zeros(len(x)),
        log_prior=log_prior,
        initialize=lambda generator: {"theta": torch.full((num,), start)},
        x=torch.zeros(1, 1),
        y=torch.zeros(1, dtype=torch.int64),
    )


def unstructured(problem: Problem) -> Problem:
    """The same posterior without a network to look into."""
    return replace(problem, log_likelihood=lambda *args: problem.log_likelihood(*args))


def with_bare_prior(problem: Problem) -> Problem:
    """The same posterior without a prior to draw from or to average over."""
    return replace(problem, log_prior=lambda params: problem.log_prior(params))


def regression(*, noise_std: float = 0.7, precision: float = 1.5) -> tuple[Problem, Tensor, Tensor]:
    """Linear regression with normal noise and prior.

    Returns:
        The problem, and its posterior's mean (W,) and precision (W, W).
    """
    conjugate_case = conjugate.regression(noise_std=noise_std, precision=precision)
    return conjugate_case.problem, conjugate_case.mean_W, conjugate_case.precision_WW


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
    method = sgld_config(chains=chains).identity()
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
        self.problem = classifier()
        self.cfg = sgld_config(chains=chains)
        self.seed = seed
        self.num_steps = 0

    def __call__(self, chain: int, state: State | None) -> Iterator[Step]:
        generator = rng.generator(self.seed, "posterior", chain)
        for step in METHODS["sgld"](self.problem, self.cfg, generator=generator, state=state):
            self.num_steps += 1
            yield step


def predict(theta_W: Tensor) -> Tensor:
    """Log-probabilities (24, 3) of the teacher with flat parameters at ``classifier``'s inputs."""
    from gped_nas.posterior.base import unflatten

    problem = classifier()
    params = unflatten(theta_W, problem.shapes)
    return F.log_softmax(FAMILIES[TEACHER.family].forward(params, problem.x), -1)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


METHOD_SETTINGS: dict[str, dict[str, object]] = {
    name: dict(method.example) for name, method in METHODS.items()
}
"""A small setting of every registered method."""

GENOTYPES: dict[str, list[Genotype]] = {
    name: [Genotype(name, **values) for values in family.examples]
    for name, family in FAMILIES.items()
}
"""Small genotypes of every registered family."""

INPUT_SHAPES: dict[str, list[tuple[int, ...]]] = {
    name: list(family.example_inputs) for name, family in FAMILIES.items()
}
"""Shapes of inputs that every genotype of a family can read, that of ``classifier`` first."""

FAMILY_CASES = [
    (genotype, shape)
    for family in GENOTYPES
    for genotype in GENOTYPES[family]
    for shape in INPUT_SHAPES[family]
]
