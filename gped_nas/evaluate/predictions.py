"""What students and teachers say about examples: distributions over classes, or normal ones.

All in float64 and nats. Zero probabilities give infinite scores, never clipped ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import log, pi
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gped_nas.data.base import Task
from gped_nas.errors import DataError
from gped_nas.targets.base import TARGETS, Target

Floats = NDArray[np.float64]
Labels = NDArray[Any]
"""Integer classes or real labels, shape (N,)."""


@dataclass(frozen=True, eq=False)
class PosteriorSamples:
    """What each posterior sample says, for metrics that an average says nothing to.

    Attributes:
        predicted_SNG: log-probabilities in nats, or means and variances in the label's normalized
            unit.
        weight_S: weights of the samples, summing to 1.
    """

    predicted_SNG: Tensor
    weight_S: Tensor


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a student or a teacher says about the class of N examples.

    Attributes:
        log_prob_NC: log-probability of each class, nats, as float64. A teacher's is of its
            posterior average.
        expectations: by target what it says of it, (N, G) as float64: a teacher the posterior's
            expectation, a student its estimate. ``predictive`` is always among them, and
            ``mutual_information`` where ``expected_entropy`` is.
        targets: the targets of ``expectations``, with their settings; those of any other name are
            the registered ones.
        samples: a teacher's posterior samples; None of a student.
        is_point: made by one network alone, so that its posterior has no spread.
        certified_N: whether an answer is right and is proven to stay so within the radius of a
            condition; None where nobody tried.

    Raises:
        DataError: the shapes do not fit each other.
    """

    log_prob_NC: Floats
    expectations: Mapping[str, Floats] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    samples: PosteriorSamples | None = None
    is_point: bool = False
    certified_N: NDArray[np.bool_] | None = None
    task: ClassVar[Task] = "classification"

    def __post_init__(self) -> None:
        log_prob = np.asarray(self.log_prob_NC, np.float64)
        if log_prob.ndim != 2 or log_prob.shape[1] < 1:
            raise DataError(
                f"log_prob_NC: found shape {log_prob.shape}, expected (examples, classes)"
            )
        object.__setattr__(self, "log_prob_NC", log_prob)

        if self.certified_N is not None and self.certified_N.shape != (len(log_prob),):
            raise DataError(
                f"certified_N: found shape {self.certified_N.shape}, expected ({len(log_prob)},)"
            )
        expectations = _columns(self.expectations, len(log_prob))
        expectations["predictive"] = np.exp(log_prob)
        object.__setattr__(self, "expectations", expectations)
        if "expected_entropy" in expectations:
            expectations["mutual_information"] = self.mutual_information_N[:, None]

    @cached_property
    def entropy_N(self) -> Floats:
        """Entropy H of each prediction, nats: the total uncertainty."""
        return entropy(self.log_prob_NC)

    @cached_property
    def answer_N(self) -> Labels:
        """The most probable class of each example; the lowest one wins a tie."""
        answer_N: Labels = self.log_prob_NC.argmax(axis=1)
        return answer_N

    @cached_property
    def confidence_N(self) -> Floats:
        """Probability of the most probable class."""
        confidence_N: Floats = np.exp(self.log_prob_NC.max(axis=1))
        return confidence_N

    @cached_property
    def is_nan_N(self) -> NDArray[np.bool_]:
        """Whether a log-probability of an example is no number."""
        return np.asarray(np.isnan(self.log_prob_NC).any(axis=1))

    @property
    def expected_entropy_N(self) -> Floats:
        """E[H], the posterior average of the predictive entropy, nats.

        Raises:
            KeyError: it is not among the expectations.
        """
        return self.expectations["expected_entropy"][:, 0]

    @property
    def mutual_information_N(self) -> Floats:
        """H[E p] - E[H] of label and parameters, nats: what of the entropy is not in the data.

        Raises as ``expected_entropy_N``. The target ``mutual_information`` has the same formula for
        probabilities in float32; this one starts from log-probabilities in float64.
        """
        return self.entropy_N - self.expected_entropy_N

    def __len__(self) -> int:
        return len(self.log_prob_NC)

    def log_score(self, labels_N: Labels) -> Floats:
        """Log-probability of each label, nats, shape (N,)."""
        return self.log_prob_NC[np.arange(len(labels_N)), labels_N]

    def kl_to(self, other: "Predictions") -> Floats:
        """See ``kl_divergence``."""
        return kl_divergence(self.log_prob_NC, other.log_prob_NC)

    def check(self, labels_N: Labels) -> None:
        """Raise ``DataError`` unless these are labels of the same examples."""
        classes = self.log_prob_NC.shape[1]
        if labels_N.shape != (len(self),) or not np.issubdtype(labels_N.dtype, np.integer):
            raise DataError(
                f"labels: found {labels_N.dtype}{labels_N.shape}, expected {len(self)} integers"
            )
        if labels_N.min() < 0 or labels_N.max() >= classes:
            raise DataError(
                f"labels: found {labels_N.min()} to {labels_N.max()}, expected 0 to {classes - 1}"
            )

    def check_like(self, teacher: "AnyPredictions") -> None:
        """Raise ``DataError`` unless a teacher's are of the same examples and classes."""
        shape = self.log_prob_NC.shape
        if not isinstance(teacher, Predictions) or teacher.log_prob_NC.shape != shape:
            raise DataError(
                f"teacher: found {_describe(teacher)}, expected probabilities of shape {shape}"
            )


