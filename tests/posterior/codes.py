"""Problems with posterior samples of several chains, and what codecs make of them."""

import torch

from gped_nas import rng
from gped_nas.models.base import Genotype
from gped_nas.posterior.base import METHODS, PosteriorSample, Problem, State, flatten
from gped_nas.posterior.codecs.base import CodecConfig
from gped_nas.testing.problems import TEACHER, classifier
from tests.posterior.laws import SGLD, code_of, config_of

__all__ = ["SGLD", "all_samples", "code_of", "problem_weighing", "problem_with", "settings_of"]


def problem_with(num_samples: int, genotype: Genotype = TEACHER) -> Problem:
    """A small classifier with samples of two chains that lie far apart, of weights 1, 2, 3, 1..."""
    problem = classifier(genotype)
    generator = rng.generator(0, "two chains")
    samples = []
    for s in range(num_samples):
        theta_W = flatten(problem.initialize(generator))
        theta_W += torch.randn(len(theta_W), generator=generator)
        samples.append(PosteriorSample(theta_W + 3 * (s % 2), weight=1.0 + s % 3))
    problem.__dict__["samples"] = samples
    return problem


def problem_weighing(weights: list[float]) -> Problem:
    """``problem_with`` as many samples, of these weights."""
    problem = problem_with(len(weights))
    for sample, weight in zip(problem.samples or (), weights, strict=True):
        sample.__dict__["weight"] = weight
    return problem


def settings_of(name: str, read: int, **settings: object) -> CodecConfig:
    """A codec's settings, over two chains of ``sgld`` with so many samples."""
    return config_of(name, read, 2, **settings)


def all_samples(problem: Problem, cfg: CodecConfig) -> tuple[list[PosteriorSample], State]:
    """The samples of a finite codec, and its last state."""
    steps = list(METHODS[cfg.name](problem, cfg, generator=rng.generator(1, "chain")))
    return [step.sample for step in steps if step.sample is not None], steps[-1].state
