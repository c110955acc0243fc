"""Cyclical SGHMC: the integrator of ``sghmc`` with the step sizes and samples of ``csgld`` (Zhang
et al. 2020).

Step k moves parameters and momentum by ``sghmc``'s B A O A with

    h_k = (h_0 / 2) (1 + cos(pi (k mod L) / L)),   k the absolute step, L the steps in a cycle

at the temperature T, or at zero in the first ``exploration`` share of a cycle, which is then
gradient descent with momentum. Where the noisy part of a cycle begins, the momentum is drawn afresh
from N(0, m T): descent leaves it too cold, and friction alone would warm it slowly as the steps
shrink. Samples are taken at the end of each cycle only.

The target is exp(-U / T) with T = 1 unless set (the published implementation uses 1 / N and less,
see ``csgld``). The step size corresponds to SGLD's eta = h^2 / m and has the stable range of
``sghmc``: h_0^2 a < 4 m.

**Bias.** That of ``sghmc`` in its gradient noise, and that of ``csgld`` in ending a cycle before
every trace of the exploration is gone and in counting modes by visits. Full kicks of h_k between
steps of unequal size add an error of the order of their difference. On a Gaussian the covariance of
(theta, p) follows a linear recursion, which tests check.

Choose it over ``csgld`` when modes are wide in some directions and narrow in others. It costs one
minibatch gradient and one draw of W normal numbers a step, and W more numbers of memory; a sample
costs L / samples_per_cycle steps. Source: Zhang, Li, Zhang, Chen & Wilson 2020, ICLR,
arXiv:1902.03932, equation 1 and algorithm 2.
"""

from collections.abc import Iterator
from typing import Any, Self

import torch
from pydantic import model_validator
from torch import Generator, Tensor

from gped_nas.posterior.base import METHODS, Method, Problem, State, Step
from gped_nas.posterior.chain import Buffers, Draw, run_chain
from gped_nas.posterior.csgld import CyclicConfig
from gped_nas.posterior.sghmc import MomentumConfig, check_friction, check_step_size, redraw, step
from gped_nas.posterior.tunable import Draw as DrawSetting
from gped_nas.posterior.tunable import Effort, Tuned, step_of, three_digits


class CsghmcConfig(CyclicConfig, MomentumConfig):
    """Settings of ``csghmc``."""

    @model_validator(mode="after")
    def _friction_acts(self) -> Self:
        check_friction(self.friction, self.step_size.initial)
        return self


def first_momentum(problem: Problem, cfg: CsghmcConfig, theta_W: Tensor) -> Buffers:
    """The momentum that a chain begins with: none.

    Raises:
        ConfigError: the step size is unstable under the prior alone.
    """
    check_step_size(problem, theta_W, cfg.step_size(0), cfg.mass)
    return {"momentum": torch.zeros_like(theta_W)}


def csghmc(
    problem: Problem, cfg: CsghmcConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every ``thinning`` updates, with a sample at the end of each cycle.

    See the module docstring.

    Raises:
        ConfigError: the step size is unstable under the prior alone.
        DivergenceError: the parameters left the finite numbers; the step size is too large.
    """

    def start(theta_W: Tensor) -> Buffers:
        return first_momentum(problem, cfg, theta_W)

    def update(buffers: Buffers, grad_W: Tensor, number: int, draw: Draw) -> None:
        # Descent leaves the momentum too cold for the noisy part of a cycle.
        if number % cfg.step_size.length == cfg.explored:
            redraw(buffers["momentum"], draw(), mass=cfg.mass, temperature=cfg.temperature)

        step(
            buffers["theta"],
            buffers["momentum"],
            grad_W,
            draw(),
            step_size=cfg.step_size(number),
            friction=cfg.gamma,
            mass=cfg.mass,
            temperature=cfg.temperature_at(number),
        )

    return run_chain(problem, cfg, update, start=start, generator=generator, state=state)


def _draw_settings(draw: DrawSetting, effort: Effort) -> dict[str, Any]:
    """Settings of a candidate: a cycle is as long as a training, three samples at its end."""
    chains = draw.whole("chains", 1, 6, usual=3)
    cycles = draw.whole("cycles", 2, 12, usual=4)
    initial = three_digits(step_of(draw, effort) ** 0.5)
    forgetting = draw.scale("forgetting", 0.02, 2, usual=0.5)
    return {
        "chains": chains,
        "num_samples": 3 * cycles * chains,
        "samples_per_cycle": 3,
        "thinning": effort.thinning,
        "step_size": {
            "initial": initial,
            "length": effort.burn_in_times(draw.scale("length", 0.7, 2, usual=1)),
        },
        "exploration": 0.5,
        "friction": three_digits(forgetting / initial),
        "batch_size": effort.batch_size,
        "temperature": draw.scale("temperature", 1e-3, 1, usual=0.01),
    }


METHODS.register("csghmc")(
    Method(
        CsghmcConfig,
        csghmc,
        suited=lambda budget: {
            "step_size": {
                "initial": (3 * budget.step_size) ** 0.5,
                "length": 10 * budget.thinning,
            },
            "samples_per_cycle": 3,
            "friction": 1 / (10 * budget.step_size**0.5),
        },
        tuned=Tuned(_draw_settings),
        example={
            "step_size": {"initial": 0.05, "length": 6},
            "thinning": 2,
            "samples_per_cycle": 2,
            "exploration": 0.3,
        },
    )
)
