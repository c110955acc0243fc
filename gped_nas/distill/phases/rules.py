"""What the steps of each posterior method are made of, for the device program ``move``.

A rule says which buffers a chain has beside its parameters, and the few numbers that ``move`` reads
at each step. The formulas are those of the method's module, whose ``step`` is the reference. With g
the gradient of U, z the noise and n the numbers of the step,

    LANGEVIN         theta += n0 g + n1 z
    PRECONDITIONED   V += n2 ((g / N)^2 - V);  D = 1 / (sqrt(n3 V) + damping)
                     theta += n0 D g + n1 sqrt(D) z
    HAMILTONIAN      p = n4 z', where n4 is not negative
                     p += n0 g;  theta += n1 p;  p = n2 p + n3 z;  theta += n1 p

Networks that are trained to their maximum step by the program ``descend``, without noise. Their
rule is that of ``posterior.adam``, with prior and anchor of each network's own:

    DESCENT          m += (1 - beta_1) (g / N - m);  v += (1 - beta_2) ((g / N)^2 - v)
                     theta += n0 m / (sqrt(n1 v) + epsilon)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Generator, Tensor

from gped_nas.posterior import adam, csghmc, csgld, psgld, sghmc, sgld
from gped_nas.posterior.base import MethodConfig, Problem
from gped_nas.posterior.chain import Buffers, nothing_more

NUM_NUMBERS = 8
"""Numbers a step, with some to spare."""
_NEVER = -1.0


class Kind(IntEnum):
    """How a step moves the parameters."""

    LANGEVIN = 0
    PRECONDITIONED = 1
    HAMILTONIAN = 2
    DESCENT = 3


@dataclass(frozen=True)
class Rule:
    """The steps of one method with its settings.

    Attributes:
        kind: how a step moves.
        buffers: names of the buffers beside ``theta``: at most one, but of ``DESCENT``.
        numbers: an absolute step, counted from 0, to what ``move`` reads.
        start: ``(problem, theta_W, generator)`` to the other buffers at the very beginning.
        damping: a constant of the kind.
    """

    kind: Kind
    buffers: tuple[str, ...]
    numbers: Callable[[int], Sequence[float]]
    start: Callable[[Problem, Tensor, Generator], Buffers]
    damping: float = 0.0


def rule_of(cfg: MethodConfig) -> Rule | None:
    """The rule of a method with these settings; None where it has none."""
    make = _RULES.get(type(cfg))
    return None if make is None else make(cfg)


def _of_sgld(cfg: sgld.SgldConfig) -> Rule:
    def numbers(step: int) -> Sequence[float]:
        eta = cfg.step_size(step)
        return -eta / 2, (eta * cfg.temperature) ** 0.5

    return Rule(Kind.LANGEVIN, (), numbers, _no_buffers)


def _of_csgld(cfg: csgld.CyclicConfig) -> Rule:
    def numbers(step: int) -> Sequence[float]:
        eta = cfg.step_size(step)
        return -eta / 2, (eta * cfg.temperature_at(step)) ** 0.5

    return Rule(Kind.LANGEVIN, (), numbers, _no_buffers)


def _of_psgld(cfg: psgld.PsgldConfig) -> Rule:
    def numbers(step: int) -> Sequence[float]:
        eta = cfg.step_size(step)
        share = 1 - cfg.decay if step < cfg.burn_in else 0.0
        correction = 1 / (1 - cfg.decay ** min(step + 1, cfg.burn_in))
        return -eta / 2, (eta * cfg.temperature) ** 0.5, share, correction

    def start(problem: Problem, theta_W: Tensor, generator: Generator) -> Buffers:
        return {"square": torch.zeros_like(theta_W)}

    return Rule(Kind.PRECONDITIONED, ("square",), numbers, start, damping=cfg.damping)


def _of_sghmc(cfg: sghmc.SghmcConfig) -> Rule:
    def numbers(step: int) -> Sequence[float]:
        return *_splitting(cfg, cfg.step_size(step), cfg.temperature), _NEVER

    def start(problem: Problem, theta_W: Tensor, generator: Generator) -> Buffers:
        return sghmc.first_momentum(problem, cfg, theta_W, generator)

    return Rule(Kind.HAMILTONIAN, ("momentum",), numbers, start)


def _of_csghmc(cfg: csghmc.CsghmcConfig) -> Rule:
    def numbers(step: int) -> Sequence[float]:
        redraws = step % cfg.step_size.length == cfg.explored
        fresh = (cfg.mass * cfg.temperature) ** 0.5 if redraws else _NEVER
        return *_splitting(cfg, cfg.step_size(step), cfg.temperature_at(step)), fresh

    def start(problem: Problem, theta_W: Tensor, generator: Generator) -> Buffers:
        return csghmc.first_momentum(problem, cfg, theta_W)

    return Rule(Kind.HAMILTONIAN, ("momentum",), numbers, start)


FIRST, SECOND, ANCHOR = "first", "second", "anchor"
"""Buffers of ``DESCENT``: both moments, and where a network has one, what it is drawn to."""


def descent(cfg: adam.TrainingConfig, *, is_anchored: bool = False) -> Rule:
    """The rule of a training with these settings."""

    def numbers(step: int) -> Sequence[float]:
        lr = adam.step_size(cfg, step)
        first, second = (1 - beta ** (step + 1) for beta in (adam.BETA1, adam.BETA2))
        return -lr / first, 1 / second

    def start(problem: Problem, theta_W: Tensor, generator: Generator) -> Buffers:
        return {name: torch.zeros_like(theta_W) for name in (FIRST, SECOND)}

    buffers = (FIRST, SECOND, ANCHOR) if is_anchored else (FIRST, SECOND)
    return Rule(Kind.DESCENT, buffers, numbers, start)


def _splitting(
    cfg: sghmc.SghmcConfig | csghmc.CsghmcConfig, h: float, temperature: float
) -> tuple[float, float, float, float]:
    """Kick, drift, what friction leaves, and the spread of the noise, of a step of size h."""
    forgotten = -math.expm1(-2 * cfg.gamma * h)
    return (
        -h,
        h / (2 * cfg.mass),
        math.exp(-cfg.gamma * h),
        math.sqrt(forgotten * cfg.mass * temperature),
    )


def _no_buffers(problem: Problem, theta_W: Tensor, generator: Generator) -> Buffers:
    return nothing_more(theta_W)


_RULES: dict[type[MethodConfig], Callable[..., Rule]] = {
    sgld.SgldConfig: _of_sgld,
    csgld.CyclicConfig: _of_csgld,
    psgld.PsgldConfig: _of_psgld,
    sghmc.SghmcConfig: _of_sghmc,
    csghmc.CsghmcConfig: _of_csghmc,
}
