"""Bootstrap draws of the examples of a part, made once and shared by every predictor.

Sums over them are most of what an evaluation computes. A device takes them where one is given: the
draws are the same, sums are added up in another order, and all is float64.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
        device: where sums are taken by torch; None takes them here, by numpy.
    """

    counts_RN: NDArray[np.uint8]
    device: torch.device | None = None

    def __len__(self) -> int:
        return len(self.counts_RN)

    @property
    def n(self) -> int:
        """Number of examples."""
        return int(self.counts_RN.shape[1])

    def sums(self, terms_NT: Floats) -> Floats:
        """Sums of the terms over each resample, shape (R, T), float64."""
        if self.device is not None:
            sums_RT: Floats = (self._on_device_RN @ self._moved(terms_NT)).cpu().numpy()
            return sums_RT

        sums = []
        counts = np.empty((min(_CHUNK, len(self)), self.n))
        for start in range(0, len(self), _CHUNK):
            rows = self.counts_RN[start : start + _CHUNK]
            # one block for all: fresh memory for each costs as much as the cast
            block = counts[: len(rows)]
            block[:] = rows
            sums.append(block @ terms_NT)
        return np.concatenate(sums)

    def t_ends(self, centered_NQ: Floats, variance_Q: Floats, rank: int) -> tuple[Floats, Floats]:
        """How far the resamples' means are away, in standard errors of each: two ends, both (Q,).

        They are the ``rank``-th least and the ``rank``-th greatest one; infinite or NaN where too
        few values differ from the rest to know their spread.

        Args:
            centered_NQ: values, less their mean.
            variance_Q: of each.
            rank: from 1.
        """
        if self.device is not None:
            return self._t_ends_on_device(centered_NQ, variance_Q, rank)

        # Mean and variance in all resamples of all values are one matrix product.
        sums = self.sums(np.hstack([centered_NQ, np.square(centered_NQ)])) / self.n
        mean_RQ, square_RQ = np.split(sums, 2, axis=1)
        variance_RQ = square_RQ - np.square(mean_RQ)

        # A resample without spread lies infinitely many of its own standard errors away.
        variance_RQ[variance_RQ <= 1e-12 * variance_Q] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            t_RQ = mean_RQ / np.sqrt(variance_RQ / self.n)
        t_RQ[mean_RQ == 0] = 0.0

        num = len(self)
        ordered = np.partition(t_RQ, (rank - 1, num - rank), axis=0)
        return ordered[rank - 1], ordered[num - rank]

    def _t_ends_on_device(
        self, centered_NQ: Floats, variance_Q: Floats, rank: int
    ) -> tuple[Floats, Floats]:
        """The same by torch."""
        values_NQ, variance = self._moved(centered_NQ), self._moved(variance_Q)
        sums = self._on_device_RN @ torch.cat([values_NQ, values_NQ.square()], 1) / self.n
        mean_RQ, square_RQ = sums.chunk(2, 1)
        variance_RQ = square_RQ - mean_RQ.square()

        variance_RQ = torch.where(variance_RQ <= 1e-12 * variance, 0.0, variance_RQ)
        t_RQ = mean_RQ / (variance_RQ / self.n).sqrt()
        ordered = torch.where(mean_RQ == 0, 0.0, t_RQ).sort(0).values
        ends_2Q = ordered[[rank - 1, len(self) - rank]].cpu().numpy()
        return ends_2Q[0], ends_2Q[1]

    @cached_property
    def _on_device_RN(self) -> Tensor:
        return torch.from_numpy(self.counts_RN).to(self.device).double()

    def _moved(self, values: Floats) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float64)).to(self.device)


def draw_resamples(
    n: int,
    *,
    root: int,
    part: str,
    num_resamples: int = 1000,
    device: torch.device | None = None,
) -> Resamples:
    """The bootstrap draws of one part of a dataset, the same ones on every call.

    Args:
        n: number of examples in the part.
        root: the study's root seed.
        part: the part's name; validation and test have draws of their own.
        num_resamples: R.
        device: see ``Resamples``.

    Raises:
        DataError: there are no examples.
    """
    if n < 1:
        raise DataError(f"{part}: found no examples, expected at least one to evaluate on")
    generator = np.random.default_rng(rng.seed(root, "bootstrap", part))
    counts = np.empty((num_resamples, n), np.uint8)
    for row in counts:
        row[:] = np.bincount(generator.integers(n, size=n), minlength=n)
    return Resamples(counts, device)
