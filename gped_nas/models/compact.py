"""Remove dead groups physically: the network that is left computes what the masked one computed.

A unit whose incoming weights are all zero still sends the constant relu(bias) to the layer that reads it.
That constant is folded into the reader's bias, so removal changes no output beyond rounding.
"""

import torch
from torch import Tensor

from gped_nas.models.base import FAMILIES, Group, Params


def dead_units(params: Params, group: Group) -> Tensor:
    """Boolean mask, one entry a unit: all incoming weights are exactly zero."""
    return params[group.weight].flatten(1).eq(0).all(1)


def compact(family: str, params: Params) -> Params:
    """The parameters without dead units, their constants folded forward.

    A layer keeps at least one unit, so that the network keeps its depth; a kept dead unit costs little and
    changes nothing.

    Args:
        family: name of the family that owns the parameters.
        params: parameters by name, on any device.

    Returns:
        New parameters; layers without dead units share storage with the old ones.
    """
    left = dict(params)
    shapes = {name: tuple(p.shape) for name, p in params.items()}
    for group in FAMILIES[family].groups(shapes):
        dead = dead_units(left, group)
        if bool(dead.all()):
            dead = dead.clone()
            dead[0] = False
        if not bool(dead.any()):
            continue
        alive = ~dead
        constant = left[group.bias][dead].relu()
        reader = left[group.reader]
        # In float64: a wide layer's sum of constants would otherwise lose the 1e-6 that removal promises.
        folded = reader[:, dead].double() @ constant.double()
        left[group.reader_bias] = (left[group.reader_bias].double() + folded).to(reader.dtype)
        left[group.reader] = reader[:, alive]
        left[group.weight] = left[group.weight][alive]
        left[group.bias] = left[group.bias][alive]
    return left


def num_dead_units(family: str, params: Params) -> int:
    """How many units ``compact`` could remove if no layer had to keep one."""
    shapes = {name: tuple(p.shape) for name, p in params.items()}
    return sum(int(torch.count_nonzero(dead_units(params, g))) for g in FAMILIES[family].groups(shapes))
