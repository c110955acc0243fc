"""Chains of dense layers: fully connected networks of any family, known by their structure."""

from math import prod

from gped_nas.models.base import Family, Params, Shapes

Chain = tuple[tuple[str, str], ...]
"""Weight and bias of every layer, from input to raw outputs, with ReLU between layers; empty where
a network is anything else.
"""


def dense_chain(family: Family, shapes: Shapes) -> Chain:
    """The layers of a network that is a chain of dense layers.

    It is one if its groups say so: each has one weight and one bias, and one layer that reads it;
    ``constant`` promises that units are ReLUs. The last layer is the family's ``head``.
    """
    last = family.head(shapes)
    groups = family.groups(shapes)
    if last is None or any(len(group.rows) != 2 or group.constant is None for group in groups):
        return ()

    chain = (*((group.weights[0], group.rows[1]) for group in groups), last)
    is_linked = [group.readers for group in groups] == [(weight,) for weight, _ in chain[1:]]
    is_complete = sorted(name for layer in chain for name in layer) == sorted(shapes)
    is_dense = all(len(shapes[weight]) == 2 for weight, _ in chain)
    return chain if is_linked and is_complete and is_dense else ()


def reads_rows(chain: Chain, shapes: Shapes, input_shape: tuple[int, ...]) -> bool:
    """Whether a network is a chain of dense layers whose first one reads each number of an input."""
    return bool(chain) and shapes[chain[0][0]][1] == prod(input_shape)


def shapes_of(params: Params) -> Shapes:
    """The shapes of parameters."""
    return {name: tuple(value.shape) for name, value in params.items()}
