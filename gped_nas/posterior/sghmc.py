"""Stochastic gradient Hamiltonian Monte Carlo: underdamped Langevin dynamics by a splitting
integrator.

The dynamics d theta = (p / m) dt, dp = -grad U dt - gamma p dt + sqrt(2 gamma m T) dW leave exp(-(U
+ p^2 / 2m) / T) invariant. One step of size h, with one minibatch gradient of U over the full data,
is

    p     <- p - h grad U(theta)                                B
    theta <- theta + (h / 2m) p                                 A
    p     <- c p + N(0, (1 - c^2) m T),   c = exp(-gamma h)      O
    theta <- theta + (h / 2m) p                                 A

from p ~ N(0, m T) at the first step. This is BAOAB with the two half kicks between successive
steps, which use the same gradient, done as one: the parameters after each step are those of BAOAB.
The target of theta is exp(-U / T); the step size corresponds to SGLD's eta = h^2 / m.

**Bias.** On a Gaussian the variance of theta is T / a *exactly*, at every stable step size
(explicit Euler steps of the same dynamics inflate it by about h a / gamma); otherwise the error of
the target is O(h^2), O(h^4) at high friction. A minibatch adds the variance of its gradient as
heat, about h V / (2 gamma m) on T where V is that variance: small steps and high friction keep it
low. No estimate of V is subtracted (Chen et al. call it B-hat).

**Stable range.** h^2 a < 4 m for the largest curvature a, whatever the friction. The curvature of
the likelihood is not known beforehand; that of the prior is, and a step size that is unstable under
the prior alone is refused. So is a friction that float32 cannot apply (gamma h < 1e-6) or that
forgets all momentum at every step (gamma h > 30).

Choose it over ``sgld`` when the posterior is narrow in some directions and wide in others: momentum
carries it along the wide ones. It costs one minibatch gradient and one draw of W normal numbers a
step, and W more numbers of memory. Sources: Chen, Fox & Guestrin 2014, ICML, arXiv:1402.4102 (the
method); Leimkuhler & Matthews 2013, AMRX 2013(1), and 2013, J. Chem. Phys. 138 (BAOAB and its
exactness on Gaussians).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.errors import ConfigError
from gped_nas.posterior.base import METHODS, FlatParams, Method, Problem, State, Step, ThinnedConfig
from gped_nas.posterior.chain import Buffers, Draw, MinibatchConfig, run_chain
from gped_nas.posterior.schedule import StepSize
from gped_nas.posterior.tunable import Draw as DrawSetting
from gped_nas.posterior.tunable import Effort, Tuned, chain_settings, step_of, three_digits

REMEDY = "lower teacher.method.step_size.initial or raise teacher.method.mass"
"""What to do when the integrator diverges."""
_DAMPING_FOUND = 0.1
"""gamma h where both are found."""
_LEAST_DAMPING, _MOST_DAMPING = 1e-6, 30.0


class MomentumConfig(MinibatchConfig):
    """Settings of ``sghmc``, and of every method with its integrator."""

    remedy: ClassVar[str] = REMEDY

    friction: float | None = Field(
        default=None, gt=0, description="gamma, per unit of time; 1, or 1 / 10 h of an h found"
    )
    mass: float = Field(default=1.0, gt=0, description="m, of every parameter")

    @model_validator(mode="before")
    @classmethod
    def _fill_friction(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("friction") is not None:
            return data
        step_size = data.get("step_size")
        settings = step_size if isinstance(step_size, Mapping) else vars(step_size or StepSize())
        return {**data, "friction": None if settings.get("initial") is None else 1.0}

    @property
    def gamma(self) -> float:
        """The friction of a chain whose step size is known."""
        assert self.friction is not None, "filled in beside a step size"
        return self.friction

    def with_step_size(self, initial: float) -> Self:
        """See ``MinibatchConfig.with_step_size``: friction forgets a tenth of momentum a step."""
        friction = self.friction or _DAMPING_FOUND / initial
        with_friction = self.model_copy(update={"friction": friction})
        return super(MomentumConfig, with_friction).with_step_size(initial)

    def largest_step(self, curvature: float) -> float:
        """See ``MinibatchConfig.largest_step``: SGLD's eta is h^2 / m.

        A minibatch heats by h V / (2 gamma m), SGLD by eta V / 4: friction must carry off as much.
        """
        eta = super().largest_step(curvature)
        if self.friction is None:
            return math.sqrt(self.mass * eta * _DAMPING_FOUND / 2)
        return min(math.sqrt(self.mass * eta), eta * self.mass * self.friction / 2)


class SghmcConfig(ThinnedConfig, MomentumConfig):
    """Settings of ``sghmc``."""

    step_size: StepSize = Field(
        default=StepSize(), description="h, in time; SGLD's eta is h^2 / mass"
    )

    @model_validator(mode="after")
    def _friction_acts(self) -> Self:
        check_friction(self.friction, self.step_size.initial)
        return self


def check_friction(friction: float | None, step_size: float | None) -> None:
    """Raise ``ValueError`` when momentum would never, or wholly, be forgotten in one step.

    Of a step size that is not known yet nothing is said.
    """
    if step_size is None or friction is None:
        return
    if not _LEAST_DAMPING <= friction * step_size <= _MOST_DAMPING:
        raise ValueError(
            f"friction: found {friction:g}, expected {_LEAST_DAMPING / step_size:g} to "
            f"{_MOST_DAMPING / step_size:g} at step size {step_size:g}, so that a step forgets "
            "some of the momentum and not all of it"
        )


def check_step_size(problem: Problem, theta_W: Tensor, step_size: float, mass: float) -> None:
    """Refuse a step size at which the integrator is unstable under the prior alone.

    The curvature is a difference quotient of the prior's gradient along one direction: exact for a
    Gaussian of one precision, and never more than the largest precision of a Gaussian of several.

    Raises:
        ConfigError: the step size is outside the stable range.
    """
    flat = FlatParams(problem.shapes, theta_W.to(torch.float64, copy=True))

    def minus_log_prior(params: dict[str, Tensor]) -> Tensor:
        # the zero keeps a prior that is flat in every parameter differentiable
        return 0.0 * next(iter(params.values())).sum() - problem.log_prior(params)

    before_W = flat.gradient(minus_log_prior).clone()
    flat.theta_W.add_(1.0)
    curvature = float((flat.gradient(minus_log_prior) - before_W).mean())

    if step_size**2 * curvature >= 4 * mass:
        raise ConfigError(
            f"teacher.method.step_size.initial: found {step_size:g}, expected less than "
            f"{2 * math.sqrt(mass / curvature):g} = 2 sqrt(mass / prior precision): beyond it the "
            "integrator is unstable whatever the data; lower it or raise teacher.method.mass"
        )


def redraw(momentum_W: Tensor, noise_W: Tensor, *, mass: float, temperature: float) -> None:
    """Draw the momentum afresh, in place: p ~ N(0, m T).

    Args:
        momentum_W: p; overwritten.
        noise_W: standard normal numbers.
        mass: m, of every parameter.
        temperature: T; 1 is the Bayes posterior.
    """
    momentum_W.copy_(noise_W).mul_((mass * temperature) ** 0.5)


def first_momentum(
    problem: Problem, cfg: SghmcConfig, theta_W: Tensor, generator: Generator
) -> Buffers:
    """The momentum that a chain begins with.

    Raises:
        ConfigError: the step size is unstable under the prior alone.
    """
    check_step_size(problem, theta_W, cfg.step_size(0), cfg.mass)

    momentum_W = torch.empty_like(theta_W)
    noise_W = torch.empty(theta_W.shape).normal_(generator=generator)
    redraw(momentum_W, noise_W, mass=cfg.mass, temperature=cfg.temperature)
    return {"momentum": momentum_W}


def step(
    theta_W: Tensor,
    momentum_W: Tensor,
    grad_W: Tensor,
    noise_W: Tensor,
    *,
    step_size: float,
    friction: float,
    mass: float,
    temperature: float,
) -> None:
    """Move parameters and momentum by one step B A O A, in place. See the module docstring.

    Args:
        theta_W: flat parameters; moved.
        momentum_W: p; moved.
        grad_W: a gradient of U at ``theta_W``, over the full data or estimated from a minibatch.
        noise_W: standard normal numbers.
        step_size: h, in time.
        friction: gamma, per unit of time.
        mass: m, of every parameter.
        temperature: T; 1 is the Bayes posterior.
    """
    drift = step_size / (2 * mass)
    decay = math.exp(-friction * step_size)
    # 1 - c^2 by expm1: exact where gamma h is small
    spread = math.sqrt(-math.expm1(-2 * friction * step_size) * mass * temperature)

    # B: p <- p - h grad U(theta)
    momentum_W.add_(grad_W, alpha=-step_size)

    # A: theta <- theta + (h / 2m) p
    theta_W.add_(momentum_W, alpha=drift)

    # O: p <- c p + N(0, (1 - c^2) m T)
    momentum_W.mul_(decay).add_(noise_W, alpha=spread)

    # A: theta <- theta + (h / 2m) p
    theta_W.add_(momentum_W, alpha=drift)


def sghmc(
    problem: Problem, cfg: SghmcConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every ``thinning`` updates, with a sample once burn-in is over.

    See the module docstring.

    Raises:
        ConfigError: the step size is unstable under the prior alone.
        DivergenceError: the parameters left the finite numbers; the step size is too large.
    """

    def start(theta_W: Tensor) -> Buffers:
        return first_momentum(problem, cfg, theta_W, generator)

    def update(buffers: Buffers, grad_W: Tensor, number: int, draw: Draw) -> None:
        step(
            buffers["theta"],
            buffers["momentum"],
            grad_W,
            draw(),
            step_size=cfg.step_size(number),
            friction=cfg.gamma,
            mass=cfg.mass,
            temperature=cfg.temperature,
        )

    return run_chain(problem, cfg, update, start=start, generator=generator, state=state)


def _draw_settings(draw: DrawSetting, effort: Effort) -> dict[str, Any]:
    """Settings of a candidate: h = sqrt(eta), and a friction by what a step forgets."""
    settings = chain_settings(draw, effort)
    step_size: dict[str, Any] = {"initial": three_digits(step_of(draw, effort) ** 0.5)}
    if draw.choice("schedule", ("constant", "halved"), usual="constant") == "halved":
        step_size["halve_at"] = [settings["burn_in"]]

    forgetting = draw.scale("forgetting", 0.02, 2, usual=0.5)
    friction = three_digits(forgetting / step_size["initial"])
    return {**settings, "step_size": step_size, "friction": friction}


METHODS.register("sghmc")(
    Method(
        SghmcConfig,
        sghmc,
        suited=lambda budget: {
            "step_size": {"initial": budget.step_size**0.5},
            "friction": 1 / (10 * budget.step_size**0.5),
        },
        tuned=Tuned(_draw_settings),
        example={"step_size": {"initial": 0.05, "halve_at": [3, 9]}, "burn_in": 4, "thinning": 2},
    )
)
