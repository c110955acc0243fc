"""Where an attack may go: so far from each input, and no further than the data's own range."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor

from gped_nas.data.scale import Scale

Norm = Literal["linf", "l2"]


@dataclass(frozen=True, eq=False)
class Ball:
    """The inputs within a radius of each of N inputs.

    A distance is that of inputs divided by the data's scale: of pictures by their range, of a table
    each column by its deviation. A column that never varied is left alone.

    Attributes:
        center: the inputs, (N, *input_shape), raw.
        radius: a share of the scale.
        norm: of a distance: the largest share, or the root of the sum of squared ones.
        unit: what a share of 1 is; meets ``center``. One with as many axes has a row an input.
        low, high: the data's range. An input that is outside may stay there.
    """

    center: Tensor
    radius: float
    norm: Norm
    unit: Tensor
    low: float
    high: float

    def at(self, index: Tensor) -> "Ball":
        """That of some inputs."""
        is_by_input = self.unit.dim() == self.center.dim()
        unit = self.unit[index] if is_by_input else self.unit
        return replace(self, center=self.center[index], unit=unit)

    def of_radius(self, radius: float) -> "Ball":
        """A larger or smaller one."""
        return replace(self, radius=radius)

    def direction(self, gradient: Tensor, size: float = 1.0) -> Tensor:
        """The step along a gradient whose length is a share of the scale."""
        if self.norm == "linf":
            return self.times_unit(size) * gradient.sign()
        return self.times_unit(size) * _directions(gradient * self.unit)

    def project(self, x: Tensor) -> Tensor:
        """The nearest inputs inside."""
        if self.norm == "linf":
            reach = self.times_unit(self.radius)
            x = torch.minimum(torch.maximum(x, self.center - reach), self.center + reach)
        else:
            moved = self.shares(x)
            length = lengths(moved)
            x = self.center + moved * (self.radius / length).clamp(max=1) * self.unit
        low = self.center.clamp(max=self.low)
        high = self.center.clamp(min=self.high)
        return torch.minimum(torch.maximum(x, low), high)

    def shares(self, x: Tensor) -> Tensor:
        """How far inputs are from their centers, in shares of the scale."""
        inverse = torch.where(self.unit > 0, 1 / self.unit, 0.0)
        return ((x - self.center) * inverse).nan_to_num(0.0)  # of a missing number

    def starts(self, generator: Generator) -> Tensor:
        """Random inputs inside: uniform in a box, or along a random direction."""
        shape = self.center.shape
        if self.norm == "linf":
            shares = 2 * torch.rand(shape, generator=generator) - 1
        else:
            direction = _directions(torch.randn(shape, generator=generator))
            length = torch.rand(len(self.center), generator=generator)
            shares = direction * length.view(-1, *[1] * (len(shape) - 1))
        shares = shares.to(self.center)
        return self.project(self.center + self.times_unit(self.radius) * shares)

    def times_unit(self, share: float) -> Tensor:
        """A share of the scale in the data's own unit."""
        # rounded once, as a plain loop's `epsilon * width` is
        return (share * self.unit.double()).to(self.center.dtype)


def ball_around(raw: Tensor, scale: Scale, radius: float, norm: Norm) -> Ball:
    """The inputs within a share of a scale of raw ones (N, *input_shape)."""
    low, high = scale.bounds
    return Ball(raw, radius, norm, scale.unit(raw), low, high)


def lengths(x: Tensor) -> Tensor:
    """The Euclidean length of each row, of a shape that meets ``x``; never 0."""
    length: Tensor = x.flatten(1).norm(dim=1).clamp(min=1e-12)
    return length.view(-1, *[1] * (x.dim() - 1))


def _directions(x: Tensor) -> Tensor:
    """Each row with length 1; a zero row stays one."""
    return x / lengths(x)
