"""Centred hidden units: fully connected students are trained on what their units differ from their
means by.

A layer that reads hidden units with activations a and means c is the same function in both forms:

    W a + b  =  W (a - c) + (b + W c)

A ReLU's activations are never negative, so a change of a plain weight moves the output at every
input in one direction, which is the bias's to do; read less their means, units and bias are learnt
apart. The means are of a student's own units over distillation inputs, taken at the start of each
phase and kept for all of it; what is stored, pruned and exported reads plain activations.

Source: LeCun et al. 1998, "Efficient BackProp", section 4.3; Schraudolph 1998, "Centering Neural
Network Gradient Factors".
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from gped_nas.errors import ConfigError
from gped_nas.models.base import Params

FAMILY = "mlp"
"""The one family whose layers read each unit in one place."""
_SEEN = 1_000
"""Inputs that means are taken over, at equal distances."""

Centres = tuple[Tensor, ...]
"""For each hidden layer the means (units,) that are taken off its activations; empty where none
are.
"""


def unit_means(params: Params, inputs: Tensor, dtype: torch.dtype) -> Centres:
    """The centres of a student, numbers that ``dtype`` holds.

    Args:
        params: float32 parameters that read plain activations.
        inputs: distillation inputs (M, D).
        dtype: what a step computes in.
    """
    # as a step reads them
    hidden = inputs[:: max(1, len(inputs) // _SEEN)].flatten(1).to(dtype).float()
    centres = []
    for i in range(len(params) // 2 - 1):
        hidden = torch.addmm(
            params[f"layers.{i}.bias"], hidden, params[f"layers.{i}.weight"].T
        ).relu()
        mean = (
            hidden.double().mean(0).float()
        )  # exact for a unit that is constant, so that nothing is left of it
        centres.append(mean.to(dtype).float())
    return tuple(centres)


def enter(params: Params, centres: Centres) -> Params:
    """Parameters of the same function that read centred activations."""
    return _moved(params, centres, 1.0)


def leave(params: Params, centres: Centres) -> Params:
    """Parameters of the same function that read plain activations."""
    return _moved(params, centres, -1.0)


def _moved(params: Params, centres: Centres, sign: float) -> Params:
    moved = dict(params)
    for i, centre in enumerate(centres, 1):
        bias, weight = params[f"layers.{i}.bias"], params[f"layers.{i}.weight"]
        moved[f"layers.{i}.bias"] = (bias.double() + sign * (weight.double() @ centre.double())).to(
            bias.dtype
        )
    return moved


def check_centred(centred: bool, families: Iterable[str], where: str) -> None:
    """Refuse to centre students that cannot be.

    Raises:
        ConfigError: a family that reads pictures.
    """
    for family in families if centred else ():
        if family != FAMILY:
            raise ConfigError(
                f"{where}: found true with students of family {family}, expected false: only "
                f"{FAMILY} is"
            )
