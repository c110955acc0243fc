"""Hamiltonian Monte Carlo over the full data: the reference for small networks.

A transition draws p ~ N(0, I), follows ``leapfrog_steps`` steps of size e

    p <- p - (e / 2) grad U(theta);   theta <- theta + e p;   p <- p - (e / 2) grad U(theta)

and accepts where they end with probability min(1, exp(-change of U + p^2 / 2)) (the Metropolis
correction), else stays. e is
drawn uniformly within ``jitter`` of the tuned step size, independently of the state, so that no
direction is stuck on a closed orbit (Neal 2011, section 5.3.2). During burn-in dual averaging tunes
the step size to the acceptance ``target_acceptance``; after it the averaged value is kept, which
accepts somewhat more often than asked.

The target is exp(-U), the Bayes posterior: there is no temperature. **Bias**: none at any step size
once burn-in is over, only the error of a finite and correlated chain; the step size decides how
often proposals are accepted. Everything is computed in float64, since the energy of a network is
large and its change near one; samples are rounded to float32.

**Cost.** One full-data gradient a leapfrog step: ``leapfrog_steps * thinning`` of them a sample,
each N / batch_size times a stochastic method's, and a few vectors of W numbers. Choose it up to
some ten thousand parameters and examples, to know what the stochastic methods are compared with.
Sources: Neal 2011, arXiv:1206.1901; Hoffman & Gelman 2014,
JMLR 15, arXiv:1111.4246, algorithm 5 (dual averaging; here the number of leapfrog steps is fixed,
not the length of the path, so that the cost of a sample is known beforehand).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.errors import DivergenceError
from gped_nas.models.base import Params
from gped_nas.posterior.base import (
    METHODS,
    FlatParams,
    Method,
    PosteriorSample,
    Problem,
    State,
    Step,
    ThinnedConfig,
    flatten,
)
from gped_nas.posterior.start import StartingConfig

_SHRINKAGE, _DELAY, _FORGETTING = 0.05, 10.0, 0.75
"""gamma, t0 and kappa of Hoffman & Gelman 2014, section 3.2.1."""


class HmcConfig(ThinnedConfig, StartingConfig):
    """Settings of ``hmc``."""

    step_size: float = Field(
        default=0.01, gt=0, description="of leapfrog; where tuning starts, or kept if no burn-in"
    )
    leapfrog_steps: int = Field(default=20, ge=1, description="full-data gradients a transition")
    burn_in: int = Field(
        default=200, ge=0, description="transitions that tune the step size, before any sample"
    )
    thinning: int = Field(default=1, ge=1, description="transitions between samples of one chain")
    target_acceptance: float = Field(
        default=0.8, gt=0, lt=1, description="mean acceptance that tuning aims at"
    )
    jitter: float = Field(
        default=0.1, ge=0, lt=1, description="relative half-width of the step size of a transition"
    )


@dataclass(frozen=True)
class DualAveraging:
    """The tuned step size.

    Attributes:
        log_step: its logarithm to try next.
        log_kept: the averaged one to keep.
        error: by how much the mean acceptance is below the one that is asked for.
    """

    log_step: float
    log_kept: float
    error: float = 0.0

    @classmethod
    def start(cls, step_size: float) -> "DualAveraging":
        return cls(math.log(step_size), math.log(step_size))

    def after(
        self, acceptance: float, num: int, *, initial: float, target: float
    ) -> "DualAveraging":
        """The state after one transition: algorithm 5 of Hoffman & Gelman.

        Args:
            acceptance: the probability with which it was accepted.
            num: how many transitions there are with this one.
            initial: the step size where tuning started.
            target: the acceptance that is asked for.
        """
        error = self.error + (target - acceptance - self.error) / (num + _DELAY)
        log_step = math.log(10 * initial) - math.sqrt(num) / _SHRINKAGE * error
        weight = num**-_FORGETTING
        return DualAveraging(log_step, weight * log_step + (1 - weight) * self.log_kept, error)


def leapfrog(
    flat: FlatParams,
    momentum_W: Tensor,
    potential: Callable[[Params], Tensor],
    *,
    step_size: float,
    num_steps: int,
) -> Tensor:
    """Follow the dynamics, in place; return the potential where they end.

    Args:
        flat: the parameters, with the gradient of the potential there; both moved.
        momentum_W: p; moved.
        potential: U of named parameters, nats.
        step_size: e.
        num_steps: gradients; at least 1.
    """
    for _ in range(num_steps):
        # p <- p - (e / 2) grad U(theta)
        momentum_W.add_(flat.grad_W, alpha=-step_size / 2)

        # theta <- theta + e p
        flat.theta_W.add_(momentum_W, alpha=step_size)

        # p <- p - (e / 2) grad U(theta)
        energy, _ = flat.value_and_gradient(potential)
        momentum_W.add_(flat.grad_W, alpha=-step_size / 2)

    return energy


def hmc(
    problem: Problem, cfg: HmcConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every ``thinning`` transitions, with a sample once burn-in is over.

    See the module docstring.

    Raises:
        DivergenceError: the start has no finite energy, or no transition of the whole burn-in was
            accepted.
    """
    problem = replace(problem, x=problem.x.double() if problem.x.is_floating_point() else problem.x)
    device = problem.x.device

    if state is None:
        theta_W = flatten(problem.initialize(generator)).to(device, torch.float64)
        step, accepted = 0, 0
        tuned = DualAveraging.start(cfg.step_size)
    else:
        theta_W = state["theta"].to(device, copy=True)
        step, accepted = int(state["step"]), int(state["accepted"])
        tuned = DualAveraging(*(float(state[k]) for k in ("log_step", "log_kept", "error")))
        generator.set_state(state["rng"])

    flat = FlatParams(problem.shapes, theta_W.clone())
    everything = torch.arange(problem.num_examples, device=device)
    potential = partial(problem.potential, index_B=everything)
    energy, grad_W = (t.clone() for t in flat.value_and_gradient(potential))
    if not bool(energy.isfinite()):
        raise DivergenceError(
            f"hmc: the potential is {float(energy)} where the chain starts, expected a finite "
            "number"
        )

    while True:
        for _ in range(cfg.thinning):
            # p ~ N(0, I), and a step size for this transition alone
            momentum_W = torch.empty(theta_W.shape, dtype=torch.float64)
            momentum_W = momentum_W.normal_(generator=generator).to(device)
            position, chance = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
            log_step = tuned.log_step if step < cfg.burn_in else tuned.log_kept
            step_size = math.exp(log_step) * (1 + cfg.jitter * (2 * position - 1))

            before = energy + momentum_W.square().sum() / 2
            flat.theta_W.copy_(theta_W)
            flat.grad_W.copy_(grad_W)
            proposed = leapfrog(
                flat, momentum_W, potential, step_size=step_size, num_steps=cfg.leapfrog_steps
            )
            change = float(proposed + momentum_W.square().sum() / 2 - before)

            # An energy that is not finite means that the path left the stable range: never
            # accepted.
            acceptance = math.exp(-max(change, 0.0)) if math.isfinite(change) else 0.0
            step += 1
            if chance < acceptance:
                theta_W.copy_(flat.theta_W)
                energy, grad_W = proposed.clone(), flat.grad_W.clone()
                accepted += 1
            if step <= cfg.burn_in:
                tuned = tuned.after(
                    acceptance, step, initial=cfg.step_size, target=cfg.target_acceptance
                )

        if step == cfg.burn_in and accepted == 0:
            raise DivergenceError(
                f"hmc: none of the {step} transitions of burn-in was accepted, the last at step "
                f"size {step_size:g}; lower teacher.method.step_size or raise "
                "teacher.method.burn_in"
            )

        sample = PosteriorSample(theta_W.float().cpu()) if cfg.is_sample(step) else None
        state = {
            "theta": theta_W.cpu().clone(),
            "step": torch.tensor(step),
            "accepted": torch.tensor(accepted),
            "log_step": torch.tensor(tuned.log_step, dtype=torch.float64),
            "log_kept": torch.tensor(tuned.log_kept, dtype=torch.float64),
            "error": torch.tensor(tuned.error, dtype=torch.float64),
            "rng": generator.get_state(),
        }
        yield Step(sample, state)


METHODS.register("hmc")(
    Method(
        HmcConfig,
        hmc,
        suited=lambda budget: {"leapfrog_steps": 100},
        takes_all_data=True,
        example={"step_size": 0.05, "leapfrog_steps": 3, "burn_in": 4, "thinning": 2},
    )
)
