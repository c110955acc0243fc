"""The expected calibration error beyond its own noise.

The plain error averages |confidence - accuracy| over bins. Noise in a bin adds to it whatever its
sign: a calibrated model with few examples has an error well above zero. Two things tell how much of
an error is noise.

* **The band of a calibrated model**: where the errors of 95 % of models would lie that have the
  same confidences and are right exactly as often as they say.
* **The debiased error** asks how large the true error would have to be for the plain one to come
  out as it did. The true gaps are taken along one direction, that of the gaps found and of the
  noise in each bin, from no gap at all. Under each length the plain error has a law, each bin being
  normal around its gap. The estimate is the error under whose law the plain one is the median, and
  the interval goes from where it is the 97.5 % quantile to where it is the 2.5 % one. It begins at
  zero where a calibrated model would have such an error too.

Source: Carpenter 1999, J. R. Stat. Soc. B 61 (test-inversion intervals); Roelofs et al. 2022,
arXiv:2012.08668 (the bias). The direction and its variances are ours.
"""

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from gped_nas import rng
from gped_nas.evaluate.intervals import TAIL, Bounds, Counts
from gped_nas.evaluate.predictions import Floats

_NUM_DRAWS = 1000
_NUM_LENGTHS = 40


@dataclass(frozen=True)
class Debiased:
    """A calibration error without its noise, and its 95 % interval."""

    value: float
    low: float
    high: float


def debias(gap_B: Floats, count_B: Floats, confidence_B: Floats) -> Debiased:
    """The debiased error of binned predictions.

    Args:
        gap_B: by bin, the sum of confidence minus correctness.
        count_B: by bin, the number of examples.
        confidence_B: by bin, the sum of confidences.
    """
    # value and interval ask one after the other
    return _debias(*(np.asarray(x, np.float64).tobytes() for x in (gap_B, count_B, confidence_B)))


@lru_cache(maxsize=16)
def _debias(*bytes_of_gap_count_confidence: bytes) -> Debiased:
    """See ``debias``; of numbers that can be looked up."""
    gap_B, count_B, confidence_B = (np.frombuffer(x) for x in bytes_of_gap_count_confidence)
    if not np.isfinite(gap_B).all():
        return Debiased(np.nan, np.nan, np.nan)

    is_used = count_B > 0
    gap_B, count_B, confidence_B = gap_B[is_used], count_B[is_used], confidence_B[is_used]
    n = count_B.sum()
    plain = np.abs(gap_B).sum() / n
    mean_B = confidence_B / count_B
    noise_B = np.sqrt(count_B * mean_B * (1 - mean_B)) / n

    # The noise has its part in the direction: gaps that are zero by luck would have none.
    direction_B = np.where(gap_B < 0, -1.0, 1.0) * (np.abs(gap_B) / n + noise_B / 2 + 1e-12)
    direction_B /= np.abs(direction_B).sum()
    longest = plain + 5 * np.sqrt(np.square(noise_B).sum()) + 0.5 / n
    length_L = np.linspace(0.0, longest, _NUM_LENGTHS)
    gap_LB = length_L[:, None] * direction_B

    # Half an example more on either side: a bin without an error still has some noise.
    accuracy_LB = np.clip(mean_B - gap_LB * n / count_B, 0.0, 1.0)
    accuracy_LB = (count_B * accuracy_LB + 0.5) / (count_B + 1)
    std_LB = np.sqrt(count_B * accuracy_LB * (1 - accuracy_LB)) / n

    noise_RB = _normal_draws(len(is_used))[:, is_used]
    plain_LR = np.zeros((_NUM_LENGTHS, _NUM_DRAWS))
    # in place: fresh memory in each turn costs as much as the numbers in it
    error_LR = np.empty_like(plain_LR)
    for b in range(len(gap_B)):
        np.multiply(std_LB[:, b, None], noise_RB[:, b], out=error_LR)
        error_LR += gap_LB[:, b, None]
        plain_LR += np.abs(error_LR, out=error_LR)

    value, low = (_solve(plain, length_L, plain_LR, share) for share in (0.5, 1 - TAIL))
    # An error below what calibrated models have half of the time is luck: it bounds nothing.
    typical = float(np.median(plain_LR[0]))
    return Debiased(value, low, _solve(max(plain, typical), length_L, plain_LR, TAIL))


def _solve(plain: float, length_L: Floats, plain_LR: Floats, share: float) -> float:
    """The length at which a share of the plain errors is at most the one that came out."""
    rank = min(int(share * (_NUM_DRAWS + 1)), _NUM_DRAWS - 1)
    quantile_L = np.partition(plain_LR, rank, axis=1)[:, rank]
    rising_L = np.maximum.accumulate(quantile_L)
    return float(np.interp(plain, rising_L, length_L)) if plain > rising_L[0] else 0.0


def interval_of_debiased(terms_NT: Floats) -> Bounds:
    """The interval of the debiased error of such terms: gaps, counts and confidences by bin."""
    debiased = debias(*np.split(terms_NT.sum(axis=0), 3))
    return Bounds(debiased.low, debiased.high)


def band_of_calibrated(count_B: Counts, confidence_B: Floats) -> tuple[float, float]:
    """Between which plain errors 95 % of calibrated models with these confidences would have.

    Args:
        count_B: by bin, the number of examples.
        confidence_B: by bin, the sum of confidences. Within a bin all are taken as their mean,
            which widens the noise by at most 4 % of its variance.
    """
    is_used = count_B > 0
    count_B, confidence_B = count_B[is_used], confidence_B[is_used]
    mean_B = np.clip(confidence_B / count_B, 0.0, 1.0)

    generator = np.random.default_rng(rng.seed(0, "band of calibrated"))
    correct_RB = generator.binomial(
        count_B.astype(np.int64), mean_B, size=(_NUM_DRAWS, len(mean_B))
    )
    plain_R = np.abs(correct_RB - confidence_B).sum(axis=1) / count_B.sum()
    low, high = np.quantile(plain_R, (TAIL, 1 - TAIL)).tolist()
    return low, high


@cache
def _normal_draws(bins: int) -> Floats:
    generator = np.random.default_rng(rng.seed(0, "debiased calibration"))
    return generator.standard_normal((_NUM_DRAWS, bins))
