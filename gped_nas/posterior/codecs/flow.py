"""A flow in the principal coordinates of each chain: the normal law, bent where the samples say so.

With a = pi t / 2 and standard normal z, the point on the way from z to a sample x is

    x_t = cos(a) z + sin(a) x,   u = dx_t / dt = (pi / 2) (cos(a) x - sin(a) z)

A small network v(x_t, cos a, sin a) learns u by least squares, and draws follow dx / dt = v from
normal numbers at t = 0 to t = 1, by 32 steps of Heun's rule. For normal x the best v is 0
everywhere, and the network starts there: it begins as the normal law, learns what is different, and
is kept as it was where that helped most on stretches of the chain that were held out
(``held_out.py``). Where it helps nowhere, no network is stored.

Choose it where samples of a chain do not look normal: bent, or in several places. It costs a
training of seconds a chain, and 4 W (J + 2) bytes a chain and some 20,000 for the network.
Its bias: directions beyond the ``bent`` leading ones are normal, those beyond J noise; a chain that
did not mix is learned with its path; the held-out stretches choose the law, so their own fit
flatters.

Source: Lipman et al. 2023, arXiv:2210.02747, equation 9 with the points of Albergo & Vanden-Eijnden
2023, arXiv:2209.15571, equation 3.10 (trigonometric); on weights in principal coordinates: Gupta et
al. 2026, arXiv:2601.05052. That it starts as the normal law, and what is held out, is ours.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.models.base import Params, Shapes
from gped_nas.posterior.adam import TrainingConfig, descend
from gped_nas.posterior.base import Problem, State, unflatten
from gped_nas.posterior.codecs.base import register
from gped_nas.posterior.codecs.held_out import Kept, Split
from gped_nas.posterior.codecs.learned import LearnedConfig, LearnedLaw
from gped_nas.posterior.codecs.nets import dense_shapes, dense_silu, silent_start

_INTERVALS = 32
"""Steps of Heun's rule."""
_WAYS = 64
"""From normal numbers to a sample that was held out, whose velocities are compared."""


class FlowConfig(TrainingConfig, LearnedConfig):
    """Settings of ``flow``."""

    steps: int = Field(default=2000, ge=1, description="optimizer steps a chain")
    batch_size: int = Field(
        default=256, ge=1, description="posterior samples a step, drawn with replacement"
    )
    lr: float = Field(
        default=2e-3, gt=0, description="Adam step size, annealed to zero by a cosine"
    )


@dataclass(frozen=True, eq=False)
class Ways:
    """Points on the way from normal numbers to samples, and the velocities there.

    Attributes:
        x_BJ: x_t.
        angle_B1: a.
        velocity_BJ: u.
    """

    x_BJ: Tensor
    angle_B1: Tensor
    velocity_BJ: Tensor


def ways_to(x_BJ: Tensor, *, generator: Generator) -> Ways:
    """A way to each sample, at a time of its own."""
    normal_BJ = torch.randn(x_BJ.shape, generator=generator).to(x_BJ)
    angle_B1 = torch.rand(len(x_BJ), 1, generator=generator).to(x_BJ) * (math.pi / 2)
    cos_B1, sin_B1 = angle_B1.cos(), angle_B1.sin()
    return Ways(
        cos_B1 * normal_BJ + sin_B1 * x_BJ,
        angle_B1,
        (cos_B1 * x_BJ - sin_B1 * normal_BJ) * (math.pi / 2),
    )


def velocity(params: Params, x_BJ: Tensor, angle_B1: Tensor) -> Tensor:
    """v (B, J) at points and times."""
    return dense_silu(params, torch.cat([x_BJ, angle_B1.cos(), angle_B1.sin()], 1))


@torch.no_grad()
def follow(params: Params, normal_MJ: Tensor) -> Tensor:
    """Where normal numbers are at t = 1."""
    x_MJ, length = normal_MJ, 1 / _INTERVALS
    for interval in range(_INTERVALS):
        here = x_MJ.new_full((len(x_MJ), 1), interval * length * math.pi / 2)
        there = here + length * math.pi / 2
        first_MJ = velocity(params, x_MJ, here)
        second_MJ = velocity(params, x_MJ + length * first_MJ, there)
        x_MJ = x_MJ + length / 2 * (first_MJ + second_MJ)
    return x_MJ


def network_shapes(num_dimensions: int, width: int) -> Shapes:
    """Of v: it reads the point and the two numbers of its time."""
    return dense_shapes([num_dimensions + 2, width, width, num_dimensions])


def gain(params: Params, ways: Ways) -> Tensor:
    """How much nearer v is to u than 0 is, in squares, at each sample: (M,).

    Args:
        params: of v.
        ways: ``_WAYS`` to each sample, the first ones to all of them, and so on.
    """
    with torch.no_grad():
        missed_BJ = ways.velocity_BJ - velocity(params, ways.x_BJ, ways.angle_B1)
        gain_B = ways.velocity_BJ.square().sum(1) - missed_BJ.square().sum(1)
    return gain_B.view(_WAYS, -1).mean(0).double()


class FlowCodec(LearnedLaw):
    """See the module docstring."""

    name = "flow"

    def shapes(self, num_dimensions: int, width: int) -> Shapes:
        """Of v: it reads the point and the two numbers of its time."""
        return network_shapes(num_dimensions, width)

    def push(self, params: Params, normal_MJ: Tensor) -> Tensor:
        """See ``LearnedLaw.push``."""
        return follow(params, normal_MJ)

    def learn(
        self,
        problem: Problem,
        cfg: FlowConfig,
        chain: Split,
        kept: Kept,
        *,
        probe: Generator,
        generator: Generator,
        state: State | None,
    ) -> Iterator[State]:
        """See ``LearnedLaw.learn``: least squares of velocities."""
        shapes = network_shapes(cfg.num_bent, cfg.width)
        ways = ways_to(chain.held_MJ.repeat(_WAYS, 1), generator=probe)
        x_SJ = chain.x_SJ.to(problem.x.device)
        relative_S = (chain.weight_S * len(x_SJ) / chain.weight_S.sum()).to(x_SJ)

        def missed_squares(params: Params, index_B: Tensor) -> Tensor:
            points = ways_to(x_SJ[index_B], generator=generator)
            missed_BJ = velocity(params, points.x_BJ, points.angle_B1) - points.velocity_BJ
            # of the size of U, as ``descend`` asks: a sum over all samples
            return len(x_SJ) * (relative_S[index_B] * missed_BJ.square().sum(1)).mean()

        states = descend(
            shapes,
            missed_squares,
            cfg,
            start=lambda: silent_start(shapes, generator=generator),
            problem=replace(problem, x=x_SJ),  # its rows are what batches are drawn from
            generator=generator,
            state=state,
        )
        for reached in states:
            gain_M = gain(unflatten(reached["theta"], shapes), ways)
            kept.offer(reached["theta"], gain_M, chain.held_weight_M)
            yield reached


register(
    FlowCodec(),
    FlowConfig,
    example={"components": 2, "width": 4, "steps": 200, "batch_size": 4},
)
