"""Risks of who keeps the examples that a score is surest of, and rejects the others.

Examples are kept from the surest one on. The risk is the mean loss of those that are kept, and the
coverage is their share. Examples of equal scores are kept in every order alike: each of them has
the mean loss of all of them.

| number            | what it is                                                                  |
|-------------------|-----------------------------------------------------------------------------|
| AURC              | the mean of the risks of the first 1, 2, ... N examples                     |
| AUGRC             | the area under the losses that are kept, as a share of all N examples, by   |
|                   | trapezoids; of zeros and ones (1 - AUROC) a (1 - a) + (1 - a)^2 / 2 with a  |
|                   | the share of zeros                                                          |
| accuracy-rejection| the share of zeros among what is kept                                       |

Source: Geifman, Uziel & El-Yaniv 2019, arXiv:1805.08206, equation 3 (AURC); Traub et al. 2024,
arXiv:2407.01032, equations 5 and 6 (AUGRC); Nadeem, Zucker & Hanczar 2009, PMLR 8
(accuracy-rejection curves).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gped_nas.errors import ConfigError
from gped_nas.evaluate.predictions import Floats


@dataclass(frozen=True, eq=False)
class _Ordered:
    """Losses from the surest example on.

    Attributes:
        loss_N: their losses; of equal scores the mean.
        group_N: by example, in the order that it was given in, the place of its score among the
            distinct ones.
        first_G, last_G: of each distinct score, how many examples are surer, and with its own.
        total_G: of each distinct score, the sum of losses.
    """

    loss_N: Floats
    group_N: NDArray[np.intp]
    first_G: NDArray[np.intp]
    last_G: NDArray[np.intp]
    total_G: Floats


def _order(scores_N: Floats, losses_N: Floats) -> _Ordered:
    _, group_N, size_G = np.unique(scores_N, return_inverse=True, return_counts=True)
    total_G = np.bincount(group_N, losses_N).astype(np.float64)
    last_G = np.cumsum(size_G)
    loss_N = np.repeat(total_G / size_G, size_G)
    return _Ordered(loss_N, group_N, last_G - size_G, last_G, total_G)


def risk_coverage(scores_N: Floats, losses_N: Floats) -> tuple[Floats, Floats]:
    """Coverages 1/N, 2/N ... 1 and the risk at each, both (N,)."""
    num_kept_N = np.arange(1, len(losses_N) + 1)
    risk_N = np.cumsum(_order(scores_N, losses_N).loss_N) / num_kept_N
    return num_kept_N / len(losses_N), risk_N


def aurc(scores_N: Floats, losses_N: Floats) -> float:
    """The area under risk and coverage: the mean of all risks."""
    return float(risk_coverage(scores_N, losses_N)[1].mean())


def augrc(scores_N: Floats, losses_N: Floats) -> float:
    """The area under the generalized risk, that of all examples, and coverage."""
    n = len(losses_N)
    weight_N = n - np.arange(n) - 0.5  # an example is kept at every coverage from its own on
    return float(_order(scores_N, losses_N).loss_N @ weight_N / n**2)


def risk_rejecting(scores_N: Floats, losses_N: Floats, share: float) -> float:
    """The risk where a share of the examples, rounded down to whole ones, is rejected.

    Raises:
        ConfigError: the share is not at least 0 and below 1.
    """
    num_kept = len(losses_N) - num_rejected(len(losses_N), share)
    return float(_order(scores_N, losses_N).loss_N[:num_kept].mean())


def num_rejected(n: int, share: float) -> int:
    """How many of n examples a share is, rounded down. Raises as ``risk_rejecting``."""
    if not 0 <= share < 1:
        raise ConfigError(f"rejected share: found {share}, expected at least 0 and below 1")
    return int(share * n + 1e-9)  # .29 of 100 are 29


def aurc_pseudo(scores_N: Floats, losses_N: Floats) -> Floats:
    """Jackknife pseudo-values of the AURC, (N,), of two examples or more.

    Without an example, surer ones keep their risk. Those of equal score share the loss that is left
    to them. The risks after them are of one example and its loss less.
    """
    ordered, n = _order(scores_N, losses_N), len(losses_N)
    kept_N = np.cumsum(ordered.loss_N)
    place_N = np.arange(1, n + 1)
    harmonic = np.append(0.0, np.cumsum(1 / place_N))
    risks = np.append(0.0, np.cumsum(kept_N / place_N))
    shifted = np.append(0.0, np.cumsum(kept_N / np.maximum(place_N - 1, 1)))

    first, last = ordered.first_G[ordered.group_N], ordered.last_G[ordered.group_N]
    kept_before = np.append(0.0, kept_N)[first]
    others = last - first - 1
    left = ordered.total_G[ordered.group_N] - losses_N
    mean_left = np.divide(left, others, out=np.zeros(n), where=others > 0)
    inverse = harmonic[last - 1] - harmonic[first]

    surer = risks[first]
    equal = kept_before * inverse + mean_left * (others - first * inverse)
    after = shifted[n] - shifted[last] - losses_N * (harmonic[n - 1] - harmonic[last - 1])
    without_N = (surer + equal + after) / (n - 1)
    pseudo_N: Floats = risks[n] - (n - 1) * without_N
    return pseudo_N


def augrc_pseudo(scores_N: Floats, losses_N: Floats) -> Floats:
    """Jackknife pseudo-values of the AUGRC, (N,), of two examples or more.

    Without an example its own area is gone, and every surer one is kept at one coverage less.
    """
    ordered, n = _order(scores_N, losses_N), len(losses_N)
    first, last = ordered.first_G[ordered.group_N], ordered.last_G[ordered.group_N]
    area = augrc(scores_N, losses_N) * n**2
    own = losses_N * (n - (first + last) / 2)  # its place is the middle one of equal scores

    kept = np.append(0.0, np.cumsum(ordered.loss_N))
    equal = ordered.total_G[ordered.group_N] - losses_N
    without_N = (area - own - kept[first] - equal / 2) / (n - 1) ** 2
    pseudo_N: Floats = area / n - (n - 1) * without_N
    return pseudo_N
