"""Adam with a cosine step size, for any objective, with a state to resume from.

With g a minibatch gradient of the objective over N and t the number of steps so far, from 1, out of
``steps``,

    m <- beta_1 m + (1 - beta_1) g
    v <- beta_2 v + (1 - beta_2) g^2
    theta <- theta - lr_t  (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)
    lr_t = (lr / 2) (1 + cos(pi (t - 1) / steps))

Methods that start from a trained network, or train something else than a point, use it. Sources:
Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; the cosine, without restarts: Loshchilov & Hutter
2017, arXiv:1608.03983, equation 5.
"""

import math
from collections import abc
from collections.abc import Callable, Iterator

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.errors import DivergenceError
from gped_nas.models.base import Params, Shapes
from gped_nas.posterior.base import FlatParams, MethodConfig, Problem, State, Step, flatten

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
CHECK_EVERY = 100


class TrainingConfig(MethodConfig):
    """Settings of a method that trains with ``descend``."""

    steps: int = Field(default=2000, ge=1, description="optimizer steps")
    batch_size: int = Field(
        default=100, ge=1, description="examples a step, drawn with replacement"
    )
    lr: float = Field(
        default=1e-3, gt=0, description="Adam step size, annealed to zero by a cosine"
    )

    @model_validator(mode="after")
    def _whole_checks(self) -> "TrainingConfig":
        if self.steps % CHECK_EVERY:
            raise ValueError(f"steps: found {self.steps}, expected a multiple of {CHECK_EVERY}")
        return self


def step_size(cfg: TrainingConfig, step: int) -> float:
    """lr_t of the step after so many others."""
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * step / cfg.steps))


def step(
    theta_W: Tensor,
    first_W: Tensor,
    second_W: Tensor,
    grad_W: Tensor,
    *,
    lr: float,
    number: int,
    betas: tuple[float, float] = (BETA1, BETA2),
) -> None:
    """Move the point and its two moments by one step, in place. See the module docstring.

    Args:
        theta_W: the point; moved.
        first_W, second_W: m and v; moved.
        grad_W: g, a gradient of the objective over N.
        lr: the step size of this step.
        number: t, how many steps there are with this one.
        betas: beta_1 and beta_2.
    """
    beta1, beta2 = betas
    first_W.lerp_(grad_W, 1 - beta1)
    second_W.lerp_(grad_W.square(), 1 - beta2)

    scale_W = (second_W / (1 - beta2**number)).sqrt_().add_(EPSILON)
    theta_W.addcdiv_(first_W, scale_W, value=-lr / (1 - beta1**number))


def descend(
    shapes: Shapes,
    objective: Callable[[Params, Tensor], Tensor],
    cfg: TrainingConfig,
    *,
    start: Callable[[], Tensor],
    problem: Problem,
    generator: Generator,
    state: State | None = None,
) -> Iterator[State]:
    """Yield the state every 100 steps, until ``cfg.steps`` are done.

    Its ``theta`` is the point reached.

    Args:
        shapes: the parameters that are optimized.
        objective: ``(params, index_B)`` to an estimate, from the examples at ``index_B``, of an
            objective of the size of U; it may draw from ``generator``.
        cfg: steps, batch size and step size.
        start: the flat point to start from; not called when resuming.
        problem: says how many examples there are, and the device to work on.
        generator: source of the minibatches.
        state: where an earlier run stopped; nothing is yielded if that was the end.

    Raises:
        DivergenceError: the parameters left the finite numbers.
    """
    device = problem.x.device

    if state is None:
        theta, num_steps = start().to(device), 0
        first, second = torch.zeros_like(theta), torch.zeros_like(theta)
    else:
        generator.set_state(state["rng"])
        num_steps = int(state["step"])
        if num_steps >= cfg.steps:
            return
        theta = state["theta"].to(device, copy=True)
        first = state["first"].to(device, copy=True)
        second = state["second"].to(device, copy=True)

    flat = FlatParams(shapes, theta)
    while num_steps < cfg.steps:
        for _ in range(CHECK_EVERY):
            index_B = torch.randint(problem.num_examples, (cfg.batch_size,), generator=generator)
            grad = flat.gradient(_at(objective, index_B.to(device)))
            lr = step_size(cfg, num_steps)
            num_steps += 1
            step(theta, first, second, grad / problem.num_examples, lr=lr, number=num_steps)

        if not bool(theta.isfinite().all()):
            raise DivergenceError(
                f"{cfg.name}: parameters are not finite after {num_steps} steps; "
                "lower teacher.method.lr"
            )
        yield {
            "theta": theta.detach().cpu().clone(),
            "first": first.cpu().clone(),
            "second": second.cpu().clone(),
            "step": torch.tensor(num_steps),
            "rng": generator.get_state(),
        }


def _at(
    objective: Callable[[Params, Tensor], Tensor], index_B: Tensor
) -> Callable[[Params], Tensor]:
    return lambda params: objective(params, index_B)


def train(
    problem: Problem, cfg: TrainingConfig, *, generator: Generator, state: State | None = None
) -> Iterator[State]:
    """The states on the way to a MAP network: ``descend`` on U from fresh parameters."""
    return descend(
        problem.shapes,
        problem.potential,
        cfg,
        start=lambda: flatten(problem.initialize(generator)),
        problem=problem,
        generator=generator,
        state=state,
    )


def without_samples(
    states: Iterator[State], state: State | None
) -> abc.Generator[Step, None, State]:
    """Yield a step without a sample for each state; return the last state.

    Args:
        states: what a training yields.
        state: where it was resumed from; returned if ``states`` is empty.
    """
    for reached in states:
        state = reached
        yield Step(None, reached)

    assert state is not None, "who has nothing to resume from yields at least one state"
    return state
