"""The interval of a share of examples, without torch: reports make it of counts that are stored.

Source: Wilson 1927, J. Am. Stat. Assoc. 22.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[Any]
"""Numbers of examples."""
Floats = NDArray[np.float64]
Z95 = 1.959964


def wilson(num_hits: Counts, n: int | Counts) -> tuple[Floats, Floats]:
    """Both ends of Wilson's interval of a share of n examples, of the shape of ``num_hits``."""
    share = np.asarray(num_hits) / n
    center = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return np.maximum(center - half, 0.0), np.minimum(center + half, 1.0)
