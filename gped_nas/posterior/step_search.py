"""A step size that is stable on the data at hand, for chains whose step size is not given.

An SGLD step of size eta is stable where eta a < 4, with ``a`` the largest curvature of U; a step h
of ``sghmc`` where h^2 a < 4 m. ``a`` changes along a chain, by orders of magnitude where it begins
at fresh parameters. So it is measured, on minibatches, where the chain begins and again and again
during burn-in, and a step size is kept while eta a stays below ``BOUND``:

1. The first step size is the largest one that is kept where the chain begins.
2. Burn-in goes on by stretches of about a hundred steps. Where a stretch ends at a point whose
   curvature is too large, or at none, it is taken anew with half the step size.
3. From the end of burn-in on the step size is what it then is: the law of the samples is that of a
   chain whose step size was given. A chain without burn-in takes one stretch, which is thrown away.

Each chain finds its own and carries it in its state, so that a chain which is stopped goes on with
it. A stable step size is no promise that the chain mixes, or of a small bias (``docs/science.md``).

The largest curvature is that of power iteration on differences of gradients.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol, Self

import torch
from torch import Generator, Tensor

from gped_nas.errors import DivergenceError
from gped_nas.posterior.base import FlatParams, Problem, Run, State, Step, flatten, unflatten

BOUND = 2.0
"""Of eta a: half the stable range."""
_STRETCH = 100
_MOST_HALVINGS = 60
_BATCHES, _ITERATIONS = 3, 6
_LEAST_CURVATURE = 1e-6


class Searching(Protocol):
    """What the search reads of a method's settings."""

    @property
    def name(self) -> str:
        """The method's name, for messages."""

    @property
    def batch_size(self) -> int:
        """Examples a step."""

    @property
    def thinning(self) -> int:
        """Updates between two states that are yielded."""

    @property
    def burn_in_steps(self) -> int:
        """Updates before the first sample, a multiple of ``thinning``."""

    def with_step_size(self, initial: float) -> Self:
        """The settings with a step size."""

    def largest_step(self, curvature: float) -> float:
        """The step size whose eta a is ``BOUND``."""

    def metric(
        self, problem: Problem, theta_W: Tensor, state: State, generator: Generator
    ) -> Tensor | None:
        """What each parameter's step is scaled by (W,), at a state; None where that is one."""


def largest_curvature(
    problem: Problem,
    theta_W: Tensor,
    *,
    batch_size: int,
    generator: Generator,
    metric_W: Tensor | None = None,
) -> float:
    """The largest curvature of U at ``theta_W``, on the steepest of three minibatches.

    Args:
        problem: the posterior.
        theta_W: where, on the problem's device.
        batch_size: examples of a minibatch.
        generator: of minibatches and directions.
        metric_W: what each parameter's step is scaled by.

    Returns:
        Infinite where a gradient is not finite.
    """
    flat = FlatParams(problem.shapes, theta_W.clone())
    distance = 1e-3 * (1 + float(theta_W.norm()))

    largest = 0.0
    for _ in range(_BATCHES):
        index_B = torch.randint(problem.num_examples, (batch_size,), generator=generator)
        index_B = index_B.to(problem.x.device)
        flat.theta_W.copy_(theta_W)
        there_W = problem.gradient(flat, index_B).clone()
        direction_W = torch.empty(theta_W.shape).normal_(generator=generator).to(theta_W)

        curvature = 0.0
        for _ in range(_ITERATIONS):
            direction_W /= direction_W.norm() + 1e-30
            flat.theta_W.copy_(theta_W).add_(direction_W, alpha=distance)
            direction_W = (problem.gradient(flat, index_B) - there_W) / distance
            if metric_W is not None:
                direction_W *= metric_W
            curvature = float(direction_W.norm())
        largest = max(largest, curvature) if math.isfinite(curvature) else math.inf
    return largest


