"""Stochastic weight averaging, Gaussian: the normal distribution that constant-step SGD wanders
over.

From a MAP network, theta <- theta - swag_lr grad U(theta) / N on minibatches. Every
``collect_every`` steps the running mean m and the running sum of squared deviations q of the T
points seen so far take in the point, and its deviation from the mean (after the update) becomes a
column of D, of which the last J = ``rank`` are kept. Then

    theta = m + sqrt(v / 2) z_1 + D z_2 / sqrt(2 (J - 1)),   v = q / T,   z_1, z_2 standard normal

so that samples have mean m and covariance (diag(v) + D D^T / (J - 1)) / 2.

Choose it to get spread around a network that is already good, for about the price of training it
once more. It costs one minibatch gradient a step, and keeps (J + 2) W numbers in the chain's state.
Its bias: the covariance is that of SGD's noise, set by step size and batch size rather than by the
posterior.

Source: Maddox et al. 2019, arXiv:1902.02476, algorithm 1 and equation 1; here SGD has no momentum
(a step size of 0.5 moves like their 0.05 with momentum 0.9), and v is accumulated without the
cancellation of E[theta^2] - m^2.
"""

from collections import abc
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.errors import DivergenceError
from gped_nas.models.base import num_params
from gped_nas.posterior.adam import TrainingConfig, train, without_samples
from gped_nas.posterior.base import (
    METHODS,
    ChainConfig,
    FlatParams,
    Method,
    PosteriorSample,
    Problem,
    State,
    Step,
)
from gped_nas.posterior.tunable import Draw, Effort, Tuned, training_settings


class SwagConfig(TrainingConfig, ChainConfig):
    """Settings of ``swag``."""

    swag_lr: float = Field(default=0.5, gt=0, description="constant SGD step size on U / N")
    collect_every: int = Field(
        default=50, ge=1, description="SGD steps between points that enter the moments"
    )
    collections: int = Field(default=40, ge=2, description="points that enter the moments, T")
    rank: int = Field(default=20, ge=2, description="deviations kept, J")

    @model_validator(mode="after")
    def _rank_is_reached(self) -> "SwagConfig":
        if self.rank > self.collections:
            raise ValueError(
                f"rank: found {self.rank}, expected at most collections ({self.collections})"
            )
        return self


def _collect(
    problem: Problem, cfg: SwagConfig, generator: Generator, state: State
) -> Iterator[State]:
    """Constant-step SGD; yield the state after each point that entered the moments."""
    device = problem.x.device
    theta = state["theta"].to(device, copy=True)
    mean = state["mean"].to(device, copy=True)
    square = state["square"].to(device, copy=True)
    deviations = state["deviations"].to(device, copy=True)

    flat = FlatParams(problem.shapes, theta)
    for collected in range(int(state["collected"]) + 1, cfg.collections + 1):
        for _ in range(cfg.collect_every):
            index_B = torch.randint(problem.num_examples, (cfg.batch_size,), generator=generator)
            grad = flat.gradient(partial(problem.potential, index_B=index_B.to(device)))
            theta.add_(grad, alpha=-cfg.swag_lr / problem.num_examples)

        if not bool(theta.isfinite().all()):
            raise DivergenceError(
                f"swag: parameters are not finite after {collected * cfg.collect_every} steps of "
                "SGD; lower teacher.method.swag_lr"
            )

        mean, square, deviations = _updated(mean, square, deviations, theta, collected)
        yield {
            "theta": theta.cpu().clone(),
            "mean": mean.cpu(),
            "square": square.cpu(),
            "deviations": deviations.cpu(),
            "collected": torch.tensor(collected),
            "rng": generator.get_state(),
        }


def _updated(
    mean_W: Tensor, square_W: Tensor, deviations_JW: Tensor, theta_W: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """New moments with ``theta_W`` as point number ``count`` (Welford 1962)."""
    before_W = theta_W - mean_W
    mean_W = mean_W + before_W / count
    after_W = theta_W - mean_W
    return mean_W, square_W + before_W * after_W, torch.cat([deviations_JW[1:], after_W[None]])


def trajectory_moments(
    problem: Problem, cfg: SwagConfig, *, generator: Generator, state: State | None
) -> abc.Generator[Step, None, State]:
    """Yield steps without samples; return the state when all points have entered the moments.

    Raises:
        DivergenceError: the parameters left the finite numbers.
    """
    if state is None or "collected" not in state:
        states = train(problem, cfg, generator=generator, state=state)
        state = yield from without_samples(states, state)
        size = num_params(problem.shapes)
        state = {
            "theta": state["theta"],
            "mean": torch.zeros(size),
            "square": torch.zeros(size),
            "deviations": torch.zeros(cfg.rank, size),
            "collected": torch.tensor(0),
            "rng": state["rng"],
        }

    generator.set_state(state["rng"])
    if int(state["collected"]) < cfg.collections:
        state = yield from without_samples(_collect(problem, cfg, generator, state), state)
    return state


def swag(
    problem: Problem, cfg: SwagConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every 100 updates and at each collection, then one with a sample for ever.

    See the module docstring.

    Raises:
        DivergenceError: the parameters left the finite numbers.
    """
    state = yield from trajectory_moments(problem, cfg, generator=generator, state=state)

    moments = {k: state[k] for k in ("mean", "square", "deviations", "collected")}
    mean_W, std_W = state["mean"], (state["square"] / cfg.collections / 2).sqrt()
    factor_JW = state["deviations"] / (2 * (cfg.rank - 1)) ** 0.5
    while True:
        diagonal_W = torch.randn(len(mean_W), generator=generator)
        low_rank_J = torch.randn(cfg.rank, generator=generator)
        sample_W = mean_W + std_W * diagonal_W + low_rank_J @ factor_JW
        yield Step(PosteriorSample(sample_W), {**moments, "rng": generator.get_state()})


def _draw_settings(draw: Draw, effort: Effort) -> dict[str, Any]:
    """Settings of a candidate: multi-SWAG, a fit around each of several networks."""
    chains = draw.whole("fits", 1, 8, usual=4)
    return {
        "chains": chains,
        "num_samples": chains * draw.whole("draws", 3, 20, usual=5),
        **training_settings(draw, effort),
        "swag_lr": draw.scale("swag_lr", 0.01, 1, usual=0.1),
        "collect_every": max(1, effort.steps // 40),
        "collections": 20,
    }


METHODS.register("swag")(
    Method(
        SwagConfig,
        swag,
        origin="fitted",
        tuned=Tuned(_draw_settings),
        example={"steps": 100, "batch_size": 4, "collect_every": 3, "collections": 3, "rank": 2},
    )
)
