"""Bounds of linear forms of a network's raw outputs, for every input of a box.

* ``ibp``: intervals are carried through the layers.
* ``crown_ibp``: a linear form is carried back to the inputs, with the intervals of ``ibp`` for what
  lies between.
* ``crown``: the same, and the intervals of every layer but the first are made so, too.

Everything is float64 and sound: in real arithmetic, and for what float32 computes of the same
network. Let ``x`` be what a layer in fact computes from what the one before computed. Then
``|x - (W x' + b)| <= e`` with ``e = gamma(n) (|W| |x'| + |b|)``; so ``e`` widens the intervals, and
a form with coefficients ``a`` over the layer's outputs loses ``|a| e`` on its way back. With the
``gamma`` of float64 the same term covers the rounding of this computation itself: a coefficient
that is off by ``gamma(n) |a| |W|`` changes a form by no more than ``gamma(n) |a| (|W| |x'|)``.

Source: Gowal et al. 2018, arXiv:1810.12715 (intervals); Zhang et al. 2018, arXiv:1811.00866, and
2020, arXiv:1906.06316 (backward).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Literal

import torch
from torch import Tensor

from gped_nas.errors import ConfigError, DataError
from gped_nas.evaluate.certify.relaxation import (
    RELAXATIONS,
    Relaxation,
    dot,
    may_bend,
    relax,
    roundings,
)
from gped_nas.evaluate.certify.rounding import FLOAT32, TINY, UNIT, RunTime, gamma
from gped_nas.models.elementary import Activation, Affine, Elementary, MaxPool, Shape

Bounds = Literal["ibp", "crown_ibp", "crown"]
"""How bounds are made, see the module docstring."""

_NUMBERS = 2**21
"""Coefficients in memory at a time: 16 MiB, of which there are a few copies."""


@dataclass(eq=False)
class Node:
    """A layer with what is known of it in B boxes.

    Attributes:
        layer: the layer.
        input_shape: of one of its inputs.
        low, high: between which each output lies as computed, (B, *output_shape).
        middle: what an affine layer makes of the middle of its inputs.
        error: how far what is computed may be from the layer of its computed inputs; None where it
            is that.
        relaxation: of a layer that bends.
        magnitude: of a layer that bends, of each input at most; of an affine one, of each output
            and of what is added up for it.
    """

    layer: Elementary
    input_shape: Shape
    low: Tensor
    high: Tensor
    middle: Tensor | None = None
    error: Tensor | None = None
    relaxation: Relaxation | None = None
    magnitude: Tensor | None = None


def bound(
    layers: Sequence[Elementary],
    low: Tensor,
    high: Tensor,
    forms: Tensor,
    *,
    bounds: Bounds = "crown",
    run_time: RunTime = FLOAT32,
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds (B, R) of linear forms of the outputs, float64.

    Args:
        layers: from inputs to raw outputs.
        low, high: the boxes, (B, *input_shape).
        forms: R rows over the raw outputs, (R, U) or (B, R, U).
        bounds: how they are made.
        run_time: what the network is run in.

    Raises:
        ConfigError: a layer has no bounds.
        DataError: a box is none.
    """
    both = torch.cat([forms, -forms], dim=-2)
    lower = lower_bound(layers, low, high, both, bounds=bounds, run_time=run_time)
    num = forms.shape[-2]
    return lower[:, :num], -lower[:, num:]


