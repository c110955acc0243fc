"""Metrics of the posterior beyond the predictive and E[H]: moments, costs, Dirichlets, quantiles.

Those of logits are in ``logits``.

All in float64. Each reads the target that it is about, so that it is measured wherever that target
is distilled or follows from what is.
"""

from collections.abc import Iterator
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas.evaluate.base import LabelFacts, add_metric
from gped_nas.evaluate.metrics import few_errors
from gped_nas.evaluate.predictions import Floats, Labels, Predictions, target_of
from gped_nas.targets.base import LearnedTarget, Target
from gped_nas.targets.quantile import QuantileSettings

LEAST_CONCENTRATION = 1e-2
"""Concentrations below it are taken as it. A Dirichlet of less has all its mass at other corners,
and its KL would tell of nothing but how little: it grows as one over the concentration."""
_CHUNK = 4_000_000
"""Numbers of posterior samples in memory at a time."""


# ------------------------------------------------------------------------------------- moments


@add_metric(
    "second_moment_error",
    "minimize",
    "error of E[p²] (sum over classes)",
    reads=("second_moment",),
    needs_teacher=True,
    worst=1.0,
    best=0.0,
)
def _second_moment_error(
    predictions: Predictions, labels_N: Labels, teacher: Predictions
) -> Floats:
    """Mean absolute difference of the student's and the teacher's E[p^2], summed over classes.

    Its worst value is what an answer of zero pays at most: the sum of E[p^2] is at most 1.
    """
    return absolute_error(predictions, teacher, "second_moment")


@add_metric(
    "posterior_variance_error",
    "minimize",
    "error of the posterior variance (sum over classes)",
    reads=("variance",),
    needs_teacher=True,
    worst=1.0,
    best=0.0,
)
def _posterior_variance_error(
    predictions: Predictions, labels_N: Labels, teacher: Predictions
) -> Floats:
    """Mean absolute difference of the two posterior variances, summed over classes.

    They are the variances of each class probability. Its worst value bounds what an answer of zero
    pays: the variances sum to at most 1 - 1 / C.
    """
    return absolute_error(predictions, teacher, "variance")


def absolute_error(predictions: Predictions, teacher: Predictions, target: str) -> Floats:
    """Absolute difference of what two say of a target, summed over its numbers: (N, 1)."""
    difference_NG = predictions.expectations[target] - teacher.expectations[target]
    terms_N1: Floats = np.abs(difference_NG).sum(axis=1, keepdims=True)
    return terms_N1


# --------------------------------------------------------------------------------------- costs


def _costs(target: Target, num_classes: int) -> Floats:
    """The cost of each action by label, shape (C, A): what is expected of a sure label."""
    sure_CC = torch.full((num_classes, num_classes), -torch.inf, dtype=torch.float64)
    sure_CC.fill_diagonal_(0.0)
    assert isinstance(target, LearnedTarget)
    costs: Floats = target.values(sure_CC).numpy()
    return costs


def _dearest(facts: LabelFacts) -> float:
    return float(_costs(facts.targets["utility"], facts.num_classes).max())


def _cheapest(facts: LabelFacts) -> float:
    return float(_costs(facts.targets["utility"], facts.num_classes).min())


def _largest_regret(facts: LabelFacts) -> float:
    costs = _costs(facts.targets["utility"], facts.num_classes)
    return float((costs.max(axis=1) - costs.min(axis=1)).max())


@add_metric(
    "realized_cost",
    "minimize",
    "realized cost of the chosen action",
    reads=("utility",),
    unit="cost",
    worst=_dearest,
    best=_cheapest,
)
def realized_costs(predictions: Predictions, labels_N: Labels, teacher: Any) -> Floats:
    """Mean cost, under the true label, of the action with the least expected cost.

    Of tied actions the lowest one is taken.
    """
    costs = _costs(target_of(predictions, "utility"), predictions.log_prob_NC.shape[1])
    action_N, is_known_N = _action(predictions)
    cost_N = costs[labels_N, action_N]
    return np.where(is_known_N, cost_N, np.nan)[:, None]


@add_metric(
    "utility_regret",
    "minimize",
    "regret of the chosen action (teacher's expected cost)",
    reads=("utility",),
    needs_teacher=True,
    unit="cost",
    worst=_largest_regret,
    best=0.0,
)
def _utility_regret(predictions: Predictions, labels_N: Labels, teacher: Predictions) -> Floats:
    """By how much the teacher expects the student's action to cost more than its own.

    It is 0 where both choose alike.
    """
    expected_NA = teacher.expectations["utility"]
    action_N, is_known_N = _action(predictions)
    chosen_N = np.take_along_axis(expected_NA, action_N[:, None], axis=1)[:, 0]
    regret_N = chosen_N - expected_NA.min(axis=1)
    return np.where(is_known_N, regret_N, np.nan)[:, None]


