"""Metrics of what a student says of the posterior's logits, in float64.

Each reads a target of logits, so that it is measured wherever that is distilled.
"""

from collections.abc import Iterator
from math import log

import numpy as np
import torch

from gped_nas.evaluate.base import LabelFacts, add_metric
from gped_nas.evaluate.posterior import absolute_error, sample_chunks
from gped_nas.evaluate.predictions import Floats, Labels, Predictions
from gped_nas.targets.factors import split_factors
from gped_nas.targets.formulas import LEAST_PROBABILITY, centered_logits


def _largest_variances(facts: LabelFacts) -> float:
    """Each logit lies between two ends, and half of the posterior may lie at either of them."""
    farthest = -log(LEAST_PROBABILITY) * (facts.num_classes - 1) / facts.num_classes
    return facts.num_classes * farthest**2


@add_metric(
    "logit_variance_error",
    "minimize",
    "error of the logits' variance (nats², sum over classes)",
    reads=("logit_variance",),
    needs_teacher=True,
    unit="nats²",
    worst=_largest_variances,
    best=0.0,
    bounds={"classification": 0.0},
)
def _logit_variance_error(
    predictions: Predictions, labels_N: Labels, teacher: Predictions
) -> Floats:
    """Mean absolute difference of the two posterior variances of logits, summed over classes.

    Its worst value bounds what an answer of zero pays.
    """
    return absolute_error(predictions, teacher, "logit_variance")


# ------------------------------------------------------------------------------------- factors


def _root_of_ratio(sums_RT: Floats, n: int) -> Floats:
    error_R, whole_R = sums_RT.T
    with np.errstate(divide="ignore", invalid="ignore"):
        # not negative but for rounding; NaN stays one
        ratio_R = np.maximum(error_R, 0.0) / whole_R
    values_R: Floats = np.sqrt(ratio_R)
    return values_R


@add_metric(
    "factor_covariance_error",
    "minimize",
    "error of the logits' covariance at an input (share)",
    reads=("factors",),
    needs_samples=True,
    needs_spread=True,
    combine=_root_of_ratio,
    doubt="a few inputs with a large covariance decide it",
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"classification": 0.0},
)
def _factor_covariance_error(
    predictions: Predictions, labels_N: Labels, teacher: Predictions | None
) -> Floats:
    """Distance of the two covariances of an input's logits, as a share of the teacher's.

    Distance and size are roots of sums of squares over all inputs: who knows no covariance has 1.
    """
    terms = []
    for ours, theirs_SNC in _beside_samples(predictions, teacher):
        loading_NJC, rest_NC = ours
        theirs_NCC = np.einsum("snc,snd->ncd", theirs_SNC, theirs_SNC, optimize=True)
        ours_NCC = np.einsum("njc,njd->ncd", loading_NJC, loading_NJC, optimize=True)
        diagonal = np.arange(rest_NC.shape[1])
        ours_NCC[:, diagonal, diagonal] += rest_NC

        error_N = np.square(ours_NCC - theirs_NCC).sum((1, 2))
        terms.append(np.stack([error_N, np.square(theirs_NCC).sum((1, 2))], -1))
    return np.concatenate(terms)


@add_metric(
    "factor_coupling_error",
    "minimize",
    "error of the logits' covariance across inputs (share)",
    reads=("factors",),
    needs_samples=True,
    needs_spread=True,
    combine=_root_of_ratio,
    doubt="each input is compared with every other one",
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"classification": 0.0},
)
def _factor_coupling_error(
    predictions: Predictions, labels_N: Labels, teacher: Predictions | None
) -> Floats:
    """As ``factor_covariance_error``, of the logits at every pair of inputs.

    It is what draws of a student's functions have in common with the teacher's samples. With the
    shared loadings L and the samples' deviations Z as matrices of inputs and classes, the squared
    distance is |L'L|² - 2 |L'Z|² + |Z'Z|²: no matrix of all pairs is made. The variance of the
    rest belongs to single inputs and is left out.
    """
    parts = []
    for (loading_NJC, _), theirs_SNC in _beside_samples(predictions, teacher):
        ours_NCJ = loading_NJC.transpose(0, 2, 1)
        parts.append((ours_NCJ, theirs_SNC.transpose(1, 2, 0)))
    ours_MJ = np.concatenate([ours.reshape(-1, ours.shape[2]) for ours, _ in parts])
    theirs_MS = np.concatenate([theirs.reshape(-1, theirs.shape[2]) for _, theirs in parts])

    within_MJ = ours_MJ @ (ours_MJ.T @ ours_MJ) * ours_MJ
    between_MS = ours_MJ @ (ours_MJ.T @ theirs_MS) * theirs_MS
    whole_M = (theirs_MS @ (theirs_MS.T @ theirs_MS) * theirs_MS).sum(1)
    error_M = within_MJ.sum(1) - 2 * between_MS.sum(1) + whole_M
    terms_MT = np.stack([error_M, whole_M], -1)
    terms_NT: Floats = terms_MT.reshape(len(predictions), -1, 2).sum(1)
    return terms_NT


def _beside_samples(
    predictions: Predictions, teacher: Predictions | None
) -> Iterator[tuple[tuple[Floats, Floats], Floats]]:
    """A student's factors beside the teacher's samples, some examples at a time.

    Yields:
        Loadings (n, J, C) and variance of the rest (n, C); how far each sample's logits are from
        their mean, times the root of its weight, (S, n, C).
    """
    factors = torch.from_numpy(predictions.expectations["factors"])
    for chunk, weight_S, log_prob_SNC in sample_chunks(predictions, teacher):
        _, loading_NJC, rest_NC = split_factors(factors[chunk], log_prob_SNC.shape[2])

        weight_S11 = weight_S.double()[:, None, None]
        logits_SNC = centered_logits(log_prob_SNC)
        deviation_SNC = logits_SNC - (weight_S11 * logits_SNC).sum(0)
        theirs_SNC = weight_S11.sqrt() * deviation_SNC
        yield (loading_NJC.numpy(), rest_NC.numpy()), theirs_SNC.numpy()
