"""The loop that all stochastic gradient chains share: minibatch, gradient, update, check, yield.

A method of this kind is its update alone. What the loop carries from step to step, and what a
stopped chain resumes from, is the flat parameters ``theta``, the method's own buffers, the number
of steps and the generator's state.
"""

from collections.abc import Callable, Iterator
from typing import ClassVar, Protocol, Self

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.config import parse
from gped_nas.errors import DivergenceError
from gped_nas.posterior.base import (
    FlatParams,
    MethodConfig,
    PosteriorSample,
    Problem,
    Run,
    State,
    Step,
    flatten,
)
from gped_nas.posterior.schedule import CosineCycles, StepSize
from gped_nas.posterior.start import StartingConfig
from gped_nas.posterior.step_search import BOUND, steps_at_found_size

Buffers = dict[str, Tensor]
"""Flat tensors (W,) by name; ``theta`` holds the parameters."""
Draw = Callable[[], Tensor]
"""Fresh standard normal numbers (W,), overwritten by the next call."""
Update = Callable[[Buffers, Tensor, int, Draw], None]
"""``update(buffers, grad_W, step, draw)`` moves the buffers in place, from a gradient of U at
``theta``, after ``step`` updates."""


class MinibatchConfig(StartingConfig):
    """Settings of a chain that steps along minibatch gradients.

    Attributes:
        remedy: what a user should change when the chain diverges.
    """

    remedy: ClassVar[str] = "lower teacher.method.step_size.initial"

    batch_size: int = Field(
        default=100, ge=1, description="examples a step, drawn with replacement"
    )
    thinning: int = Field(default=100, ge=1, description="steps between samples")
    temperature: float = Field(default=1.0, ge=0, description="T; 1 is the Bayes posterior")

    @property
    def burn_in_steps(self) -> int:
        """Updates before the first sample."""
        return int(getattr(self, "burn_in", 0))

    def with_step_size(self, initial: float) -> Self:
        """The settings with the step size that a chain found.

        Raises:
            ConfigError: other settings do not go with it.
        """
        settings = self.model_dump(mode="json")
        settings["step_size"]["initial"] = initial
        return parse(type(self), settings, "teacher.method")

    def largest_step(self, curvature: float) -> float:
        """The largest step size that the search keeps: see ``step_search``."""
        return BOUND / curvature

    def metric(
        self, problem: Problem, theta_W: Tensor, state: State, generator: Generator
    ) -> Tensor | None:
        """What each parameter's step is scaled by (W,), at a state; None where that is one."""
        return None

    def steps_from_start(
        self, run: Run, problem: Problem, *, generator: Generator, state: State | None
    ) -> Iterator[Step]:
        """The steps of a chain, which first finds the step size that is not given."""
        if not must_find_step_size(self):
            return super().steps_from_start(run, problem, generator=generator, state=state)
        return steps_at_found_size(run, problem, self, generator=generator, state=state)


def must_find_step_size(cfg: MethodConfig) -> bool:
    """Whether chains of a method find their step sizes themselves."""
    step_size = getattr(cfg, "step_size", None)
    return isinstance(step_size, StepSize | CosineCycles) and step_size.initial is None


class Stepping(Protocol):
    """What ``run_chain`` reads of a method's settings."""

    @property
    def name(self) -> str:
        """The method's name, for messages."""

    @property
    def remedy(self) -> str:
        """What a user should change when the chain diverges."""

    @property
    def batch_size(self) -> int:
        """Examples a step, drawn with replacement."""

    @property
    def thinning(self) -> int:
        """Updates between two states that are yielded."""

    @property
    def step_size(self) -> Callable[[int], float]:
        """The step size at an absolute step, counted from 0."""

    def is_sample(self, step: int) -> bool:
        """Whether the state after ``step`` updates is a posterior sample."""


def nothing_more(theta_W: Tensor) -> Buffers:
    """The buffers of a method that has none beside ``theta``."""
    return {}


def run_chain(
    problem: Problem,
    cfg: Stepping,
    update: Update,
    *,
    start: Callable[[Tensor], Buffers] = nothing_more,
    generator: Generator,
    state: State | None,
) -> Iterator[Step]:
    """Yield a step every ``cfg.thinning`` updates, for ever.

    Args:
        problem: the posterior.
        cfg: the method's settings; a ``MinibatchConfig`` with a step size is one.
        update: one step of the method.
        start: the parameters at the very beginning to the method's other buffers.
        generator: source of minibatches and noise, drawn in this order in each step.
        state: where an earlier run of the same chain stopped.

    Raises:
        DivergenceError: a buffer left the finite numbers.
    """
    device = problem.x.device

    if state is None:
        theta, step = flatten(problem.initialize(generator)).to(device), 0
        buffers = {"theta": theta, **start(theta)}
    else:
        buffers = {k: v.to(device, copy=True) for k, v in state.items() if k not in ("step", "rng")}
        step = int(state["step"])
        generator.set_state(state["rng"])

    flat = FlatParams(problem.shapes, buffers["theta"])
    noise_W = torch.empty(buffers["theta"].shape)

    def draw() -> Tensor:
        return noise_W.normal_(generator=generator).to(device)

    while True:
        for _ in range(cfg.thinning):
            index_B = torch.randint(problem.num_examples, (cfg.batch_size,), generator=generator)
            update(buffers, problem.gradient(flat, index_B.to(device)), step, draw)
            step += 1

        if not all(_is_finite(buffer) for buffer in buffers.values()):
            raise DivergenceError(
                f"{cfg.name}: parameters are not finite after {step} steps at step size "
                f"{cfg.step_size(step - 1):g}; {cfg.remedy}"
            )

        state = {name: buffer.detach().cpu().clone() for name, buffer in buffers.items()}
        sample = PosteriorSample(state["theta"]) if cfg.is_sample(step) else None
        state["step"] = torch.tensor(step)
        state["rng"] = generator.get_state()
        yield Step(sample, state)


def _is_finite(buffer: Tensor) -> bool:
    # The ends of a buffer are finite only if all of it is; they cost a tenth of asking each number.
    return bool(torch.stack(buffer.aminmax()).isfinite().all())
