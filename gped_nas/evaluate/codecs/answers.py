"""What two sets of networks answer together: averages, spread, uncertainty, and single draws.

Every number is of a set beside a reference, at the same inputs. Intervals are over inputs, with the
networks taken as they are.
"""

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata

from gped_nas.evaluate.codecs.networks import Networks
from gped_nas.evaluate.detection import delong_interval, roc_area
from gped_nas.evaluate.intervals import MIN_EXAMPLES, MIN_OF_A_CLASS, Bounds, around
from gped_nas.evaluate.judging import evaluate_or_explain
from gped_nas.evaluate.measured import CLEAN, VALIDATION, Key, Measured
from gped_nas.evaluate.predictions import Floats, Labels, Predictions
from gped_nas.evaluate.resamples import Resamples
from gped_nas.evaluate.shares import Z95
from gped_nas.evaluate.teacher import averaged, log_scores

_AVERAGES: Mapping[str, str] = {
    "kl_to_teacher": "average_kl",
    "total_variation_to_teacher": "average_tv",
    "nll_above_teacher": "average_nll_difference",
    "nll": "average_nll",
}
"""Metrics of a student beside its teacher, by what they are of a code beside its reference."""

NO_ENTROPY = "nothing is said of E[H], so that model uncertainty is not known"


def average_of(networks: Networks) -> Predictions:
    """What the weighted average of networks predicts, with E[H] and mutual information."""
    average = averaged(networks.log_prob_SMC, networks.weight_S)
    assert isinstance(average, Predictions), "log-probabilities are of classes"
    return average


def average_measures(
    code: Predictions, reference: Predictions, labels_N: Labels, *, resamples: Resamples
) -> dict[str, Measured]:
    """KL and total variation from the reference's average, NLL, and its paired difference.

    Args:
        code, reference: averages at N inputs.
        labels_N: of these.
        resamples: of these.
    """
    measures = evaluate_or_explain(
        code,
        labels_N,
        reference,
        resamples=resamples,
        asked=("total_variation_to_teacher",),
    )
    return {name: measures[Key(metric, CLEAN, VALIDATION)] for metric, name in _AVERAGES.items()}


def spread_measures(
    code: Predictions, reference: Predictions, *, resamples: Resamples
) -> dict[str, Measured]:
    """How uncertain a code is beside its reference, on average and input by input.

    ``entropy_ratio`` and ``information_ratio`` are ratios of the means of E[H] and of mutual
    information: 1 where nothing is lost. ``information_spearman`` says whether both are unsure
    about the same inputs.
    """
    if "expected_entropy" not in code.expectations:
        names = ("entropy_ratio", "information_ratio", "information_spearman")
        return {name: Measured(None, n=len(code), why=NO_ENTROPY) for name in names}

    informations = code.mutual_information_N, reference.mutual_information_N
    entropies = code.expected_entropy_N, reference.expected_entropy_N
    return {
        "entropy_ratio": ratio_of_means(*entropies, resamples),
        "information_ratio": ratio_of_means(*informations, resamples),
        "information_spearman": rank_correlation(*informations),
    }


def ratio_of_means(first_N: Floats, second_N: Floats, resamples: Resamples) -> Measured:
    """The ratio of two means over the same inputs, with the paired 95 % interval."""
    n = len(first_N)
    below = float(second_N.mean())
    if not below > 0:
        return Measured(None, n=n, why="the reference has none: there is no ratio")

    ratio = float(first_N.mean()) / below
    # the derivative of a ratio of means along each input
    pseudo_N = ratio + (first_N - ratio * second_N) / below
    return _measured(ratio, around(np.array([ratio]), pseudo_N[:, None], resamples)[0], n)


def rank_correlation(first_N: Floats, second_N: Floats) -> Measured:
    """Spearman's rank correlation over the same inputs, with its 95 % interval.

    Source: Bonett & Wright 2000, Psychometrika 65, equation 4 (variance of its Fisher transform).
    """
    n = len(first_N)
    ranks = rankdata(first_N), rankdata(second_N)
    if min(float(of_one.std()) for of_one in ranks) == 0:
        return Measured(None, n=n, why="all inputs are alike to one of both: there is no order")

    value = float(np.corrcoef(*ranks)[0, 1])
    if n < MIN_EXAMPLES or abs(value) >= 1:
        return Measured(value, n=n, why=f"{n} inputs, all in one order or too few, say no spread")
    reach = Z95 * math.sqrt((1 + value**2 / 2) / (n - 3))
    middle = math.atanh(value)
    return Measured(value, math.tanh(middle - reach), math.tanh(middle + reach), n)


def detection_measure(inside: Predictions, outside: Predictions) -> Measured:
    """AUROC of telling inputs from outside by mutual information, ``ood_auroc_model``.

    Args:
        inside, outside: of one predictor, at inputs of the data and from outside.
    """
    num_in, num_out = len(inside), len(outside)
    if "expected_entropy" not in inside.expectations:
        return Measured(None, n=num_in + num_out, why=NO_ENTROPY)
    is_outside = np.arange(num_in + num_out) >= num_in
    joined = np.concatenate([inside.mutual_information_N, outside.mutual_information_N])

    area = roc_area(joined, is_outside)
    if min(num_in, num_out) < MIN_OF_A_CLASS:
        why = f"it needs {MIN_OF_A_CLASS} inputs of each kind"
        return Measured(area, n=len(joined), why=why)
    return _measured(area, delong_interval(joined, is_outside), len(joined))


def draw_measures(
    code: Networks, reference: Networks, labels_N: Labels, *, resamples: Resamples
) -> dict[str, Measured]:
    """NLL of single draws, and by how much it is above that of the reference's networks."""
    mine_N, theirs_N = _mean_nll(code, labels_N), _mean_nll(reference, labels_N)
    measures = {"draw_nll": _mean(mine_N, resamples)}
    measures["draw_nll_difference"] = _mean(mine_N - theirs_N, resamples)
    return measures


def _mean_nll(networks: Networks, labels_N: Labels) -> Floats:
    """NLL of each example, averaged over networks that answer alone."""
    has_weight = networks.weight_S > 0  # nothing times infinity would be no number
    scores_SN = log_scores(networks.log_prob_SMC[has_weight], labels_N)
    nll_N: Floats = -(networks.weight_S[has_weight] @ scores_SN).numpy()
    return nll_N


def _mean(terms_N: Floats, resamples: Resamples) -> Measured:
    n = len(terms_N)
    value = float(terms_N.mean())
    if not math.isfinite(value):
        num = int((~np.isfinite(terms_N)).sum())
        return Measured(None, n=n, why=f"{num} of {n} examples have no finite term")
    return _measured(value, around(np.array([value]), terms_N[:, None], resamples)[0], n)


def _measured(value: float, bounds: Bounds, n: int) -> Measured:
    return Measured(value, bounds.low, bounds.high, n, bounds.why)
