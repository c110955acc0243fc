"""Bootstrap draws of the examples of a part, made once and shared by every predictor."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gped_nas import rng
from gped_nas.errors import DataError
from gped_nas.evaluate.predictions import Floats

_CHUNK = 128


@dataclass(frozen=True, eq=False)
class Resamples:
    """Bootstrap draws of n examples with replacement, as counts.

    Attributes:
        counts_RN: how often each example is in each resample, uint8 (for n > 255 a count above 255
            has a probability below 1e-500).
    """

    counts_RN: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.counts_RN)

    @property
    def n(self) -> int:
        """Number of examples."""
        return int(self.counts_RN.shape[1])

    def sums(self, terms_NT: Floats) -> Floats:
        """Sums of the terms over each resample, shape (R, T), float64."""
        sums = []
        for start in range(0, len(self), _CHUNK):
            counts = self.counts_RN[start : start + _CHUNK].astype(np.float64)
            sums.append(counts @ terms_NT)
        return np.concatenate(sums)


def draw_resamples(n: int, *, root: int, part: str, num_resamples: int = 1000) -> Resamples:
    """The bootstrap draws of one part of a dataset, the same ones on every call.

    Args:
        n: number of examples in the part.
        root: the study's root seed.
        part: the part's name; validation and test have draws of their own.
        num_resamples: R.

    Raises:
        DataError: there are no examples.
    """
    if n < 1:
        raise DataError(f"{part}: found no examples, expected at least one to evaluate on")
    generator = np.random.default_rng(rng.seed(root, "bootstrap", part))
    counts = np.empty((num_resamples, n), np.uint8)
    for row in counts:
        row[:] = np.bincount(generator.integers(n, size=n), minlength=n)
    return Resamples(counts)
