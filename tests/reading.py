"""Two posterior methods that read another one's samples, as a plug-in would bring them."""

import multiprocessing
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.models.base import Shapes
from gped_nas.posterior.base import (
    METHODS,
    ChainConfig,
    Method,
    PosteriorSample,
    Problem,
    ReadingConfig,
    State,
    Step,
)


class EveryConfig(ReadingConfig):
    """Settings of ``every``."""

    nth: int = Field(default=2, ge=1)

    def count(self, shapes: Shapes) -> int:
        """See ``MethodConfig.count``."""
        return self.of.count(shapes) // self.nth


def every(
    problem: Problem, cfg: EveryConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield every nth of the samples that are read, the last of each n."""
    assert problem.samples is not None
    start = 0 if state is None else int(state["next"])
    for i in range(start, len(problem.samples) // cfg.nth):
        sample = problem.samples[(i + 1) * cfg.nth - 1]
        yield Step(sample, {"next": torch.tensor(i + 1)})


class FittedConfig(ReadingConfig, ChainConfig):
    """Settings of ``fitted``."""


def fitted(
    problem: Problem, cfg: FittedConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield draws from independent normal laws with the moments of the samples that are read."""
    assert problem.samples is not None
    mean_W, variance_W = moments(problem.samples)
    if state is not None:
        generator.set_state(state["rng"])
    while True:
        noise_W = torch.randn(len(mean_W), generator=generator, dtype=torch.float64)
        sample_W = mean_W + variance_W.sqrt() * noise_W
        yield Step(PosteriorSample(sample_W.float()), {"rng": generator.get_state()})


def moments(samples: Any) -> tuple[Tensor, Tensor]:
    """Weighted means and variances (W,) of posterior samples, float64."""
    theta_SW = torch.stack([sample.theta_W.double() for sample in samples])
    weight_S = torch.tensor([sample.weight for sample in samples], dtype=torch.float64)
    weight_S = weight_S / weight_S.sum()
    mean_W = weight_S @ theta_SW
    return mean_W, weight_S @ (theta_SW - mean_W).square()


READING = {"every": Method(EveryConfig, every), "fitted": Method(FittedConfig, fitted, "fitted")}

# A chain's own process learns of a plug-in by its entry point; of this one, by importing it.
if multiprocessing.current_process().name != "MainProcess":
    for name, method in READING.items():
        METHODS.register(name)(method)
