"""The posterior methods against posteriors known exactly: ``gped-search doctor --posterior``.

Each method draws from the posterior of a linear regression of eight correlated parameters and 30
examples, most of them hundreds of copies of it as one tensor, in minibatches of five. Mean and
variances of what it draws are compared with the law that the method has there (``laws``): that of
its discretized chain with its minibatches, or its own closed form.

A method passes if no mean and no variance is further off than five standard errors and the slack
that optimization leaves. Standard errors come from the scatter of the draws; what a comparison
would overlook is told with its result.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.config import parse
from gped_nas.device import one_thread
from gped_nas.errors import DivergenceError
from gped_nas.posterior import laws
from gped_nas.posterior.base import METHODS, State, Step
from gped_nas.posterior.conjugate import Known, regression
from gped_nas.posterior.trials import NOT_TRIED, READS_SAMPLES, TRIALS, Trial

STANDARD_ERRORS = 5.0
"""Of about 250 comparisons of right code, one is off by as much in one of 1,000 self-tests."""


@dataclass(frozen=True)
class Finding:
    """What one method was found to do; see ``Trial``.

    Attributes:
        method: its name.
        case: what the trial is about.
        expected, found: variance over the exact posterior's, mean over parameters; None where it
            was not tried.
        mean_error, variance_error: the largest over parameters, in the units of what passes: 1 is
            the limit.
        sees: relative error that would just be seen if every variance had it.
        seconds: what it took.
        ok: whether it passed; None where it was not tried.
        note: why it was not tried, or how it failed.
    """

    method: str
    ok: bool | None
    case: str = ""
    expected: float | None = None
    found: float | None = None
    mean_error: float | None = None
    variance_error: float | None = None
    sees: float | None = None
    seconds: float = 0.0
    note: str = ""


def selftest(names: list[str] | None = None, *, seed: int = 0) -> list[Finding]:
    """Try the named methods, all by default.

    Args:
        names: of methods.
        seed: root of all draws.

    Raises:
        RegistryError: unknown method.
    """
    findings = []
    for name in names or METHODS:
        METHODS[name]  # an unknown one is refused before anything is tried
        trials = TRIALS.get(name, ())
        # Steps are small: a second thread would only be waited for.
        with one_thread():
            findings += [_try(name, trial, seed) for trial in trials]
        if not trials:
            note = NOT_TRIED.get(name, "no trial is known for it")
            if METHODS[name].reads_samples:
                note = READS_SAMPLES
            findings.append(Finding(name, None, note=note))
    return findings


def _try(name: str, trial: Trial, seed: int) -> Finding:
    method = METHODS[name]
    started = time.monotonic()
    posterior = regression(precision=trial.prior)
    cfg = parse(method.config, {"name": name, **trial.settings}, f"self-test of {name}")
    generator = rng.generator(seed, "self-test", name, trial.case)
    steps = method(trial.problem(posterior), cfg, generator=generator)

    try:
        theta_SKW, state = _draw(trial, posterior, steps)
    except DivergenceError as error:
        return Finding(name, False, trial.case, note=str(error))

    finding = _compare(name, trial, posterior, theta_SKW, trial.law(posterior, cfg, state))
    return replace(finding, seconds=time.monotonic() - started)


def _draw(trial: Trial, posterior: Known, steps: Iterator[Step]) -> tuple[Tensor, State]:
    """What is compared, of each posterior sample and copy, float64; and the last state."""
    draws: list[Tensor] = []
    state: State = {}
    for step in steps:
        if step.sample is None:
            continue
        state = step.state
        draws.append(trial.reading(posterior, step.sample, state))
        if len(draws) == trial.samples:
            break
    return torch.stack(draws).view(len(draws), -1, len(posterior.mean_W)), state


def _compare(
    name: str, trial: Trial, posterior: Known, theta_SKW: Tensor, law: laws.Moments
) -> Finding:
    """Mean and variances of the draws beside those of the law; see the module docstring."""
    exact = posterior.covariance_WW.diagonal()
    away_SKW = theta_SKW - law.mean_W
    squares_SKW = away_SKW.square()
    variance = squares_SKW.mean((0, 1))

    # Errors are in units of the exact standard deviation and variance, so that a law without any
    # is compared too.
    off_mean = away_SKW.mean((0, 1)).abs() / exact.sqrt()
    off_variance = (variance - law.variance_W).abs() / exact

    # What optimization leaves moves the mean of few copies.
    moved = STANDARD_ERRORS * (trial.unsettled / theta_SKW.shape[1]) ** 0.5
    mean_limit = STANDARD_ERRORS * _standard_error(away_SKW) / exact.sqrt() + trial.slack + moved

    relative = law.variance_W / exact
    variance_limit = STANDARD_ERRORS * _standard_error(squares_SKW) / exact
    variance_limit = variance_limit + 2 * trial.slack * relative + trial.unsettled + moved**2
    mean_error = float((off_mean / mean_limit).max())
    variance_error = float((off_variance / variance_limit).max())

    sees = None
    if bool((law.variance_W > 0).all()):
        sees = float((variance_limit / relative).min())

    return Finding(
        method=name,
        case=trial.case,
        ok=mean_error <= 1 and variance_error <= 1,
        expected=float(relative.mean()),
        found=float((variance / exact).mean()),
        mean_error=mean_error,
        variance_error=variance_error,
        sees=sees,
    )


def _standard_error(value_SKW: Tensor) -> Tensor:
    """Of the mean over samples and copies, (W,), whatever either have in common.

    Copies share what a sample is drawn with, such as which examples a minibatch has; samples share
    what a copy was trained to, or stay near the one before.
    """
    num_samples, num_copies, _ = value_SKW.shape
    of_samples = value_SKW.mean(1).var(0) / num_samples if num_samples > 1 else torch.zeros(())
    of_copies = value_SKW.mean(0).var(0) / num_copies if num_copies > 1 else torch.zeros(())
    alone = value_SKW.flatten(0, 1).var(0) / (num_samples * num_copies)

    # Each of the two has what is of neither in it.
    both = of_samples + of_copies - alone
    return torch.maximum(torch.maximum(of_samples, of_copies), both).sqrt()
