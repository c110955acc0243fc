"""On which scale what is measured of a student is modelled, and what of it counts.

A metric is modelled as the logarithm of its distance from perfect: students' NLL spreads over
orders of magnitude, and near the front it is ratios that differ. In the hypervolume it counts
linearly. What is timed is modelled, and counts, as its logarithm. A metric without known ends is
modelled as it is.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gped_nas.search.goals import Objective

Floats = NDArray[np.float64]

_FLOOR = 1e-3
"""Added to a distance before its logarithm, as a share of the axis: perfect is a number too."""
_BEYOND = 1.05
"""What is worse than this share of an axis is modelled as this: chance and worse are alike."""
_LEAST_SD = 1e-3


@dataclass(frozen=True)
class Scale:
    """The scale of something that is measured.

    Attributes:
        kind: ``distance`` of a metric, ``log`` of what is timed, ``plain`` of a metric without
            known ends.
        sign: 1 where less is better, -1 where more is.
        best: the best value.
        corner: the worst value that counts in the hypervolume.
        ignorant: the worst value that is told from others.
    """

    kind: Literal["distance", "log", "plain"]
    sign: float
    best: float
    corner: float
    ignorant: float

    @staticmethod
    def of(goal: Objective, best: float, corner: float, ignorant: float) -> "Scale":
        """The scale of an objective with these ends."""
        sign = 1.0 if goal.direction == "minimize" else -1.0
        kind: Literal["distance", "log"] = "log" if goal.kind == "cost" else "distance"
        return Scale(kind, sign, best, corner, ignorant)

    @staticmethod
    def plain(goal: Objective, values: list[float]) -> "Scale":
        """The scale of a metric whose ends are those of the values that were seen."""
        sign = 1.0 if goal.direction == "minimize" else -1.0
        losses = [sign * value for value in values] or [0.0]
        best, worst = sign * min(losses), sign * max(losses)
        return Scale("plain", sign, best, worst, worst)

    def modelled(self, value: float) -> float:
        """What a value is modelled as; less is better."""
        if self.kind == "plain":
            return self.sign * value
        if self.kind == "log":
            return math.log(max(value, 1e-300))
        distance = max(self.sign * (value - self.best), 0.0)
        return math.log(min(distance, _BEYOND * self._span) + _FLOOR * self._span)

    @property
    def failed(self) -> float:
        """What a training is modelled as that gave no value."""
        return self.modelled(self.ignorant)

    @property
    def modelled_corner(self) -> float:
        """The corner, as it is modelled."""
        return self.modelled(self.corner)

    def at(self, share: Floats) -> Floats:
        """The modelled value at a share of the way from best (0) to corner (1)."""
        if self.kind == "distance":
            distance = share * max(self.sign * (self.corner - self.best), 0.0)
            return np.log(distance + _FLOOR * self._span)
        start = self.modelled(self.best)
        return start + share * (self.modelled_corner - start)

    def gain(self, threshold: Floats, mean: Floats, sd: Floats) -> Floats:
        """How far a value is expected to pass a threshold, as a share of the axis that counts.

        It is ``E[max(threshold - value, 0)]`` of a normal value, or of a lognormal distance.

        Args:
            threshold, mean, sd: modelled, of shapes that broadcast.
        """
        from scipy.special import ndtr  # slow to import

        sd = np.maximum(sd, _LEAST_SD)
        ahead = (threshold - mean) / sd
        if self.kind == "distance":
            below = np.exp(mean + 0.5 * sd**2) * ndtr(ahead - sd)
            gain = np.exp(threshold) * ndtr(ahead) - below
            length = abs(self.corner - self.best)
        else:
            density = np.exp(-0.5 * ahead**2) / math.sqrt(2 * math.pi)
            gain = (threshold - mean) * ndtr(ahead) + sd * density
            length = abs(self.modelled_corner - self.modelled(self.best))
        return np.asarray(np.maximum(gain, 0.0) / max(length, 1e-300))

    @property
    def _span(self) -> float:
        return max(abs(self.ignorant - self.best), abs(self.corner - self.best), 1e-12)


def chance_below(threshold: Floats | float, mean: Floats, sd: Floats) -> Floats:
    """The probability that a normal value is at most the threshold."""
    from scipy.special import ndtr

    return np.asarray(ndtr((threshold - mean) / np.maximum(sd, _LEAST_SD)))
