"""The Square attack: random search that asks for answers alone, so that no gradient can mislead it.

An input's change is painted in windows, squares of a picture or a random set of a table's columns.
A window is kept where the label's lead shrinks, and windows get smaller.

Source: Andriushchenko, Croce, Flammarion & Hein 2020, arXiv:1912.00049, algorithms 1 to 3. Where it
differs: columns of tables, and the shape of a bump in L2, a pyramid of two halves of opposite sign.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from gped_nas.evaluate.attacks.average import Aim, Average, margin
from gped_nas.evaluate.attacks.ball import Ball, lengths
from gped_nas.evaluate.attacks.steps import Best

_FIRST_SHARE = 0.8
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries."""


class Window(NamedTuple):
    """A window of each input.

    Attributes:
        inside: whether a number is in it, (N, *input_shape) or of a shape that meets it.
        other: likewise of a second window, whose change the first one may take over in L2.
        paint: what is painted: 1 or -1 in a box; in L2 a bump of length 1.
    """

    inside: Tensor
    other: Tensor
    paint: Tensor


class _Painter(Protocol):
    def begin(self, generator: Generator) -> Tensor: ...

    def window(self, share: float, generator: Generator) -> Window: ...


def square(
    average: Average,
    ball: Ball,
    aim: Aim,
    generator: Generator,
    *,
    queries: int,
    is_wanted_N: Tensor | None = None,
) -> Best:
    """The best inputs that so many queries find.

    Draws are made for all inputs at each query, so that nobody's answers change them; only inputs
    that are still answered rightly are asked about.

    Args:
        average: who is asked.
        ball: where; of all inputs.
        aim: their labels.
        generator: of the windows.
        queries: how many an input.
        is_wanted_N: which inputs are asked about; all of them by default.
    """
    painter: _Painter = _Pictures(ball) if ball.center.dim() == 4 else _Columns(ball)
    change = painter.begin(generator).to(ball.center)
    best = Best(*_asked(average, ball, change, aim))

    for i in range(queries - 1):
        window = painter.window(_share(i, queries), generator)
        is_active_N = best.rank_N <= 0
        if is_wanted_N is not None:
            is_active_N &= is_wanted_N
        active = is_active_N.nonzero().squeeze(1)
        if not len(active):
            break

        painted = _painted(change[active], _at(window, active, ball.center), ball.norm)
        x, rank = _asked(average, ball.at(active), painted, aim.at(active))
        is_better = rank > best.rank_N[active]
        kept = active[is_better]
        change[kept] = painted[is_better]
        best.x[kept] = x[is_better]
        best.rank_N[kept] = rank[is_better]
    return best


def _asked(average: Average, ball: Ball, change: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
    """The inputs of a change in shares of the radius, and how well they do."""
    x = ball.project(ball.center + ball.times_unit(ball.radius) * change)
    return x, margin(average.log_prob(x), aim)


def _painted(change: Tensor, window: Window, norm: str) -> Tensor:
    """A change with its window painted anew; of length 1 at most in L2."""
    if norm == "linf":
        return torch.where(window.inside, window.paint, change)

    # what both windows hold, and what is not used of the radius, goes into the first one
    rest = torch.where(window.inside | window.other, 0.0, change)
    left = (1 - rest.flatten(1).square().sum(1)).clamp(min=0).sqrt()
    earlier = torch.where(window.inside, change, 0.0)
    mixed = window.paint + earlier / lengths(earlier)
    mixed = torch.where(window.inside, mixed, 0.0)
    return rest + mixed / lengths(mixed) * left.view(-1, *[1] * (change.dim() - 1))


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Squares of pictures (N, channels, height, width)."""

    ball: Ball

    def begin(self, generator: Generator) -> Tensor:
        """Stripes of one pixel, each up or down."""
        num, channels, height, width = self.ball.center.shape
        signs = _signs((num, channels, 1, width), generator).expand(-1, -1, height, -1).clone()
        return signs if self.ball.norm == "linf" else signs / lengths(signs)

    def window(self, share: float, generator: Generator) -> Window:
        num, channels, height, width = self.ball.center.shape
        side = min(max(1, round(math.sqrt(share * height * width))), height, width)
        place_N4 = torch.rand((num, 4), generator=generator)
        signs = _signs((num, channels, 1, 1), generator)

        first = self._square(place_N4[:, :2], side)
        second = self._square(place_N4[:, 2:], side)
        if self.ball.norm == "linf":
            return Window(first >= 0, second >= 0, signs)

        bump = torch.where(first >= 0, first + 1, 0.0) * self._halves(place_N4[:, :2], side)
        bump = bump * signs
        return Window(first >= 0, second >= 0, bump / lengths(bump))

    def _square(self, place_N2: Tensor, side: int) -> Tensor:
        """How far inside a square each pixel is, (N, 1, height, width); below 0 outside."""
        depths = []
        for axis, length in enumerate(self.ball.center.shape[2:]):
            corner_N1 = (place_N2[:, axis : axis + 1] * (length - side + 1)).floor()
            at = torch.arange(length)
            depths.append(torch.minimum(at - corner_N1, corner_N1 + side - 1 - at))
        return torch.minimum(depths[0][:, :, None], depths[1][:, None, :])[:, None]

    def _halves(self, place_N2: Tensor, side: int) -> Tensor:
        """1 and -1 in the upper and the lower half of each square."""
        height = self.ball.center.shape[2]
        corner_N1 = (place_N2[:, :1] * (height - side + 1)).floor()
        is_lower = torch.arange(height) >= corner_N1 + (side + 1) // 2
        return torch.where(is_lower, -1.0, 1.0)[:, None, :, None]


@dataclass(frozen=True, eq=False)
class _Columns:
    """Random sets of columns of a table (N, D)."""

    ball: Ball

    def begin(self, generator: Generator) -> Tensor:
        """Each column up or down."""
        signs = _signs(self.ball.center.shape, generator)
        return signs if self.ball.norm == "linf" else signs / lengths(signs)

    def window(self, share: float, generator: Generator) -> Window:
        shape = self.ball.center.shape
        num_inside = max(1, round(share * shape[1]))
        order = torch.rand(shape, generator=generator).argsort(1).argsort(1)
        signs = _signs(shape, generator)

        inside = order < num_inside
        other = (order >= num_inside) & (order < 2 * num_inside)
        if self.ball.norm == "linf":
            return Window(inside, other, signs)
        bump = torch.where(inside, signs, 0.0)
        return Window(inside, other, bump / lengths(bump))


def _share(i: int, queries: int) -> float:
    """The share of an input that a window covers at query ``i``."""
    at = i * 10_000 / queries
    num_halved = sum(at > limit for limit in _HALVED_AFTER)
    return _FIRST_SHARE * 0.5**num_halved


def _at(window: Window, index: Tensor, like: Tensor) -> Window:
    """The windows of some inputs, where the inputs are."""
    place = index.cpu()
    return Window(
        window.inside[place].to(like.device),
        window.other[place].to(like.device),
        window.paint[place].to(like),
    )


def _signs(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return 2.0 * torch.randint(0, 2, tuple(shape), generator=generator) - 1
