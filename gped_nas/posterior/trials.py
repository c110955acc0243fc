"""What ``selftest`` tries of each posterior method: a problem, settings, and the law it must keep.

Settings are such that discretization, minibatches and the prior each change a law by much more than
what a trial can see.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from gped_nas.posterior import laws
from gped_nas.posterior.base import PosteriorSample, Problem, State
from gped_nas.posterior.conjugate import Known, copies, copies_with_units

Reading = Callable[[Known, PosteriorSample, State], Tensor]
"""``reading(posterior, sample, state)`` gives the numbers (W,) or (K W,) that are compared."""


def _theta(posterior: Known, sample: PosteriorSample, state: State) -> Tensor:
    return sample.theta_W.double()


def _theta_of_units(posterior: Known, sample: PosteriorSample, state: State) -> Tensor:
    return sample.theta_W.double()[: len(sample.theta_W) // 2]


def _trained_units(posterior: Known, sample: PosteriorSample, state: State) -> Tensor:
    return _theta_of_units(posterior, PosteriorSample(state["theta"]), state)


def _less_anchor(posterior: Known, sample: PosteriorSample, state: State) -> Tensor:
    """theta - lambda A^-1 anchor: what an anchored member would be without its anchor."""
    anchor_KW = state["anchor"].double().view(-1, len(posterior.mean_W))
    moved_KW = laws.prior_precision(posterior) * anchor_KW @ posterior.covariance_WW
    return sample.theta_W.double() - moved_KW.flatten()


@dataclass(frozen=True)
class Trial:
    """How a method is tried.

    Attributes:
        case: what this trial is about, for people.
        settings: of the method; the posterior's curvatures are from 14 to 132, or from 62 to 180
            with a strong prior.
        law: mean and variances that it must have.
        problem: the posterior, or copies of it.
        prior: precision of the prior.
        reading: what is compared, of a draw.
        samples: posterior samples taken, almost independent ones.
        slack: relative error that is let pass beside the standard errors, of a standard deviation.
        unsettled: variance that optimization in minibatches may leave in each copy, over the exact
            one.
    """

    case: str
    settings: Mapping[str, Any]
    law: laws.Law
    problem: Callable[[Known], Problem] = partial(copies, num=500)
    prior: float = 1.5
    reading: Reading = _theta
    samples: int = 60
    slack: float = 0.0
    unsettled: float = 0.0


def _itself(posterior: Known) -> Problem:
    return posterior.problem


_MINIBATCHES = "minibatches"
_BATCH = {"batch_size": 5}
_OPTIMIZED = {"steps": 3000, "lr": 0.02, **_BATCH}
_CYCLES = {
    "burn_in_cycles": 1,
    "thinning": 100,
    "samples_per_cycle": 2,
    "exploration": 0.2,
    **_BATCH,
}
_LAPLACE = {"steps": 100, "lr": 0.01, **_BATCH}
_DROPOUT = {**_OPTIMIZED, "rate": 0.2}
_trained = partial(Trial, slack=0.01, unsettled=0.02)
_MANY = partial(copies, num=5000)

TRIALS: dict[str, tuple[Trial, ...]] = {
    "sgld": (
        Trial(
            _MINIBATCHES,
            {"step_size": {"initial": 0.004}, "burn_in": 240, "thinning": 60, **_BATCH},
            laws.sgld,
            samples=100,
        ),
    ),
    "psgld": (
        Trial(
            _MINIBATCHES,
            {
                "step_size": {"initial": 0.008},
                "burn_in": 240,
                "thinning": 60,
                "damping": 1.0,
                **_BATCH,
            },
            laws.psgld,
            samples=100,
        ),
    ),
    "sghmc": (
        Trial(
            _MINIBATCHES,
            {
                "step_size": {"initial": 0.05},
                "friction": 10.0,
                "burn_in": 120,
                "thinning": 40,
                **_BATCH,
            },
            laws.sghmc,
            samples=100,
        ),
    ),
    "csgld": (
        Trial(
            "two samples a cycle",
            {"step_size": {"initial": 0.01, "length": 400}, **_CYCLES},
            laws.csgld,
        ),
    ),
    "csghmc": (
        Trial(
            "two samples a cycle",
            {"step_size": {"initial": 0.08, "length": 400}, "friction": 10.0, **_CYCLES},
            laws.csghmc,
        ),
    ),
    "hmc": (
        Trial(
            "all data",
            {"step_size": 0.03, "leapfrog_steps": 8, "burn_in": 100, "thinning": 4},
            laws.exact,
            problem=partial(copies, num=200),
        ),
    ),
    "vi": (
        Trial("one draw a step", {**_OPTIMIZED, "initial_std": 0.1}, laws.mean_field, slack=0.02),
        Trial(
            "local draws",
            {**_OPTIMIZED, "initial_std": 0.1, "batch_size": 30},
            laws.mean_field,
            problem=_itself,
            samples=5000,
            slack=0.02,
            unsettled=0.003,
        ),
    ),
    "laplace": (
        Trial("weak prior", _LAPLACE, laws.exact, problem=_itself, samples=5000),
        Trial("strong prior", _LAPLACE, laws.exact, problem=_itself, samples=5000, prior=50.0),
    ),
    "deep_ensemble": (
        _trained(
            "anchored members",
            {**_OPTIMIZED, "regularizer": "anchor"},
            laws.anchored,
            problem=_MANY,
            samples=1,
        ),
        _trained(
            "less their anchors",
            {**_OPTIMIZED, "regularizer": "anchor"},
            laws.point,
            reading=_less_anchor,
            samples=1,
        ),
    ),
    "mc_dropout": (
        _trained(
            "masks",
            _DROPOUT,
            laws.dropped,
            problem=partial(copies_with_units, num=500),
            reading=_theta_of_units,
        ),
        _trained(
            "the trained network",
            _DROPOUT,
            laws.trained_with_dropout,
            problem=partial(copies_with_units, num=500),
            reading=_trained_units,
            samples=1,
        ),
    ),
    "swag": (
        Trial(
            _MINIBATCHES,
            {
                **_OPTIMIZED,
                "swag_lr": 0.05,
                "collect_every": 20,
                "collections": 40,
                "rank": 20,
            },
            laws.swag,
            slack=0.05,
        ),
    ),
    "map": (_trained(_MINIBATCHES, _OPTIMIZED, laws.point, samples=1),),
}
NOT_TRIED = {
    "import": "draws nothing",
    "subspace": "its law is of its own few directions, which follow from a training",
    "svgd": "its particles are one joint point, not draws",
}
READS_SAMPLES = "its law is of the samples that it reads"
"""Why no method is tried that reads another one's samples."""
