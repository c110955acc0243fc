"""Networks that are trained to a maximum of their posterior, all at once on a device.

MAP networks, those that chains begin at, and the members of a deep ensemble. The law is that of
``posterior.adam``: a network begins at the parameters, and is shown the minibatches, that its
generator gives. So its numbers are those of a processor but for rounding, in whatever company.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator

from gped_nas import rng
from gped_nas.distill.phases.chain_walk import CHAINS, can_walk
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.rules import ANCHOR, descent
from gped_nas.distill.phases.runs import Run, run_together
from gped_nas.posterior import adam
from gped_nas.posterior.adam import TrainingConfig
from gped_nas.posterior.base import Problem, State, Step, flatten
from gped_nas.posterior.deep_ensemble import DeepEnsembleConfig, draw_anchor
from gped_nas.posterior.likelihoods import Likelihood
from gped_nas.posterior.map import MapConfig
from gped_nas.posterior.priors import Prior

_LONGEST = 1000
"""Steps between two states, at most: their way to the host takes as long as some steps."""
_AT_ONCE = 64
"""Members of an ensemble that are trained together."""


def walks_fits(cfg: TrainingConfig, problem: Problem, likelihood: Likelihood, num: int) -> bool:
    """Whether so many networks can be trained together on a device.

    Args:
        cfg: how they are trained.
        problem: the posterior.
        likelihood: of its network.
        num: how many there are.
    """
    return can_walk(problem, likelihood, num_chains=num, batch_size=cfg.batch_size)


def walks_members(
    cfg: MapConfig | DeepEnsembleConfig, problem: Problem, likelihood: Likelihood
) -> bool:
    """Whether a teacher's networks can be trained by ``MembersTogether``."""
    num = _AT_ONCE if isinstance(cfg, DeepEnsembleConfig) else 1
    return walks_fits(cfg, problem, likelihood, num)


@dataclass(frozen=True)
class _Descent:
    """Settings of a training as a chain's: see ``posterior.chain.Stepping``."""

    cfg: TrainingConfig
    thinning: int

    @property
    def name(self) -> str:
        return self.cfg.name

    @property
    def remedy(self) -> str:
        return "lower teacher.method.lr"

    @property
    def batch_size(self) -> int:
        return self.cfg.batch_size

    def step_size(self, step: int) -> float:
        return adam.step_size(self.cfg, step)

    def is_sample(self, step: int) -> bool:
        return step == self.cfg.steps


def begin_fit(problem: Problem, generator: Generator) -> Run:
    """A network at fresh parameters."""
    theta_W = flatten(problem.initialize(generator)).to(problem.x.device)
    moments = {name: torch.zeros_like(theta_W) for name in ("first", "second")}
    return Run(generator, 0, {"theta": theta_W, **moments}, 0)


def resume_fit(state: State, generator: Generator) -> Run:
    """A network where its training was stopped."""
    generator.set_state(state["rng"])
    buffers = {name: value for name, value in state.items() if name not in ("step", "rng")}
    return Run(generator, 0, buffers, int(state["step"]))


def fit_together(
    problem: Problem,
    cfg: TrainingConfig,
    likelihood: Likelihood,
    fits: Sequence[Run],
    *,
    priors: Sequence[Prior] = (),
    launch: Launch = CHAINS,
) -> Iterator[list[Step]]:
    """Yield a step of each network now and then; the last ones have their samples.

    Args:
        problem: the posterior, on the device.
        cfg: how they are trained.
        likelihood: of the posterior's network.
        fits: networks after equally many steps; they move on.
        priors: of each of them; that of the problem by default.
        launch: how walks are launched.

    Raises:
        DivergenceError: the parameters of one left the finite numbers.
    """
    start = fits[0].step
    assert all(fit.step == start for fit in fits), "they end together"
    num_steps = cfg.steps - start
    thinning = next(d for d in range(min(_LONGEST, num_steps), 0, -1) if num_steps % d == 0)
    rule = descent(cfg, is_anchored=ANCHOR in fits[0].buffers)
    return run_together(
        problem,
        _Descent(cfg, thinning),
        likelihood,
        rule,
        fits,
        launch,
        num_rounds=num_steps // thinning,
        priors=priors,
    )


def train_together(
    problem: Problem,
    cfg: TrainingConfig,
    likelihood: Likelihood,
    fits: Sequence[Run],
    *,
    launch: Launch = CHAINS,
) -> list[Step]:
    """The last step of each network; args and errors as of ``fit_together``."""
    (steps,) = deque(fit_together(problem, cfg, likelihood, fits, launch=launch), maxlen=1)
    return steps


@dataclass(frozen=True, eq=False)
class MembersTogether:
    """The members of one ensemble, or a MAP teacher, trained at once: see ``ChainsTogether``.

    A chain's members follow each other: each begins where the generator stands after the last one.
    So all are known beforehand, and steps are yielded once they are done, a member of each chain.

    Attributes:
        problem, cfg, likelihood, seed, launch: see ``ChainsTogether``.
    """

    problem: Problem
    cfg: MapConfig | DeepEnsembleConfig
    likelihood: Likelihood
    seed: int
    launch: Launch = CHAINS

    def __call__(
        self, chains: Sequence[int], states: Sequence[State | None]
    ) -> Iterator[list[Step]]:
        """Yield a member of each chain, again and again; a MAP teacher's one sample.

        Raises as ``ChainsTogether``.
        """
        generators = [rng.generator(self.seed, "posterior", chain) for chain in chains]
        if any(state is not None for state in states):
            yield self._finish(generators, states)

        num = 1
        if isinstance(self.cfg, DeepEnsembleConfig):
            num = max(1, min(self.cfg.num_samples, _AT_ONCE) // len(chains))
        while True:
            # by member, then by chain
            fits = [self._begin(generator) for _ in range(num) for generator in generators]
            steps = self._train(fits)
            for start in range(0, len(steps), len(chains)):
                yield steps[start : start + len(chains)]

    def _finish(
        self, generators: Sequence[Generator], states: Sequence[State | None]
    ) -> list[Step]:
        """The members that were being trained; a chain that had none half done has no sample."""
        steps: list[Step] = []
        for generator, state in zip(generators, states, strict=True):
            if state is None:
                # a member of its own, so that every chain has a step
                steps += self._train([self._begin(generator)])
                continue
            generator.set_state(state["rng"])
            if int(state["step"]) >= self.cfg.steps:
                steps.append(Step(None, state))
                continue
            fit = resume_fit(state, torch.Generator())
            self._skip(generator, self.cfg.steps - fit.step)
            steps += self._train([fit])
        return steps

    def _begin(self, generator: Generator) -> Run:
        """A chain's next member; the chain's generator goes on behind it."""
        own = torch.Generator()
        own.set_state(generator.get_state())
        anchor = {}
        if isinstance(self.cfg, DeepEnsembleConfig):
            anchor = draw_anchor(self.problem, self.cfg, own)
        fit = begin_fit(self.problem, own)
        fit.buffers |= anchor

        generator.set_state(own.get_state())
        self._skip(generator, self.cfg.steps)
        return fit

    def _skip(self, generator: Generator, num_steps: int) -> None:
        """Draw the minibatches of a member, whose own generator draws them again."""
        shape = (num_steps, self.cfg.batch_size)
        torch.randint(self.problem.num_examples, shape, generator=generator)

    def _train(self, fits: Sequence[Run]) -> list[Step]:
        return train_together(self.problem, self.cfg, self.likelihood, fits, launch=self.launch)
