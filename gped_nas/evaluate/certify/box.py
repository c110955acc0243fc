"""Boxes of inputs, in the data's own unit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.data.scale import Scale
from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.attacks.ball import ball_around


@dataclass(frozen=True, eq=False)
class Box:
    """All inputs between two ends, each (N, *input_shape), float64."""

    low: Tensor
    high: Tensor

    def __len__(self) -> int:
        return len(self.low)

    def holds(self, raw: Tensor) -> Tensor:
        """Whether inputs lie in their boxes, (N,)."""
        raw = raw.double()
        return ((self.low <= raw) & (raw <= self.high)).flatten(1).all(1)


def linf_box(raw: Tensor, scale: Scale, epsilon: float) -> Box:
    """The inputs no further than a share of the scale from each of N, within the data's range.

    It holds whatever an attack of that radius may reach: the ends that float32 rounds outward, and
    an input that lies outside of a range that was only seen in training.

    Args:
        raw: (N, *input_shape).
        scale: of the data.
        epsilon: the radius.

    Raises:
        ConfigError: the radius is negative or not finite.
        DataError: an input is missing, or outside of the data's declared range.
    """
    if not 0 <= epsilon < torch.inf:
        raise ConfigError(
            f"--epsilon: found {epsilon:g}, expected a finite share of the data's range of at "
            "least 0, such as 0.03"
        )
    _check_inside(raw, scale)

    exact = raw.double()
    reach = epsilon * scale.unit(exact)
    as_attacked = ball_around(raw.float(), scale, epsilon, "linf")
    rounded_reach = as_attacked.times_unit(epsilon)
    low = torch.minimum(exact - reach, (as_attacked.center - rounded_reach).double())
    high = torch.maximum(exact + reach, (as_attacked.center + rounded_reach).double())

    lowest, highest = _ends(scale)
    low = torch.maximum(low, exact.clamp(max=lowest))
    high = torch.minimum(high, exact.clamp(min=highest))
    return Box(low, high)


def _ends(scale: Scale) -> tuple[float, float]:
    """Where inputs stay, also as float32 has these numbers."""
    lowest, highest = scale.bounds
    rounded = torch.tensor([lowest, highest], dtype=torch.float32).tolist()
    return min(lowest, rounded[0]), max(highest, rounded[1])


def _check_inside(raw: Tensor, scale: Scale) -> None:
    if bool(raw.isnan().any()):
        raise DataError(
            "found inputs with missing numbers, expected none in a box; certify inputs where "
            "nothing is missing"
        )
    lowest, highest = _ends(scale)
    is_declared = not getattr(scale, "is_seen", False)
    if is_declared and len(raw) and not lowest <= float(raw.min()) <= float(raw.max()) <= highest:
        raise DataError(
            f"found inputs from {float(raw.min()):g} to {float(raw.max()):g}, expected them within "
            f"the data's range, {lowest:g} to {highest:g}; give raw inputs in the data's own unit"
        )
