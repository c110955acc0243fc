"""Networks that are known by their log-probabilities at probe inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.errors import DataError

LEAST_LOG_PROB = -13.8
"""Nats below which distances take all log-probabilities as this one, a probability of 1e-6.

What a network says of classes that it never answers would make most of a distance otherwise.
"""


@dataclass(frozen=True, eq=False)
class Networks:
    """A set of networks at M inputs.

    Attributes:
        log_prob_SMC: log-probabilities of each, nats.
        weight_S: on any scale, not negative.
        is_drawn: whether they are draws of a law, so that what they say of it is an estimate; else
            they are the law itself: a codec that stores ten networks has ten atoms.

    Raises:
        DataError: shapes do not fit, or weights are none.
    """

    log_prob_SMC: Tensor
    weight_S: Tensor
    is_drawn: bool

    def __post_init__(self) -> None:
        shape = tuple(self.log_prob_SMC.shape)
        if len(shape) != 3 or self.weight_S.shape != shape[:1]:
            raise DataError(
                f"networks: found log-probabilities {shape}, weights "
                f"{tuple(self.weight_S.shape)}, expected (networks, inputs, classes), (networks,)"
            )
        weight_S = self.weight_S.double()
        total = float(weight_S.sum())
        if not 0 < total < float("inf") or bool((weight_S < 0).any()):
            raise DataError("networks: weights must be finite, not negative, and not all zero")
        object.__setattr__(self, "weight_S", weight_S / total)

    def __len__(self) -> int:
        return len(self.log_prob_SMC)

    @property
    def floored_SMC(self) -> Tensor:
        """Log-probabilities as distances take them, float64."""
        return self.log_prob_SMC.double().clamp_min(LEAST_LOG_PROB)

    def check_like(self, other: "Networks") -> None:
        """Refuse networks that were asked at other inputs.

        Raises:
            DataError: inputs or classes are not as many.
        """
        mine, theirs = self.log_prob_SMC.shape[1:], other.log_prob_SMC.shape[1:]
        if mine != theirs:
            raise DataError(
                f"networks: found {tuple(mine)} and {tuple(theirs)} inputs and classes, expected "
                "the same of both sets"
            )


def distances(first: Networks, second: Networks) -> Tensor:
    """How far each network of one set is from each of another one, (S, S') float64, nats.

    It is the root of the mean over inputs of the squared differences of log-probabilities, summed
    over classes; see ``LEAST_LOG_PROB``.

    Raises:
        DataError: they were asked at other inputs.
    """
    first.check_like(second)
    num_inputs = first.log_prob_SMC.shape[1]
    # not by products: networks that are nearly equal would be rounding apart
    distance: Tensor = torch.cdist(
        first.floored_SMC.flatten(1),
        second.floored_SMC.flatten(1),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    return distance.div(num_inputs**0.5)
