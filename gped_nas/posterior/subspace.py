"""The posterior restricted to a subspace through a good network, by elliptical slice sampling.

SGD with a constant step size wanders from a MAP network, as for method ``swag``. Its mean m is the
origin, and the K leading principal directions of its last deviations, orthonormal rows of P (K, W),
span the subspace. There the chain draws from

    p(z) proportional to exp(-U(m + z P) / T)

U is the full-data potential, so the prior is that of the whole space, restricted. A transition is
Murray, Adams & MacKay's: with nu from a normal reference N(0, diag(s^2)) and log y below L(z),

    z' = z cos(angle) + nu sin(angle),   L(z) = -U(m + z P) / T + sum z_k^2 / (2 s_k^2)

the angle's bracket shrinks towards 0 until L(z') > log y. The chain is exact whatever s is: what
the reference says too much, L takes back. s_k is twice the standard deviation that the curvature
of U / T at m has along direction k.

Choose it where a chain over all weights does not mix, or costs too much: few dimensions mix in few
transitions. It costs one training and one trajectory, as ``swag``, then some five full-data
potentials, without gradients, a transition; its state has (J + K) W numbers at most.
Its bias: all that varies outside of the subspace. A chain has a subspace of its own, so that chains
do not agree; with few directions and many examples, samples hardly differ at T = 1.

Source: Izmailov et al. 2019, arXiv:1907.07504, algorithms 1 to 3 (there a prior over z stands in
for that of the weights, and the likelihood alone is tempered); Murray, Adams & MacKay 2010,
arXiv:1001.0175, figure 2.
"""

import math
from collections.abc import Callable, Iterator

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from gped_nas.errors import ConfigError, DivergenceError
from gped_nas.posterior.base import (
    METHODS,
    Method,
    PosteriorSample,
    Problem,
    State,
    Step,
    ThinnedConfig,
    unflatten,
)
from gped_nas.posterior.swag import SwagConfig, trajectory_moments
from gped_nas.posterior.tunable import Tuned, training_settings

_INFLATION = 2.0
"""Of the reference beside the curvature: a narrower one than the posterior is slow in its tails."""
_LEAST_SPREAD = 1e-5
"""Of a direction beside the first one; less is rounding."""

_LogDensity = Callable[[Tensor], float]


class SubspaceConfig(SwagConfig, ThinnedConfig):
    """Settings of ``subspace``."""

    components: int = Field(default=5, ge=1, description="directions of the subspace, K")
    temperature: float = Field(default=1.0, gt=0, description="T; 1 is the Bayes posterior")
    burn_in: int = Field(default=50, ge=0, description="transitions before the first sample")
    thinning: int = Field(default=5, ge=1, description="transitions between samples of one chain")

    @model_validator(mode="after")
    def _directions_are_there(self) -> "SubspaceConfig":
        if self.components > self.rank:
            raise ValueError(
                f"components: found {self.components}, expected at most rank ({self.rank}), "
                "deviations that they are principal directions of"
            )
        return self


