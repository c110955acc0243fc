"""Where a chain begins: at fresh parameters, or at a network that was trained for it.

With ``start: map`` each chain first trains a network of its own, as method ``map`` does, and goes
on from there: the burn-in then has no way to go from where no network is any good. What the chain
draws later has the same law from either start once it has forgotten it.

The training is resumed like the chain: its states have names that begin with ``start_``.
Source of the idea: Sommer et al. 2025, arXiv:2502.06335, section 4 (chains from optimized members).
"""

from collections import abc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Generator, Tensor

from gped_nas.config import parse
from gped_nas.posterior.adam import train, without_samples
from gped_nas.posterior.base import ChainConfig, Problem, Run, State, Step, unflatten
from gped_nas.posterior.map import MapConfig

PREFIX = "start_"


class StartingConfig(ChainConfig):
    """Settings of a chain that may begin at a trained network."""

    start: Literal["prior"] | MapConfig = Field(
        default="prior", description="where each chain begins: fresh parameters, or a MAP network"
    )

    @field_validator("start", mode="before")
    @classmethod
    def _read_start(cls, value: object) -> object:
        if value == "map":
            return MapConfig(name="map")
        if isinstance(value, Mapping) and value.get("name") == "map":
            return parse(MapConfig, value, "map")
        if value == "prior" or isinstance(value, MapConfig):
            return value
        raise ValueError(
            f"found {value!r}, expected prior, map, or settings of map such as "
            "{name: map, steps: 800, lr: 0.003}"
        )

    def identity(self) -> dict[str, Any]:
        """See ``MethodConfig.identity``: streams from before there was a choice keep their keys."""
        identity = super().identity()
        if self.start == "prior":
            del identity["start"]
        return identity

    def steps_of(
        self, run: Run, problem: Problem, *, generator: Generator, state: State | None
    ) -> Iterator[Step]:
        """See ``MethodConfig.steps_of``: the steps of the training first, without samples."""
        has_begun = state is not None and PREFIX + "theta" not in state
        if self.start == "prior" or has_begun:
            return self.steps_from_start(run, problem, generator=generator, state=state)
        return self._from_map(run, problem, self.start, generator=generator, state=state)

    def steps_from_start(
        self, run: Run, problem: Problem, *, generator: Generator, state: State | None
    ) -> Iterator[Step]:
        """The steps of a chain that begins at ``problem.initialize``."""
        return super().steps_of(run, problem, generator=generator, state=state)

    def _from_map(
        self,
        run: Run,
        problem: Problem,
        training: MapConfig,
        *,
        generator: Generator,
        state: State | None,
    ) -> Iterator[Step]:
        theta_W = yield from _train(problem, training, generator=generator, state=state)
        trained = replace(problem, initialize=lambda generator: unflatten(theta_W, problem.shapes))
        yield from self.steps_from_start(run, trained, generator=generator, state=None)


def _train(
    problem: Problem, cfg: MapConfig, *, generator: Generator, state: State | None
) -> abc.Generator[Step, None, Tensor]:
    """Yield a step every 100 updates; return the parameters (W,) of the trained network."""
    inner = None
    if state is not None:
        inner = {name.removeprefix(PREFIX): value for name, value in state.items()}

    states = train(problem, cfg, generator=generator, state=inner)
    marked = ({PREFIX + name: value for name, value in s.items()} for s in states)
    last = yield from without_samples(marked, state)
    return last[PREFIX + "theta"]
