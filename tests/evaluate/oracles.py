"""Every metric written a second time: plain formulas, scipy and scikit-learn, example by example.

An oracle is given the same predictions, labels and teacher as the metric, and returns its value;
infinite and NaN where that is.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import special, stats
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    mean_pinball_loss,
    ndcg_score,
    roc_auc_score,
    roc_curve,
    root_mean_squared_error,
)

from gped_nas.evaluate.scores import SCORES

Oracle = Callable[[Any, Any, Any], float]
ORACLES: dict[str, Oracle] = {}
COSTS = ((0.0, 1.0, 0.3), (5.0, 0.0, 0.3), (1.0, 1.0, 0.25))
"""Of the target ``utility``, of three classes and actions."""
LEVELS = (0.05, 0.5, 0.95)
THRESHOLDS = (-0.5, 1.0)


def oracle(*names: str) -> Callable[[Oracle], Oracle]:
    def add(function: Oracle) -> Oracle:
        ORACLES.update(dict.fromkeys(names, function))
        return function

    return add


def prob(predictions):
    return predictions.expectations["predictive"]


def answer(predictions):
    return [int(np.argmax(row)) for row in predictions.log_prob_NC]


def says(predictions, target):
    return predictions.expectations[target]


def mean(values):
    return (
        math.fsum(values) / len(values) if np.isfinite(values).all() else sum(values) / len(values)
    )


# ------------------------------------------------------------------------------- right and wrong


@oracle("accuracy")
def _(q, y, p):
    return accuracy_score(y, answer(q))


@oracle("agreement")
def _(q, y, p):
    return accuracy_score(answer(p), answer(q))


def recalls(q, y):
    told = np.array(answer(q))
    return [np.mean(told[y == c] == c) for c in np.unique(y)]


@oracle("balanced_accuracy")
def _(q, y, p):
    return float(np.mean(recalls(q, y)))


@oracle("worst_recall")
def _(q, y, p):
    return float(min(recalls(q, y)))


@oracle("macro_f1")
def _(q, y, p):
    return f1_score(y, answer(q), average="macro")


# --------------------------------------------------------------------- probabilities and entropies


def surprises(q, y):
    return [
        -math.log(row[c]) if row[c] > 0 else math.inf for row, c in zip(prob(q), y, strict=True)
    ]


@oracle("nll")
def _(q, y, p):
    if q.task == "regression":
        return -mean(stats.norm.logpdf(y, q.mean_N, np.sqrt(q.variance_N)))
    return mean(surprises(q, y))


@oracle("nll_above_teacher")
def _(q, y, p):
    if q.task == "regression":
        return ORACLES["nll"](q, y, p) - ORACLES["nll"](p, y, p)
    pairs = zip(surprises(q, y), surprises(p, y), strict=True)
    return mean([mine - theirs for mine, theirs in pairs])


@oracle("brier")
def _(q, y, p):
    total = 0.0
    for row, label in zip(prob(q), y, strict=True):
        total += sum((row[c] - (c == label)) ** 2 for c in range(len(row)))
    return total / len(y)


@oracle("kl_to_teacher")
def _(q, y, p):
    if q.task == "regression":
        first, second = (
            torch.distributions.Normal(torch.tensor(x.mean_N), torch.tensor(x.variance_N).sqrt())
            for x in (p, q)
        )
        return float(torch.distributions.kl_divergence(first, second).mean())
    return float(special.rel_entr(prob(p), prob(q)).sum(axis=1).mean())


@oracle("total_variation_to_teacher")
def _(q, y, p):
    # the largest difference of any set of classes, one set after the other
    largest = []
    for mine, theirs in zip(prob(q), prob(p), strict=True):
        sets = product([0, 1], repeat=len(mine))
        largest.append(max(np.dot(chosen, mine - theirs) for chosen in sets))
    return mean(largest)


@oracle("entropy_error")
def _(q, y, p):
    return mean(np.abs(says(q, "expected_entropy") - says(p, "expected_entropy"))[:, 0])


@oracle("information_error")
def _(q, y, p):
    mine, theirs = (
        stats.entropy(prob(x), axis=1) - says(x, "expected_entropy")[:, 0] for x in (q, p)
    )
    return mean(np.abs(mine - theirs))


@oracle("entropy_excess")
def _(q, y, p):
    excess = says(p, "expected_entropy")[:, 0] - stats.entropy(prob(q), axis=1)
    return float(np.mean(excess > 1e-6))


# ------------------------------------------------------------------------------------ calibration


def gap_in_bins(values, hits):
    """Sum over the 15 right-closed bins of |sum of values - hits|."""
    total = 0.0
    for k in range(15):
        is_inside = (values > k / 15) & (values <= (k + 1) / 15)
        if k == 0:
            is_inside |= values <= 0
        if k == 14:
            is_inside |= values > 1
        total += abs(sum(values[is_inside] - hits[is_inside]))
    return total


@oracle("ece")
def _(q, y, p):
    return gap_in_bins(prob(q).max(axis=1), np.array(answer(q)) == y) / len(y)


@oracle("classwise_ece")
def _(q, y, p):
    classes = range(prob(q).shape[1])
    return float(np.mean([gap_in_bins(prob(q)[:, c], y == c) / len(y) for c in classes]))


@oracle("adaptive_ece")
def _(q, y, p):
    confidence, told, n = prob(q).max(axis=1), answer(q), len(y)
    bins: dict[int, list[float]] = {}
    for i, rank in enumerate(stats.rankdata(confidence)):
        gap = confidence[i] - (told[i] == y[i])
        bins.setdefault(int((rank - 0.5) * 15 / n), []).append(gap)
    return sum(abs(sum(gaps)) for gaps in bins.values()) / n


# --------------------------------------------------------------------------- posterior and actions


@oracle("second_moment_error")
def _(q, y, p):
    return mean(np.abs(says(q, "second_moment") - says(p, "second_moment")).sum(axis=1))


@oracle("posterior_variance_error")
def _(q, y, p):
    return mean(np.abs(says(q, "variance") - says(p, "variance")).sum(axis=1))


@oracle("logit_variance_error")
def _(q, y, p):
    return mean(np.abs(says(q, "logit_variance") - says(p, "logit_variance")).sum(axis=1))


@oracle("interval_error")
def _(q, y, p):
    return mean(np.abs(says(q, "interval") - says(p, "interval")).sum(axis=1))


@oracle("intersection_nll")
def _(q, y, p):
    given = [row[label] for row, label in zip(says(q, "intersection"), y, strict=True)]
    return mean([-math.log(share) if share > 0 else math.inf for share in given])


def deviations(p):
    """How far each sample's logits are from their mean, times the root of its weight, (S, N, C)."""
    logits = np.log(np.maximum(p.samples.predicted_SNG.double().exp().numpy(), 1e-6))
    logits -= logits.mean(axis=-1, keepdims=True)
    weights = p.samples.weight_S.numpy()[:, None, None]
    return np.sqrt(weights) * (logits - (weights * logits).sum(axis=0))


