"""Metrics of classifiers, and those of any predictions: scores, calibration, agreement.

All in float64 and nats. Zero probabilities give infinite scores, never clipped ones.
"""

from math import e, log, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gped_nas.errors import ConfigError
from gped_nas.evaluate.base import LabelFacts, add_metric
from gped_nas.evaluate.calibration import band_of_calibrated, debias, interval_of_debiased
from gped_nas.evaluate.predictions import (
    AnyPredictions,
    Floats,
    Labels,
    NormalPredictions,
    Predictions,
)
from gped_nas.evaluate.regression import coverage

ECE_BINS = 15
_ANY = ("classification", "regression")
_MAIN = ("predictive", "predictive_normal")
ENTROPY_SLACK = 1e-6
"""Nats by which E[H] may exceed H[q] before it counts: the rounding of float32 predictions."""


def reliability(
    predictions: AnyPredictions, labels_N: Labels, bins: int = ECE_BINS
) -> list[dict[str, Any]]:
    """The reliability diagram: a row for each bin that is not empty.

    Args:
        predictions: what is judged; the diagram of real labels is ``coverage``'s.
        labels_N: integer or real labels.
        bins: number of equal-width, right-closed bins of the top probability over [0, 1].

    Returns:
        Rows ``{"confidence", "accuracy", "count"}`` by rising confidence; ``confidence`` and
        ``accuracy`` are means over the bin, ``count`` its size.

    Raises:
        ConfigError: fewer than one bin.
    """
    if bins < 1:
        raise ConfigError(f"reliability: found {bins} bins, expected at least 1")
    if isinstance(predictions, NormalPredictions):
        return coverage(predictions, labels_N)

    confidence_N = predictions.confidence_N
    correct_N = correct(predictions, labels_N)
    bin_N = bin_of(confidence_N, bins)

    rows = []
    for index in np.unique(bin_N):
        is_inside = bin_N == index
        row = {
            "confidence": float(confidence_N[is_inside].mean()),
            "accuracy": float(correct_N[is_inside].mean()),
            "count": int(is_inside.sum()),
        }
        rows.append(row)
    return rows


def _no_information(facts: LabelFacts) -> float:
    """What a predictor that knows nothing pays in nats: log C, or 1 where labels are real."""
    return 1.0 if facts.std is not None else log(facts.num_classes)


def _worst_nll(facts: LabelFacts) -> float:
    """Log C nats; of real labels, what their mean and standard deviation alone give."""
    return _no_information(facts) if facts.std is None else _normal_entropy(facts.std)


def _best_nll(facts: LabelFacts) -> float:
    """Zero for classes.

    The log-density of a real label has no best value: a noise of a hundredth of the labels' spread
    stands for it.
    """
    return 0.0 if facts.std is None else _normal_entropy(facts.std / 100)


def _normal_entropy(std: float) -> float:
    return 0.5 * log(2 * pi * e) + log(std)


MIN_ERRORS = 3
"""Wrong examples below which nothing is known of how large the losses of such examples are."""


def few_errors(
    predictions: AnyPredictions, labels_N: Labels, teacher: AnyPredictions | None
) -> str:
    """Doubts in a mean that a few wrong examples make: neither found nor expected are enough."""
    if isinstance(predictions, NormalPredictions):
        return ""

    num_wrong = len(labels_N) - correct(predictions, labels_N).sum()
    num_expected = len(labels_N) - predictions.confidence_N.sum()
    if max(num_wrong, num_expected) >= MIN_ERRORS:
        return ""
    return (
        f"only {num_wrong:.0f} of {len(labels_N)} examples are wrong: how large the losses of "
        "wrong ones are is not known"
    )


def _few_errors_of_either(
    predictions: AnyPredictions, labels_N: Labels, teacher: AnyPredictions
) -> str:
    return few_errors(predictions, labels_N, None) or few_errors(teacher, labels_N, None)


@add_metric(
    "accuracy",
    "maximize",
    "accuracy (share)",
    reads=("predictive",),
    unit="share",
    worst=0.0,
    best=1.0,
    bounds={"classification": 1.0},
    interval="share",
)
def _accuracy(predictions: Predictions, labels_N: Labels, teacher: Predictions | None) -> Floats:
    """Share of examples whose most probable class is the label; the lowest class wins a tie."""
    return correct(predictions, labels_N)[:, None]


