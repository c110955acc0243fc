"""Layers that bend between two planes: bounds of each output that are linear in the inputs.

The lines of a ReLU are CROWN's: above the chord, below zero or the sum itself, whichever leaves the
smaller area. A slope may be any number; it is the shift that makes a line a bound, so shifts are
computed from the rounded slopes and rounded outward.

Source: Zhang et al. 2018, arXiv:1811.00866, section 3.2, tables 2 and 3.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.evaluate.certify.rounding import UNIT
from gped_nas.models.activations import RELU
from gped_nas.models.elementary import Activation, Elementary, MaxPool, pad_image

_OUTWARD = 1 + 8 * UNIT
_HALVINGS = 30
_FLAT = 1e-9
"""Slopes of tanh below this are taken for zero: where it turns could not be computed."""


@dataclass(frozen=True, eq=False)
class Pulled:
    """Forms over the inputs of a layer that lie below forms over its outputs.

    Attributes:
        forms: (B, R, *input_shape).
        shift: what is added to them, (B, R).
        sizes: the sum of the magnitudes of what the shift is the sum of, (B, R).
    """

    forms: Tensor
    shift: Tensor
    sizes: Tensor


class Relaxation(ABC):
    """A layer between two planes, for inputs of B ranges."""

    @abstractmethod
    def pull(self, forms: Tensor) -> Pulled:
        """Forms over the inputs below forms over the outputs, (B or 1, R, *output_shape)."""


@dataclass(frozen=True, eq=False)
class Lines(Relaxation):
    """``low_slope s + low_shift <= f(s) <= high_slope s + high_shift`` for sums s of a range.

    All are of the units' shape, (B, *shape).
    """

    low_slope: Tensor
    low_shift: Tensor
    high_slope: Tensor
    high_shift: Tensor

    def pull(self, forms: Tensor) -> Pulled:
        """See ``Relaxation.pull``."""
        positive, negative = forms.clamp(min=0), forms.clamp(max=0)
        low_sizes, high_sizes = self.low_shift.abs(), self.high_shift.abs()
        return Pulled(
            positive * self.low_slope[:, None] + negative * self.high_slope[:, None],
            dot(positive, self.low_shift) + dot(negative, self.high_shift),
            dot(positive, low_sizes) - dot(negative, high_sizes),
        )


@dataclass(frozen=True, eq=False)
class Planes(Relaxation):
    """The largest of each window: below one of its numbers, above a plane.

    Attributes:
        chosen: 1 at the number that is the plane below, (B, channels, h, side, w, side).
        slopes: of the plane above, likewise.
        shift: of the plane above, (B, channels, h, w).
        image: height and width of an image.
    """

    chosen: Tensor
    slopes: Tensor
    shift: Tensor
    image: tuple[int, int]

    def pull(self, forms: Tensor) -> Pulled:
        """See ``Relaxation.pull``."""
        positive, negative = forms.clamp(min=0), forms.clamp(max=0)
        windows = _beside(positive) * self.chosen[:, None]
        windows = windows + _beside(negative) * self.slopes[:, None]
        images = windows.flatten(5, 6).flatten(3, 4)
        return Pulled(
            pad_image(images, *self.image),
            dot(negative, self.shift),
            -dot(negative, self.shift.abs()),
        )


def relax(layer: Elementary, low: Tensor, high: Tensor) -> Relaxation:
    """The planes of a layer that bends, for inputs from ``low`` to ``high``."""
    if isinstance(layer, MaxPool):
        return relax_max(layer, low, high)
    assert isinstance(layer, Activation), "other layers are refused"
    return RELAXATIONS[layer.name].lines(low, high)


def may_bend(layer: Elementary, low: Tensor, high: Tensor) -> Tensor:
    """At which inputs (B, *shape) narrower ranges would bring the planes nearer."""
    if isinstance(layer, MaxPool):
        return _is_candidate(layer, low, high)
    assert isinstance(layer, Activation), "other layers are refused"
    if layer.name == RELU:
        return (low < 0) & (high > 0)
    return low < high


def roundings(layer: Elementary) -> int:
    """Half units in the last place by which a layer that bends is computed wrongly at most."""
    return RELAXATIONS[layer.name].roundings if isinstance(layer, Activation) else 0


def relax_relu(low: Tensor, high: Tensor) -> Lines:
    """The lines of ``max(s, 0)`` for sums from ``low`` to ``high``."""
    is_on = low >= 0
    is_off = high <= 0
    is_unstable = ~is_on & ~is_off

    chord = torch.where(is_unstable, high / (high - low), is_on.to(low)).clamp(0, 1)
    # a chord lies above a convex function if it does at both ends
    shift = torch.maximum(-chord * low, (1 - chord) * high) * _OUTWARD
    zero = torch.zeros_like(low)
    return Lines(
        low_slope=torch.where(is_unstable, (high > -low).to(low), is_on.to(low)),
        low_shift=zero,
        high_slope=chord,
        high_shift=torch.where(is_unstable, shift, zero),
    )


def relax_tanh(low: Tensor, high: Tensor) -> Lines:
    """The lines of ``tanh s`` for sums from ``low`` to ``high``.

    It is odd: the line below is that above of the range's mirror image.
    """
    high_slope = _slope_above(low, high)
    low_slope = _slope_above(-high, -low)
    return Lines(
        low_slope,
        -_shift_above(low_slope, -high, -low),
        high_slope,
        _shift_above(high_slope, low, high),
    )


def _slope_above(low: Tensor, high: Tensor) -> Tensor:
    """The slope of a good line above ``tanh`` in a range.

    It is a tangent in the middle where tanh is concave; else the tangent through the low end, or
    the chord where that touches behind the high end.
    """
    width = high - low
    at_low, at_high = low.tanh(), high.tanh()
    chord = torch.where(width > 0, (at_high - at_low) / width, 0.0)

    # (d - low) tanh'(d) falls short of tanh d - tanh low where the tangent at d is above the end
    near, far = torch.zeros_like(low), high.clamp(min=0)
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        at_middle = middle.tanh()
        is_above = (1 - at_middle.square()) * (middle - low) < at_middle - at_low
        near = torch.where(is_above, near, middle)
        far = torch.where(is_above, middle, far)

    touched = torch.where(low >= 0, (low + high) / 2, far)
    tangent = 1 - touched.tanh().square()
    is_chord = (low < 0) & (far >= high)
    slope = torch.where(is_chord, chord, tangent).clamp(0, 1)
    return torch.where(slope < _FLAT, 0.0, slope)


def _shift_above(slope: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The largest value of ``tanh s - slope s`` in a range, rounded upward.

    It is at an end, or where ``tanh' = slope`` to the right of zero. An error of that place is of
    second order in the value.
    """
    turning = torch.minimum(torch.maximum((1 - slope).sqrt().atanh(), low), high)
    values = [place.tanh() - slope * place for place in (low, high, turning)]
    largest = torch.stack(values).amax(0)
    reach = torch.maximum(low.abs(), high.abs())
    return largest + 16 * UNIT * (1 + slope * reach)


