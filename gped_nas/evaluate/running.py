"""The average of posterior samples' predictions, taken one sample at a time.

It holds sums alone, in float64: its size does not grow with the number of samples. The slow
reference is ``evaluate.teacher.averaged``, which has all samples at once.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.base import Normalization
from gped_nas.evaluate.predictions import AnyPredictions, Predictions
from gped_nas.evaluate.teacher import (
    in_own_unit,
    moments_of,
    normal_predictions,
    with_derived,
)
from gped_nas.io import Array
from gped_nas.targets.base import MAIN_TARGET, Target, for_labels
from gped_nas.targets.expectations import expect_from, means_behind
from gped_nas.targets.formulas import entropy

_WEIGHT, _MAIN, _ENTROPY = "weight", "main", "entropy"


class RunningAverage:
    """What posterior samples say of some inputs together, so far.

    Args:
        targets: whose expectations are wanted beside those of the predictions; none of kind
            ``quantile``.
        label_normalization: of real labels; None for classes.
    """

    def __init__(
        self, targets: Sequence[Target] = (), label_normalization: Normalization | None = None
    ) -> None:
        self._unit = label_normalization
        self._targets = for_labels(with_derived(targets), label_normalization)
        self._asked = [t for t in self._targets if t.name not in MAIN_TARGET.values()]
        self._means = means_behind(self._asked) if self._asked else []
        self._sums: dict[str, Tensor] = {}

    def take(self, predicted_NG: Tensor, weight: float) -> None:
        """Take in what one posterior sample predicts.

        Args:
            predicted_NG: see ``likelihoods.Prediction``.
            weight: of the sample, not negative, on any scale.
        """
        if weight == 0:
            return

        predicted = predicted_NG.double()
        self._add(_WEIGHT, torch.tensor([weight], dtype=torch.float64))
        for i, target in enumerate(self._means):
            self._add(f"target-{i:06d}", weight * target.values(predicted[None])[0])

        if self._unit:
            self._add(_MAIN, weight * moments_of(predicted))
            return
        # the logarithm of the sum: a small probability does not vanish in it
        log_weighted = predicted + float(np.log(weight))
        log_sum = self._sums.get(_MAIN)
        self._sums[_MAIN] = log_weighted if log_sum is None else log_sum.logaddexp(log_weighted)
        self._add(_ENTROPY, weight * entropy(predicted))

    def _add(self, name: str, value: Tensor) -> None:
        total = self._sums.get(name)
        self._sums[name] = value.double() if total is None else total + value

    def arrays(self) -> dict[str, Array]:
        """The sums by name, float64; none before the first sample."""
        return {name: total.numpy() for name, total in self._sums.items()}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Go on from what ``arrays`` gave."""
        self._sums = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}

    def predictions(self, *, is_point: bool) -> AnyPredictions:
        """The predictions of the average, without single samples.

        Args:
            is_point: whether one sample alone was taken in.
        """
        total = self._sums[_WEIGHT]
        averages = {}
        for i, target in enumerate(self._means):
            averages[target.name] = self._sums[f"target-{i:06d}"] / total

        expectations = {}
        if self._asked:
            values = expect_from(self._asked, averages)
            for asked in self._asked:
                expectations[asked.name] = asked.shown(values[asked.name]).numpy()

        if self._unit:
            moments = self._sums[_MAIN] / total
            return normal_predictions(
                moments[:, 0],
                moments[:, 1] - moments[:, 0].square(),
                self._unit,
                expectations=in_own_unit(expectations, self._targets, self._unit),
                targets=self._targets,
                is_point=is_point,
            )

        expectations["expected_entropy"] = (self._sums[_ENTROPY] / total).numpy()
        log_mean = self._sums[_MAIN] - total.log()
        return Predictions(
            log_mean.numpy(), expectations, self._targets, samples=None, is_point=is_point
        )


def log_prob_of(average: RunningAverage) -> Tensor:
    """Log-probabilities of the average of a classifier's samples, (N, C), nats."""
    predictions = average.predictions(is_point=False)
    assert isinstance(predictions, Predictions), "chains are compared where labels are classes"
    return torch.from_numpy(predictions.log_prob_NC)
