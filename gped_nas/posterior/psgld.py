"""SGLD with a diagonal RMSprop preconditioner (Li et al. 2016) that is frozen after burn-in.

With g the minibatch gradient of U over the full data and N the number of examples, during burn-in

    V <- decay V + (1 - decay) (g / N)^2
    D  = 1 / (damping + sqrt(V / (1 - decay^t)))          t: steps so far
    theta <- theta - (eta / 2) D g + N(0, eta T D)

and after it the same last line with V, and so D, as burn-in left them. The noise carries the
preconditioner: its standard deviation is sqrt(eta T D), not sqrt(eta T). The target is exp(-U / T).

**Bias.** While D follows theta, the exact diffusion has a drift Gamma_i = dD_i / dtheta_i (Li et
al. 2016, equation 5) that is dropped here, as everyone drops it: burn-in is therefore not a sampler
of the target. After burn-in D is constant and Gamma is zero, so nothing is dropped: on a Gaussian
of precision ``a`` and with the exact gradient the stationary variance of a coordinate is ``T / (a
(1 - eta D a / 4))``, which tests check. A minibatch adds its gradient noise on top, as in ``sgld``.

Departures from the source: V starts unbiased, by Adam's division (Kingma & Ba 2015), which matters
in the first 1 / (1 - decay) steps only; the gradient in V is that of U / N, the prior included; V
is frozen.

Choose it over ``sgld`` when layers have gradients of very different sizes. It costs one minibatch
gradient and one draw of W normal numbers a step, and W more numbers of memory; burn-in must be long
enough to reach typical gradients. Source: Li, Chen, Carlson & Carin 2016, AAAI, arXiv:1512.07666,
algorithm 1.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.posterior.base import METHODS, FlatParams, Method, Problem, State, Step, ThinnedConfig
from gped_nas.posterior.chain import Buffers, Draw, MinibatchConfig, run_chain
from gped_nas.posterior.schedule import StepSize
from gped_nas.posterior.tunable import Tuned, chain_settings, step_of, three_digits

_FIRST_GRADIENTS = 10
"""From which the preconditioner is guessed before the first step."""


class PsgldConfig(ThinnedConfig, MinibatchConfig):
    """Settings of ``psgld``."""

    remedy: ClassVar[str] = "lower teacher.method.step_size.initial or raise teacher.method.damping"

    step_size: StepSize = StepSize()
    burn_in: int = Field(
        default=1000, ge=1, description="steps that adapt the preconditioner, before any sample"
    )
    decay: float = Field(
        default=0.99, ge=0, lt=1, description="of the running mean of squared gradients"
    )
    damping: float = Field(
        default=1e-5, gt=0, description="added to the root mean square of the gradient of U / N"
    )

    def preconditioner(self, square_W: Tensor, step: int) -> Tensor:
        """D (W,) from the running mean of squared gradients as it is after ``step`` steps."""
        adapted = min(step, self.burn_in)
        return 1 / (square_W / (1 - self.decay**adapted)).sqrt_().add_(self.damping)

    def metric(
        self, problem: Problem, theta_W: Tensor, state: State, generator: Generator
    ) -> Tensor:
        """See ``MinibatchConfig.metric``: D, at the beginning from a few gradients there."""
        if "square" in state:
            return self.preconditioner(state["square"].to(theta_W), int(state["step"]))

        flat = FlatParams(problem.shapes, theta_W.clone())
        square_W = torch.zeros_like(theta_W)
        for _ in range(_FIRST_GRADIENTS):
            index_B = torch.randint(problem.num_examples, (self.batch_size,), generator=generator)
            grad_W = problem.gradient(flat, index_B.to(theta_W.device))
            square_W += (grad_W / problem.num_examples).square_() / _FIRST_GRADIENTS
        return 1 / square_W.sqrt_().add_(self.damping)


def adapt(square_W: Tensor, grad_W: Tensor, *, num_examples: int, decay: float) -> None:
    """Take a gradient into the running mean of squared gradients, in place.

        V <- decay V + (1 - decay) (g / N)^2

    Args:
        square_W: V; moved.
        grad_W: g, a gradient of U over the full data.
        num_examples: N.
        decay: how much of V stays.
    """
    square_W.lerp_((grad_W / num_examples).square_(), 1 - decay)


def step(
    theta_W: Tensor,
    grad_W: Tensor,
    noise_W: Tensor,
    *,
    metric_W: Tensor,
    step_size: float,
    temperature: float,
) -> None:
    """Move the parameters by one step, in place: algorithm 1 of the source, without Gamma.

        theta <- theta - (eta / 2) D g + sqrt(eta T D) z

    Args:
        theta_W: flat parameters; moved.
        grad_W: g, a gradient of U at ``theta_W``.
        noise_W: standard normal numbers z.
        metric_W: D, the diagonal of the preconditioner.
        step_size: eta, in units of the full-data potential.
        temperature: T; 1 is the Bayes posterior.
    """
    theta_W.addcmul_(metric_W, grad_W, value=-step_size / 2)
    theta_W.addcmul_(metric_W.sqrt(), noise_W, value=(step_size * temperature) ** 0.5)


def psgld(
    problem: Problem, cfg: PsgldConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every ``thinning`` updates, with a sample once burn-in is over.

    See the module docstring.

    Raises:
        DivergenceError: the parameters left the finite numbers; the step size is too large.
    """
    metric_W: Tensor | None = None

    def start(theta_W: Tensor) -> Buffers:
        return {"square": torch.zeros_like(theta_W)}

    def update(buffers: Buffers, grad_W: Tensor, number: int, draw: Draw) -> None:
        nonlocal metric_W
        square_W, adapts = buffers["square"], number < cfg.burn_in

        if adapts:
            adapt(square_W, grad_W, num_examples=problem.num_examples, decay=cfg.decay)
        # After burn-in D is what it was: it is made once, also where a chain resumes there.
        if adapts or metric_W is None:
            metric_W = cfg.preconditioner(square_W, number + 1)

        step(
            buffers["theta"],
            grad_W,
            draw(),
            metric_W=metric_W,
            step_size=cfg.step_size(number),
            temperature=cfg.temperature,
        )

    return run_chain(problem, cfg, update, start=start, generator=generator, state=state)


METHODS.register("psgld")(
    Method(
        PsgldConfig,
        psgld,
        suited=lambda budget: {"step_size": {"initial": budget.step_size / 10}, "damping": 0.05},
        tuned=Tuned(
            lambda draw, effort: {
                **chain_settings(draw, effort),
                "step_size": {"initial": three_digits(step_of(draw, effort) / 10)},
                "damping": draw.scale("damping", 1e-3, 1, usual=0.05),
            },
            is_tried=False,
        ),
        example={"step_size": {"initial": 0.001, "halve_at": [3, 9]}, "burn_in": 4, "thinning": 2},
    )
)
