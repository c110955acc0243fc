"""How long a tuning may take, and how much work its candidates are within that time."""

import time
from dataclasses import dataclass, field

from gped_nas.api.held_out import FINAL_SEEDS, MAP_SEEDS, Candidate, HeldOut
from gped_nas.api.session import Session
from gped_nas.api.tuning_record import Record
from gped_nas.errors import ConfigError
from gped_nas.posterior.map import MapConfig
from gped_nas.posterior.priors import GaussianPrior
from gped_nas.posterior.tunable import Effort
from gped_nas.search.space import SearchSpace

_TRAININGS = 60
"""Networks that can be trained within a budget: their steps are as many as that leaves."""
_LEAST_STEPS = 100
_LARGEST_SHARE = 0.3
"""Of a budget that one candidate may take."""
_END_S = 4.0
_SLACK = 1.3
_LEAST_STEP_S = 1e-5
"""What a step takes at least, whatever was measured."""


@dataclass
class Clock:
    """A budget of seconds, of which the end needs a part.

    Attributes:
        seconds: None for no limit.
        step_s: of one minibatch gradient; 0 where nobody measured.
        began: by ``time.monotonic``.
    """

    seconds: float | None
    step_s: float = 0.0
    began: float = field(default_factory=time.monotonic)
    candidate_began: float = field(default_factory=time.monotonic)

    def begin_candidate(self) -> float:
        """Note that a candidate begins now, and say when that is."""
        self.candidate_began = time.monotonic()
        return self.candidate_began

    def is_too_long(self) -> bool:
        """Whether the candidate has had its share of the budget."""
        if self.seconds is None:
            return False
        return time.monotonic() - self.candidate_began > self.seconds * _LARGEST_SHARE

    def is_half_over(self) -> bool:
        """Whether half of the budget is spent."""
        if self.seconds is None:
            return False
        return time.monotonic() - self.began > self.seconds / 2

    def has_time(self, record: Record) -> bool:
        """Whether candidates can still be tried, and the best one be built after them."""
        if self.seconds is None:
            return True
        return time.monotonic() - self.began + _end_seconds(record) < self.seconds


def _end_seconds(record: Record) -> float:
    """What the end takes: the best teacher and the MAP networks, built on all data."""
    seconds = _END_S
    for is_map, factor in ((False, 1.0), (True, FINAL_SEEDS / MAP_SEEDS)):
        best = record.best(is_map=is_map)
        if best is not None:
            seconds += _SLACK * factor * best[1].sampling_s
    return seconds


def effort_within(space: SearchSpace, held_out: HeldOut, session: Session, clock: Clock) -> Effort:
    """The work of a candidate: the baseline's steps, or as many as a budget leaves.

    Raises:
        ConfigError: a budget is too short for the least tuning.
    """
    dataset = held_out.folds[0]
    batch_size = min(100, len(dataset.train))
    steps = space.baseline.steps
    if clock.seconds is not None:
        clock.step_s = _measure_step(space, held_out, session, batch_size)
        affordable = clock.seconds / (_TRAININGS * clock.step_s)
        if affordable < _LEAST_STEPS:
            chain_s = _LEAST_STEPS * clock.step_s
            needed = _TRAININGS * chain_s + _END_S
            raise ConfigError(
                f"--budget: found {clock.seconds:g} s, expected at least {needed:.3g} s: one chain "
                f"of {_LEAST_STEPS} steps takes {chain_s:.2g} s here, and a tuning is some "
                f"{_TRAININGS} of them; give it more time, or --n-trials"
            )
        steps = min(steps, int(affordable) // 100 * 100)
    return Effort(len(dataset.train), batch_size, steps)


def _measure_step(
    space: SearchSpace, held_out: HeldOut, session: Session, batch_size: int
) -> float:
    """Seconds of one minibatch gradient, of a network that is trained as candidates are.

    What a training takes beside its steps is not counted: it is the difference of two trainings. A
    device compiles before the first one.
    """
    dataset = held_out.folds[0]
    lengths = [_LEAST_STEPS, 3 * _LEAST_STEPS]
    if session.device.type != "cpu":
        lengths.insert(0, 2 * _LEAST_STEPS)

    seconds = []
    for steps in lengths:
        method = MapConfig(name="map", steps=steps, batch_size=batch_size)
        candidate = Candidate(method, GaussianPrior(), map_seeds=1)
        seconds.append(candidate.teacher(space, dataset, session).stream.sampling_seconds)
    return max((seconds[-1] - seconds[-2]) / (lengths[-1] - lengths[-2]), _LEAST_STEP_S)