def _action(predictions: Predictions) -> tuple[Any, Any]:
    """The action of each example, and whether its expected costs are numbers, both (N,)."""
    expected_NA = predictions.expectations["utility"]
    return expected_NA.argmin(axis=1), ~np.isnan(expected_NA).any(axis=1)


# ----------------------------------------------------------------------------------- Dirichlet


@add_metric(
    "dirichlet_kl",
    "minimize",
    "KL to the teacher's Dirichlet (nats)",
    reads=("dirichlet",),
    needs_teacher=True,
    needs_spread=True,
    unit="nats",
)
def _dirichlet_kl(predictions: Predictions, labels_N: Labels, teacher: Predictions) -> Floats:
    """Mean KL(teacher || student) of the moment-matched Dirichlets; see ``LEAST_CONCENTRATION``.

    It has no worst value: a Dirichlet that is far enough off is infinitely far.

    Source: Penny 2001, Kullback-Liebler divergences of normal, gamma, Dirichlet and Wishart
        densities, equation 8.
    """
    alpha_NC = _concentrations(teacher)
    beta_NC = _concentrations(predictions)
    alpha_N = alpha_NC.sum(-1)
    beta_N = beta_NC.sum(-1)

    single_N = (alpha_NC.lgamma() - beta_NC.lgamma()).sum(-1)
    normalizers_N = alpha_N.lgamma() - beta_N.lgamma() - single_N
    expected_log_NC = alpha_NC.digamma() - alpha_N.digamma()[:, None]
    kl_N = normalizers_N + ((alpha_NC - beta_NC) * expected_log_NC).sum(-1)
    terms_N1: Floats = kl_N.numpy()[:, None]
    return terms_N1


@add_metric(
    "precision_error",
    "minimize",
    "error of the Dirichlet's log precision",
    reads=("dirichlet",),
    needs_teacher=True,
    needs_spread=True,
)
def _precision_error(predictions: Predictions, labels_N: Labels, teacher: Predictions) -> Floats:
    """Mean absolute difference of the logarithms of the two precisions, the sums of concentrations.

    It has no worst value: precisions have no end.
    """
    mine_N = _concentrations(predictions).sum(-1).log()
    theirs_N = _concentrations(teacher).sum(-1).log()
    terms_N1: Floats = (mine_N - theirs_N).abs().numpy()[:, None]
    return terms_N1


def _concentrations(predictions: Predictions) -> Tensor:
    alpha_NC = torch.from_numpy(predictions.expectations["dirichlet"])
    return alpha_NC.clamp_min(LEAST_CONCENTRATION)


# ----------------------------------------------------------------------------------- intervals


def _widest_ends(facts: LabelFacts) -> float:
    # An answer of zero pays the ends themselves: lower ones sum to at most 1, each upper one is.
    return 1.0 + facts.num_classes


def _log_of_classes(facts: LabelFacts) -> float:
    return log(facts.num_classes)


def _by_intersection(predictions: Predictions) -> Predictions:
    """The intersection probabilities as predictions of their own."""
    with np.errstate(divide="ignore"):
        return Predictions(np.log(predictions.expectations["intersection"]))


def _few_errors_by_intersection(predictions: Predictions, labels_N: Labels, teacher: Any) -> str:
    return few_errors(_by_intersection(predictions), labels_N, None)


@add_metric(
    "interval_error",
    "minimize",
    "error of the intervals' ends (sum over classes)",
    reads=("interval",),
    needs_teacher=True,
    worst=_widest_ends,
    best=0.0,
    bounds={"classification": 0.0},
)
def _interval_error(predictions: Predictions, labels_N: Labels, teacher: Predictions) -> Floats:
    """Mean absolute difference of the student's and the teacher's ends, summed over classes."""
    return absolute_error(predictions, teacher, "interval")


@add_metric(
    "intersection_nll",
    "minimize",
    "NLL of the intersection probability (nats)",
    reads=("intersection",),
    unit="nats",
    worst=_log_of_classes,
    best=0.0,
    bounds={"classification": 0.0},
    doubt=_few_errors_by_intersection,
)
def _intersection_nll(predictions: Predictions, labels_N: Labels, teacher: Any) -> Floats:
    """Mean of minus the log of what the intersection probability gives the label.

    Of a label that it gives nothing, it is infinite.
    """
    return -_by_intersection(predictions).log_score(labels_N)[:, None]


# ----------------------------------------------------------------------------------- quantiles


def _levels(target: Target) -> Floats:
    assert isinstance(target.settings, QuantileSettings)
    return np.array(target.settings.levels)