def relax_max(layer: MaxPool, low: Tensor, high: Tensor) -> Planes:
    """The planes of the largest of each window.

    With m the highest low end, ``max x <= m + sum max(x - m, 0)``, and each of these terms is below
    its chord. Where that is higher in the middle than the highest high end, this one is taken.
    """
    windows_low, windows_high = layer.windows(low), layer.windows(high)
    least, most = layer.forward(low), layer.forward(high)
    least_wide = _beside(least)

    lead = (windows_high - least_wide).clamp(min=0)
    width = windows_high - windows_low
    slopes = torch.where(lead > 0, lead / width * _OUTWARD, torch.zeros_like(lead))
    middle = least + lead.sum((3, 5)) / 2
    is_sloped = middle < most
    slopes = slopes * _beside(is_sloped)

    lost = slopes * windows_low
    shift = torch.where(is_sloped, least - lost.sum((3, 5)), most)
    sizes = least.abs() + lost.abs().sum((3, 5))
    shift = shift + sizes * (UNIT * (layer.side**2 + 8))
    return Planes(_first_of(windows_low == least_wide), slopes, shift, (low.shape[2], low.shape[3]))


def dot(forms: Tensor, numbers: Tensor) -> Tensor:
    """Sums (B, R) of forms (B or 1, R, *shape) times numbers (B or 1, *shape)."""
    rows = forms.flatten(2)
    columns = numbers.flatten(1)
    if len(rows) == 1:
        return columns @ rows[0].T
    return (rows @ columns[:, :, None]).squeeze(2)


def _is_candidate(layer: MaxPool, low: Tensor, high: Tensor) -> Tensor:
    """Which numbers may be the largest of windows where more than one may."""
    windows_high = layer.windows(high)
    can_win = windows_high > _beside(layer.forward(low))
    is_open = can_win.sum((3, 5)) > 1
    candidates = can_win & _beside(is_open)
    images = candidates.flatten(4, 5).flatten(2, 3)
    return pad_image(images, high.shape[2], high.shape[3])


def _first_of(windows: Tensor) -> Tensor:
    """1 at the first place of each window (B, channels, h, side, w, side) that is true, else 0."""
    flat = windows.transpose(3, 4).flatten(4)
    first = torch.zeros_like(flat, dtype=torch.float64)
    first.scatter_(4, flat.byte().argmax(4, keepdim=True), 1.0)
    side = windows.shape[3]
    return first.view(*first.shape[:4], side, side).transpose(3, 4)


def _beside(x: Tensor) -> Tensor:
    """Numbers (..., h, w) of windows, of a shape that meets (..., h, side, w, side)."""
    return x[..., :, None, :, None]


@dataclass(frozen=True)
class Bend:
    """An activation that has bounds.

    Attributes:
        lines: of ranges of sums.
        roundings: half units in the last place by which it is computed wrongly at most.
    """

    lines: Callable[[Tensor, Tensor], Lines]
    roundings: int


RELAXATIONS = {"relu": Bend(relax_relu, 0), "tanh": Bend(relax_tanh, 8)}
"""By the activation's name: those that have bounds."""
