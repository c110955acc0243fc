"""Logits of a whole posterior as a few factors that all inputs share, from which students draw.

A posterior sample is a function of the input, and so is what it says of logits::

    logits_s(x) = mean(x) + sum_j loading_j(x) score_sj + rest

A sample has one score a factor for all inputs: draws of a student with scores of its own are
functions too, and what they say at two inputs goes together as it does in the posterior.

Loadings alone are known up to a rotation of the factors. Here the scores settle it: they are the
samples' principal components over all inputs that students learn at, in falling order and with
signs by a rule, computed once. Loadings are then averages of smooth functions of the input. Axes
of each input's own covariance would jump where two of its variances cross.

Source: Park et al. 2025, arXiv:2510.19290 (Gaussian distillation by a deep latent factor model,
where scores and networks are fitted in turn by EM). Departures: the scores are those of the linear
model, in closed form and before any student is trained; the rest has a variance of its own at each
input and class.
"""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from gped_nas.config import Config
from gped_nas.targets.base import TARGETS, RawHeads, StatisticTarget
from gped_nas.targets.formulas import centered_logits
from gped_nas.targets.logits import density_loss, mean_logits, student_variance

_LEAST_SHARE = 1e-10
"""Of the samples' whole variance: a factor with less is rounding."""


class FactorSettings(Config):
    """Settings of ``factors``."""

    rank: Annotated[int, Field(ge=1, le=64, description="number of factors")] = 4


def factor_scores(parts: Iterable[Tensor], weight_S: Tensor, rank: int) -> Tensor:
    """Scores of posterior samples along their principal axes over all inputs, (S, J).

    Over samples they have mean 0, variance 1 and no correlation. Factors beyond the rank of the
    samples have scores of 0.

    Args:
        parts: logits of all samples, some inputs at a time (S, n, C).
        weight_S: weights of the samples, summing to 1.
        rank: number of factors, J.
    """
    gram_SS = weight_S.new_zeros(())
    for logits_SNC in parts:
        deviation_SM = _deviations(logits_SNC, weight_S)[1].flatten(1)
        gram_SS = gram_SS + deviation_SM @ deviation_SM.T

    scores_SJ = weight_S.new_zeros((len(weight_S), rank))
    if not bool(gram_SS.isfinite().all()):
        return scores_SJ.fill_(torch.nan)
    root_S = weight_S.sqrt()
    variance_S, axes_SS = torch.linalg.eigh(root_S[:, None] * gram_SS * root_S)

    is_there_S = weight_S > 0
    least = _LEAST_SHARE * float(variance_S.clamp_min(0).sum())
    for j in range(min(rank, len(weight_S))):
        if float(variance_S[-1 - j]) <= least:
            break
        axis_S = axes_SS[:, -1 - j]
        # an axis has no sign: the sample that is farthest along it has a positive score
        axis_S = axis_S * axis_S[axis_S.abs().argmax()].sign()
        scores_SJ[is_there_S, j] = axis_S[is_there_S] / root_S[is_there_S]
    return scores_SJ


def _deviations(logits_SNC: Tensor, weight_S: Tensor) -> tuple[Tensor, Tensor]:
    """The samples' mean (N, C), and how far each is from it."""
    mean_NC = torch.einsum("s,snc->nc", weight_S, logits_SNC)
    return mean_NC, logits_SNC - mean_NC


def _of_samples(logits_SNC: Tensor, weight_S: Tensor, scores_SJ: Tensor | None) -> Tensor:
    """Mean (N, C), loadings (N, J * C) and variance of the rest (N, C) side by side."""
    assert scores_SJ is not None, "it was fitted"
    mean_NC, deviation_SNC = _deviations(logits_SNC, weight_S)
    weighted_SJ = weight_S[:, None] * scores_SJ
    loading_NJC = torch.einsum("sj,snc->njc", weighted_SJ, deviation_SNC)

    variance_NC = torch.einsum("s,snc->nc", weight_S, deviation_SNC.square())
    # not negative but for rounding, since scores have variance 1 and no correlation
    rest_NC = (variance_NC - loading_NJC.square().sum(1)).clamp_min(0)
    return torch.cat([mean_NC, loading_NJC.flatten(1), rest_NC], -1)


def split_factors(values: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean logits (..., C), loadings (..., J, C) and variance of the rest (..., C)."""
    mean = values[..., :num_classes]
    loadings = torch.unflatten(values[..., num_classes:-num_classes], -1, (-1, num_classes))
    return mean, loadings, values[..., -num_classes:]


def draw_factors(
    values: Tensor, num_classes: int, num_draws: int, *, generator: torch.Generator
) -> Tensor:
    """Log-probabilities of functions drawn from factors, (draws, N, C) nats.

    A draw has one score a factor for all N inputs. The rest is drawn anew for each of them.

    Args:
        values: what is said of ``factors`` at N inputs, (N, G).
        num_classes: C.
        num_draws: how many functions.
        generator: on the processor.
    """
    mean_NC, loading_NJC, rest_NC = split_factors(values, num_classes)
    rank = loading_NJC.shape[1]

    shape = (num_draws, rank)
    scores = torch.randn(shape, generator=generator, dtype=torch.float64).to(values)
    noise = torch.randn((num_draws, *rest_NC.shape), generator=generator, dtype=torch.float64)
    shared = torch.einsum("dj,njc->dnc", scores, loading_NJC)
    logits = mean_NC + shared + rest_NC.sqrt() * noise.to(values)
    return logits.log_softmax(-1)


def factors(settings: FactorSettings) -> StatisticTarget:
    """Mean logits, loadings of ``rank`` factors and the variance of the rest.

    They lie side by side, (..., B, (rank + 2) C): classes in turn, for the mean, for each factor,
    for the rest. The loss is minus the log-density of the samples' logits given their scores, in
    closed form: least at the samples' own mean, loadings and rest. What a student cannot learn of
    the first two counts to its rest.
    """
    rank = settings.rank

    def predict(raw: Tensor, heads: RawHeads) -> Tensor:
        move, loadings, rest = _split(raw)
        return torch.cat([mean_logits(move, heads), loadings, student_variance(rest)], -1)

    def loss(raw: Tensor, heads: RawHeads, values: Tensor) -> Tensor:
        move, loadings, log_rest = _split(raw)
        mean, taught, rest = _split(values)
        variance = student_variance(log_rest)

        off_mean = (mean - mean_logits(move, heads)).square()
        off_loadings = torch.unflatten((taught - loadings).square(), -1, (rank, -1)).sum(-2)
        squared_distance = off_mean + off_loadings + rest
        return density_loss(squared_distance, variance)

    def _split(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        num_classes = values.shape[-1] // (rank + 2)
        sizes = [num_classes, rank * num_classes, num_classes]
        mean, loadings, rest = torch.split(values, sizes, -1)
        return mean, loadings, rest

    return StatisticTarget(
        name="factors",
        label=f"mean logits, loadings of {rank} factors (nats) and variance of the rest (nats²)",
        requires=("predictive",),
        settings=settings,
        build=factors,
        values=centered_logits,
        fit=lambda parts, weight_S: factor_scores(parts, weight_S, rank),
        of_samples=_of_samples,
        num_outputs=lambda num_classes: (rank + 2) * num_classes,
        predict=predict,
        loss=loss,
    )


TARGETS.add(factors(FactorSettings()))