def loadings(q):
    """Loadings (J, N, C), and the variance of the rest (N, C)."""
    values, num_classes = says(q, "factors"), prob(q).shape[1]
    factors = values[:, num_classes:-num_classes].reshape(len(values), -1, num_classes)
    return factors.transpose(1, 0, 2), values[:, -num_classes:]


def relative_distance(ours, theirs):
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@oracle("factor_covariance_error")
def _(q, y, p):
    factors, rest = loadings(q)
    ours = [factors[:, i].T @ factors[:, i] + np.diag(rest[i]) for i in range(len(y))]
    theirs = [deviations(p)[:, i].T @ deviations(p)[:, i] for i in range(len(y))]
    return relative_distance(np.array(ours), np.array(theirs))


@oracle("factor_coupling_error")
def _(q, y, p):
    ours, theirs = (x.reshape(len(x), -1) for x in (loadings(q)[0], deviations(p)))
    return relative_distance(ours.T @ ours, theirs.T @ theirs)


def actions(x):
    return [int(np.argmin(row)) for row in says(x, "utility")]


@oracle("realized_cost")
def _(q, y, p):
    return mean([COSTS[label][action] for label, action in zip(y, actions(q), strict=True)])


@oracle("true_cost_sum")
def _(q, y, p):
    return len(y) * ORACLES["realized_cost"](q, y, p)