def principal_directions(deviations_JW: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The leading principal directions of deviations, and the spread along each.

    Args:
        deviations_JW: of points from their mean.
        num: K.

    Returns:
        Orthonormal rows (K, W), and standard deviations (K,), both float64.

    Raises:
        ConfigError: the deviations span fewer directions.
    """
    deviations_JW = deviations_JW.double()
    # J is small and W is not: the eigenvectors of D D^T lead to the right singular ones of D
    squares, vectors_JJ = torch.linalg.eigh(deviations_JW @ deviations_JW.mT)
    spread = squares.clamp(min=0).sqrt().flip(0)
    num_spanned = int((spread > _LEAST_SPREAD * spread[0]).sum())
    if num_spanned < num:
        raise ConfigError(
            f"teacher.method.components: found {num}, but the trajectory spans {num_spanned} "
            "directions; lower it, or raise teacher.method.rank and collections"
        )

    basis_KW = (vectors_JJ.flip(1)[:, :num].mT @ deviations_JW) / spread[:num, None]
    return basis_KW, spread[:num] / math.sqrt(len(deviations_JW))


def slice_step(
    z_K: Tensor, log_density: _LogDensity, scale_K: Tensor, *, generator: Generator
) -> Tensor:
    """The next state of a chain whose law is proportional to exp(L(z)) N(z; 0, diag(s^2)).

    Args:
        z_K: the state, float64.
        log_density: L.
        scale_K: s.
        generator: source of every draw.
    """

    def uniform() -> float:
        return float(torch.rand((), generator=generator, dtype=torch.float64))

    nu_K = scale_K * torch.randn(len(z_K), generator=generator, dtype=torch.float64)
    threshold = log_density(z_K) + math.log(1 - uniform())
    angle = 2 * math.pi * uniform()
    low, high = angle - 2 * math.pi, angle

    while True:
        proposed_K = z_K * math.cos(angle) + nu_K * math.sin(angle)
        # at angle 0 it is z itself, whose density is above: the loop ends
        if log_density(proposed_K) > threshold or high - low < 1e-12:
            return proposed_K
        low, high = (angle, high) if angle < 0 else (low, angle)
        angle = low + (high - low) * uniform()


def subspace(
    problem: Problem, cfg: SubspaceConfig, *, generator: Generator, state: State | None = None
) -> Iterator[Step]:
    """Yield the steps of ``swag``'s trajectory, then one every ``thinning`` transitions, for ever.

    See the module docstring.

    Raises:
        ConfigError: the trajectory spans fewer directions than ``components``.
        DivergenceError: the parameters left the finite numbers.
    """
    if state is None or "basis" not in state:
        moments = yield from trajectory_moments(problem, cfg, generator=generator, state=state)
        state = _span(problem, cfg, moments)

    generator.set_state(state["rng"])
    fixed = {name: state[name] for name in ("mean", "basis", "scale")}
    scale_K, z_K, num = state["scale"], state["position"], int(state["transitions"])
    potential = _potential_in(problem, state["mean"], state["basis"])

    def log_density(z_K: Tensor) -> float:
        return -potential(z_K) / cfg.temperature + float((z_K / scale_K).square().sum()) / 2

    while True:
        for _ in range(cfg.thinning):
            z_K = slice_step(z_K, log_density, scale_K, generator=generator)
        num += cfg.thinning
        theta_W = (state["mean"].double() + z_K @ state["basis"]).float()
        yield Step(
            PosteriorSample(theta_W) if cfg.is_sample(num) else None,
            {
                **fixed,
                "position": z_K.clone(),
                "transitions": torch.tensor(num),
                "rng": generator.get_state(),
            },
        )


def _span(problem: Problem, cfg: SubspaceConfig, moments: State) -> State:
    """The state in which the chain begins: at the mean of the trajectory."""
    basis_KW, spread_K = principal_directions(moments["deviations"], cfg.components)
    potential = _potential_in(problem, moments["mean"], basis_KW)
    start = torch.zeros(cfg.components, dtype=torch.float64)
    at_mean = potential(start)
    if not math.isfinite(at_mean):
        raise DivergenceError(
            f"subspace: the potential is {at_mean} at the mean of the trajectory, expected a "
            "finite number; lower teacher.method.swag_lr"
        )

    scales = []
    for k, spread in enumerate(spread_K.tolist()):
        step = start.clone()
        step[k] = spread
        curvature = (potential(step) - 2 * at_mean + potential(-step)) / spread**2
        std = math.sqrt(cfg.temperature / curvature) if 0 < curvature < math.inf else spread
        scales.append(_INFLATION * std)
    return {
        "mean": moments["mean"],
        "basis": basis_KW,
        "scale": torch.tensor(scales, dtype=torch.float64),
        "position": start,
        "transitions": torch.tensor(0),
        "rng": moments["rng"],
    }


def _potential_in(problem: Problem, mean_W: Tensor, basis_KW: Tensor) -> _LogDensity:
    """U at a point of the subspace, nats; infinite where it is no number."""
    device = problem.x.device
    everything = torch.arange(problem.num_examples, device=device)

    @torch.no_grad()
    def potential(z_K: Tensor) -> float:
        theta_W = (mean_W.double() + z_K @ basis_KW).float().to(device)
        value = float(problem.potential(unflatten(theta_W, problem.shapes), everything))
        return value if math.isfinite(value) else math.inf

    return potential


METHODS.register("subspace")(
    Method(
        SubspaceConfig,
        subspace,
        takes_all_data=True,
        tuned=Tuned(
            lambda draw, effort: {
                "chains": (fits := draw.whole("fits", 1, 8, usual=4)),
                "num_samples": fits * draw.whole("draws", 3, 20, usual=5),
                **training_settings(draw, effort),
                "swag_lr": draw.scale("swag_lr", 0.01, 1, usual=0.1),
                "collect_every": max(1, effort.steps // 40),
                "components": draw.whole("components", 2, 10, usual=5),
                "temperature": draw.scale("temperature", 0.1, 100, usual=1),
            },
            is_tried=False,
        ),
        example={
            "steps": 100,
            "batch_size": 4,
            "collect_every": 3,
            "collections": 3,
            "rank": 3,
            "components": 2,
            "burn_in": 2,
            "thinning": 1,
        },
    )
)
