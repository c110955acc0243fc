"""Cyclical SGLD: SGLD whose step size falls along a cosine, cycle after cycle (Zhang et al. 2020).

    theta <- theta - (eta_k / 2) grad U(theta) + N(0, eta_k T),
    eta_k = (eta_0 / 2) (1 + cos(pi (k mod L) / L)),   k the absolute step, L the steps in a cycle

with U over the full data, estimated from a minibatch. Large steps at the start of a cycle carry the
chain to another mode, small ones at its end sample that mode: samples are taken at the end of each
cycle only, ``samples_per_cycle`` of them, ``thinning`` steps apart, the last one at the cycle's
last step. The first ``exploration`` share of a cycle can run without noise, as plain gradient
descent; samples come from the noisy rest.

**Temperature.** The target is exp(-U / T) with T = 1 unless set. The published implementation
scales its noise for T = 1 / N, and again by 1 / 50000 by default: a posterior so cold that its
samples are copies of a mode. Step sizes are not comparable with it.

**Bias.** A cycle ends before the chain is stationary at any one step size: what is left of the
discretization error of larger steps, and of the noise-free share, decays by exp(-a sum of eta_k /
2) along a direction of curvature ``a``. On a Gaussian the variance follows v <- (1 - eta_k a / 2)^2
v + eta_k T, which tests check. Each mode counts as often as it is visited, whatever its mass. A
minibatch adds its gradient noise, as in ``sgld``.

Choose it over ``sgld`` for posteriors of many modes when one chain should see several. It costs one
minibatch gradient and one draw of W normal numbers a step; a sample costs L / samples_per_cycle
steps. Source: Zhang, Li, Zhang, Chen & Wilson 2020, ICLR, arXiv:1902.03932, equation 1 and
algorithm 1.
"""

from collections.abc import Iterator

from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.posterior.base import METHODS, Method, Problem, State, Step
from gped_nas.posterior.chain import Buffers, Draw, MinibatchConfig, run_chain
from gped_nas.posterior.schedule import CosineCycles
from gped_nas.posterior.sgld import step


class CyclicConfig(MinibatchConfig):
    """Settings of ``csgld``, and of every method that samples at the end of cycles."""

    step_size: CosineCycles = CosineCycles()
    burn_in_cycles: int = Field(
        default=1, ge=0, description="whole cycles before the first sample of each chain"
    )
    samples_per_cycle: int = Field(default=1, ge=1, description="samples at the end of each cycle")
    thinning: int = Field(default=100, ge=1, description="steps between samples of one cycle")
    exploration: float = Field(
        default=0.0, ge=0, lt=1, description="share of each cycle that runs without noise"
    )

    @model_validator(mode="after")
    def _cycles_are_whole(self) -> "CyclicConfig":
        length = self.step_size.length
        if length % self.thinning:
            raise ValueError(
                f"step_size.length: found {length}, expected a multiple of thinning "
                f"({self.thinning}), so that the last sample of a cycle is its last step"
            )

        noisy = length - self.explored
        if self.samples_per_cycle * self.thinning > noisy:
            raise ValueError(
                f"samples_per_cycle: found {self.samples_per_cycle}, {self.thinning} steps apart, "
                f"expected at most {noisy // self.thinning} in the {noisy} noisy steps of a "
                "cycle; lengthen the cycle or lower thinning or exploration"
            )
        return self

    @property
    def explored(self) -> int:
        """Steps without noise at the start of each cycle."""
        return int(self.exploration * self.step_size.length)

    @property
    def burn_in_steps(self) -> int:
        """See ``MinibatchConfig.burn_in_steps``."""
        return self.burn_in_cycles * self.step_size.length

    def temperature_at(self, step: int) -> float:
        """T at an absolute step counted from 0: zero while exploring."""
        return self.temperature if step % self.step_size.length >= self.explored else 0.0

    def is_sample(self, step: int) -> bool:
        """Whether the state after ``step`` steps is a sample; asked on the grid of ``thinning``."""
        length = self.step_size.length
        if step <= self.burn_in_cycles * length:
            return False

        until_end_of_cycle = -step % length
        return until_end_of_cycle < self.samples_per_cycle * self.thinning


def csgld(
    problem: Problem, cfg: CyclicConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every ``thinning`` updates, with a sample at the end of each cycle.

    See the module docstring.

    Raises:
        DivergenceError: the parameters left the finite numbers; the step size is too large.
    """

    def update(buffers: Buffers, grad_W: Tensor, number: int, draw: Draw) -> None:
        temperature = cfg.temperature_at(number)
        step(
            buffers["theta"],
            grad_W,
            draw() if temperature > 0 else None,
            step_size=cfg.step_size(number),
            temperature=temperature,
        )

    return run_chain(problem, cfg, update, generator=generator, state=state)


METHODS.register("csgld")(
    Method(
        CyclicConfig,
        csgld,
        suited=lambda budget: {
            "step_size": {"initial": 3 * budget.step_size, "length": 10 * budget.thinning},
            "samples_per_cycle": 3,
        },
        example={
            "step_size": {"initial": 0.01, "length": 6},
            "thinning": 2,
            "samples_per_cycle": 2,
            "exploration": 0.3,
        },
    )
)
