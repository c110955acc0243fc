"""A replay: what a proposer has spent when its front is as good as one of random draws.

The hypervolume is that of the study's region, of true values: see ``pool``. The target is the
median front of so many random trainings. What is spent is counted in full trainings of an average
member: by steps, by multiply-adds (until the pruning step those of the drawn network, then those
that are left), and by seconds. It is counted twice: student by student, as if each were seen when
it is trained, and by whole populations, which are paid whole and seen at their end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gped_nas import rng
from gped_nas.search.document import Box
from gped_nas.search.goals import Objective
from gped_nas.search.pareto import hypervolume_history
from gped_nas.search.region import Region
from gped_nas.search.replaying.players import Player
from gped_nas.search.replaying.pool import Pool
from gped_nas.search.volume import losses_in

Floats = NDArray[np.float64]
UNITS = ("steps", "macs", "seconds")
_NUM_TARGET_ORDERS = 200


@dataclass(frozen=True)
class Track:
    """Where all proposers run.

    Attributes:
        pool: what they choose from.
        objectives: in order.
        box: the reference box.
        region: students outside cover nothing; None where all are inside.
        prune_at: the share of a training before the pruning step.
    """

    pool: Pool
    objectives: tuple[Objective, ...]
    box: Box
    region: Region | None
    prune_at: float

    def prices(self, seen: Sequence[int]) -> Floats:
        """What each member costs, in trainings of an average one, (members, units)."""
        rows = []
        for member, seed in zip(self.pool.members, seen, strict=True):
            student = member.students[seed][member.dtype]
            macs = self.prune_at * member.drawn_macs
            macs += (1 - self.prune_at) * float(student.costs["macs"])
            rows.append((1.0, macs, student.seconds))
        prices = np.array(rows)
        means = prices.mean(axis=0)
        # students of which nobody knows how long they took cost the same
        prices[:, means == 0] = 1.0
        relative: Floats = prices / prices.mean(axis=0)
        return relative

    def losses(self, member: int, seen: int, *, every_dtype: bool) -> Floats:
        """True losses of a member's students in the box, (students, objectives).

        A row of NaN covers nothing: it is outside.
        """
        one = self.pool.members[member]
        dtypes = one.dtypes if every_dtype else one.dtypes[:1]
        truths = [one.truth(dtype, seen) for dtype in dtypes]
        rows = losses_in(self.box, truths, self.objectives)
        for i, truth in enumerate(truths):
            if self.region is not None and not self.region.is_inside(truth):
                rows[i] = np.nan
        return rows


@dataclass(frozen=True)
class Run:
    """How one proposer ran once.

    Attributes:
        spent: after each member in turn, (members, units).
        volumes: hypervolume after each, (members,).
        at_once: members of a population.
    """

    spent: Floats
    volumes: Floats
    at_once: int

    def reached(self, target: float, *, whole: bool) -> Floats | None:
        """What was spent, by unit, when the target was reached; None where it was not.

        Args:
            target: a hypervolume.
            whole: whether populations are paid whole.
        """
        hits = np.flatnonzero(self.volumes >= target)
        if len(hits) == 0:
            return None
        index = int(hits[0])
        if whole:
            last_of_population = (index // self.at_once + 1) * self.at_once - 1
            index = min(last_of_population, len(self.volumes) - 1)
        spent: Floats = self.spent[index]
        return spent


def seen_seeds(pool: Pool, seed: int) -> list[int]:
    """The seed of each member that a proposer sees, drawn anew for each repetition."""
    generator = np.random.default_rng(rng.seed(seed, "replay", "seen"))
    return [int(s) for s in generator.integers(0, pool.num_seeds, len(pool.members))]


def play(
    track: Track,
    player: Player,
    *,
    at_once: int,
    limit: int,
    target: float,
    seed: int,
    every_dtype: bool,
) -> Run:
    """Let a player choose until it reaches a target.

    Args:
        track: the pool and its measure.
        player: who chooses.
        at_once: members of a population.
        limit: members after which it ends.
        target: a hypervolume; it ends with the population that reaches it.
        seed: of the repetition: which seed of each member is seen.
        every_dtype: whether one training tells of all storage types.
    """
    seen = seen_seeds(track.pool, seed)
    prices = track.prices(seen)
    free = list(range(len(track.pool.members)))
    rows: list[Floats] = []
    ends: list[int] = []
    spent: list[Floats] = []
    volumes = np.empty(0)

    while free and len(spent) < limit:
        chosen = player.choose(min(at_once, limit - len(spent)), free)
        if not chosen:
            break
        for index in chosen:
            free.remove(index)
            member = track.pool.members[index]
            dtypes = member.dtypes if every_dtype else member.dtypes[:1]
            player.tell(index, [member.students[seen[index]][dtype] for dtype in dtypes])
            losses = track.losses(index, seen[index], every_dtype=every_dtype)
            rows.append(losses)
            ends.append(len(losses) + (ends[-1] if ends else 0))
            spent.append(prices[index] + (spent[-1] if spent else 0.0))

        corner = np.ones(len(track.objectives))
        history = hypervolume_history(np.concatenate(rows), corner)
        volumes = history[np.array(ends) - 1]
        if volumes[-1] >= target:
            break
    return Run(np.array(spent), volumes, at_once)


def random_target(track: Track, num: int, seed: int) -> float:
    """The median hypervolume of so many members in random order, in the type that was drawn."""
    reached = []
    for order in range(_NUM_TARGET_ORDERS):
        generator = np.random.default_rng(rng.seed(seed, "replay", "target", order))
        seen = seen_seeds(track.pool, rng.seed(seed, "target", order))
        members = generator.permutation(len(track.pool.members))[:num]
        rows = [track.losses(int(i), seen[i], every_dtype=False) for i in members]
        history = hypervolume_history(np.concatenate(rows), np.ones(len(track.objectives)))
        reached.append(float(history[-1]))
    return float(np.median(reached))


@dataclass(frozen=True)
class Factor:
    """By how much a proposer is cheaper than another one.

    Attributes:
        value: the geometric mean of the ratios.
        low, high: ends of its 95 % interval, over repetitions; for this pool alone.
    """

    value: float
    low: float
    high: float


def factors(
    runs: Sequence[Run], baseline: Sequence[Run], target: float, *, whole: bool, seed: int
) -> Mapping[str, Factor]:
    """By unit, what the baseline spends over what a proposer does until the target.

    A run that never reaches it counts as 1: it costs what the baseline did in the same repetition.
    A run of the baseline that does not reach it costs all that it spent.

    Args:
        runs, baseline: of the same repetitions, in their order.
        target, whole: see ``Run.reached``.
        seed: of the bootstrap.
    """
    of_baseline = np.log([_cost(run, target, whole) for run in baseline])
    rows = []
    for run, cost_of_baseline in zip(runs, of_baseline, strict=True):
        reached = run.reached(target, whole=whole)
        rows.append(cost_of_baseline if reached is None else np.log(reached))
    of_runs = np.array(rows)

    generator = np.random.default_rng(rng.seed(seed, "replay", "bootstrap"))
    picks = generator.integers(0, len(runs), (2000, len(runs)))
    means = (of_baseline[picks] - of_runs[picks]).mean(axis=1)
    low, high = np.exp(np.quantile(means, (0.025, 0.975), axis=0))
    value = np.exp((of_baseline - of_runs).mean(axis=0))
    return {
        unit: Factor(float(value[i]), float(low[i]), float(high[i])) for i, unit in enumerate(UNITS)
    }


def _cost(run: Run, target: float, whole: bool) -> Floats:
    reached = run.reached(target, whole=whole)
    return run.spent[-1] if reached is None else reached
