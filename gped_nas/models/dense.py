"""Chains of dense layers: fully connected networks of any family, known by their structure."""

import itertools
from math import prod

from gped_nas.models.base import Family, Group, Shapes

Chain = tuple[tuple[str, str], ...]
"""Weight and bias of every layer, from input to raw outputs.

Between layers is what their names say (``activations.py``), a ReLU by default. It is empty where a
network is anything else.
"""


def dense_chain(family: Family, shapes: Shapes) -> Chain:
    """The layers of a network that is a chain of dense layers.

    It is one if its groups say so: each has one weight and one bias, and one layer that reads it;
    ``constant`` promises that units are ReLUs, or what their names say. The last layer is the
    family's ``head``.
    """
    last = family.head(shapes)
    groups = family.groups(shapes)
    if last is None or not all(_is_dense_layer(group) for group in groups):
        return ()

    hidden = [(group.weights[0], group.rows[1]) for group in groups]
    chain = (*hidden, last)
    weights = [weight for weight, _ in chain]

    is_linked = [group.readers for group in groups] == [(weight,) for weight in weights[1:]]
    is_complete = sorted(itertools.chain(*chain)) == sorted(shapes)
    is_dense = all(len(shapes[weight]) == 2 for weight in weights)
    return chain if is_linked and is_complete and is_dense else ()


def _is_dense_layer(group: Group) -> bool:
    return len(group.rows) == 2 and group.constant is not None


def reads_rows(chain: Chain, shapes: Shapes, input_shape: tuple[int, ...]) -> bool:
    """Whether a network is a dense chain whose first layer reads each number of an input."""
    if not chain:
        return False
    weight, _ = chain[0]
    return shapes[weight][1] == prod(input_shape)
