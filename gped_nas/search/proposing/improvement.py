"""Expected improvement of hypervolume: one objective exactly, the others at places of the box.

The hypervolume is a mean over the box's other axes of how far the last one is dominated. Those axes
are looked at in a few hundred fixed places (Sobol). At each one the front has a best value of the
last objective, and a candidate that is dear enough for the place or bad in another objective there
gains nothing. What it gains at the others is a closed form::

    E[gain] = mean over places of P(all other objectives within the place) E[max(best - value, 0)]

Costs are taken as known, and objectives as independent given the genotype.

Source: the hypervolume as an integral over the box, Emmerich, Deutz & Klinkenberg 2011, equation 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gped_nas.search.proposing.gaussian import Beliefs
from gped_nas.search.proposing.scales import Scale, chance_below

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

NUM_PLACES = 512


@dataclass(frozen=True)
class Axes:
    """The axes of a hypervolume.

    Attributes:
        costs: log10 of the two ends of each cost that is known before a training.
        measured: the scales of what is measured, the last of which is integrated; at least one.
    """

    costs: Sequence[tuple[float, float]]
    measured: Sequence[Scale]

    def shares(self, num: int) -> Floats:
        """Places (K, axes but the last) as shares of the way from best to corner."""
        num_axes = len(self.costs) + len(self.measured) - 1
        if num_axes == 0:
            return np.zeros((1, 0))

        from scipy.stats import qmc  # slow to import

        engine = qmc.Sobol(num_axes, scramble=True, rng=np.random.default_rng(1))
        return np.asarray(engine.random(num))


class Improvement:
    """How much hypervolume candidates are expected to add to a front.

    Args:
        axes: of the hypervolume.
        num_places: where the axes but the last are looked at.
    """

    def __init__(self, axes: Axes, num_places: int = NUM_PLACES) -> None:
        self.axes = axes
        shares_KA = axes.shares(num_places)
        num_costs = len(axes.costs)

        lows = np.array([low for low, _ in axes.costs])
        highs = np.array([high for _, high in axes.costs])
        self._costs_KA = lows + shares_KA[:, :num_costs] * (highs - lows)
        others = axes.measured[:-1]
        columns = [scale.at(shares_KA[:, num_costs + i]) for i, scale in enumerate(others)]
        self._others_KQ = np.stack(columns, 1) if columns else np.zeros((len(shares_KA), 0))
        # the front's best value of the last objective at each place, at first the corner
        self.best_K = np.full(len(shares_KA), axes.measured[-1].modelled_corner)

    def add(self, costs_A: Floats, measured_Q: Floats) -> None:
        """Put a student on the front.

        Args:
            costs_A: log10.
            measured_Q: modelled.
        """
        is_within_K = (costs_A <= self._costs_KA).all(1)
        is_within_K &= (measured_Q[:-1] <= self._others_KQ).all(1)
        self.best_K = np.where(is_within_K, np.minimum(self.best_K, measured_Q[-1]), self.best_K)

    def within(self, costs_CA: Floats) -> Mask:
        """Which candidates are cheap enough for which places, (C, K)."""
        is_within_CK = np.ones((len(costs_CA), len(self.best_K)), bool)
        for a in range(costs_CA.shape[1]):
            is_within_CK &= costs_CA[:, a, None] <= self._costs_KA[None, :, a]
        return is_within_CK

    def expected(self, is_within_CK: Mask, beliefs: Sequence[Beliefs]) -> Floats:
        """The expected gain (C,) of each candidate, as a share of the box.

        Args:
            is_within_CK: see ``within``.
            beliefs: of each measured objective, in the axes' order.
        """
        *others, last = beliefs
        scale = self.axes.measured[-1]
        if not others:
            # places with one best value share one closed form, and fronts have few values
            values_F, index_K = np.unique(self.best_K, return_inverse=True)
            one_hot_KF = np.eye(len(values_F))[index_K.reshape(-1)]
            shares_CF = is_within_CK.astype(float) @ one_hot_KF / len(self.best_K)
            gains_CF = scale.gain(values_F[None], last.mean_C[:, None], last.sd_C[:, None])
            return np.asarray((shares_CF * gains_CF).sum(1))

        gains_CK = scale.gain(self.best_K[None], last.mean_C[:, None], last.sd_C[:, None])
        for q, belief in enumerate(others):
            threshold_K = self._others_KQ[:, q]
            gains_CK *= chance_below(
                threshold_K[None], belief.mean_C[:, None], belief.sd_C[:, None]
            )
        return np.asarray((gains_CK * is_within_CK).mean(1))
