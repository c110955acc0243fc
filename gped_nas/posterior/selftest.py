"""The posterior methods against posteriors known exactly: ``gped-search doctor --posterior``.

Each method draws from the posterior of a conjugate linear regression of eight correlated
parameters, most of them thousands of chains as one tensor with the exact gradient. Mean and
variances of what it draws are compared with the law that the method has there: the exact posterior
where it has no error, its own closed form where it has a known one. A method passes if no mean and
no variance is further off than five standard errors and the slack that optimization leaves; what it
would overlook is told with each result.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.errors import DivergenceError
from gped_nas.posterior.base import METHODS, State
from gped_nas.posterior.conjugate import Known, copies, regression

STANDARD_ERRORS = 5.0
"""One of the 150 or so comparisons is off by as much in one of 10,000 self-tests of right code."""

Law = Callable[[Known, Any, State], Tensor]
"""``law(posterior, cfg, state)`` gives the covariance (W, W) of what a method draws.

``state`` is its last one.
"""


def _exact(posterior: Known, cfg: Any, state: State) -> Tensor:
    return posterior.covariance_WW


def _sgld(posterior: Known, cfg: Any, state: State) -> Tensor:
    """T (A - (eta / 4) A^2)^-1: theta <- theta - (eta / 2) A theta + N(0, eta T)."""
    a = posterior.precision_WW
    return _inverse(a - cfg.step_size.initial / 4 * a @ a)


def _psgld(posterior: Known, cfg: Any, state: State) -> Tensor:
    """The same in the metric of D, (A - (eta / 4) A D A)^-1, averaged over chains.

    Each chain has a D of its own.
    """
    a = posterior.precision_WW
    metric = cfg.preconditioner(state["square"].double(), cfg.burn_in).view(-1, len(a))
    a_d_a = (a * metric[:, None, :]) @ a
    return _inverse(a - cfg.step_size.initial / 4 * a_d_a).mean(0)


def _mean_field(posterior: Known, cfg: Any, state: State) -> Tensor:
    """Variances 1 / A_ii."""
    return torch.diag(1 / posterior.precision_WW.diagonal())


def _anchored(posterior: Known, cfg: Any, state: State) -> Tensor:
    """A^-1 lambda A^-1: the mode moves by A^-1 lambda (anchor), with anchors N(0, 1 / lambda)."""
    prior: Any = posterior.problem.prior
    return posterior.covariance_WW @ posterior.covariance_WW * float(prior.precision)


def _point(posterior: Known, cfg: Any, state: State) -> Tensor:
    """No variance."""
    return torch.zeros_like(posterior.precision_WW)


def _inverse(matrices: Tensor) -> Tensor:
    inverse: Tensor = torch.linalg.inv(matrices)
    return inverse


@dataclass(frozen=True)
class Trial:
    """How one method is tried.

    Attributes:
        settings: of the method; the posterior's curvatures are from 14 to 132.
        law: the covariance it must have.
        copies: independent posteriors in one tensor; 0 for the regression itself.
        samples: posterior samples taken, almost independent ones.
        slack: relative error that is let pass beside the standard errors, of a standard deviation.
    """

    settings: Mapping[str, Any]
    law: Law = _exact
    copies: int = 20_000
    samples: int = 1
    slack: float = 0.0


_OPTIMIZED = {"steps": 1500, "lr": 0.02, "batch_size": 1}
_CYCLES = {"burn_in_cycles": 0, "thinning": 500, "batch_size": 1}
TRIALS: dict[str, Trial] = {
    "sgld": Trial(
        {"step_size": {"initial": 0.008}, "burn_in": 0, "thinning": 200, "batch_size": 1}, _sgld
    ),
    "psgld": Trial(
        {
            "step_size": {"initial": 0.1},
            "burn_in": 200,
            "thinning": 200,
            "damping": 1.0,
            "batch_size": 1,
        },
        _psgld,
    ),
    "sghmc": Trial(
        {
            "step_size": {"initial": 0.08},
            "friction": 5.0,
            "burn_in": 0,
            "thinning": 120,
            "batch_size": 1,
        }
    ),
    "csgld": Trial({"step_size": {"initial": 0.01, "length": 500}, **_CYCLES}, slack=0.01),
    "csghmc": Trial(
        {"step_size": {"initial": 0.08, "length": 500}, "friction": 10.0, **_CYCLES}, slack=0.01
    ),
    "hmc": Trial(
        {"step_size": 0.03, "leapfrog_steps": 8, "burn_in": 100, "thinning": 4},
        copies=200,
        samples=50,
    ),
    "vi": Trial(
        {**_OPTIMIZED, "initial_std": 0.1}, _mean_field, copies=1000, samples=10, slack=0.02
    ),
    "laplace": Trial({"steps": 100, "lr": 0.01, "batch_size": 30}, copies=0, samples=5000),
    "deep_ensemble": Trial(
        {**_OPTIMIZED, "regularizer": "anchor", "num_samples": 1},
        _anchored,
        copies=5000,
        slack=0.01,
    ),
    "map": Trial(_OPTIMIZED, _point, copies=10, slack=0.01),
}
NOT_TRIED = {
    "import": "draws nothing",
    "mc_dropout": "a linear model has no hidden units to drop",
    "swag": "its law is that of SGD's noise, which no posterior fixes",
}


@dataclass(frozen=True)
class Finding:
    """What one method was found to do; see ``Trial``.

    Attributes:
        method: its name.
        expected, found: variance over the exact posterior's, mean over parameters; None where it
            was not tried.
        mean_error, variance_error: the largest over parameters, in the units of what passes: 1 is
            the limit.
        sees: relative error of a variance that would just be seen.
        seconds: what it took.
        ok: whether it passed; None where it was not tried.
        note: why it was not tried, or how it failed.
    """

    method: str
    ok: bool | None
    expected: float | None = None
    found: float | None = None
    mean_error: float | None = None
    variance_error: float | None = None
    sees: float | None = None
    seconds: float = 0.0
    note: str = ""


def selftest(names: list[str] | None = None) -> list[Finding]:
    """Try the named methods, all by default.

    Raises:
        RegistryError: unknown method.
    """
    return [_try(name) for name in names or METHODS]


def _try(name: str) -> Finding:
    method = METHODS[name]
    trial = TRIALS.get(name)
    if trial is None:
        return Finding(name, None, note=NOT_TRIED.get(name, "no trial is known for it"))

    started = time.monotonic()
    posterior = regression()
    problem = copies(posterior, trial.copies) if trial.copies else posterior.problem
    cfg = parse(method.config, {"name": name, **trial.settings}, f"self-test of {name}")
    steps = method(problem, cfg, generator=rng.generator(0, "self-test", name))

    draws: list[Tensor] = []
    state: State = {}
    try:
        for step in steps:
            if step.sample is None:
                continue
            # A sample of many copies is as many draws.
            draws.append(step.sample.theta_W.double().view(-1, len(posterior.mean_W)))
            state = step.state
            if len(draws) == trial.samples:
                break
    except DivergenceError as error:
        return Finding(name, False, note=str(error))

    finding = _compare(name, trial, posterior, torch.cat(draws), trial.law(posterior, cfg, state))
    return replace(finding, seconds=time.monotonic() - started)


def _compare(
    name: str, trial: Trial, posterior: Known, theta_SW: Tensor, covariance_WW: Tensor
) -> Finding:
    """Mean and variances of the draws beside those of the law; see the module docstring."""
    exact = posterior.covariance_WW.diagonal()
    law = covariance_WW.diagonal()
    variance = theta_SW.var(0)
    num = len(theta_SW)
    slack = trial.slack

    # Errors are in units of the exact standard deviation and variance, so that a law without any
    # is compared too.
    off_mean = (theta_SW.mean(0) - posterior.mean_W).abs() / exact.sqrt()
    off_variance = (variance - law).abs() / exact

    # The standard error of a variance is sqrt(2 / num) of it.
    mean_limit = STANDARD_ERRORS * (law / exact / num).sqrt() + slack
    variance_limit = law / exact * (STANDARD_ERRORS * (2 / num) ** 0.5 + 2 * slack) + slack**2
    mean_error = float((off_mean / mean_limit).max())
    variance_error = float((off_variance / variance_limit).max())

    sees = None
    if bool((law > 0).all()):
        sees = float((variance_limit * exact / law).max())

    return Finding(
        method=name,
        ok=mean_error <= 1 and variance_error <= 1,
        expected=float((law / exact).mean()),
        found=float((variance / exact).mean()),
        mean_error=mean_error,
        variance_error=variance_error,
        sees=sees,
    )
