"""Small posteriors on which methods are tried."""

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.posterior.base import Problem, posterior_of
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from gped_nas.posterior.priors import GaussianPrior

TEACHER = Genotype("mlp", depth=1, width=5)
NUM_CLASSES, NUM_EXAMPLES = 3, 24


def classifier(genotype: Genotype = TEACHER, input_shape: tuple[int, ...] | None = None) -> Problem:
    """A small classifier's posterior: 24 examples of 3 classes, prior precision 2.

    Args:
        genotype: of the network.
        input_shape: of one input; by default the first that its family gives as an example.
    """
    input_shape = input_shape or tuple(FAMILIES[genotype.family].example_inputs[0])
    x = torch.randn(NUM_EXAMPLES, *input_shape, generator=rng.generator(0, "scenario", "x"))
    return posterior_of(
        genotype,
        x,
        _labels(x),
        num_outputs=NUM_CLASSES,
        prior=GaussianPrior(precision=2.0),
        likelihood=CategoricalLikelihood(),
        device=torch.device("cpu"),
    )


def _labels(x: Tensor) -> Tensor:
    """How many of an input's first two numbers are positive."""
    return (x.flatten(1)[:, :2] > 0).sum(1)
