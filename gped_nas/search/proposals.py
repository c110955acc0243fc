"""Candidates of a tuning: starting points first, then what Optuna's TPE draws.

The study lies in memory. It is made of the candidates that have ended, each time one is proposed,
and the sampler's seed is that of the candidate's number. So a tuning that was killed proposes what
it would have proposed, and nothing but the candidates has to be kept.
"""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import TrialState

from gped_nas import rng

optuna.logging.set_verbosity(optuna.logging.ERROR)
State = Literal["complete", "pruned", "failed"]
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    # one that diverged is a bad one, which TPE shall know: it forgets trials that failed
    "failed": TrialState.PRUNED,
}
METHOD = "method"
_NUM_RANDOM = 8
"""Candidates before TPE draws by what it saw."""


@dataclass(frozen=True)
class Proposal:
    """What was drawn.

    Attributes:
        params: by name, as Optuna has them: ``{"method": "sghmc", "sghmc.precision": 1.0, ...}``.
        ranges: of each of them.
    """

    params: Mapping[str, Any]
    ranges: Mapping[str, BaseDistribution]

    @property
    def method(self) -> str:
        """The posterior method."""
        return str(self.params[METHOD])

    def to_json(self) -> dict[str, Any]:
        """Plain data, for ``from_json``."""
        ranges = {}
        for name, distribution in self.ranges.items():
            ranges[name] = json.loads(distribution_to_json(distribution))
        return {"params": dict(self.params), "ranges": ranges}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Proposal":
        """What ``to_json`` gave."""
        ranges = {}
        for name, distribution in data["ranges"].items():
            ranges[name] = json_to_distribution(json.dumps(distribution))
        return cls(data["params"], ranges)


@dataclass(frozen=True)
class Ended:
    """A proposal that was tried.

    Attributes:
        proposal: what was drawn.
        state: how it ended.
        values: what was known of it after each rung; the last one is its value.
    """

    proposal: Proposal
    state: State
    values: Sequence[float]


class TrialDraw:
    """``posterior.tunable.Draw`` through an Optuna trial.

    Args:
        trial: Optuna's.
        prefix: of all names.
        ranges: gets the range of whatever is drawn.
    """

    def __init__(
        self, trial: optuna.Trial, prefix: str, ranges: dict[str, BaseDistribution]
    ) -> None:
        self._trial = trial
        self._prefix = prefix
        self._ranges = ranges

    def scale(self, name: str, low: float, high: float, *, usual: float) -> float:
        """See ``Draw.scale``."""
        value = self._draw(name, FloatDistribution(low, high, log=True))
        return float(f"{value:.3g}")

    def whole(self, name: str, low: int, high: int, *, usual: int) -> int:
        """See ``Draw.whole``."""
        return int(self._draw(name, IntDistribution(low, high, log=True)))

    def choice(self, name: str, options: Sequence[str], *, usual: str) -> str:
        """See ``Draw.choice``."""
        return str(self._draw(name, CategoricalDistribution(tuple(options))))

    def _draw(self, name: str, distribution: BaseDistribution) -> Any:
        full = self._prefix + name
        self._ranges[full] = distribution
        return self._trial._suggest(full, distribution)


class UsualDraw:
    """``posterior.tunable.Draw`` of usual values, but for those that are given.

    Args:
        given: values by name.

    Attributes:
        drawn: every value that was asked for, by name.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self.drawn: dict[str, Any] = {}

    def scale(self, name: str, low: float, high: float, *, usual: float) -> float:
        """See ``Draw.scale``."""
        value = float(f"{self._given.get(name, usual):.3g}")
        return float(self._note(name, min(max(value, low), high)))

    def whole(self, name: str, low: int, high: int, *, usual: int) -> int:
        """See ``Draw.whole``."""
        value = int(self._given.get(name, usual))
        return int(self._note(name, min(max(value, low), high)))

    def choice(self, name: str, options: Sequence[str], *, usual: str) -> str:
        """See ``Draw.choice``."""
        return str(self._note(name, self._given.get(name, usual)))

    def _note(self, name: str, value: Any) -> Any:
        self.drawn[name] = value
        return value


def propose(
    ended: Sequence[Ended],
    *,
    methods: Sequence[str],
    draw: Callable[[TrialDraw, str], object],
    start: Mapping[str, Any] | None,
    seed: int,
) -> Proposal:
    """The next candidate.

    Args:
        ended: those before it.
        methods: the methods to choose from.
        draw: draws everything else of a method through ``TrialDraw``.
        start: values by Optuna's names, which are taken as they are; None lets TPE draw.
        seed: root of the draws.
    """
    # The draws of one seed for all would repeat the first ones.
    seed = rng.seed(seed, "tune", len(ended)) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_NUM_RANDOM, multivariate=True, group=True
        )
    study = optuna.create_study(sampler=sampler)
    study.add_trials([_trial(trial) for trial in ended])
    if start is not None:
        study.enqueue_trial(dict(start))

    asked = study.ask()
    ranges: dict[str, BaseDistribution] = {METHOD: CategoricalDistribution(tuple(methods))}
    method = asked._suggest(METHOD, ranges[METHOD])
    draw(TrialDraw(asked, f"{method}.", ranges), method)
    return Proposal(dict(asked.params), ranges)


def _trial(ended: Ended) -> optuna.trial.FrozenTrial:
    state = _STATES[ended.state]
    return optuna.trial.create_trial(
        state=state,
        value=ended.values[-1] if state == TrialState.COMPLETE else None,
        params=dict(ended.proposal.params),
        distributions=dict(ended.proposal.ranges),
        intermediate_values=dict(enumerate(ended.values)),
    )
