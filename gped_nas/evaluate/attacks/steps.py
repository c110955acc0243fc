"""Attacks that follow the gradient: FGSM, PGD and APGD, on inputs that are all attacked.

Each gives the best inputs that it met, by ``Slope.rank_N``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.evaluate.attacks.average import Aim, Average, Loss, Slope
from gped_nas.evaluate.attacks.ball import Ball

_MOMENTUM = 0.75
_SHARE_OF_RISES = 0.75
_FIRST_WINDOW, _WINDOW_SHRINKS, _SHORTEST_WINDOW = 22, 3, 6


@dataclass(eq=False)
class Best:
    """The best inputs so far.

    Attributes:
        x: (N, *input_shape).
        rank_N: see ``Slope``.
    """

    x: Tensor
    rank_N: Tensor

    def offer(self, x: Tensor, rank_N: Tensor) -> None:
        """Take what is better."""
        is_better = rank_N > self.rank_N
        self.x = torch.where(_meeting(is_better, x), x, self.x)
        self.rank_N = torch.where(is_better, rank_N, self.rank_N)


def fgsm(average: Average, ball: Ball, loss: Loss, aim: Aim) -> Tensor:
    """Inputs after one step of the radius from each center.

    Source: Goodfellow, Shlens & Szegedy 2015, arXiv:1412.6572.
    """
    gradient = average.slope(ball.center, loss, aim).gradient
    return ball.project(ball.center + ball.direction(gradient, ball.radius))


def pgd(
    average: Average,
    ball: Ball,
    loss: Loss,
    aim: Aim,
    start: Tensor,
    *,
    steps: int,
    step_size: float,
) -> Best:
    """The best inputs on the way of so many steps of one size.

    Args:
        average, loss, aim: what is raised.
        ball: where.
        start: inputs inside.
        steps: how many.
        step_size: a share of the radius.

    Source: Madry, Makelov, Schmidt, Tsipras & Vladu 2018, arXiv:1706.06083.
    """
    x = start
    slope = average.slope(x, loss, aim)
    best = Best(x, slope.rank_N)
    for _ in range(steps):
        x = ball.project(x + ball.direction(slope.gradient, step_size * ball.radius))
        slope = average.slope(x, loss, aim)
        best.offer(x, slope.rank_N)
    return best


def apgd(average: Average, ball: Ball, loss: Loss, aim: Aim, start: Tensor, *, steps: int) -> Best:
    """The best inputs on the way of steps with momentum whose size is halved where they stall.

    At each checkpoint an input goes back to where its loss was highest and halves its step, if the
    loss rose in fewer than 75 % of the steps since the last one, or if neither step nor highest
    loss changed between two.

    Args are those of ``pgd``.

    Source: Croce & Hein 2020, arXiv:2003.01690, algorithm 1.
    """
    x_before = x = start
    slope = average.slope(x, loss, aim)
    best = Best(x, slope.rank_N)
    course = _Course(x, slope, size=2 * ball.radius)

    checkpoints = set(_checkpoints(steps))
    for i in range(steps):
        stepped = ball.project(x + course.size * ball.direction(slope.gradient))
        if i > 0:
            moved = x + _MOMENTUM * (stepped - x) + (1 - _MOMENTUM) * (x - x_before)
            stepped = ball.project(moved)
        x_before, x = x, stepped

        slope = average.slope(x, loss, aim)
        best.offer(x, slope.rank_N)
        course.note(x, slope)
        if i + 1 in checkpoints:
            x, slope = course.check(x, slope)
    return best


class _Course:
    """What APGD remembers of each input: its step, and where its loss was highest.

    Args:
        x, slope: where it starts.
        size: of the first step, a share of the scale.
    """

    def __init__(self, x: Tensor, slope: Slope, size: float) -> None:
        self.size = x.new_full((len(x), *[1] * (x.dim() - 1)), size)
        self._x, self._slope = x, slope
        self._value = self._highest = slope.value_N
        self._num_rises = torch.zeros_like(slope.value_N)
        self._num_steps = 0
        self._was_halved = torch.ones_like(slope.value_N, dtype=torch.bool)
        self._highest_before = slope.value_N

    def note(self, x: Tensor, slope: Slope) -> None:
        """A step was made, and led to ``x``."""
        self._num_steps += 1
        self._num_rises += slope.value_N > self._value
        self._value = slope.value_N

        is_higher = slope.value_N > self._highest
        self._x = torch.where(_meeting(is_higher, x), x, self._x)
        self._slope = _chosen(is_higher, slope, self._slope)
        self._highest = torch.where(is_higher, slope.value_N, self._highest)

    def check(self, x: Tensor, slope: Slope) -> tuple[Tensor, Slope]:
        """Where to go on from at a checkpoint."""
        stalls = self._num_rises < _SHARE_OF_RISES * self._num_steps
        stalls |= ~self._was_halved & (self._highest <= self._highest_before)
        self.size = torch.where(_meeting(stalls, x), self.size / 2, self.size)

        x = torch.where(_meeting(stalls, x), self._x, x)
        slope = _chosen(stalls, self._slope, slope)
        self._value = slope.value_N
        self._was_halved, self._highest_before = stalls, self._highest
        self._num_rises, self._num_steps = torch.zeros_like(self._num_rises), 0
        return x, slope


def _checkpoints(steps: int) -> Iterator[int]:
    """After how many steps APGD looks back: windows that get shorter, in hundredths of all."""
    window, share = _FIRST_WINDOW, _FIRST_WINDOW
    while share <= 100:
        yield -(-share * steps // 100)  # rounded up
        window = max(window - _WINDOW_SHRINKS, _SHORTEST_WINDOW)
        share += window


def _chosen(is_first: Tensor, first: Slope, second: Slope) -> Slope:
    """Row by row one slope or the other."""
    is_first_N1 = is_first[:, None]
    return Slope(
        torch.where(is_first, first.value_N, second.value_N),
        torch.where(is_first_N1, first.log_prob_NC, second.log_prob_NC),
        torch.where(_meeting(is_first, first.gradient), first.gradient, second.gradient),
        torch.where(is_first, first.rank_N, second.rank_N),
    )


def _meeting(mask_N: Tensor, x: Tensor) -> Tensor:
    """A mask of rows, of a shape that meets ``x``."""
    return mask_N.view(-1, *[1] * (x.dim() - 1))
