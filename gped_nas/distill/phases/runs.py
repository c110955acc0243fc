"""Chains on their way on a device: parts of steps are handed there, and states come back."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gped_nas.distill.phases.chain_walk import PART, ChainWalk, Part
from gped_nas.distill.phases.departures import Departure
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.rules import NUM_NUMBERS, Rule
from gped_nas.errors import DivergenceError
from gped_nas.posterior.base import PosteriorSample, Problem, State, Step, flatten
from gped_nas.posterior.chain import Stepping
from gped_nas.posterior.likelihoods import Likelihood
from gped_nas.posterior.priors import Prior


@dataclass(eq=False)
class Run:
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
    ) -> "Run":
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
    runs: Sequence[Run],
    launch: Launch,
    *,
    num_rounds: int | None = None,
    priors: Sequence[Prior] = (),
) -> Iterator[list[Step]]:
    """Yield a step of each chain every ``cfg.thinning`` updates, so often or for ever.

    On a GPU the next segment is begun before the steps of one are yielded.

    Args:
        problem: the posterior, on the device.
        cfg: batch size, and when a state is yielded or is a sample.
        likelihood: of the posterior's network.
        rule: how chains step.
        runs: where they stand; they move on.
        launch: how walks are launched.
        num_rounds: after which it ends.
        priors: see ``ChainWalk``.
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
        priors=priors,
    )
    walk.load([run.buffers for run in runs], keys=[run.key for run in runs])

    begun: list[_Segment] = []
    rounds = itertools.count() if num_rounds is None else range(num_rounds)
    try:
        for _ in rounds:
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
        while begun:
            yield _steps_of(begun.pop(0), cfg, len(runs))
    finally:
        walk.close()


def _part(problem: Problem, cfg: Stepping, rule: Rule, runs: Sequence[Run], num_steps: int) -> Part:
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
