"""The chains of a teacher, all at once: the iterator of their steps, from walks on a device.

The law is that of the method. A chain begins with the parameters, and draws the minibatches, that
its own generator gives; noise is a function of the chain's key, the step and the place of the
parameter (Philox, Salmon et al. 2011). So a chain that is stopped goes on with the same bits, in
whatever company.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor

from gped_nas import rng
from gped_nas.distill.phases.chain_walk import (
    CHAINS,
    PART,
    ChainWalk,
    Departure,
    Part,
    can_walk,
)
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.rules import NUM_NUMBERS, Rule, rule_of
from gped_nas.errors import DivergenceError
from gped_nas.posterior.base import MethodConfig, PosteriorSample, Problem, State, Step, flatten
from gped_nas.posterior.chain import Stepping
from gped_nas.posterior.likelihoods import Likelihood


def walks_chains(cfg: MethodConfig, problem: Problem, likelihood: Likelihood, chains: int) -> bool:
    """Whether the chains of a method can be walked together on a device.

    Chains that begin at trained networks cannot: each is trained, and run, by itself.

    Args:
        cfg: the method's settings.
        problem: the posterior.
        likelihood: of its network.
        chains: how many chains there are.
    """
    if rule_of(cfg) is None or getattr(cfg, "start", "prior") != "prior":
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
        runs = []
        for chain, state in zip(chains, states, strict=True):
            generator = rng.generator(self.seed, "posterior", chain)
            key = rng.seed(self.seed, "posterior", chain, "noise")
            runs.append(_Run.of(self.problem, rule, generator, key, state))
        cfg = cast(Stepping, self.cfg)
        return run_together(self.problem, cfg, self.likelihood, rule, runs, self.launch)


@dataclass(eq=False)
class _Run:
    """A chain on its way.

    Attributes:
        generator: of its minibatches.
        key: of its noise.
        buffers: flat (W,), by name, as they were at the beginning.
        step: how many steps have been handed to the device.
    """

    generator: Generator
    key: int
    buffers: dict[str, Tensor]
    step: int

    @classmethod
    def of(
        cls, problem: Problem, rule: Rule, generator: Generator, key: int, state: State | None
    ) -> "_Run":
        """A chain at its beginning, or at ``state``."""
        if state is None:
            theta_W = flatten(problem.initialize(generator)).to(problem.x.device)
            buffers = {"theta": theta_W, **rule.start(problem, theta_W, generator)}
            return cls(generator, key, buffers, 0)

        generator.set_state(state["rng"])
        buffers = {name: state[name] for name in ("theta", *rule.buffers)}
        return cls(generator, key, buffers, int(state["step"]))


@dataclass(frozen=True, eq=False)
class _Segment:
    """Steps of all chains that end with a state of each.

    Attributes:
        steps: how many steps each chain has then taken.
        rngs: the states of their generators then.
        departure: the buffers as they then are.
    """

    steps: list[int]
    rngs: list[Tensor]
    departure: Departure


def run_together(
    problem: Problem,
    cfg: Stepping,
    likelihood: Likelihood,
    rule: Rule,
    runs: Sequence[_Run],
    launch: Launch,
) -> Iterator[list[Step]]:
    """Yield a step of each chain every ``cfg.thinning`` updates, for ever.

    On a GPU the next segment is begun before the steps of one are yielded.
    """
    length = min(cfg.thinning, PART)
    walk = ChainWalk(
        problem,
        likelihood,
        rule,
        num_chains=len(runs),
        batch_size=cfg.batch_size,
        length=length,
        launch=launch,
    )
    walk.load([run.buffers for run in runs], keys=[run.key for run in runs])

    begun: list[_Segment] = []
    try:
        while True:
            for start in range(0, cfg.thinning, length):
                num_steps = min(length, cfg.thinning - start)
                part = _part(problem, cfg, rule, runs, num_steps)
                walk.advance(part, [run.step for run in runs])
                for run in runs:
                    run.step += num_steps
            steps = [run.step for run in runs]
            rngs = [run.generator.get_state() for run in runs]
            begun.append(_Segment(steps, rngs, walk.depart()))

            if len(begun) > problem.x.is_cuda:
                yield _steps_of(begun.pop(0), cfg, len(runs))
    finally:
        walk.close()


def _part(
    problem: Problem, cfg: Stepping, rule: Rule, runs: Sequence[_Run], num_steps: int
) -> Part:
    """Minibatches and numbers of the next steps of each chain."""
    shape = (num_steps, cfg.batch_size)
    numbers_KTN = torch.zeros(len(runs), num_steps, NUM_NUMBERS)
    indices = []
    for run, numbers_TN in zip(runs, numbers_KTN, strict=True):
        # the numbers that one draw a step gives
        index_TB = torch.randint(problem.num_examples, shape, generator=run.generator)
        indices.append(index_TB.to(torch.int32))
        rows = [rule.numbers(run.step + t) for t in range(num_steps)]
        numbers_TN[:, : len(rows[0])] = torch.tensor(rows)
    return Part(torch.stack(indices), numbers_KTN)


def _steps_of(segment: _Segment, cfg: Stepping, num_chains: int) -> list[Step]:
    """The step of each chain at the end of a segment.

    Raises:
        DivergenceError: a buffer left the finite numbers.
    """
    copies = segment.departure.arrive()
    steps = []
    for k in range(num_chains):
        number = segment.steps[k]
        state = {name: copy_KW[k].clone() for name, copy_KW in copies.items()}
        if not all(_is_finite(buffer) for buffer in state.values()):
            raise DivergenceError(
                f"{cfg.name}: parameters are not finite after {number} steps at step size "
                f"{cfg.step_size(number - 1):g}; {cfg.remedy}"
            )

        sample = PosteriorSample(state["theta"]) if cfg.is_sample(number) else None
        state["step"] = torch.tensor(number)
        state["rng"] = segment.rngs[k]
        steps.append(Step(sample, state))
    return steps


def _is_finite(buffer: Tensor) -> bool:
    return bool(torch.stack(buffer.aminmax()).isfinite().all())
