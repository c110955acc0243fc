"""Remove dead units: what pruning left as zeros is not stored, counted or computed.

A unit whose penalized rows are all zero still sends a constant to the layer that reads it: what its
activation makes of its bias, or nothing where it has no bias of its own. That constant is folded
into the reader's bias, so removal changes no output beyond rounding; the reader adds it up at every
place that it looks at, which is why a reader must see nothing but units there (no zero padding).
"""

import torch
from torch import Tensor

from gped_nas.models.activations import activate
from gped_nas.models.base import FAMILIES, Group, Params, shapes_of


def dead_units(params: Params, group: Group) -> Tensor:
    """Boolean mask, one entry a unit: all its penalized rows are exactly zero."""
    masks = [_rows(params[name]).eq(0).all(1) for name in group.weights]
    return torch.stack(masks).all(0)


def _rows(param: Tensor) -> Tensor:
    return param.reshape(len(param), -1)


def _blocks(reader: Tensor, num_units: int) -> Tensor:
    """A reader's columns by the unit that they read: (outputs, units, columns of a unit, ...)."""
    return reader.reshape(len(reader), num_units, -1, *reader.shape[2:])


def compact(family: str, params: Params) -> Params:
    """The parameters without dead units, their constants folded forward.

    A layer keeps at least one unit, so that the network keeps its depth; a kept dead unit costs
    little and changes nothing.

    Args:
        family: name of the family that owns the parameters.
        params: parameters by name, on any device.

    Returns:
        New parameters; layers without dead units share storage with the old ones.
    """
    compacted = dict(params)
    shapes = shapes_of(params)

    for group in FAMILIES[family].groups(shapes):
        dead = dead_units(compacted, group)
        if bool(dead.all()):
            dead = dead.clone()
            dead[0] = False
        if not bool(dead.any()):
            continue

        # before the units go: what they send is read from their own biases
        if group.constant is not None:
            _fold(compacted, group, dead)

        alive = ~dead
        for name in group.readers:
            compacted[name] = _blocks(compacted[name], len(dead))[:, alive].flatten(1, 2)
        for name in group.rows:
            compacted[name] = compacted[name][alive]

    return compacted


def _fold(params: Params, group: Group, dead: Tensor) -> None:
    """Put what the dead units send their reader into its bias."""
    assert group.constant is not None
    bias, reader_bias = group.constant
    (reader_name,) = group.readers
    reader = params[reader_name]

    # in float64: a wide layer's sum of constants would otherwise lose the 1e-6 that removal
    # promises
    weight = _blocks(reader, len(dead))[:, dead].double().flatten(2).sum(2)
    constant = activate(bias, params[bias][dead])
    folded = weight @ constant.double()
    params[reader_bias] = (params[reader_bias].double() + folded).to(reader.dtype)


def num_dead_units(family: str, params: Params) -> int:
    """How many units ``compact`` could remove if no layer had to keep one."""
    shapes = shapes_of(params)
    groups = FAMILIES[family].groups(shapes)
    return sum(int(torch.count_nonzero(dead_units(params, group))) for group in groups)
