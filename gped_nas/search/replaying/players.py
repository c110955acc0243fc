"""Who chooses among the members of a pool: the samplers of a space, and random order.

``costs_known`` chooses among members. A sampler of Optuna draws from the space, and gets the member
that is nearest to what it drew; it is told of that member. With few members a cell that handicaps
it, which a comparison has to say.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from gped_nas.errors import ConfigError
from gped_nas.search.answers import end_of
from gped_nas.search.changes import CONSTRAINT
from gped_nas.search.dimensions import Choice
from gped_nas.search.drawing import make_sampler, sampler_seed
from gped_nas.search.planning import judge
from gped_nas.search.proposing.costs_known import propose
from gped_nas.search.proposing.facts import Facts
from gped_nas.search.record import TrialRecord
from gped_nas.search.replaying.pool import DTYPE, Pool
from gped_nas.search.space import FINITE_SAMPLERS, SearchSpace


class Player(Protocol):
    """Chooses members of a pool and learns what came of them."""

    def choose(self, num: int, free: Sequence[int]) -> list[int]:
        """Up to ``num`` members, by their index, of those that nobody has drawn."""
        ...

    def tell(self, member: int, records: Sequence[TrialRecord]) -> None:
        """What was seen of a member: the student that was drawn, then its other types."""
        ...


def player_of(space: SearchSpace, pool: Pool, facts: Facts, seed: int) -> Player:
    """The player of a space's sampler.

    Raises:
        ConfigError: the sampler lists a space, which is no way to draw from a pool.
    """
    name = space.search.sampler
    if name in FINITE_SAMPLERS:
        raise ConfigError(
            f"replay: found sampler '{name}', which lists a whole space; expected one that draws, "
            "and random stands for any order"
        )
    if name == "random":
        return RandomPlayer(seed)
    if name == "costs_known":
        return CostsKnownPlayer(space, pool, facts, seed)
    return OptunaPlayer(space, pool, seed)


class RandomPlayer:
    """Members in random order.

    Args:
        seed: of the order.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def choose(self, num: int, free: Sequence[int]) -> list[int]:
        """See ``Player``."""
        return [int(member) for member in self._generator.permutation(list(free))[:num]]

    def tell(self, member: int, records: Sequence[TrialRecord]) -> None:
        """Nothing is learned."""


class CostsKnownPlayer:
    """``costs_known``, which chooses among members.

    Args:
        space, facts: as ``propose`` takes them.
        pool: the members.
        seed: of what is drawn.
    """

    def __init__(self, space: SearchSpace, pool: Pool, facts: Facts, seed: int) -> None:
        self._space = space
        self._pool = pool
        self._facts = facts
        self._seed = seed
        self._records: list[TrialRecord] = []

    def choose(self, num: int, free: Sequence[int]) -> list[int]:
        """See ``Player``."""
        members = {self._key(self._pool.members[i].params): i for i in free}
        chosen: list[int] = []
        proposed = propose(
            self._space,
            self._records,
            num,
            seed=sampler_seed(self._seed, 0, len(self._records)),
            facts=self._facts,
            among=[self._pool.members[i].params for i in free],
        )
        for params in proposed:
            chosen.append(members[self._key(params)])
        return chosen

    def _key(self, params: Mapping[str, Choice]) -> str:
        return str(self._space.training_of(params))

    def tell(self, member: int, records: Sequence[TrialRecord]) -> None:
        """See ``Player``."""
        first = len(self._records)
        for i, record in enumerate(records):
            variant_of = first if i else None
            self._records.append(record.replace(trial=first + i, variant_of=variant_of))


class OptunaPlayer:
    """A sampler of Optuna, which gets the members nearest to what it draws.

    Args:
        space: where it draws.
        pool: the members.
        seed: of what is drawn.
    """

    def __init__(self, space: SearchSpace, pool: Pool, seed: int) -> None:
        self._space = space
        self._pool = pool
        self._seed = seed
        self._objectives = [goal.name for goal in space.objectives]
        directions = [goal.direction for goal in space.objectives]
        self._study = optuna.create_study(directions=directions)
        self._asked: dict[int, optuna.Trial] = {}

    def choose(self, num: int, free: Sequence[int]) -> list[int]:
        """See ``Player``."""
        num_trials = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = make_sampler(self._space, sampler_seed(self._seed, 0, num_trials))
        remaining, chosen = list(free), []
        for _ in range(min(num, len(remaining))):
            trial = self._study.ask()
            self._space.draw(trial)
            distances = [self._distance(trial, self._pool.members[i].params) for i in remaining]
            member = remaining.pop(int(np.argmin(distances)))
            self._asked[member] = trial
            chosen.append(member)
        return chosen

    def tell(self, member: int, records: Sequence[TrialRecord]) -> None:
        """Drop the trial that was drawn, and add one with the parameters of the member."""
        asked = self._asked.pop(member)
        # a generation of NSGA-II is known by what its sampler noted
        noted = self._study._storage.get_trial_system_attrs(asked._trial_id)
        self._study.tell(asked, state=TrialState.FAIL)
        for i, record in enumerate(records):
            self._add(self._pool.members[member].params, record, noted if i == 0 else {})

    def _add(
        self, params: Mapping[str, Choice], record: TrialRecord, noted: Mapping[str, object]
    ) -> None:
        shown = {}
        for name, value in params.items():
            is_dtype = name.rpartition(".")[2] == DTYPE
            shown[name] = record.genotype[DTYPE] if is_dtype else value
        recorder = _Recorder(shown)
        self._space.draw(recorder)
        answer = judge(record, self._space.constraints)
        end = end_of(answer, self._objectives)
        excess = {CONSTRAINT + name: value for name, value in end.excess.items()}
        self._study.add_trial(
            optuna.trial.create_trial(
                state=end.state,
                values=None if end.values is None else list(end.values),
                params=shown,
                distributions=recorder.distributions,
                system_attrs={**noted, **excess},
            )
        )

    def _distance(self, trial: optuna.Trial, params: Mapping[str, Choice]) -> float:
        """How far a member is from what was drawn: 1 for a parameter at its other end."""
        distributions = trial.distributions
        distance = float(len(set(distributions) ^ set(params)))
        for name, distribution in distributions.items():
            if name in params:
                distance += _apart(distribution, trial.params[name], params[name])
        return distance


def _apart(distribution: BaseDistribution, drawn: Choice, other: Choice) -> float:
    """How far two values of a parameter are apart, as a share of its range; 1 for other words."""
    if isinstance(distribution, CategoricalDistribution):
        return float(drawn != other)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, first, second = distribution.low, distribution.high, float(drawn), float(other)
    if distribution.log:
        low, high, first, second = (math.log(number) for number in (low, high, first, second))
    return abs(first - second) / (high - low) if high > low else 0.0


class _Recorder:
    """A trial with given parameters that keeps the range of each."""

    def __init__(self, params: Mapping[str, Choice]) -> None:
        self._params = params
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        self.distributions[name] = IntDistribution(low, high, log=log, step=step)
        return int(self._params[name])

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        self.distributions[name] = FloatDistribution(low, high, log=log)
        return float(self._params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice:
        self.distributions[name] = CategoricalDistribution(list(choices))
        return self._params[name]
