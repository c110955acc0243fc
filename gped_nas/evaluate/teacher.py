"""What posterior samples say, alone and together, in the form that metrics read.

Samples of a classifier predict log-probabilities (S, N, C) in nats, those of a regression mean and
variance (S, N, 2) in the label's normalised unit; ``label_normalization`` leads back to its own and
is None for classes.
"""

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.base import Normalization
from gped_nas.evaluate.predictions import AnyPredictions, Labels, NormalPredictions, Predictions
from gped_nas.targets.formulas import entropy


def averaged(
    predicted_SNG: Tensor, weight_S: Tensor, label_normalization: Normalization | None = None
) -> AnyPredictions:
    """The predictions of the weighted average of posterior samples."""
    weight = weight_S.double() / weight_S.double().sum()
    if label_normalization:
        moments = torch.einsum("s,sng->ng", weight, _moments(predicted_SNG))
        return normal_predictions(
            moments[:, 0], moments[:, 1] - moments[:, 0].square(), label_normalization
        )
    log_prob = predicted_SNG.double()
    mean = torch.logsumexp(log_prob + weight.log()[:, None, None], 0)
    expected = torch.einsum("s,sn->n", weight, entropy(log_prob))
    return Predictions(mean.numpy(), expected.numpy())


def nll_by_sample(
    predicted_SNG: Tensor, labels: Labels, label_normalization: Normalization | None = None
) -> Tensor:
    """The NLL of each posterior sample on its own, (S,), nats."""
    return -log_scores(predicted_SNG, labels, label_normalization).mean(1)


def log_scores(
    predicted_SNG: Tensor, labels: Labels, label_normalization: Normalization | None = None
) -> Tensor:
    """Log-probability or log-density of each label by each posterior sample on its own, (S, N)
    float64, nats.
    """
    if label_normalization:
        one = torch.ones(1)
        scores = [
            averaged(own[None], one, label_normalization).log_score(labels) for own in predicted_SNG
        ]
        return torch.from_numpy(np.stack(scores))
    return _picked(predicted_SNG, labels)


def samples_to_nll(
    predicted_SNG: Tensor,
    weight_S: Tensor,
    labels: Labels,
    label_normalization: Normalization | None = None,
) -> list[list[float]]:
    """``[number of samples, NLL of their average]`` for growing numbers of posterior samples, nats."""
    num = len(predicted_SNG)
    sizes = sorted(
        {num, *(2**i for i in range(num.bit_length())), *(num * i // 8 for i in range(1, 8))} - {0}
    )
    if label_normalization:
        means = [
            averaged(predicted_SNG[:size], weight_S[:size], label_normalization) for size in sizes
        ]
        return [
            [float(size), -float(mean.log_score(labels).mean())]
            for size, mean in zip(sizes, means, strict=True)
        ]
    log_weight_S = weight_S.double().log()
    joint_SN = _picked(predicted_SNG, labels) + log_weight_S[:, None]
    nll_S = -(joint_SN.logcumsumexp(0) - log_weight_S.logcumsumexp(0)[:, None]).mean(1)
    return [[float(size), float(nll_S[size - 1])] for size in sizes]


def _picked(log_prob_SNC: Tensor, labels: Labels) -> Tensor:
    """Each sample's log-probability of the label, (S, N), float64."""
    index = torch.as_tensor(labels)[None, :, None].expand(len(log_prob_SNC), -1, 1)
    return log_prob_SNC.gather(2, index).squeeze(2).double()


def normal_predictions(
    mean: Tensor, variance: Tensor, label_normalization: Normalization
) -> NormalPredictions:
    """Mean and variance (N,) in the label's normalised unit as predictions in its own."""
    own = label_normalization
    return NormalPredictions(
        mean.double().numpy() * own.std + own.mean, variance.double().numpy() * own.std**2
    )


def _moments(predicted_SN2: Tensor) -> Tensor:
    """E[y] and E[y^2] of each sample, (S, N, 2), float64."""
    mean, variance = predicted_SN2.double().unbind(-1)
    return torch.stack([mean, mean.square() + variance], -1)