def steps_at_found_size(
    run: Run,
    problem: Problem,
    cfg: Searching,
    *,
    generator: Generator,
    state: State | None,
) -> Iterator[Step]:
    """Yield the steps of a chain that finds its step size during burn-in.

    Args:
        run: the method's function.
        problem: the posterior.
        cfg: the method's settings, without a step size.
        generator: of all draws.
        state: where an earlier run of the same chain stopped.

    Raises:
        DivergenceError: no step size is stable, or the chain diverged after burn-in.
    """
    search = _Search(run, problem, cfg, generator)
    if state is None:
        state = search.depart()
        yield Step(None, state)

    num_halvings = 0
    while not search.is_over(state):
        reached = search.take_stretch(state)
        if reached is not None and search.is_stable(reached):
            if cfg.burn_in_steps == 0:
                break
            state = reached
        else:
            num_halvings += 1
            state = {**state, "step_size": state["step_size"] / 2}
        if num_halvings > _MOST_HALVINGS:
            raise DivergenceError(
                f"{cfg.name}: after {num_halvings} halvings of the step size, to "
                f"{float(state['step_size']):g}, the chain is not stable; give "
                "teacher.method.step_size.initial"
            )
        yield Step(None, state)

    yield from search.steps(state)


@dataclass(frozen=True, eq=False)
class _Search:
    """The search of one chain, whose states have ``step_size``; the first one is a ``departure``.

    Attributes are those of ``steps_at_found_size``.
    """

    run: Run
    problem: Problem
    cfg: Searching
    generator: Generator

    def depart(self) -> State:
        """The state before the first step: where the chain begins, and the first step size.

        Raises:
            DivergenceError: U has no finite curvature there.
        """
        theta_W = flatten(self.problem.initialize(self.generator))
        rng = self.generator.get_state()
        curvature = self._curvature({"departure": theta_W})
        if not math.isfinite(curvature):
            raise DivergenceError(
                f"{self.cfg.name}: the gradient is not finite around where the chain begins, so "
                "that no step size is stable; look for inputs that are huge"
            )

        step_size = self.cfg.largest_step(curvature)
        return {
            "departure": theta_W.cpu(),
            "rng": rng,
            "step_size": torch.tensor(step_size, dtype=torch.float64),
        }

    def is_over(self, state: State) -> bool:
        """Whether burn-in is."""
        return "step" in state and int(state["step"]) >= self.cfg.burn_in_steps

    def steps(self, state: State) -> Iterator[Step]:
        """The steps of the chain from a state on, at its step size."""
        size = state["step_size"]
        cfg = self.cfg.with_step_size(float(size))
        problem, inner = self.problem, None
        if "departure" in state:
            begin = unflatten(state["departure"], problem.shapes)
            problem = replace(problem, initialize=lambda generator: begin)
            self.generator.set_state(state["rng"])
        else:
            inner = {name: value for name, value in state.items() if name != "step_size"}

        for step in self.run(problem, cfg, generator=self.generator, state=inner):
            yield Step(step.sample, {**step.state, "step_size": size})

    def take_stretch(self, state: State) -> State | None:
        """The state some hundred steps later, or at the end of burn-in; None if it diverges."""
        num_yields = -(-_STRETCH // self.cfg.thinning)
        if self.cfg.burn_in_steps:
            num_taken = int(state["step"]) if "step" in state else 0
            remaining = (self.cfg.burn_in_steps - num_taken) // self.cfg.thinning
            num_yields = min(num_yields, remaining)

        try:
            *_, last = islice(self.steps(state), num_yields)
        except DivergenceError:
            return None
        return last.state

    def is_stable(self, state: State) -> bool:
        """Whether the step size is kept at a state."""
        return float(state["step_size"]) <= self.cfg.largest_step(self._curvature(state))

    def _curvature(self, state: State) -> float:
        theta_W = state["departure"] if "departure" in state else state["theta"]
        theta_W = theta_W.to(self.problem.x.device)
        curvature = largest_curvature(
            self.problem,
            theta_W,
            batch_size=self.cfg.batch_size,
            generator=self.generator,
            metric_W=self.cfg.metric(self.problem, theta_W, state, self.generator),
        )
        return max(curvature, _LEAST_CURVATURE)
