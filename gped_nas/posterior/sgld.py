"""Stochastic gradient Langevin dynamics (Welling & Teh 2011), at an explicit temperature.

    theta <- theta - (eta / 2) grad U(theta) + N(0, eta T)

with U over the full data, estimated from a minibatch drawn with replacement. With the exact
gradient and a Gaussian target of precision ``a`` the stationary variance of this chain is ``T / (a
(1 - eta a / 4))``; tests check that law. A minibatch adds its gradient noise on top, a bias that
vanishes with eta.

Choose it when the network is too large for full-batch methods; it costs one minibatch gradient and
one draw of W normal numbers a step. Source: Welling & Teh 2011, ICML; Vadera et al. 2020,
arXiv:2005.08110, section 3.
"""

from collections.abc import Iterator

from torch import Generator, Tensor

from gped_nas.posterior.base import METHODS, Method, Problem, State, Step, ThinnedConfig
from gped_nas.posterior.chain import Buffers, Draw, MinibatchConfig, run_chain
from gped_nas.posterior.schedule import StepSize


class SgldConfig(ThinnedConfig, MinibatchConfig):
    """Settings of ``sgld``."""

    step_size: StepSize


def sgld(
    problem: Problem, cfg: SgldConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every ``thinning`` updates, with a sample once burn-in is over. See the module
    docstring.

    Raises:
        DivergenceError: the parameters left the finite numbers; the step size is too large.
    """

    def update(buffers: Buffers, grad_W: Tensor, step: int, draw: Draw) -> None:
        eta = cfg.step_size(step)
        buffers["theta"].add_(grad_W, alpha=-eta / 2).add_(
            draw(), alpha=(eta * cfg.temperature) ** 0.5
        )

    return run_chain(
        problem, cfg, update, is_sample=cfg.is_sample, generator=generator, state=state
    )


METHODS.register("sgld")(
    Method(SgldConfig, sgld, suited=lambda budget: {"step_size": {"initial": budget.step_size}})
)
