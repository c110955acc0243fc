"""Stein variational gradient descent: particles that follow the gradient and keep apart.

With the kernel k(x, x') = exp(-|x - x'|^2 / h) and h = m^2 / log n, m the median distance of two of
the n particles, each particle moves along

    phi(x_i) = (1 / n) sum_j [ -k(x_j, x_i) grad U(x_j) + (2 / h) (x_i - x_j) k(x_j, x_i) ]

by Adam with a cosine step size on minibatches, which all particles share. Where it ends, phi is
zero, whatever the optimizer. The particles are the samples, of equal weight.

Choose it for members that are kept apart by the posterior's own geometry, where ``deep_ensemble``
leaves that to chance. It costs n gradients a step and 3 n W numbers in its state.
Its bias: in many dimensions the kernel is nearly the same for all pairs, and particles are far
closer together than draws of the posterior; more particles do not mend it. Two particles of a
normal with standard deviation s end at a distance of 2 s sqrt(log 2) along one direction.

Source: Liu & Wang 2016, arXiv:1608.04471, algorithm 1 and section 5 (there AdaGrad); the bias: Ba
et al. 2022, "Understanding the variance collapse of SVGD in high dimensions", ICLR.
"""

import math
from collections.abc import Iterator
from functools import partial

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.errors import DivergenceError
from gped_nas.models.base import Shapes
from gped_nas.posterior import adam
from gped_nas.posterior.adam import CHECK_EVERY, TrainingConfig
from gped_nas.posterior.base import (
    METHODS,
    FlatParams,
    Method,
    PosteriorSample,
    Problem,
    State,
    Step,
    flatten,
)
from gped_nas.posterior.tunable import Tuned, training_settings


class SvgdConfig(TrainingConfig):
    """Settings of ``svgd``."""

    particles: int = Field(default=10, ge=2, le=1000, description="n, the posterior samples")

    def count(self, shapes: Shapes) -> int:
        """See ``MethodConfig.count``."""
        return self.particles


def direction(particles_NW: Tensor, gradient_NW: Tensor) -> Tensor:
    """phi (n, W), see the module docstring.

    Args:
        particles_NW: n particles.
        gradient_NW: of U at each.
    """
    num = len(particles_NW)
    # products of matrices would lose the digits of small distances
    distance_NN = torch.cdist(
        particles_NW, particles_NW, compute_mode="donot_use_mm_for_euclid_dist"
    )
    square_NN = distance_NN.square()
    pairs = square_NN[tuple(torch.triu_indices(num, num, offset=1))]
    # particles in one place have no distance to scale by: they move together
    bandwidth = pairs.median().clamp(min=torch.finfo(pairs.dtype).tiny) / math.log(num)

    kernel_NN = (-square_NN / bandwidth).exp()
    drive_NW = -kernel_NN @ gradient_NW
    apart_NW = particles_NW * kernel_NN.sum(1, keepdim=True) - kernel_NN @ particles_NW
    return (drive_NW + 2 / bandwidth * apart_NW) / num


def _descend(
    problem: Problem, cfg: SvgdConfig, generator: Generator, state: State | None
) -> Iterator[State]:
    """Yield the state every 100 updates, until ``cfg.steps`` are done."""
    device = problem.x.device
    if state is None:
        starts = [flatten(problem.initialize(generator)) for _ in range(cfg.particles)]
        particles_NW, num_steps = torch.stack(starts).to(device), 0
        first_NW, second_NW = torch.zeros_like(particles_NW), torch.zeros_like(particles_NW)
    else:
        names = ("particles", "first", "second")
        particles_NW, first_NW, second_NW = (state[n].to(device, copy=True) for n in names)
        num_steps = int(state["step"])
        generator.set_state(state["rng"])

    flats = [FlatParams(problem.shapes, theta_W) for theta_W in particles_NW]
    while num_steps < cfg.steps:
        for _ in range(CHECK_EVERY):
            index_B = torch.randint(problem.num_examples, (cfg.batch_size,), generator=generator)
            potential = partial(problem.potential, index_B=index_B.to(device))
            gradient_NW = torch.stack([flat.gradient(potential) for flat in flats])
            downhill_NW = -direction(particles_NW, gradient_NW) / problem.num_examples

            lr = adam.step_size(cfg, num_steps)
            num_steps += 1
            adam.step(particles_NW, first_NW, second_NW, downhill_NW, lr=lr, number=num_steps)

        if not bool(particles_NW.isfinite().all()):
            raise DivergenceError(
                f"svgd: parameters are not finite after {num_steps} steps; lower teacher.method.lr"
            )
        yield {
            "particles": particles_NW.cpu().clone(),
            "first": first_NW.cpu().clone(),
            "second": second_NW.cpu().clone(),
            "step": torch.tensor(num_steps),
            "given": torch.tensor(0),
            "rng": generator.get_state(),
        }


def svgd(
    problem: Problem, cfg: SvgdConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every 100 updates, then one with a sample for each particle.

    See the module docstring.

    Raises:
        DivergenceError: the parameters left the finite numbers.
    """
    if state is None or int(state["step"]) < cfg.steps:
        for reached in _descend(problem, cfg, generator, state):
            state = reached
            yield Step(None, reached)

    assert state is not None, "there is at least one step"
    for number in range(int(state["given"]), cfg.particles):
        theta_W = state["particles"][number].float().clone()
        yield Step(PosteriorSample(theta_W), {**state, "given": torch.tensor(number + 1)})


METHODS.register("svgd")(
    Method(
        SvgdConfig,
        svgd,
        origin="optimized",
        # particles are few, and all of them are trained to the end
        suited=lambda budget: {"steps": 2000},
        tuned=Tuned(
            lambda draw, effort: {
                "particles": draw.whole("particles", 5, 20, usual=10),
                **training_settings(draw, effort),
            },
            is_tried=False,
        ),
        example={"steps": 100, "batch_size": 4, "particles": 3},
    )
)
