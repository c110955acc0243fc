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

import torch
from pydantic import Field
from torch import Generator, Tensor

from gped_nas.posterior.base import METHODS, Method, Problem, State, Step, ThinnedConfig
from gped_nas.posterior.chain import Buffers, Draw, MinibatchConfig, run_chain
from gped_nas.posterior.schedule import StepSize


class PsgldConfig(ThinnedConfig, MinibatchConfig):
    """Settings of ``psgld``."""

    step_size: StepSize
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


def psgld(
    problem: Problem, cfg: PsgldConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every ``thinning`` updates, with a sample once burn-in is over. See the module
    docstring.

    Raises:
        DivergenceError: the parameters left the finite numbers; the step size is too large.
    """
    metric: Tensor | None = None

    def update(buffers: Buffers, grad_W: Tensor, step: int, draw: Draw) -> None:
        nonlocal metric
        theta, square, eta = buffers["theta"], buffers["square"], cfg.step_size(step)
        adapts = step < cfg.burn_in
        if adapts:
            square.lerp_((grad_W / problem.num_examples).square_(), 1 - cfg.decay)
        if adapts or metric is None:
            metric = cfg.preconditioner(square, step + 1)
        theta.addcmul_(metric, grad_W, value=-eta / 2)
        theta.addcmul_(metric.sqrt(), draw(), value=(eta * cfg.temperature) ** 0.5)

    return run_chain(
        problem,
        cfg,
        update,
        is_sample=cfg.is_sample,
        generator=generator,
        state=state,
        start=lambda theta_W: {"square": torch.zeros_like(theta_W)},
        remedy="lower teacher.method.step_size.initial or raise teacher.method.damping",
    )


METHODS.register("psgld")(
    Method(
        PsgldConfig,
        psgld,
        suited=lambda budget: {"step_size": {"initial": budget.step_size / 10}, "damping": 0.05},
    )
)
