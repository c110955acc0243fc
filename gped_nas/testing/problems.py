"""Small posteriors on which methods are tried."""

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.models.base import FAMILIES, Genotype, Shapes
from gped_nas.posterior.base import PosteriorSample, Problem, flatten, posterior_of
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from gped_nas.posterior.priors import GaussianPrior

TEACHER = Genotype("mlp", depth=1, width=5)
NUM_CLASSES, NUM_EXAMPLES = 3, 24


def classifier(genotype: Genotype = TEACHER, input_shape: tuple[int, ...] | None = None) -> Problem:
    """A small classifier's posterior: 24 examples of 3 classes, prior precision 2.

    Methods that read another one's posterior samples find four, drawn from the prior.

    Args:
        genotype: of the network.
        input_shape: of one input; by default the first that its family gives as an example.
    """
    input_shape = input_shape or tuple(FAMILIES[genotype.family].example_inputs[0])
    x = torch.randn(NUM_EXAMPLES, *input_shape, generator=rng.generator(0, "scenario", "x"))
    prior = GaussianPrior(precision=2.0)
    return posterior_of(
        genotype,
        x,
        _labels(x),
        num_outputs=NUM_CLASSES,
        prior=prior,
        likelihood=CategoricalLikelihood(),
        device=torch.device("cpu"),
        samples=_drawn(prior, genotype.shapes(input_shape, NUM_CLASSES)),
    )


def _drawn(prior: GaussianPrior, shapes: Shapes) -> list[PosteriorSample]:
    """Four sets of parameters from the prior, with weights 1 to 4."""
    generator = rng.generator(0, "scenario", "samples")
    samples = []
    for weight in range(1, 5):
        theta_W = flatten(prior.sample(shapes, generator=generator))
        samples.append(PosteriorSample(theta_W, float(weight)))
    return samples


def _labels(x: Tensor) -> Tensor:
    """How many of an input's first two numbers are positive."""
    return (x.flatten(1)[:, :2] > 0).sum(1)
