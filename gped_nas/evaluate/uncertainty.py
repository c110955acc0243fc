"""How well uncertainty scores tell inputs apart."""

import numpy as np

from gped_nas.errors import DataError
from gped_nas.evaluate.predictions import Floats


def auroc(scores_in: Floats, scores_out: Floats) -> float:
    """Probability that an input from outside scores higher than one from inside.

    A tie counts half.

    Args:
        scores_in: uncertainty at inputs like the training ones, (N,).
        scores_out: uncertainty at other inputs, which should be higher, (M,); they are the positive
            class.

    Raises:
        DataError: one of them is empty, or holds NaN.

    Source: Mann & Whitney 1947; Hanley & McNeil 1982, Radiology 143.
    """
    is_one_empty = not len(scores_in) or not len(scores_out)
    if is_one_empty or np.isnan(scores_in).any() or np.isnan(scores_out).any():
        raise DataError(
            f"AUROC: found {len(scores_in)} and {len(scores_out)} scores, expected numbers on both "
            "sides"
        )

    # Scores below, plus scores below or equal: twice the number below with ties as halves.
    ordered = np.sort(scores_in)
    num_below = np.searchsorted(ordered, scores_out, side="left")
    num_at_most = np.searchsorted(ordered, scores_out, side="right")
    doubled = num_below + num_at_most
    return float(doubled.mean() / (2 * len(ordered)))
