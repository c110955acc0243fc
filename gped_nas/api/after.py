"""A student's answers by what was fitted after its training: at a temperature, and as sets."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gped_nas.distill.student import Student
from gped_nas.evaluate.conformal import bounds
from gped_nas.evaluate.post_hoc import post_hoc_of, sets_by_name
from gped_nas.evaluate.predictions import AnyPredictions, NormalPredictions, Predictions
from gped_nas.evaluate.student import student_predictions
from gped_nas.evaluate.tempering import at_temperature


class After:
    """See the module.

    Args:
        student: who is asked.
        where: the student, for messages.
        calibrated: whether its answers are those at the fitted temperature.
        set_level: with which probability sets hold the label; None for no sets.
        set_rule: by which rule.

    Raises:
        ConfigError: a level or rule that is none.
        DataError: something is asked for, and nothing was fitted.
    """

    def __init__(
        self,
        student: Student,
        where: str,
        *,
        calibrated: bool,
        set_level: float | None,
        set_rule: str,
    ) -> None:
        self._student = student
        self._rule = set_rule
        self._temperature: float | None = None
        self._limit: float | None = None
        if not calibrated and set_level is None:
            return

        fitted = post_hoc_of(student.spec.about, where)
        if calibrated:
            self._temperature = fitted.temperature
        if set_level is not None:
            self._limit = fitted.threshold(set_level, set_rule)

    def rows(
        self, raw: Tensor, predicted: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Iterable[dict[str, Any]]]:
        """What the student predicts, its main answer at the temperature; and the sets.

        Args:
            raw: inputs (N, *input_shape).
            predicted: what it predicts there.

        Returns:
            ``predicted`` with the main answer replaced, and of each input its ``set``, or ``low``
            and ``high``; where nothing is asked for, ``predicted`` and N empty rows.
        """
        if self._temperature is None and self._limit is None:
            return predicted, ({} for _ in range(len(raw)))

        predictions = student_predictions(self._student, raw)
        return {**predicted, **self._tempered(predictions)}, self._sets(predictions)

    def _tempered(self, predictions: AnyPredictions) -> dict[str, Tensor]:
        """The main answer at the temperature, by name; nothing where it stays as it is."""
        if self._temperature is None:
            return {}

        scaled = at_temperature(predictions, self._temperature)
        if isinstance(scaled, NormalPredictions):
            normal_N2 = np.stack([scaled.mean_N, scaled.variance_N], axis=1)
            return {"predictive_normal": torch.as_tensor(normal_N2)}
        return {"predictive": torch.as_tensor(np.exp(scaled.log_prob_NC))}

    def _sets(self, predictions: AnyPredictions) -> Iterator[dict[str, Any]]:
        """Of each input its ``set``, or ``low`` and ``high``; nothing where no sets are wanted."""
        if self._limit is None:
            yield from ({} for _ in range(len(predictions)))
            return

        if isinstance(predictions, Predictions):
            names = self._student.spec.class_names
            for named in sets_by_name(predictions, self._limit, self._rule, names):
                yield {"set": named}
            return
        for low, high in zip(*bounds(predictions, self._limit), strict=True):
            is_bounded = np.isfinite(low)
            yield {
                "low": float(low) if is_bounded else None,
                "high": float(high) if is_bounded else None,
            }
