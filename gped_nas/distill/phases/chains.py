"""The chains of a teacher, all at once: the iterator of their steps, from walks on a device.

The law is that of the method. A chain begins with the parameters, and draws the minibatches, that
its own generator gives; noise is a function of the chain's key, the step and the place of the
parameter (Philox, Salmon et al. 2011). So a chain that is stopped goes on with the same bits, in
whatever company.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from torch import Generator

from gped_nas import rng
from gped_nas.distill.phases.chain_walk import CHAINS, can_walk
from gped_nas.distill.phases.fits import begin_fit, resume_fit, train_together
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.rules import rule_of
from gped_nas.distill.phases.runs import Run, run_together
from gped_nas.posterior.base import MethodConfig, Problem, State, Step, unflatten
from gped_nas.posterior.chain import Stepping, must_find_step_size
from gped_nas.posterior.likelihoods import Likelihood
from gped_nas.posterior.map import MapConfig
from gped_nas.posterior.start import PREFIX


def walks_chains(cfg: MethodConfig, problem: Problem, likelihood: Likelihood, chains: int) -> bool:
    """Whether the chains of a method can be walked together on a device.

    Chains that find their step sizes cannot: each runs by itself.

    Args:
        cfg: the method's settings.
        problem: the posterior.
        likelihood: of its network.
        chains: how many chains there are.
    """
    if rule_of(cfg) is None:
        return False
    if must_find_step_size(cfg):
        return False
    batch_size = int(getattr(cfg, "batch_size", 0))
    return can_walk(problem, likelihood, num_chains=chains, batch_size=batch_size)


@dataclass(frozen=True, eq=False)
class ChainsTogether:
    """The chains of one teacher, as a function that yields the steps of several at once.

    Attributes:
        problem: the posterior, on the device.
        cfg: the method's settings.
        likelihood: of the posterior's network.
        seed: root of every draw.
        launch: how walks are launched.
    """

    problem: Problem
    cfg: MethodConfig
    likelihood: Likelihood
    seed: int
    launch: Launch = CHAINS

    def __call__(
        self, chains: Sequence[int], states: Sequence[State | None]
    ) -> Iterator[list[Step]]:
        """Yield a step of each chain, again and again.

        Args:
            chains: their numbers.
            states: where each one stopped; None at its beginning.

        Raises:
            ConfigError: the settings cannot work with this posterior.
            DivergenceError: a buffer of a chain left the finite numbers.
        """
        rule = rule_of(self.cfg)
        assert rule is not None, "asked before"
        generators = [rng.generator(self.seed, "posterior", chain) for chain in chains]

        training = getattr(self.cfg, "start", None)
        if isinstance(training, MapConfig):
            trained = self._train_starts(training, generators, states)
            if trained is not None:
                states = trained
                yield [Step(None, state) for state in trained]

        runs = []
        for chain, generator, state in zip(chains, generators, states, strict=True):
            key = rng.seed(self.seed, "posterior", chain, "noise")
            problem = self.problem
            if isinstance(training, MapConfig) and state is not None and _is_before_start(state):
                problem, state = self._at_trained(state, generator), None
            runs.append(Run.of(problem, rule, generator, key, state))
        cfg = cast(Stepping, self.cfg)
        yield from run_together(self.problem, cfg, self.likelihood, rule, runs, self.launch)

    def _train_starts(
        self,
        cfg: MapConfig,
        generators: Sequence[Generator],
        states: Sequence[State | None],
    ) -> list[State] | None:
        """The states of the chains once each has its network; None where nothing is to be trained.

        Those whose trainings have gone equally far are trained together.
        """
        trained: list[State | None] = list(states)
        fits: dict[int, Run] = {}
        for i, (generator, state) in enumerate(zip(generators, states, strict=True)):
            if state is None:
                fits[i] = begin_fit(self.problem, generator)
            elif _is_before_start(state):
                inner = {name.removeprefix(PREFIX): value for name, value in state.items()}
                fits[i] = resume_fit(inner, generator)

        unfinished = {fit.step for fit in fits.values()} - {cfg.steps}
        if not unfinished:
            return None
        for reached in unfinished:
            members = [i for i, fit in fits.items() if fit.step == reached]
            group = [fits[i] for i in members]
            steps = train_together(self.problem, cfg, self.likelihood, group, launch=self.launch)
            for i, step in zip(members, steps, strict=True):
                trained[i] = {PREFIX + name: value for name, value in step.state.items()}
        return [state for state in trained if state is not None]

    def _at_trained(self, state: State, generator: Generator) -> Problem:
        """The posterior whose chain begins at a trained network; the generator goes on there."""
        generator.set_state(state[PREFIX + "rng"])
        params = unflatten(state[PREFIX + "theta"], self.problem.shapes)
        return replace(self.problem, initialize=lambda generator: params)


def _is_before_start(state: State | None) -> bool:
    """Whether a chain that begins at a trained network has not begun."""
    return state is None or PREFIX + "theta" in state
