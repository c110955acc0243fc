"""The sampler ``costs_known``: the hypervolume that a genotype is expected to add, costs known.

A Gaussian process is fitted to each measured objective of the students that were trained. Costs are
those of the drawn network times what pruning is expected to leave (``costs.py``), in the cheapest
storage type, since a student is told in all of them. A population is taken one by one: the genotype
that is expected to add most hypervolume of the region, then, as if it had been trained to the
expected value, the next one. Trials that run are believed in the same way.

The first few genotypes are drawn at random. Everything follows from the space, the records and the
seed: a study that was stopped proposes what it would have.

Source: Emmerich 2005 (expected hypervolume improvement); Ginsbourger, Le Riche & Carraro 2010 (the
Kriging believer).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gped_nas import rng
from gped_nas.models.base import Genotype
from gped_nas.search.dimensions import Choice
from gped_nas.search.proposing.candidates import Candidate, Candidates
from gped_nas.search.proposing.facts import Facts
from gped_nas.search.proposing.gaussian import Floats
from gped_nas.search.proposing.history import trainings_of
from gped_nas.search.proposing.improvement import Improvement, Mask
from gped_nas.search.proposing.models import Expected, Models
from gped_nas.search.record import TrialRecord
from gped_nas.search.space import SearchSpace

Params = Mapping[str, Choice]

_NUM_RANDOM, _NUM_VARIED, _NUM_ROUNDS = 512, 192, 2
_NUM_LEADERS = 16
"""Candidates of the greatest expected gain, around which more are made."""
_NO_GAIN = 1e-9
"""Of the box, a standard deviation: decides between candidates that are expected to add nothing."""


def start_up(space: SearchSpace) -> int:
    """How many genotypes are drawn at random before models are fitted."""
    if space.search.start_up is not None:
        return space.search.start_up
    return max(3, space.search.students_at_once // 2)


def propose(
    space: SearchSpace,
    records: Sequence[TrialRecord],
    num: int,
    *,
    seed: int,
    facts: Facts,
    among: Sequence[Params] | None = None,
) -> list[Params]:
    """Up to ``num`` genotypes to train next, best first; fewer where there are no more.

    While few students are trained, they are random, and at most so many as are missing.

    Args:
        space: to draw from.
        records: of all trials; running ones are believed to come to what is expected of them.
        num: how many are wanted.
        seed: of all that is drawn here.
        facts: of the study.
        among: parameters to choose from, such as those of a recorded pool; all of the space where
            None.
    """
    generator = np.random.default_rng(rng.seed(seed, "costs_known"))
    trainings = trainings_of(records, space)
    candidates = Candidates(space, [training.key for training in trainings], generator)

    answered = [training for training in trainings if not training.is_running]
    # what another study found spares the start, and is no training of this one
    earlier = trainings_of(facts.earlier, space)
    told = [*answered, *earlier]
    num_missing = start_up(space) - len(told)
    if num_missing > 0 or not any(training.values for training in told):
        num = min(num, num_missing) if num_missing > 0 else num
        taken = _at_random(candidates, num, among, generator)
    else:
        models = Models(space, facts, answered, earlier)
        running = [training.genotype for training in trainings if training.is_running]
        pool = _Pool(models, candidates, running, among)
        taken = pool.take(num)
    return [candidate.params for candidate in taken]


def _at_random(
    candidates: Candidates,
    num: int,
    among: Sequence[Params] | None,
    generator: np.random.Generator,
) -> list[Candidate]:
    if among is None and not candidates.are_listed:
        return candidates.drawn(num)
    listed = candidates.listed() if among is None else candidates.new(among)
    order = generator.permutation(len(listed))[:num]
    return [listed[i] for i in order]


class _Pool:
    """Candidates, and what is expected of them.

    Args:
        models: of objectives and constraints.
        candidates: makes them.
        running: genotypes in training.
        among: see ``propose``.
    """

    def __init__(
        self,
        models: Models,
        candidates: Candidates,
        running: Sequence[Genotype],
        among: Sequence[Params] | None,
    ) -> None:
        self._models = models
        self._running = list(running)
        self._improvement = Improvement(models.axes)
        for training in models.trainings:
            if models.counts(training):
                self._improvement.add(*models.point(training))

        if among is not None:
            self._candidates = candidates.new(among)
        elif candidates.are_listed:
            self._candidates = candidates.listed()
        else:
            self._candidates = self._refined(candidates)

    def take(self, num: int) -> list[Candidate]:
        """Up to ``num`` candidates, each one as if those before it were trained."""
        num_candidates = len(self._candidates)
        if num_candidates == 0:
            return []
        genotypes = [candidate.genotype for candidate in self._candidates]
        expected = self._models.expect(genotypes + self._running)
        for i in range(len(self._running)):
            self._believe(expected, num_candidates + i)

        is_within_NK = self._improvement.within(expected.costs_NA)
        is_free_N = np.arange(len(expected.costs_NA)) < num_candidates
        taken = []
        for _ in range(min(num, num_candidates)):
            gain_N = np.where(is_free_N, self._gain(expected, is_within_NK), -1.0)
            index = int(gain_N.argmax())
            is_free_N[index] = False
            taken.append(self._candidates[index])
            self._believe(expected, index)
        return taken

    def _refined(self, candidates: Candidates) -> list[Candidate]:
        """Random candidates, and variations of those that promise most."""
        pool = candidates.drawn(_NUM_RANDOM)
        gains = [self._gain_of(pool)]
        for _ in range(_NUM_ROUNDS):
            leaders = np.argsort(-np.concatenate(gains), kind="stable")[:_NUM_LEADERS]
            varied = candidates.varied([pool[i].params for i in leaders], _NUM_VARIED)
            if not varied:
                break
            pool += varied
            gains.append(self._gain_of(varied))
        return pool

    def _gain_of(self, pool: Sequence[Candidate]) -> Floats:
        """What candidates are expected to add, each one alone."""
        expected = self._models.expect([candidate.genotype for candidate in pool])
        return self._gain(expected, self._improvement.within(expected.costs_NA))

    def _gain(self, expected: Expected, is_within_NK: Mask) -> Floats:
        """What candidates are expected to add; where that is nothing, what is not known of them."""
        gain_N = self._improvement.expected(is_within_NK, expected.measured)
        gain_N = gain_N * expected.feasible_N
        unknown_N = sum((beliefs.sd_C for beliefs in expected.measured), np.zeros(len(gain_N)))
        return gain_N + _NO_GAIN * unknown_N * expected.feasible_N

    def _believe(self, expected: Expected, index: int) -> None:
        """Go on as if a candidate were trained, were feasible, and came to what is expected."""
        values_Q = np.array([beliefs.mean_C[index] for beliefs in expected.measured])
        self._improvement.add(expected.costs_NA[index], values_Q)
        expected.believe(index)