@oracle("utility_regret")
def _(q, y, p):
    expected = says(p, "utility")
    chosen = [row[action] for row, action in zip(expected, actions(q), strict=True)]
    return mean(np.array(chosen) - expected.min(axis=1))


def dirichlet(x):
    alpha = torch.tensor(says(x, "dirichlet")).clamp_min(1e-2)
    return torch.distributions.Dirichlet(alpha, validate_args=False)


@oracle("dirichlet_kl")
def _(q, y, p):
    return float(torch.distributions.kl_divergence(dirichlet(p), dirichlet(q)).mean())


@oracle("precision_error")
def _(q, y, p):
    mine, theirs = (dirichlet(x).concentration.sum(-1).log() for x in (q, p))
    return float((mine - theirs).abs().mean())


def beside_samples(q, p):
    """Level, the teacher's samples and their weights, and the quantile of each class of each
    example.
    """
    samples, weights = p.samples.predicted_SNG.double().exp().numpy(), p.samples.weight_S.numpy()
    for i, row in enumerate(says(q, "quantile")):
        for j, value in enumerate(row):
            c, level = divmod(j, len(LEVELS))
            yield LEVELS[level], samples[:, i, c], weights, value


@oracle("quantile_loss")
def _(q, y, p):
    total = 0.0
    for level, values, weights, quantile in beside_samples(q, p):
        for value, weight in zip(values, weights, strict=True):
            slope = level if value >= quantile else level - 1
            total += weight * slope * (value - quantile)
    return total / len(y)


@oracle("quantile_coverage_error")
def _(q, y, p):
    gaps = []
    for level in LEVELS:
        rows = [row for row in beside_samples(q, p) if row[0] == level]
        below = np.mean([weights[values < quantile].sum() for _, values, weights, quantile in rows])
        until = np.mean(
            [weights[values <= quantile].sum() for _, values, weights, quantile in rows]
        )
        gaps.append(max(below - level, level - until, 0.0))
    return float(np.mean(gaps))


# --------------------------------------------------------------------------------------- rankings


def ranks(scores):
    """What scikit-learn takes: the same order, of numbers without infinities."""
    return np.searchsorted(np.unique(scores), scores).astype(float)


def detection(area: str, score: str, kind: str) -> Oracle:
    def value(q, y, p):
        is_positive = y > 0 if kind == "ood" else np.array(answer(q)) != y
        scores = ranks(SCORES[score].of(q))
        if area == "aupr" and is_positive.any():
            return average_precision_score(is_positive, scores)
        if is_positive.all() or not is_positive.any():
            return math.nan
        if area == "auroc":
            return roc_auc_score(is_positive, scores)
        false, true, _ = roc_curve(is_positive, scores, drop_intermediate=False)
        return float(false[true >= 0.95 - 1e-9][0])

    return value


def losses(q, y):
    if q.task == "regression":
        return (q.mean_N - y) ** 2
    return (np.array(answer(q)) != y).astype(float)


def kept_losses(scores, losses):
    """Expected sum of losses of the k surest examples, k = 0 ... N, in a random order of ties."""
    surer = (scores[:, None] > scores).sum(axis=1)
    equal = (scores[:, None] == scores).sum(axis=1)
    num_kept = np.arange(len(scores) + 1)[:, None]
    return np.clip((num_kept - surer) / equal, 0, 1) @ losses


def aurc(score: str) -> Oracle:
    def value(q, y, p):
        sums = kept_losses(SCORES[score].of(q), losses(q, y))
        return mean([sums[k] / k for k in range(1, len(y) + 1)])

    return value


def augrc(score: str) -> Oracle:
    def value(q, y, p):
        n = len(y)
        if q.task == "regression":
            return float(np.trapezoid(kept_losses(SCORES[score].of(q), losses(q, y))) / n**2)
        right = 1 - losses(q, y).mean()
        if right in (0.0, 1.0):
            return (1 - right) / 2
        area = detection("auroc", score, "misclassification")(q, y, p)
        return (1 - area) * right * (1 - right) + (1 - right) ** 2 / 2

    return value


