"""Whether an ensemble that a user brought knows more than the labels alone.

Tensors in the wrong layers, inputs on another scale or classes in another order leave nothing but
chance, and a search would distil it without a word. So every import is held against the class
frequencies, or against mean and variance of real labels, on validation. It knows something if it
is better by two standard errors of the paired difference in either of two scores: accuracy and
NLL, or squared error and NLL. Better in one is enough: rare classes leave no room in accuracy, and
a member that excludes a label has no finite NLL.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from gped_nas.api.sampling import sampled_spaces
from gped_nas.data.base import Dataset
from gped_nas.errors import DataError
from gped_nas.evaluate.base import METRICS
from gped_nas.evaluate.ignorance import know_nothing
from gped_nas.evaluate.predictions import AnyPredictions, Floats, Predictions
from gped_nas.posterior.imported import ImportConfig
from gped_nas.search.space import SearchSpace

_ERRORS = 2.0
"""Standard errors by which one score must be better."""
_WELL_ABOVE = 1.5
"""Times the largest class' share, from which another order of the classes is worth a word."""
_NAMED = 12
"""Classes that a message names."""


@dataclass(frozen=True)
class Chance:
    """An ensemble beside the labels alone, on the same examples.

    Attributes:
        ensemble, labels: values by metric: ``accuracy`` or ``rmse``, then ``nll``.
        n: number of examples.
        is_above: whether the ensemble is better by two standard errors in one of them.
    """

    ensemble: dict[str, float]
    labels: dict[str, float]
    n: int
    is_above: bool

    def __str__(self) -> str:
        """Both side by side: ``accuracy 0.969 (labels alone 0.35), nll ...``."""
        values = []
        for name, value in self.ensemble.items():
            values.append(f"{name} {value:.4g} (labels alone {self.labels[name]:.4g})")
        return f"{', '.join(values)}, {self.n} validation examples"


def import_of(space: SearchSpace) -> ImportConfig | None:
    """The import that the space's posterior samples come from; None where they were sampled."""
    method = sampled_spaces(space)[-1].method
    return method if isinstance(method, ImportConfig) else None


def beside_chance(dataset: Dataset, average: AnyPredictions) -> Chance:
    """An ensemble's average on validation beside the labels alone."""
    labels = dataset.labels("validation")
    ignorant = know_nothing(dataset.train.y, dataset.num_outputs, len(labels))
    names = ("rmse", "nll") if dataset.task == "regression" else ("accuracy", "nll")

    is_above = False
    for name in names:
        metric = METRICS[name]
        sign = 1 if metric.direction == "maximize" else -1
        with np.errstate(invalid="ignore"):
            gain_N = sign * (
                metric.terms(average, labels, None) - metric.terms(ignorant, labels, None)
            )
        is_above = is_above or _is_positive(gain_N[:, 0])

    return Chance(
        ensemble={name: METRICS[name].value(average, labels) for name in names},
        labels={name: METRICS[name].value(ignorant, labels) for name in names},
        n=len(labels),
        is_above=is_above,
    )


def _is_positive(gain_N: Floats) -> bool:
    """Whether a gain is above zero by two standard errors of its mean."""
    gain_N = np.where(np.isnan(gain_N), 0.0, gain_N)  # neither gave the label any probability
    if np.isposinf(gain_N).any():
        return not np.isneginf(gain_N).any()
    if np.isneginf(gain_N).any():
        return False
    return bool(gain_N.mean() > _ERRORS * gain_N.std() / np.sqrt(len(gain_N)))


def check_import(space: SearchSpace, dataset: Dataset, average: AnyPredictions) -> None:
    """Refuse an imported ensemble that is no better than the labels alone.

    Args:
        space: names it as its method, or as the one that its method reads.
        dataset: the space's dataset.
        average: what the teacher predicts on validation.

    Raises:
        DataError: it is at chance, and the space does not say ``at_chance: true``.
    """
    cfg = import_of(space)
    if cfg is None or cfg.at_chance:
        return

    chance = beside_chance(dataset, average)
    if not chance.is_above:
        raise DataError(
            f"{cfg.path}: the imported ensemble is at chance: {chance}"
            f"{_tell_order(dataset, average)}; {_advise(space)}"
        )


def _tell_order(dataset: Dataset, average: AnyPredictions) -> str:
    """The order of the data's classes, and the one in which the ensemble would be good, if any."""
    if not isinstance(average, Predictions):
        return ""

    names = dataset.class_names
    words = f"; the data's classes are, in order, {', '.join(names[:_NAMED])}"
    words += ", ..." if len(names) > _NAMED else ""

    counts_CC = np.zeros((len(names), len(names)))
    labels = np.asarray(dataset.labels("validation"))
    np.add.at(counts_CC, (average.log_prob_NC.argmax(-1), labels), 1)
    said, meant = linear_sum_assignment(-counts_CC)
    accuracy = counts_CC[said, meant].sum() / len(labels)
    if accuracy < _WELL_ABOVE * counts_CC.sum(0).max() / len(labels):
        return words
    order = ", ".join(names[i] for i in meant[:_NAMED])
    order += ", ..." if len(names) > _NAMED else ""
    return f"{words}; if the ensemble's are {order}, its accuracy is {accuracy:.4g}"


def _advise(space: SearchSpace) -> str:
    """What to do about an ensemble at chance."""
    if space.given is not None:
        return (
            "check the order of its classes and of its examples, or set teacher.at_chance: true "
            "to take it as it is"
        )
    return (
        "check teacher.method.names, input_mean and input_std, and the order of its classes, or "
        "set teacher.method.at_chance: true to take it as it is"
    )