def _largest_pinball(facts: LabelFacts) -> float:
    # An answer of zero everywhere pays level * p for each class, and the p sum to 1.
    return float(_levels(facts.targets["quantile"]).sum())


@add_metric(
    "quantile_loss",
    "minimize",
    "pinball loss of quantiles (sum over classes and levels)",
    reads=("quantile",),
    needs_samples=True,
    worst=_largest_pinball,
    best=0.0,
)
def _quantile_loss(
    predictions: Predictions, labels_N: Labels, teacher: Predictions | None
) -> Floats:
    """Mean pinball loss of the quantiles against the teacher's posterior samples.

    It is summed over classes and levels. The samples' own quantiles have the least one.

    Source: Koenker & Bassett 1978, Econometrica 46, equation 3.
    """
    level_L = _levels(target_of(predictions, "quantile"))
    terms = []
    for values_SNC1, weight_S, quantile_NCL in _beside_samples(predictions, teacher):
        above = values_SNC1 - quantile_NCL
        loss = np.maximum(level_L * above, (level_L - 1) * above)
        terms.append(np.einsum("s,sncl->n", weight_S, loss))
    return np.concatenate(terms)[:, None]


def _mean_gap(sums_RT: Floats, n: int) -> Floats:
    below_RL, above_RL = np.split(sums_RT / n, 2, axis=1)
    gap_RL = np.maximum(below_RL, -above_RL)
    values_R: Floats = np.maximum(gap_RL, 0.0).mean(axis=1)
    return values_R


@add_metric(
    "quantile_coverage_error",
    "minimize",
    "coverage error of quantiles (share)",
    reads=("quantile",),
    needs_samples=True,
    combine=_mean_gap,
    doubt="noise adds to it whatever its sign",
    unit="share",
    worst=1.0,
    best=0.0,
)
def _quantile_coverage_error(
    predictions: Predictions, labels_N: Labels, teacher: Predictions | None
) -> Floats:
    """Mean over levels of |level - share of the teacher's samples below the quantile|.

    The share is taken over classes and examples. Samples that equal the quantile count for either
    side, whichever is nearer to the level: the samples' own quantiles are right however few samples
    there are.
    """
    level_L = _levels(target_of(predictions, "quantile"))
    terms = []
    for values_SNC1, weight_S, quantile_NCL in _beside_samples(predictions, teacher):
        is_below = values_SNC1 < quantile_NCL
        is_at_most = values_SNC1 <= quantile_NCL
        below_NL = np.einsum("s,sncl->ncl", weight_S, is_below).mean(axis=1)
        at_most_NL = np.einsum("s,sncl->ncl", weight_S, is_at_most).mean(axis=1)

        # Comparisons turn NaN into False: what is not a number stays so.
        for_nan_NL = np.where(np.isnan(quantile_NCL), np.nan, 0.0).mean(axis=1)
        gaps = np.hstack([below_NL - level_L, at_most_NL - level_L])
        terms.append(gaps + np.tile(for_nan_NL, 2))
    return np.concatenate(terms)


def _beside_samples(
    predictions: Predictions, teacher: Predictions | None
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """The teacher's samples beside the predicted quantiles, some examples at a time.

    Yields:
        Samples (S, n, C, 1), their weights (S,) and the quantiles (n, C, levels).
    """
    target = target_of(predictions, "quantile")
    assert isinstance(target, LearnedTarget)
    num_levels = len(_levels(target))
    quantile_NCL = predictions.expectations["quantile"].reshape(len(predictions), -1, num_levels)

    for chunk, weight_S, log_prob_SNC in sample_chunks(predictions, teacher, num_levels):
        values = target.values(log_prob_SNC)
        yield values.numpy()[..., None], weight_S.numpy(), quantile_NCL[chunk]


def sample_chunks(
    predictions: Predictions, teacher: Predictions | None, num_each: int = 1
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The teacher's samples, some examples at a time, so that they fit into memory.

    Where there is no teacher, the predictions are judged by samples of their own.

    Args:
        predictions: who is judged.
        teacher: whose samples are read.
        num_each: how many numbers are made of each log-probability.

    Yields:
        Which examples; weights of the samples (S,); log-probabilities (S, n, C), float64.
    """
    samples = (teacher or predictions).samples
    assert samples is not None, "needs_samples"
    num_samples, _, num_classes = samples.predicted_SNG.shape
    size = max(1, _CHUNK // (num_samples * num_classes * num_each))

    for start in range(0, len(predictions), size):
        chunk = slice(start, start + size)
        yield chunk, samples.weight_S, samples.predicted_SNG[:, chunk].double()
