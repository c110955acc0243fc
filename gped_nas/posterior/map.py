"""Maximum a posteriori: one point, the network most people would have trained.

Adam on ``U / N`` with a cosine step size. It yields a single sample; use it with one chain.

Choose it as the baseline of every comparison. It costs one minibatch gradient a step and no draw of
noise. Its bias as a posterior is total: it has no uncertainty over parameters. Source: Kingma & Ba
2015, arXiv:1412.6980; the cosine, without restarts: Loshchilov & Hutter 2017, arXiv:1608.03983,
equation 5.

``descend`` is that optimiser for any objective, with a state to resume from; methods that start
from a trained network, or train something else than a point, use it.
"""

import math
from collections import abc
from collections.abc import Callable, Iterator

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.errors import DivergenceError
from gped_nas.models.base import Params, Shapes
from gped_nas.posterior.base import (
    METHODS,
    FlatParams,
    Method,
    MethodConfig,
    PosteriorSample,
    Problem,
    State,
    Step,
    flatten,
)

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8
_CHECK_EVERY = 100


class TrainingConfig(MethodConfig):
    """Settings of a method that trains with ``descend``."""

    steps: int = Field(default=2000, ge=1, description="optimiser steps")
    batch_size: int = Field(
        default=100, ge=1, description="examples a step, drawn with replacement"
    )
    lr: float = Field(
        default=1e-3, gt=0, description="Adam step size, annealed to zero by a cosine"
    )

    @model_validator(mode="after")
    def _whole_checks(self) -> "TrainingConfig":
        if self.steps % _CHECK_EVERY:
            raise ValueError(f"steps: found {self.steps}, expected a multiple of {_CHECK_EVERY}")
        return self


class MapConfig(TrainingConfig):
    """Settings of ``map``."""


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
    """Yield the state every 100 Adam updates, until ``cfg.steps`` are done; its ``theta`` is the
    point reached.

    Args:
        shapes: the parameters that are optimised.
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
        theta = start().to(device)
        first, second, step = torch.zeros_like(theta), torch.zeros_like(theta), 0
    else:
        step = int(state["step"])
        generator.set_state(state["rng"])
        if step >= cfg.steps:
            return
        theta, first, second = (
            state[k].to(device, copy=True) for k in ("theta", "first", "second")
        )
    flat = FlatParams(shapes, theta)
    while step < cfg.steps:
        for _ in range(_CHECK_EVERY):
            index = torch.randint(problem.num_examples, (cfg.batch_size,), generator=generator).to(
                device
            )
            grad = flat.gradient(_at(objective, index)) / problem.num_examples
            lr = cfg.lr * 0.5 * (1 + math.cos(math.pi * step / cfg.steps))
            step += 1
            first.lerp_(grad, 1 - _BETA1)
            second.lerp_(grad.square(), 1 - _BETA2)
            scale = (second / (1 - _BETA2**step)).sqrt_().add_(_EPS)
            theta.addcdiv_(first, scale, value=-lr / (1 - _BETA1**step))
        if not bool(theta.isfinite().all()):
            raise DivergenceError(
                f"{cfg.name}: parameters are not finite after {step} steps; lower teacher.method.lr"
            )
        yield {
            "theta": theta.detach().cpu().clone(),
            "first": first.cpu().clone(),
            "second": second.cpu().clone(),
            "step": torch.tensor(step),
            "rng": generator.get_state(),
        }


def _at(
    objective: Callable[[Params, Tensor], Tensor], index_B: Tensor
) -> Callable[[Params], Tensor]:
    return lambda params: objective(params, index_B)


def train(
    problem: Problem, cfg: TrainingConfig, *, generator: Generator, state: State | None = None
) -> Iterator[State]:
    """``descend`` on U from fresh parameters: the states on the way to a MAP network."""
    return descend(
        problem.shapes,
        problem.potential,
        cfg,
        start=lambda: flatten(problem.initialise(generator)),
        problem=problem,
        generator=generator,
        state=state,
    )


def without_samples(
    states: Iterator[State], state: State | None
) -> abc.Generator[Step, None, State]:
    """Yield a step without a sample for each state; return the last one, or ``state`` if there was
    none.
    """
    for reached in states:
        state = reached
        yield Step(None, reached)
    assert state is not None, "who has nothing to resume from yields at least one state"
    return state


def map_estimate(
    problem: Problem, cfg: MapConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every 100 updates, the last one with the sample. See the module docstring.

    Raises:
        DivergenceError: the parameters left the finite numbers.
    """
    for reached in train(problem, cfg, generator=generator, state=state):
        done = int(reached["step"]) == cfg.steps
        yield Step(PosteriorSample(reached["theta"]) if done else None, reached)


METHODS.register("map")(Method(MapConfig, map_estimate, origin="optimised"))