def accuracy_rejecting(score: str) -> Oracle:
    def value(q, y, p):
        num_kept = len(y) - len(y) // 5
        return 1 - kept_losses(SCORES[score].of(q), losses(q, y))[num_kept] / num_kept

    return value


def ndcg(score: str) -> Oracle:
    def value(q, y, p):
        relevance = np.maximum(SCORES[score].of(p), 0)
        if len(y) < 20 or not relevance.any():
            return math.nan
        return float(ndcg_score([relevance], [SCORES[score].of(q)], k=20))

    return value


for _score in SCORES:
    for _area, _kind in product(("auroc", "aupr", "fpr95"), ("misclassification", "ood")):
        ORACLES[f"{_kind}_{_area}_{_score}"] = detection(_area, _score, _kind)
    ORACLES[f"aurc_{_score}"] = aurc(_score)
    ORACLES[f"augrc_{_score}"] = augrc(_score)
    ORACLES[f"accuracy_rejecting20_{_score}"] = accuracy_rejecting(_score)
    ORACLES[f"ndcg20_{_score}"] = ndcg(_score)


# ------------------------------------------------------------------------------------ real labels


def normal(x):
    return stats.norm(x.mean_N, np.sqrt(x.variance_N))


def coverage(x, y, level):
    low, high = normal(x).interval(level)
    return float(np.mean((low <= y) & (y <= high)))


@oracle("rmse")
def _(q, y, p):
    return root_mean_squared_error(y, q.mean_N)


@oracle("coverage_error")
def _(q, y, p):
    levels = np.arange(1, 10) / 10
    return float(np.mean([abs(coverage(q, y, level) - level) for level in levels]))


for _level in (50, 80, 90, 95):
    ORACLES[f"coverage_{_level}"] = lambda q, y, p, level=_level: coverage(q, y, level / 100)


@oracle("crps")
def _(q, y, p):
    # E|X - y| less half of E|X - X'|
    std = np.sqrt(q.variance_N)
    with np.errstate(all="ignore"):  # scipy makes the skew too, which overflows
        distance = stats.foldnorm(np.abs(q.mean_N - y) / std, scale=std).mean()
    return mean(distance - std / math.sqrt(math.pi))


@oracle("interval_score")
def _(q, y, p):
    low, high = normal(q).interval(0.95)
    outside = np.where(y < low, low - y, np.where(y > high, y - high, 0.0))
    return mean(high - low + 2 / 0.05 * outside)


@oracle("mean_error")
def _(q, y, p):
    return mean(np.abs(q.mean_N - p.mean_N) / np.sqrt(p.variance_N))


@oracle("variance_error")
def _(q, y, p):
    return mean(np.abs(q.variance_N - p.variance_N) / p.variance_N)


def off_by(target: str, unit: Callable[[Any], Any]) -> Oracle:
    def value(q, y, p):
        difference = np.abs(says(q, target) - says(p, target)).mean(axis=1)
        return mean(difference / unit(p))

    return value


ORACLES["model_variance_error"] = off_by("model_variance", lambda p: p.variance_N)
ORACLES["noise_variance_error"] = off_by("noise_variance", lambda p: p.variance_N)
ORACLES["label_quantile_error"] = off_by("label_quantile", lambda p: np.sqrt(p.variance_N))
ORACLES["exceedance_error"] = off_by("exceedance", lambda p: 1.0)


@oracle("label_quantile_loss")
def _(q, y, p):
    columns = says(q, "label_quantile").T
    pairs = zip(LEVELS, columns, strict=True)
    return sum(mean_pinball_loss(y, column, alpha=level) for level, column in pairs)


@oracle("label_quantile_coverage_error")
def _(q, y, p):
    pairs = zip(LEVELS, says(q, "label_quantile").T, strict=True)
    return float(np.mean([abs(np.mean(y < column) - level) for level, column in pairs]))


@oracle("exceedance_brier")
def _(q, y, p):
    pairs = zip(THRESHOLDS, says(q, "exceedance").T, strict=True)
    return float(np.mean([np.mean((column - (y > edge)) ** 2) for edge, column in pairs]))
