"""What posterior methods draw from a Gaussian posterior, exactly: the laws of ``selftest``.

The posterior is N(m, A^-1), U has the gradient A (theta - m), and a minibatch adds noise of
covariance V to it (``Known.minibatch_noise``). Every law is of the chain as it is discretized, and
is written from the formulas of the method's module: it calls no function that it is there to test.

A chain whose state s moves by s <- F s + N(0, Q) has the covariance C <- F C F^T + Q. All chains
here forget where they started, so that they have the posterior's mean.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gped_nas.posterior.base import State
from gped_nas.posterior.conjugate import Known


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of each parameter (W,), float64."""

    mean_W: Tensor
    variance_W: Tensor


Law = Callable[[Known, Any, State], Moments]
"""``law(posterior, cfg, state)``: of what a method draws; ``state`` is its last one."""
Move = tuple[Tensor, Tensor]
"""F and Q of one step."""


def exact(posterior: Known, cfg: Any, state: State) -> Moments:
    """The posterior itself."""
    return _around_mean(posterior, posterior.covariance_WW)


def point(posterior: Known, cfg: Any, state: State) -> Moments:
    """The mean, without variance."""
    return _around_mean(posterior, torch.zeros_like(posterior.precision_WW))


def mean_field(posterior: Known, cfg: Any, state: State) -> Moments:
    """Of ``vi``: variances 1 / A_ii."""
    return _around_mean(posterior, torch.diag(1 / posterior.precision_WW.diagonal()))


def anchored(posterior: Known, cfg: Any, state: State) -> Moments:
    """Of an anchored ``deep_ensemble``: A^-1 lambda A^-1.

    The mode moves by lambda A^-1 anchor, with anchors N(0, 1 / lambda).
    """
    covariance = posterior.covariance_WW
    return _around_mean(posterior, prior_precision(posterior) * covariance @ covariance)


def prior_precision(posterior: Known) -> float:
    """lambda, of the prior of every parameter."""
    prior: Any = posterior.problem.prior
    return float(prior.precision)


def sgld(posterior: Known, cfg: Any, state: State) -> Moments:
    """theta <- theta - (eta / 2) gradient + N(0, eta T), in equilibrium."""
    move = _langevin(posterior, cfg, cfg.step_size.initial, cfg.temperature)
    return _around_mean(posterior, _equilibrium(move))


def psgld(posterior: Known, cfg: Any, state: State) -> Moments:
    """The same in the metric of D = 1 / (sqrt(V / (1 - decay^t)) + damping), averaged over chains.

    Each chain has a D of its own, fixed after t steps of burn-in.
    """
    a, noise = posterior.precision_WW, posterior.minibatch_noise(cfg.batch_size)
    eta = cfg.step_size.initial
    square_KW = state["square"].double().view(-1, len(a))
    metric_KW = 1 / ((square_KW / (1 - cfg.decay**cfg.burn_in)).sqrt() + cfg.damping)
    metric_KWW = torch.diag_embed(metric_KW)

    moves = torch.eye(len(a)) - eta / 2 * metric_KWW @ a
    spread = eta * cfg.temperature * metric_KWW + eta**2 / 4 * metric_KWW @ noise @ metric_KWW
    return _around_mean(posterior, _equilibrium((moves, spread)).mean(0))


def csgld(posterior: Known, cfg: Any, state: State) -> Moments:
    """Of the last ``samples_per_cycle`` states of a cycle, ``thinning`` steps apart."""
    covariance = torch.zeros_like(posterior.precision_WW)

    sampled = []
    for number in range(cfg.step_size.length):
        eta, temperature = _in_cycle(cfg, number)
        covariance = _moved(covariance, _langevin(posterior, cfg, eta, temperature))
        if _is_sampled(cfg, number + 1):
            sampled.append(covariance)
    return _around_mean(posterior, torch.stack(sampled).mean(0))