@add_metric(
    "nll",
    "minimize",
    "NLL (nats)",
    tasks=_ANY,
    reads=_MAIN,
    unit="nats",
    worst=_worst_nll,
    best=_best_nll,
    bounds={"classification": 0.0},
    doubt=few_errors,
)
def _nll(predictions: AnyPredictions, labels_N: Labels, teacher: AnyPredictions | None) -> Floats:
    """Mean negative log-probability of the label, infinite where the label got none.

    Of a real label, it is the log-density in the label's own unit.

    Source: Gneiting & Raftery 2007, J. Am. Stat. Assoc. 102, section 4.1 (logarithmic score).
    """
    return -predictions.log_score(labels_N)[:, None]


@add_metric(
    "nll_above_teacher",
    "minimize",
    "NLL above the teacher's (nats)",
    tasks=_ANY,
    reads=_MAIN,
    needs_teacher=True,
    unit="nats",
    worst=_no_information,
    best=0.0,
    doubt=_few_errors_of_either,
)
def _nll_above_teacher(
    predictions: AnyPredictions, labels_N: Labels, teacher: AnyPredictions
) -> Floats:
    """NLL minus the teacher's on the same examples: its interval is that of a paired difference."""
    return _nll(predictions, labels_N, None) - _nll(teacher, labels_N, None)


@add_metric(
    "brier",
    "minimize",
    "Brier score (sum over classes)",
    reads=("predictive",),
    worst=2.0,
    best=0.0,
    bounds={"classification": 0.0},
    doubt=few_errors,
)
def _brier(predictions: Predictions, labels_N: Labels, teacher: Predictions | None) -> Floats:
    """Mean squared error of the probabilities, summed over classes: from 0 to 2.

    Source: Brier 1950, Monthly Weather Review 78, equation 2.
    """
    error = np.exp(predictions.log_prob_NC)
    error[np.arange(len(labels_N)), labels_N] -= 1.0
    terms_N1: Floats = np.square(error).sum(axis=1, keepdims=True)
    return terms_N1


def _noise_of_ece(predictions: Predictions, labels_N: Labels, teacher: Predictions | None) -> str:
    """Where the errors of calibrated models lie."""
    confidence_N = predictions.confidence_N
    bin_N = bin_of(confidence_N, ECE_BINS)
    low, high = band_of_calibrated(
        np.bincount(bin_N, minlength=ECE_BINS),
        np.bincount(bin_N, confidence_N, minlength=ECE_BINS).astype(np.float64),
    )
    return (
        f"noise adds to it whatever its sign: calibrated models with these confidences have "
        f"{low:.4f} to {high:.4f}; see ece_debiased"
    )


def sum_of_gaps(sums_RT: Floats, n: int) -> Floats:
    """The sum over columns, one a bin, of the absolute mean of each: (R,)."""
    values_R: Floats = np.abs(sums_RT).sum(axis=1) / n
    return values_R


