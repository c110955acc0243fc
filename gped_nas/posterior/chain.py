"""The loop that all stochastic gradient chains share: minibatch, gradient, update, check, yield.

A method of this kind is its update alone. What the loop carries from step to step, and what a
stopped chain resumes from, is the flat parameters ``theta``, the method's own buffers, the number
of steps and the generator's state.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.errors import DivergenceError
from gped_nas.posterior.base import (
    ChainConfig,
    FlatParams,
    PosteriorSample,
    Problem,
    State,
    Step,
    flatten,
)

Buffers = dict[str, Tensor]
"""Flat tensors (W,) by name; ``theta`` holds the parameters."""
Draw = Callable[[], Tensor]
"""Fresh standard normal numbers (W,), overwritten by the next call."""
Update = Callable[[Buffers, Tensor, int, Draw], None]
"""``update(buffers, grad_W, step, draw)`` moves the buffers in place, from a gradient of U at
``theta``, after ``step`` updates."""


class MinibatchConfig(ChainConfig):
    """Settings of a chain that steps along minibatch gradients."""

    batch_size: int = Field(
        default=100, ge=1, description="examples a step, drawn with replacement"
    )
    thinning: int = Field(default=100, ge=1, description="steps between samples of one chain")
    temperature: float = Field(default=1.0, ge=0, description="T; 1 is the Bayes posterior")


def nothing_more(theta_W: Tensor) -> Buffers:
    """The buffers of a method that has none beside ``theta``."""
    return {}


def run_chain(
    problem: Problem,
    cfg: Any,
    update: Update,
    *,
    is_sample: Callable[[int], bool],
    generator: Generator,
    state: State | None,
    start: Callable[[Tensor], Buffers] = nothing_more,
    remedy: str = "lower teacher.method.step_size.initial",
) -> Iterator[Step]:
    """Yield a step every ``cfg.thinning`` updates, for ever.

    Args:
        problem: the posterior.
        cfg: a ``MinibatchConfig`` with a ``step_size`` of the absolute step.
        update: one step of the method.
        is_sample: whether the state after so many steps is a posterior sample.
        generator: source of minibatches and noise, drawn in this order in each step.
        state: where an earlier run of the same chain stopped.
        start: the parameters at the very beginning to the method's other buffers.
        remedy: what to change when the chain diverges.

    Raises:
        DivergenceError: a buffer left the finite numbers.
    """
    device = problem.x.device
    if state is None:
        theta, step = flatten(problem.initialise(generator)).to(device), 0
        buffers = {"theta": theta, **start(theta)}
    else:
        buffers = {k: v.to(device, copy=True) for k, v in state.items() if k not in ("step", "rng")}
        step = int(state["step"])
        generator.set_state(state["rng"])
    flat = FlatParams(problem.shapes, buffers["theta"])
    noise = torch.empty(buffers["theta"].shape)

    def draw() -> Tensor:
        return noise.normal_(generator=generator).to(device)

    while True:
        for _ in range(cfg.thinning):
            index = torch.randint(problem.num_examples, (cfg.batch_size,), generator=generator)
            update(buffers, problem.gradient(flat, index.to(device)), step, draw)
            step += 1
        # the ends of a buffer are finite only if all of it is; they cost a tenth of asking each
        # number
        if not all(
            bool(torch.stack(buffer.aminmax()).isfinite().all()) for buffer in buffers.values()
        ):
            raise DivergenceError(
                f"{cfg.name}: parameters are not finite after {step} steps at step size "
                f"{cfg.step_size(step - 1):g}; "
                f"{remedy}"
            )
        kept = {name: buffer.detach().cpu().clone() for name, buffer in buffers.items()}
        reached = {**kept, "step": torch.tensor(step), "rng": generator.get_state()}
        yield Step(PosteriorSample(kept["theta"]) if is_sample(step) else None, reached)