def sghmc(posterior: Known, cfg: Any, state: State) -> Moments:
    """Of theta, in the equilibrium of (theta, p)."""
    move = _underdamped(posterior, cfg, cfg.step_size.initial, cfg.temperature)
    return _of_theta(posterior, _equilibrium(move))


def csghmc(posterior: Known, cfg: Any, state: State) -> Moments:
    """As ``csgld``, with a momentum that is drawn afresh where the noisy part begins."""
    size = len(posterior.mean_W)
    covariance = torch.zeros(2 * size, 2 * size, dtype=torch.float64)

    sampled = []
    for number in range(cfg.step_size.length):
        h, temperature = _in_cycle(cfg, number)
        if number == _explored(cfg):
            covariance = _with_fresh_momentum(covariance, cfg.mass * cfg.temperature)
        covariance = _moved(covariance, _underdamped(posterior, cfg, h, temperature))
        if _is_sampled(cfg, number + 1):
            sampled.append(covariance)
    return _of_theta(posterior, torch.stack(sampled).mean(0))


def swag(posterior: Known, cfg: Any, state: State) -> Moments:
    """The average over runs of N(mean, (diag(v) + D D^T / (J - 1)) / 2), and of where the mean is.

    SGD starts from the mode. The points theta_1 ... theta_T that it collects, c steps apart, have
    the covariances E[theta_t theta_s^T] = F^(c (t - s)) E[theta_s theta_s^T] for t > s, and mean, v
    and D are linear in them or squares of what is linear.
    """
    points_WTT = _points_of_sgd(posterior, cfg)
    total, rank = cfg.collections, cfg.rank

    # Row t of ``running`` gives the mean of the first t points.
    each = torch.eye(total, dtype=torch.float64)
    running = torch.ones_like(each).tril() / torch.arange(1, total + 1)[:, None]
    mean, around_mean = running[-1:], each - running[-1:]
    newest = (each - running)[-rank:]

    of_mean = _squares(mean, points_WTT)
    diagonal = _squares(around_mean, points_WTT) / total
    low_rank = _squares(newest, points_WTT) / (rank - 1)
    return Moments(posterior.mean_W, of_mean + (diagonal + low_rank) / 2)


def dropped(posterior: Known, cfg: Any, state: State) -> Moments:
    """theta z of ``mc_dropout``: E z = 1 and Var z = rate / (1 - rate)."""
    trained_W = trained_with_dropout(posterior, cfg, state).mean_W
    return Moments(trained_W, _spread_of_mask(cfg) * trained_W.square())


def trained_with_dropout(posterior: Known, cfg: Any, state: State) -> Moments:
    """The point that ``mc_dropout`` trains: the minimum of E_z[U(theta z)].

    2 E_z[U] = theta^T (A + Var z diag(A)) theta - 2 theta^T A m + const.
    """
    a = posterior.precision_WW
    penalized = a + _spread_of_mask(cfg) * torch.diag(a.diagonal())
    trained_W = torch.linalg.solve(penalized, a @ posterior.mean_W)
    return Moments(trained_W, torch.zeros_like(trained_W))


def _spread_of_mask(cfg: Any) -> float:
    return float(cfg.rate / (1 - cfg.rate))


def _langevin(posterior: Known, cfg: Any, eta: float, temperature: float) -> Move:
    """Of theta <- theta - (eta / 2) (A theta + N(0, V)) + N(0, eta T)."""
    a = posterior.precision_WW
    identity = torch.eye(len(a), dtype=a.dtype)
    noise = posterior.minibatch_noise(cfg.batch_size)
    return identity - eta / 2 * a, eta * temperature * identity + eta**2 / 4 * noise


