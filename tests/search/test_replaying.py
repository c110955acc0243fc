"""Pools of recorded studies, and who runs on them: what is seen, paid and reached."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gped_nas.errors import ConfigError, StudyError
from gped_nas.search.document import Box
from gped_nas.search.proposing.facts import Facts
from gped_nas.search.region import Bound, Region
from gped_nas.search.replaying.players import player_of
from gped_nas.search.replaying.pool import Recorded, pool_of
from gped_nas.search.replaying.race import (
    Run,
    Track,
    factors,
    play,
    random_target,
    seen_seeds,
)
from tests.search.fakes import CLASSES, SHAPE, Fake, make_space, number, open_store, run

GENOTYPE = {
    "depth": {"int": [1, 2]},
    "width": {"int": [1, 40]},
    "group_penalty": {"float": [1e-5, 1e-1], "log": True},
    "storage_dtype": {"choices": ["float32", "int8"]},
}
NUM_TRIALS = 24


def quality(claim, seed):
    """Larger networks are better, up to noise; a seed moves it by a little."""
    genotype = claim.genotype
    width = genotype["width"][0]
    nll = 0.1 + 1.0 / width + 0.02 * number(genotype.replace(storage_dtype="float32"), f"s{seed}")
    return {"metrics": {"nll": nll, "accuracy": 0.5}, "seconds": 0.1 * width}


@pytest.fixture(scope="module")
def space():
    return make_space(GENOTYPE, objectives=("nll", "storage_bytes"), students_at_once=6)


@pytest.fixture(scope="module")
def studies(space, tmp_path_factory):
    """The same trials trained with three seeds."""
    recorded = []
    for seed in range(3):
        store = open_store(space, tmp_path_factory.mktemp("pool") / f"{seed}.memory")
        run(space, store, Fake(lambda claim, seed=seed: quality(claim, seed)), n_trials=NUM_TRIALS)
        records = store.records()
        macs = {record.trial: float(record.costs["macs"]) for record in records}
        recorded.append(Recorded(f"s{seed}", records, store.params(), macs))
    return recorded


@pytest.fixture(scope="module")
def track(space, studies):
    pool = pool_of(studies)
    box = Box(best=(0.1, 10.0), worst=(1.2, 10_000.0))
    return Track(pool, space.objectives, box, None, prune_at=0.6)


# -- the pool


def test_a_pool_has_each_training_with_a_student_a_seed_and_type(studies, track):
    assert len(track.pool.members) == NUM_TRIALS and track.pool.num_seeds == 3
    for member in track.pool.members:
        assert member.dtypes[0] == member.dtype and set(member.dtypes) == {"float32", "int8"}
        for of_seed, study in zip(member.students, studies, strict=True):
            trained = of_seed[member.dtype]
            assert study.params[trained.trial] == member.params
            others = [of_seed[dtype] for dtype in member.dtypes[1:]]
            assert all(other.variant_of == trained.trial for other in others)


def test_truth_is_the_mean_of_the_seeds_that_were_not_seen(track):
    member = track.pool.members[0]
    nll = [of_seed["int8"].value("nll") for of_seed in member.students]
    assert len(set(nll)) == 3
    for seen in range(3):
        others = [value for seed, value in enumerate(nll) if seed != seen]
        assert member.truth("int8", seen).value("nll") == pytest.approx(sum(others) / 2)
    alone = replace(member, students=member.students[:1])
    assert alone.truth("int8", 0).value("nll") == nll[0]


def test_costs_are_averaged_as_logarithms(track):
    member = track.pool.members[0]
    students = []
    for factor, of_seed in zip((1, 1, 4), member.students, strict=True):
        student = of_seed["int8"]
        students.append({"int8": student.replace(costs={"macs": 100 * factor})})
    varied = replace(member, students=tuple(students), dtype="int8")
    assert varied.truth("int8", 0).costs["macs"] == pytest.approx(200)


def test_studies_without_common_trainings_are_no_pool(studies):
    few = replace(studies[0], records=studies[0].records[:6])
    with pytest.raises(StudyError, match="expected at least 8"):
        pool_of([few, studies[1]])


# -- what is paid


def test_prices_are_those_of_an_average_training(track):
    prices = track.prices([0] * NUM_TRIALS)
    assert prices.mean(axis=0) == pytest.approx([1, 1, 1])
    macs = np.array([member.drawn_macs for member in track.pool.members])
    # nothing was pruned here: drawn and left are the same
    assert prices[:, 1] == pytest.approx(macs / macs.mean())
    assert set(prices[:, 0]) == {1.0}


def test_a_population_is_paid_whole_or_student_by_student():
    spent = np.arange(1, 7, dtype=float)[:, None] * np.ones(3)
    one = Run(spent, np.array([0, 0, 0.5, 0.5, 0.5, 0.6]), at_once=4)
    assert one.reached(0.5, whole=False)[0] == 3
    assert one.reached(0.5, whole=True)[0] == 4
    assert one.reached(0.6, whole=True)[0] == 6, "the last population was cut short"
    assert one.reached(0.7, whole=True) is None


def test_ratios_by_hand():
    """The baseline takes 8 and 32; the other 2 and never, which counts as 1."""

    def reaches(steps):
        spent = np.full((1, 3), float(steps))
        return Run(spent, np.array([1.0]), at_once=1)

    never = Run(np.full((1, 3), 99.0), np.array([0.1]), at_once=1)
    baseline = [reaches(8), reaches(32)]
    by_unit = factors([reaches(2), never], baseline, 0.5, whole=False, seed=0)
    # ratios are 8 / 2 and 1, whose geometric mean is 2
    assert by_unit["steps"].value == pytest.approx(2.0)
    assert by_unit["steps"].low <= 2.0 <= by_unit["steps"].high
    missed = [reaches(8), never]
    same = factors(missed, missed, 0.5, whole=False, seed=0)["macs"]
    assert (same.value, same.low, same.high) == (1, 1, 1)


# -- who runs


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "costs_known"])
def test_every_player_draws_each_member_at_most_once(space, track, sampler):
    searched = replace(space, search=space.search.model_copy(update={"sampler": sampler}))
    facts = Facts(SHAPE, CLASSES + 1, None, {"nll": (0.1, 1.2), "storage_bytes": (10, 10_000)})

    class Watched:
        def __init__(self):
            self.player = player_of(searched, track.pool, facts, 3)
            self.told = []

        def choose(self, num, free):
            chosen = self.player.choose(num, free)
            assert len(set(chosen)) == len(chosen) <= num and set(chosen) <= set(free)
            return chosen

        def tell(self, member, records):
            self.told.append(member)
            self.player.tell(member, records)

    players = [Watched(), Watched()]
    played = [
        play(track, each, at_once=6, limit=20, target=2.0, seed=1, every_dtype=True)
        for each in players
    ]
    assert len(set(players[0].told)) == 20
    assert players[0].told == players[1].told, "a seed decides everything"
    assert (np.diff(played[0].volumes) >= 0).all() and len(played[0].spent) == 20


def test_a_run_ends_with_the_population_that_reaches_the_target(space, track):
    player = player_of(space, track.pool, Facts(SHAPE, CLASSES + 1), 0)
    target = random_target(track, 8, seed=0)
    one = play(track, player, at_once=6, limit=24, target=target, seed=0, every_dtype=False)
    assert len(one.volumes) % 6 == 0 and one.volumes[-1] >= target
    before = one.volumes[: len(one.volumes) - 6]
    assert (before < target).all()


def test_all_types_of_a_training_cover_more_than_the_one_that_was_drawn(space, track):
    volumes = {}
    for every_dtype in (True, False):
        player = player_of(space, track.pool, Facts(SHAPE, CLASSES + 1), 0)
        one = play(track, player, at_once=6, limit=12, target=2, seed=0, every_dtype=every_dtype)
        volumes[every_dtype] = one.volumes
    assert (volumes[True] >= volumes[False]).all() and volumes[True][-1] > volumes[False][-1]


def test_students_outside_the_region_cover_nothing(track):
    seen = seen_seeds(track.pool, 0)
    inside = replace(track, region=Region(None, (Bound("nll", "minimize", 0.2),)))
    for member in range(NUM_TRIALS):
        losses = inside.losses(member, seen[member], every_dtype=True)
        truth = track.pool.members[member].truth("int8", seen[member]).value("nll")
        assert np.isnan(losses).all() == (truth > 0.2)
    assert math.isfinite(random_target(inside, 8, seed=0))


@pytest.mark.parametrize("sampler", ["grid", "brute_force"])
def test_a_sampler_that_lists_a_space_is_refused(space, track, sampler):
    listing = replace(space, search=space.search.model_copy(update={"sampler": sampler}))
    with pytest.raises(ConfigError, match=f"found sampler '{sampler}'.*expected one that draws"):
        player_of(listing, track.pool, Facts(SHAPE, CLASSES + 1), 0)
