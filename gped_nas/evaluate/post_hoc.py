"""What was fitted to a student after its training, as it travels with an export.

It is plain data in ``spec.json`` under ``about.post_hoc``::

    {"temperature": 1.31, "n": 144, "part": "calibration", "is_approximate": false,
     "levels": [0.5, 0.51, ..., 0.99, 0.995, 0.999],
     "thresholds": {"split": [0.02, ...], "aps": [0.97, ..., null]}}

A threshold is that of ``evaluate.conformal`` for sets of its level; null stands for sets of every
label, where n is too small. A level in between takes the threshold of the next one above.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gped_nas.data.base import Part
from gped_nas.errors import ConfigError, DataError, nearest
from gped_nas.evaluate.conformal import rules_for, scores_of_labels, sets, threshold
from gped_nas.evaluate.predictions import AnyPredictions, Labels, Predictions
from gped_nas.evaluate.tempering import fitted_temperature

KEY = "post_hoc"
"""Where it lies in ``about``."""
LEVELS = (*(round(percent / 100, 2) for percent in range(50, 100)), 0.995, 0.999)
_SLACK = 1e-9


@dataclass(frozen=True)
class PostHoc:
    """See the module.

    Attributes:
        temperature: of the answers.
        n: number of labels it was fitted on.
        part: which part they are.
        is_approximate: whether the same labels chose the student.
        thresholds: by rule one a level of ``LEVELS``; infinite for sets of every label.
    """

    temperature: float
    n: int
    part: Part
    is_approximate: bool
    thresholds: Mapping[str, tuple[float, ...]]

    def threshold(self, level: float, rule: str) -> float:
        """The threshold of sets that hold the label with this probability.

        Raises:
            ConfigError: an unknown rule, or a level that is none.
        """
        if rule not in self.thresholds:
            raise ConfigError(f"--set-rule: found '{rule}'{nearest(rule, self.thresholds)}")
        if not 0 < level < 1:
            raise ConfigError(
                f"--set-level: found {level:g}, expected a probability above 0 and below 1"
            )
        for known, limit in zip(LEVELS, self.thresholds[rule], strict=True):
            if known >= level - _SLACK:
                return limit
        return float("inf")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        finite = {}
        for rule, limits in self.thresholds.items():
            finite[rule] = [limit if np.isfinite(limit) else None for limit in limits]
        return {
            "temperature": self.temperature,
            "n": self.n,
            "part": self.part,
            "is_approximate": self.is_approximate,
            "levels": list(LEVELS),
            "thresholds": finite,
        }


def fit_post_hoc(predictions: AnyPredictions, labels_N: Labels, part: Part) -> PostHoc:
    """What these labels ask of these answers.

    Args:
        predictions: of N examples.
        labels_N: their labels.
        part: which part they are; those of validation chose the student.
    """
    thresholds = {}
    for rule in rules_for(predictions):
        scores_N = scores_of_labels(rule, predictions, labels_N)
        thresholds[rule] = tuple(threshold(scores_N, 1 - level) for level in LEVELS)
    return PostHoc(
        temperature=fitted_temperature(predictions, labels_N),
        n=len(labels_N),
        part=part,
        is_approximate=part != "calibration",
        thresholds=thresholds,
    )


def post_hoc_of(about: Mapping[str, Any], where: str) -> PostHoc:
    """What travels with a student.

    Args:
        about: of its spec.
        where: the student, for messages.

    Raises:
        DataError: nothing does, or it is malformed.
    """
    data = about.get(KEY)
    if data is None:
        raise DataError(
            f"{where}: nothing was fitted to this student after its training, expected a "
            "temperature and thresholds; export it with `--post-hoc`"
        )

    try:
        thresholds = {}
        for rule, limits in data["thresholds"].items():
            thresholds[rule] = tuple(np.inf if limit is None else float(limit) for limit in limits)
            if len(limits) != len(LEVELS):
                raise ValueError("one threshold a level")

        return PostHoc(
            float(data["temperature"]),
            int(data["n"]),
            data["part"],
            bool(data["is_approximate"]),
            thresholds,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{where}: about.{KEY}: malformed; export the student again with `--post-hoc`"
        ) from None


def sets_by_name(
    predictions: Predictions, limit: float, rule: str, names: tuple[str, ...]
) -> list[list[str]]:
    """The set of each example, its likeliest class first."""
    is_in_NC = sets(rule, predictions, limit)
    order_NC = np.argsort(-predictions.log_prob_NC, axis=1, kind="stable")
    named = []
    for is_in_C, order_C in zip(is_in_NC, order_NC, strict=True):
        named.append([names[label] for label in order_C if is_in_C[label]])
    return named