def _underdamped(posterior: Known, cfg: Any, h: float, temperature: float) -> Move:
    """Of (theta, p) in a step B A O A of ``sghmc``."""
    a = posterior.precision_WW
    one, zero = torch.eye(len(a), dtype=a.dtype), torch.zeros_like(a)
    decay = math.exp(-cfg.gamma * h)

    kick = _blocks(one, zero, -h * a, one)
    drift = _blocks(one, h / (2 * cfg.mass) * one, zero, one)
    friction = _blocks(one, zero, zero, decay * one)

    # The gradient's noise enters with the kick, the bath's between the two drifts.
    after_kick = drift @ friction @ drift
    kicked = _blocks(zero, zero, zero, h**2 * posterior.minibatch_noise(cfg.batch_size))
    bath = _blocks(zero, zero, zero, (1 - decay**2) * cfg.mass * temperature * one)
    return after_kick @ kick, after_kick @ kicked @ after_kick.mT + drift @ bath @ drift.mT


def _blocks(of_theta: Tensor, from_p: Tensor, from_theta: Tensor, of_p: Tensor) -> Tensor:
    return torch.cat([torch.cat([of_theta, from_p], 1), torch.cat([from_theta, of_p], 1)])


def _moved(covariance: Tensor, move: Move) -> Tensor:
    linear, spread = move
    return linear @ covariance @ linear.mT + spread


def _equilibrium(move: Move) -> Tensor:
    """The C that a step leaves as it is: that after 2, 4, 8 ... steps from a point."""
    linear, covariance = move
    for _ in range(20):
        covariance = _moved(covariance, (linear, covariance))
        linear = linear @ linear
    return covariance


def _explored(cfg: Any) -> int:
    return int(cfg.exploration * cfg.step_size.length)


def _in_cycle(cfg: Any, number: int) -> tuple[float, float]:
    """Step size and temperature of step ``number`` of a cycle, from 0."""
    share = number / cfg.step_size.length
    step_size = cfg.step_size.initial / 2 * (1 + math.cos(math.pi * share))
    return step_size, 0.0 if number < _explored(cfg) else cfg.temperature


def _is_sampled(cfg: Any, steps: int) -> bool:
    """Whether the state after so many steps of a cycle is one of its last samples."""
    until_end = cfg.step_size.length - steps
    last = [number * cfg.thinning for number in range(cfg.samples_per_cycle)]
    return until_end in last


def _with_fresh_momentum(covariance: Tensor, variance: float) -> Tensor:
    size = len(covariance) // 2
    fresh = torch.zeros_like(covariance)
    fresh[:size, :size] = covariance[:size, :size]
    fresh[size:, size:] = variance * torch.eye(size)
    return fresh


def _points_of_sgd(posterior: Known, cfg: Any) -> Tensor:
    """Covariances (W, T, T) of the points that SGD on U / N collects, of each parameter."""
    a = posterior.precision_WW
    lr = cfg.swag_lr / len(posterior.scatter_NW)
    linear = torch.eye(len(a), dtype=a.dtype) - lr * a
    spread = lr**2 * posterior.minibatch_noise(cfg.batch_size)
    between = torch.linalg.matrix_power(linear, cfg.collect_every)

    points_WTT = a.new_zeros(len(a), cfg.collections, cfg.collections)
    covariance = torch.zeros_like(a)
    for first in range(cfg.collections):
        for _ in range(cfg.collect_every):
            covariance = _moved(covariance, (linear, spread))

        with_later = covariance
        for later in range(first, cfg.collections):
            points_WTT[:, first, later] = points_WTT[:, later, first] = with_later.diagonal()
            with_later = between @ with_later
    return points_WTT


def _squares(rows_RT: Tensor, points_WTT: Tensor) -> Tensor:
    """The sum (W,) of the variances of some linear combinations of points."""
    return torch.einsum("rs,wst,rt->w", rows_RT, points_WTT, rows_RT)


def _of_theta(posterior: Known, covariance: Tensor) -> Moments:
    """Of the first half of (theta, p)."""
    size = len(posterior.mean_W)
    return _around_mean(posterior, covariance[:size, :size])


def _around_mean(posterior: Known, covariance_WW: Tensor) -> Moments:
    return Moments(posterior.mean_W, covariance_WW.diagonal())