@torch.no_grad()
def lower_bound(
    layers: Sequence[Elementary],
    low: Tensor,
    high: Tensor,
    forms: Tensor,
    *,
    bounds: Bounds = "crown",
    run_time: RunTime = FLOAT32,
) -> Tensor:
    """The lower one of ``bound`` alone, (B, R); minus infinity where nothing can be said."""
    check_layers(layers)
    check_box(low, high)
    forms = forms.double().expand(len(low), *forms.shape[-2:])
    num_together = max(1, _NUMBERS // (forms.shape[1] * _widest(layers, tuple(low.shape[1:]))))

    parts = []
    for rows in _batches(len(low), num_together):
        nodes = propagate(layers, low[rows], high[rows], bounds=bounds, run_time=run_time)
        part = _lower_of_intervals(nodes, low[rows], high[rows], forms[rows])
        if bounds != "ibp":
            # lines may be worse than intervals, which cost nothing beside them
            part = part.fmax(pull_back(nodes, low[rows], high[rows], forms[rows]))
        part[_overflows(nodes, run_time)] = -inf
        parts.append(part)
    lower = torch.cat(parts) if parts else low.new_zeros((0, forms.shape[1])).double()
    return lower.nan_to_num(nan=-inf, posinf=-inf, neginf=-inf)


def propagate(
    layers: Sequence[Elementary],
    low: Tensor,
    high: Tensor,
    *,
    bounds: Bounds = "crown",
    run_time: RunTime = FLOAT32,
) -> list[Node]:
    """What is known of each layer in B boxes: a node a layer, see ``Node``.

    Arguments are as for ``bound``.
    """
    low, high = low.double(), high.double()
    box = low, high
    nodes: list[Node] = []
    for layer in layers:
        shape = tuple(low.shape[1:])
        if isinstance(layer, Affine):
            node = _affine_node(layer, shape, low, high, run_time)
        else:
            if bounds == "crown" and _is_behind_the_first(nodes):
                _tighten(nodes, *box, behind=layer)
                low, high = nodes[-1].low, nodes[-1].high
            node = _bent_node(layer, shape, low, high, run_time)
        nodes.append(node)
        low, high = node.low, node.high
    return nodes


def pull_back(nodes: Sequence[Node], low: Tensor, high: Tensor, forms: Tensor) -> Tensor:
    """Lower bounds (B, R) of forms over the outputs of the last node, by going back to the box.

    Args:
        nodes: from the first layer on, as ``propagate`` gives them.
        low, high: the boxes, (B, *input_shape).
        forms: (B, R, *output_shape), or with 1 in place of B.
    """
    nodes, low, high = _from_a_box(nodes, low.double(), high.double())
    center, radius = (low + high) / 2, (high - low) / 2
    num_terms = 2 * prod(forms.shape[2:]) + 64
    num_terms += sum(2 * prod(node.input_shape) for node in nodes)
    rounding = gamma(num_terms, UNIT)

    shift = slack = low.new_zeros(())
    is_centered = False
    for node in reversed(nodes):
        if node.error is not None:
            slack = slack + dot(forms.abs(), node.error)
        if isinstance(node.layer, Affine):
            # what the first layer makes of the center is known: no form goes back for it
            is_centered = node is nodes[0]
            offset = node.middle if is_centered else _offset(node)
            if offset is not None:
                shift = shift + dot(forms, offset)
            back = node.layer.transposed(forms.flatten(0, 1), node.input_shape)
            forms = back.view(*forms.shape[:2], *node.input_shape)
        else:
            assert node.relaxation is not None and node.magnitude is not None
            pulled = node.relaxation.pull(forms)
            forms = pulled.forms
            shift = shift + pulled.shift
            slack = slack + rounding * (pulled.sizes + dot(forms.abs(), node.magnitude))

    if not is_centered:
        shift = shift + dot(forms, center)
    reach = radius + rounding * (center.abs() + radius)
    value = shift - dot(forms.abs(), reach)
    return value - slack * (1 + 1e-6) - value.abs() * (4 * UNIT) - TINY


def _from_a_box(
    nodes: Sequence[Node], low: Tensor, high: Tensor
) -> tuple[Sequence[Node], Tensor, Tensor]:
    """The nodes behind those that keep numbers apart, and the box that they are given."""
    num = 0
    for node in nodes:
        if not (isinstance(node.layer, Affine) and node.layer.keeps_apart):
            break
        low, high = node.low, node.high
        num += 1
    return nodes[num:], low, high


def _offset(node: Node) -> Tensor | None:
    """The bias of an affine layer at each of its outputs, (1, *output_shape)."""
    assert isinstance(node.layer, Affine)
    bias = node.layer.bias
    return None if bias is None else bias.expand(node.low.shape[1:])[None]


def check_layers(layers: Sequence[Elementary]) -> None:
    """Refuse layers that have no bounds.

    Raises:
        ConfigError: one has none; it is named.
    """
    for layer in layers:
        is_known = isinstance(layer, Affine | Activation | MaxPool)
        if not is_known:
            raise ConfigError(
                f"found the layer {type(layer).__name__}, expected one that has bounds: affine "
                "ones, activations, maximum pooling; take networks of these to be certified"
            )
        if isinstance(layer, Activation) and layer.name not in RELAXATIONS:
            raise ConfigError(
                f"found the activation '{layer.name}', expected one that has bounds: "
                f"{', '.join(RELAXATIONS)}; take networks of these to be certified"
            )


def check_box(low: Tensor, high: Tensor) -> None:
    """Refuse boxes that are none.

    Raises:
        DataError: an end is not finite, or the low one is above the high one.
    """
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise DataError(
            "found a box with an end that is no finite number, expected finite ends; fill in what "
            "is missing"
        )
    if bool((low > high).any()):
        raise DataError("found a box whose low end is above its high one; exchange the two")


def _affine_node(layer: Affine, shape: Shape, low: Tensor, high: Tensor, run_time: RunTime) -> Node:
    center, radius = (low + high) / 2, (high - low) / 2
    middle = layer.forward(center)
    num_terms = layer.num_terms(shape)
    if not num_terms:
        return Node(layer, shape, layer.forward(low), layer.forward(high), middle)

    sizes = layer.absolute()
    magnitude = sizes.forward(torch.maximum(low.abs(), high.abs()))
    num_rounded = num_terms + 2 * prod(shape) + 2 * prod(middle.shape[1:]) + 64
    share = run_time.share(num_terms) + 2 * gamma(num_rounded, UNIT)
    error = magnitude * (share * (1 + 1e-6)) + run_time.least(num_terms) + TINY
    reach = sizes.linear(radius) + 2 * error
    return Node(
        layer,
        shape,
        middle - reach,
        middle + reach,
        middle,
        error,
        magnitude=magnitude,
    )


def _bent_node(
    layer: Elementary, shape: Shape, low: Tensor, high: Tensor, run_time: RunTime
) -> Node:
    least, most = layer.forward(low), layer.forward(high)
    node = Node(
        layer,
        shape,
        least,
        most,
        relaxation=relax(layer, low, high),
        magnitude=torch.maximum(low.abs(), high.abs()),
    )
    num_rounded = roundings(layer)
    if num_rounded:
        share = run_time.share(num_rounded) + gamma(num_rounded, UNIT)
        node.error = torch.maximum(least.abs(), most.abs()) * (share * (1 + 1e-6)) + TINY
        node.error = node.error + run_time.least(num_rounded)
        node.low, node.high = least - 2 * node.error, most + 2 * node.error
    return node


def _tighten(nodes: list[Node], low: Tensor, high: Tensor, *, behind: Elementary) -> None:
    """Narrow the intervals of the last node where the layer behind it may bend."""
    last = nodes[-1]
    flat_low, flat_high = last.low.flatten(1), last.high.flatten(1)
    units = may_bend(behind, last.low, last.high).flatten(1).any(0).nonzero().squeeze(1)
    if not len(units):
        return

    widest = max(prod(node.input_shape) for node in nodes)
    num_together = max(1, _NUMBERS // (2 * len(low) * max(widest, flat_low.shape[1])))
    lows, highs = flat_low.clone(), flat_high.clone()
    for part in torch.split(units, num_together):
        rows = flat_low.new_zeros((len(part), flat_low.shape[1]))
        rows[torch.arange(len(part)), part] = 1.0
        forms = torch.cat([rows, -rows]).view(1, 2 * len(part), *last.low.shape[1:])
        lower = pull_back(nodes, low, high, forms)
        lows[:, part] = torch.maximum(lows[:, part], lower[:, : len(part)])
        highs[:, part] = torch.minimum(highs[:, part], -lower[:, len(part) :])
    last.low, last.high = lows.view_as(last.low), highs.view_as(last.high)


def _is_behind_the_first(nodes: Sequence[Node]) -> bool:
    """Whether some layer bends: before that, intervals are as good as anything."""
    return any(node.relaxation is not None for node in nodes)


def _lower_of_intervals(nodes: Sequence[Node], low: Tensor, high: Tensor, forms: Tensor) -> Tensor:
    """Lower bounds (B, R) of forms over the last layer's inputs, which are an interval each.

    The last layer is joined with the form, so that what two outputs share cancels.
    """
    *before, last = nodes
    if before:
        low, high = before[-1].low, before[-1].high
    return pull_back([last], low, high, forms)


def _overflows(nodes: Sequence[Node], run_time: RunTime) -> Tensor:
    """In which boxes a number, or a part of a sum, may be larger than the largest one, (B,)."""
    reached = []
    for node in nodes:
        sizes = torch.maximum(node.low.abs(), node.high.abs()).flatten(1).amax(1)
        if node.magnitude is not None:
            sizes = torch.maximum(sizes, node.magnitude.flatten(1).amax(1))
        reached.append(sizes)
    # what is no number is not smaller
    return ~(torch.stack(reached) < run_time.largest).all(0)


def _widest(layers: Sequence[Elementary], shape: Shape) -> int:
    widest = prod(shape)
    for layer in layers:
        shape = layer.output_shape(shape)
        widest = max(widest, prod(shape))
    return widest


def _batches(num: int, num_together: int) -> list[slice]:
    return [slice(start, start + num_together) for start in range(0, num, num_together)]