@add_metric(
    "ece",
    "minimize",
    "ECE (15 bins, L1)",
    reads=("predictive",),
    combine=sum_of_gaps,
    doubt=_noise_of_ece,
    doubt_cancels=True,
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"classification": 0.0},
)
def _ece(predictions: Predictions, labels_N: Labels, teacher: Predictions | None) -> Floats:
    """Expected calibration error: mean of |confidence - accuracy| of the top label in a bin.

    The 15 bins have equal width over [0, 1] and are right-closed: (k/15, (k+1)/15]. The absolute
    value biases it upwards; ``ece_debiased`` is without that.

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    confidence_N = predictions.confidence_N
    gap_N = confidence_N - correct(predictions, labels_N)

    # One column a bin, so that the absolute value is taken of each bin's sum.
    terms_NT = np.zeros((len(labels_N), ECE_BINS))
    terms_NT[np.arange(len(labels_N)), bin_of(confidence_N, ECE_BINS)] = gap_N
    return terms_NT


def _debiased(sums_RT: Floats, n: int) -> Floats:
    return np.array([debias(*np.split(sums_T, 3)).value for sums_T in sums_RT])


@add_metric(
    "ece_debiased",
    "minimize",
    "ECE without its bias (15 bins, L1)",
    reads=("predictive",),
    combine=_debiased,
    interval=interval_of_debiased,
    unit="share",
    worst=1.0,
    best=0.0,
    bounds={"classification": 0.0},
)
def _ece_debiased(
    predictions: Predictions, labels_N: Labels, teacher: Predictions | None
) -> Floats:
    """The true calibration error under which the plain one would come out as it did, half the time.

    Gaps, counts and confidences by bin; see ``gped_nas.evaluate.calibration``.
    """
    confidence_N = predictions.confidence_N
    bin_N = bin_of(confidence_N, ECE_BINS)
    gap_N = confidence_N - correct(predictions, labels_N)

    terms_N3B = np.zeros((len(labels_N), 3, ECE_BINS))
    for column, values_N in enumerate((gap_N, np.ones(len(labels_N)), confidence_N)):
        terms_N3B[np.arange(len(labels_N)), column, bin_N] = values_N
    return terms_N3B.reshape(len(labels_N), -1)


@add_metric(
    "kl_to_teacher",
    "minimize",
    "KL to teacher (nats)",
    tasks=_ANY,
    reads=_MAIN,
    needs_teacher=True,
    unit="nats",
    worst=_no_information,
    best=0.0,
    bounds={"classification": 0.0},
)
def _kl_to_teacher(predictions: Any, labels_N: Labels, teacher: Any) -> Floats:
    """Mean KL(teacher || student) of the predictives.

    It is infinite where the student lacks the teacher's support. For real labels, it is between the
    normals that have their means and variances.

    Source: Vadera, Jalaian & Marlin 2020, arXiv:2005.08110 (its cross-entropy, less the teacher's
        entropy).
    """
    kl_N: Floats = teacher.kl_to(predictions)
    return kl_N[:, None]


@add_metric(
    "agreement",
    "maximize",
    "agreement with teacher (share)",
    reads=("predictive",),
    needs_teacher=True,
    unit="share",
    worst=0.0,
    best=1.0,
    bounds={"classification": 1.0},
    interval="share",
)
def _agreement(predictions: Predictions, labels_N: Labels, teacher: Predictions) -> Floats:
    """Share of examples where student and teacher find the same class most probable.

    Source: Stanton et al. 2021, arXiv:2106.05945, section 3.
    """
    return correct(predictions, teacher.answer_N)[:, None]


@add_metric(
    "entropy_error",
    "minimize",
    "error of E[H] (nats)",
    reads=("expected_entropy",),
    needs_teacher=True,
    unit="nats",
    worst=_no_information,
    best=0.0,
    bounds={"classification": 0.0},
)
def _entropy_error(predictions: Predictions, labels_N: Labels, teacher: Predictions) -> Floats:
    """Mean absolute difference of the student's and the teacher's expected entropy."""
    return np.abs(predictions.expected_entropy_N - teacher.expected_entropy_N)[:, None]


@add_metric(
    "information_error",
    "minimize",
    "error of mutual information (nats)",
    reads=("mutual_information",),
    needs_teacher=True,
    unit="nats",
    worst=_no_information,
    best=0.0,
    bounds={"classification": 0.0},
)
def _information_error(predictions: Predictions, labels_N: Labels, teacher: Predictions) -> Floats:
    """Mean absolute difference of the two mutual informations H[E p] - E[H]."""
    return np.abs(predictions.mutual_information_N - teacher.mutual_information_N)[:, None]


@add_metric(
    "entropy_excess",
    "minimize",
    "inputs where teacher E[H] exceeds student H[q] (share)",
    reads=("predictive",),
    needs_teacher=True,
    teacher_reads=("expected_entropy",),
    unit="share",
    worst=1.0,
    best=0.0,
    interval="share",
)
def _entropy_excess(predictions: Predictions, labels_N: Labels, teacher: Predictions) -> Floats:
    """Share of examples where the teacher's E[H] exceeds the student's H[q] by over 1e-6 nats.

    There no E[H] head bounded by H[q] can be right. A teacher has none: E[H] <= H[E[p]] since H is
    concave.
    """
    excess_N = teacher.expected_entropy_N - predictions.entropy_N
    return np.where(np.isnan(excess_N), np.nan, excess_N > ENTROPY_SLACK)[:, None]


def correct(predictions: Predictions, labels_N: Labels) -> Floats:
    """1 where the most probable class is the label, else 0; NaN where a log-probability is NaN."""
    return np.where(predictions.is_nan_N, np.nan, predictions.answer_N == labels_N)


def bin_of(prob: Floats, bins: int) -> NDArray[np.intp]:
    """Right-closed bin of each probability; one above 1 by rounding is in the last bin."""
    inner_edges = np.arange(1, bins) / bins
    return np.searchsorted(inner_edges, prob, side="left")
