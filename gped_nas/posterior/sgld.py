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
from typing import Any

from torch import Generator, Tensor

from gped_nas.posterior.base import METHODS, Method, Problem, State, Step, ThinnedConfig
from gped_nas.posterior.chain import Buffers, Draw, MinibatchConfig, run_chain
from gped_nas.posterior.schedule import StepSize
from gped_nas.posterior.tunable import Draw as DrawSetting
from gped_nas.posterior.tunable import Effort, Tuned, chain_settings, step_of


class SgldConfig(ThinnedConfig, MinibatchConfig):
    """Settings of ``sgld``."""

    step_size: StepSize = StepSize()


def step(
    theta_W: Tensor,
    grad_W: Tensor,
    noise_W: Tensor | None,
    *,
    step_size: float,
    temperature: float,
) -> None:
    """Move the parameters by one step, in place: equation 4 of the source, at a temperature.

        theta <- theta - (eta / 2) grad U(theta) + sqrt(eta T) z

    Args:
        theta_W: flat parameters; moved.
        grad_W: a gradient of U at ``theta_W``, over the full data or estimated from a minibatch.
        noise_W: standard normal numbers z; None leaves the last term out.
        step_size: eta, in units of the full-data potential.
        temperature: T; 1 is the Bayes posterior.
    """
    theta_W.add_(grad_W, alpha=-step_size / 2)

    if noise_W is not None:
        theta_W.add_(noise_W, alpha=(step_size * temperature) ** 0.5)


def sgld(
    problem: Problem, cfg: SgldConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield a step every ``thinning`` updates, with a sample once burn-in is over.

    See the module docstring.

    Raises:
        DivergenceError: the parameters left the finite numbers; the step size is too large.
    """

    def update(buffers: Buffers, grad_W: Tensor, number: int, draw: Draw) -> None:
        step(
            buffers["theta"],
            grad_W,
            draw(),
            step_size=cfg.step_size(number),
            temperature=cfg.temperature,
        )

    return run_chain(problem, cfg, update, generator=generator, state=state)


def _draw_settings(draw: DrawSetting, effort: Effort) -> dict[str, Any]:
    """Settings of a candidate; its step size is halved where the burn-in ends, or stays."""
    settings = chain_settings(draw, effort)
    step_size: dict[str, Any] = {"initial": step_of(draw, effort)}
    if draw.choice("schedule", ("constant", "halved"), usual="constant") == "halved":
        step_size["halve_at"] = [settings["burn_in"]]
    return {**settings, "step_size": step_size}


METHODS.register("sgld")(
    Method(
        SgldConfig,
        sgld,
        suited=lambda budget: {"step_size": {"initial": budget.step_size}},
        tuned=Tuned(_draw_settings),
        example={"step_size": {"initial": 0.01, "halve_at": [3, 9]}, "burn_in": 4, "thinning": 2},
    )
)