@dataclass(frozen=True, eq=False)
class NormalPredictions:
    """What a student or a teacher says about the real label of N examples: a normal each.

    A teacher's has the mean and the variance of its posterior average, which itself is a mixture of
    normals.

    Attributes:
        mean_N: in the labels' own unit, as float64.
        variance_N: in that unit squared, as float64; noise included.
        expectations, targets, samples, is_point: as in ``Predictions``; ``predictive_normal`` is
            always among the expectations; all are in the label's own unit.

    Raises:
        DataError: the shapes do not fit each other.
    """

    mean_N: Floats
    variance_N: Floats
    expectations: Mapping[str, Floats] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    samples: PosteriorSamples | None = None
    is_point: bool = False
    task: ClassVar[Task] = "regression"

    def __post_init__(self) -> None:
        mean = np.asarray(self.mean_N, np.float64)
        variance = np.asarray(self.variance_N, np.float64)
        if mean.ndim != 1 or variance.shape != mean.shape:
            raise DataError(
                f"mean_N, variance_N: found shapes {mean.shape} and {variance.shape}, expected "
                "(N,) twice"
            )
        object.__setattr__(self, "mean_N", mean)
        object.__setattr__(self, "variance_N", variance)

        expectations = _columns(self.expectations, len(mean))
        expectations["predictive_normal"] = np.stack([mean, variance], axis=1)
        object.__setattr__(self, "expectations", expectations)

    def __len__(self) -> int:
        return len(self.mean_N)

    def log_score(self, labels_N: Labels) -> Floats:
        """Log-density of each label, nats, shape (N,)."""
        squared = np.square(labels_N - self.mean_N) / self.variance_N
        score_N: Floats = -0.5 * (squared + np.log(self.variance_N) + log(2 * pi))
        return score_N

    def kl_to(self, other: "NormalPredictions") -> Floats:
        """KL(self || other) of each example, nats, shape (N,)."""
        ratio = self.variance_N / other.variance_N
        distance = np.square(self.mean_N - other.mean_N) / other.variance_N
        kl_N: Floats = 0.5 * (ratio - 1 - np.log(ratio) + distance)
        return kl_N

    def check(self, labels_N: Labels) -> None:
        """Raise ``DataError`` unless these are labels of the same examples."""
        if labels_N.shape != (len(self),) or not np.issubdtype(labels_N.dtype, np.floating):
            raise DataError(
                f"labels: found {labels_N.dtype}{labels_N.shape}, expected {len(self)} floats"
            )

    def check_like(self, teacher: "AnyPredictions") -> None:
        """Raise ``DataError`` unless a teacher's are of the same examples."""
        if not isinstance(teacher, NormalPredictions) or len(teacher) != len(self):
            raise DataError(
                f"teacher: found {_describe(teacher)}, expected means of shape {(len(self),)}"
            )


