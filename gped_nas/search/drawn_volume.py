"""Hypervolumes of one front on many draws of the validation examples.

Costs are the same on every draw. Where one objective alone differs, all draws are one table of the
costs' cells; ``volumes_one_by_one`` is the plain way, and the only one for more qualities.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gped_nas.search.pareto import Floats, hypervolume

_MOST_CELLS = 20_000_000
"""Numbers in the largest table that is made."""


def drawn_volumes(losses_RNM: Floats, varying: Sequence[int]) -> Floats:
    """The hypervolume on each draw, (R,): NaN on one where a loss is not a number.

    Args:
        losses_RNM: of N points on R draws, in the unit box, see ``pareto.to_box``.
        varying: the objectives that differ from draw to draw.
    """
    num_draws, num_points, num_axes = losses_RNM.shape
    num_cells = num_draws * num_points ** (num_axes - 1)
    if len(varying) != 1 or num_axes == 1 or num_cells > _MOST_CELLS or not num_points:
        return volumes_one_by_one(losses_RNM)
    return _by_cells(losses_RNM, varying[0])


def volumes_one_by_one(losses_RNM: Floats) -> Floats:
    """The same of any objectives, a draw after the other."""
    corner = np.ones(losses_RNM.shape[2])
    volumes = np.full(len(losses_RNM), np.nan)
    for r, losses_NM in enumerate(losses_RNM):
        if not np.isnan(losses_NM).any():
            volumes[r] = hypervolume(losses_NM, corner)
    return volumes


def _by_cells(losses_RNM: Floats, varying: int) -> Floats:
    """The same where all objectives but one are those of the first draw."""
    fixed = [axis for axis in range(losses_RNM.shape[2]) if axis != varying]
    varying_RN = losses_RNM[:, :, varying]

    # The cells between the points' values on each fixed axis; the last one ends at the corner.
    places: list[NDArray[np.intp]] = []
    widths: list[Floats] = []
    for axis in fixed:
        values, place_N = np.unique(losses_RNM[0, :, axis], return_inverse=True)
        places.append(place_N)
        widths.append(np.diff(np.minimum(values, 1.0), append=1.0))

    # The best value at each cell's lower corner, then of everything below and left of it.
    shape = tuple(len(width) for width in widths)
    best = np.ones((len(varying_RN), *shape))
    for n, cell in enumerate(zip(*places, strict=True)):
        at = (slice(None), *cell)
        best[at] = np.minimum(best[at], varying_RN[:, n])
    for axis in range(1, best.ndim):
        best = np.minimum.accumulate(best, axis=axis)

    # A NaN must reach the sum, also from a cell without width.
    is_known_R = ~np.isnan(varying_RN).any(axis=1)
    volumes = 1.0 - np.where(is_known_R.reshape(-1, *[1] * len(shape)), best, 1.0)
    for width in reversed(widths):
        volumes = volumes @ width
    return np.where(is_known_R, volumes, np.nan)
