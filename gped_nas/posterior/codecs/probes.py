"""What posterior samples predict at probe inputs, as numbers whose averages a codec keeps.

Probe inputs are training inputs that are drawn by the seed, and as many of noise: independent
normal numbers with the mean and the standard deviation of all numbers in those training inputs.
"""

import torch
from torch import Generator, Tensor

from gped_nas.errors import ConfigError
from gped_nas.posterior.base import Problem, unflatten

_BATCH = 512


def probe_inputs(problem: Problem, num: int, *, generator: Generator) -> Tensor:
    """Training inputs, then as many of noise (2 M, ...), normalized.

    Args:
        problem: has the training inputs.
        num: training inputs at most.
        generator: source of the draws.
    """
    index_M = torch.randperm(problem.num_examples, generator=generator)[:num]
    x = problem.x[index_M.to(problem.x.device)]
    noise = torch.randn(x.shape, generator=generator).to(x)
    return torch.cat([x, x.mean() + x.std() * noise])


def prediction_features(problem: Problem, x_M: Tensor, theta_SW: Tensor) -> Tensor:
    """What each sample predicts at inputs, as numbers (S, M F), float64, that mixing averages.

    Of classes these are probabilities; of a real label its mean and its second moment, in its
    normalized unit and that squared.

    Raises:
        ConfigError: it is not known what the problem's network predicts.
    """
    network = problem.network
    if network is None or network.predict is None:
        raise ConfigError(
            "teacher.method.name: found a codec that compares predictions, with a teacher of which "
            "no predictions are known; choose quantized or low_rank"
        )

    features = []
    with torch.no_grad():
        for theta_W in theta_SW:
            params = unflatten(theta_W.to(x_M.device), problem.shapes)
            batches = torch.split(x_M, _BATCH)
            predicted = [network.predict(network.forward(params, x)) for x in batches]
            features.append(_moments(torch.cat(predicted).cpu().double(), problem).flatten())
    return torch.stack(features)


def _moments(predicted_MG: Tensor, problem: Problem) -> Tensor:
    is_of_classes = not problem.y.is_floating_point()
    if is_of_classes:
        return predicted_MG.exp()
    mean_M, variance_M = predicted_MG.unbind(-1)
    return torch.stack([mean_M, variance_M + mean_M.square()], -1)