AnyPredictions = Predictions | NormalPredictions


def subset(predictions: AnyPredictions, index: NDArray[np.int64]) -> AnyPredictions:
    """The same predictions of some of the examples alone.

    Args:
        predictions: of N examples.
        index: which of them, (M,).
    """
    expectations = {name: values[index] for name, values in predictions.expectations.items()}
    samples = predictions.samples
    if samples is not None:
        samples = replace(samples, predicted_SNG=samples.predicted_SNG[:, index])

    changes: dict[str, Any] = {"expectations": expectations, "samples": samples}
    if isinstance(predictions, Predictions):
        certified = predictions.certified_N
        changes["certified_N"] = None if certified is None else certified[index]
        return replace(predictions, log_prob_NC=predictions.log_prob_NC[index], **changes)
    return replace(
        predictions,
        mean_N=predictions.mean_N[index],
        variance_N=predictions.variance_N[index],
        **changes,
    )


def joined(first: AnyPredictions, second: AnyPredictions) -> AnyPredictions:
    """What one predictor says of some inputs, and then of others, (N + M).

    Args:
        first, second: of the same predictor.
    """
    expectations = {}
    for name in first.expectations.keys() & second.expectations.keys():
        expectations[name] = np.concatenate([first.expectations[name], second.expectations[name]])
    samples = None
    if first.samples is not None and second.samples is not None:
        both = [first.samples.predicted_SNG, second.samples.predicted_SNG]
        samples = replace(first.samples, predicted_SNG=torch.cat(both, 1))

    changes: dict[str, Any] = {"expectations": expectations, "samples": samples}
    if isinstance(first, Predictions) and isinstance(second, Predictions):
        log_prob_NC = np.concatenate([first.log_prob_NC, second.log_prob_NC])
        return replace(first, log_prob_NC=log_prob_NC, certified_N=None, **changes)
    assert isinstance(first, NormalPredictions) and isinstance(second, NormalPredictions)
    return replace(
        first,
        mean_N=np.concatenate([first.mean_N, second.mean_N]),
        variance_N=np.concatenate([first.variance_N, second.variance_N]),
        **changes,
    )


def target_of(predictions: AnyPredictions, name: str) -> Target:
    """The target that predictions speak of under this name, with the settings it has there."""
    for target in predictions.targets:
        if target.name == name:
            return target
    return TARGETS[name]


def _columns(expectations: Mapping[str, Floats], num_examples: int) -> dict[str, Floats]:
    """Expectations as float64 (N, G); (N,) is taken for one column.

    Raises:
        DataError: one is of another number of examples.
    """
    columns = {}
    for name, values in expectations.items():
        array = np.asarray(values, np.float64)
        if array.ndim == 1:
            array = array[:, None]
        if array.ndim != 2 or len(array) != num_examples:
            raise DataError(
                f"expectations['{name}']: found shape {array.shape}, expected ({num_examples}, G)"
            )
        columns[name] = array
    return columns


def _describe(predictions: AnyPredictions) -> str:
    if isinstance(predictions, Predictions):
        return f"probabilities of shape {predictions.log_prob_NC.shape}"
    return f"means of shape {predictions.mean_N.shape}"


def entropy(log_prob_NC: Floats) -> Floats:
    """Entropy H of each row, nats, shape (N,); 0 log 0 = 0."""
    prob = np.exp(log_prob_NC)
    terms = np.zeros_like(prob)
    np.multiply(prob, log_prob_NC, out=terms, where=prob != 0)
    entropy_N: Floats = -terms.sum(axis=1)
    return entropy_N


def kl_divergence(log_p_NC: Floats, log_q_NC: Floats) -> Floats:
    """KL(p || q) of each row, nats, shape (N,); infinite where q lacks p's support.

    0 log 0 = 0.
    """
    prob = np.exp(log_p_NC)
    terms = np.zeros_like(prob)
    np.subtract(log_p_NC, log_q_NC, out=terms, where=prob != 0)
    kl_N: Floats = (prob * terms).sum(axis=1)
    return kl_N
