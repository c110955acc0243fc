"""Sizes of populations where there are several workers."""

import itertools

from gped_nas.search.engine import Trained
from gped_nas.search.run import TimeLimit, search
from gped_nas.search.sizing import num_affordable, population_size, predicted_cost
from tests.search.fakes import CLASSES, SHAPE, make_record, make_space, open_store

WIDE = {"depth": 1, "width": {"int": [1, 60_000]}}


class Patient:
    """An engine whose workers all end at the same time, in the order in which they began."""

    idle_share = None

    def __init__(self, num_workers):
        self.num_workers = num_workers
        self.submitted, self._waiting = [], []

    @property
    def has_room(self):
        return len(self._waiting) < self.num_workers

    def submit(self, claims):
        self.submitted.append(list(claims))
        self._waiting.append(tuple(claims))

    def wait(self):
        claims = self._waiting.pop(0)
        return Trained(claims, tuple(make_record(claim) for claim in claims))


def populations(path, genotype, *, num_workers, n_trials, at_once):
    space = make_space(genotype, students_at_once=at_once)
    engine = Patient(num_workers)
    search(
        space,
        open_store(space, path),
        engine,
        n_trials=n_trials,
        limit=TimeLimit(),
        input_shape=SHAPE,
        num_classes=CLASSES,
        told=lambda record, finished: None,
        should_stop=lambda: False,
    )
    return space, engine.submitted


def sizes(num_missing, at_once, num_workers):
    taken = []
    while num_missing:
        taken.append(population_size(at_once, num_missing, num_workers))
        num_missing -= taken[-1]
    return taken


def test_one_worker_has_whole_populations_and_several_end_together():
    assert sizes(30, 12, 1) == [12, 12, 6]
    assert sizes(24, 12, 3) == [8, 6, 4, 3, 3]
    assert sizes(48, 12, 2) == [12, 12, 12, 6, 3, 3]
    assert sizes(5, 12, 8) == [3, 2]
    for num_missing, at_once, num_workers in itertools.product(range(1, 40), (1, 2, 5), (1, 2, 7)):
        assert sum(sizes(num_missing, at_once, num_workers)) == num_missing


def test_a_dear_student_makes_its_population_smaller():
    assert num_affordable([1, 1, 1, 1], 4, 1.0) == 4
    assert num_affordable([1, 1, 1, 1, 1, 1], 4, 1.0) == 4
    assert num_affordable([4, 1, 1, 1], 4, 1.0) == 2  # 4 + 1 is within 1.25 times 4
    assert num_affordable([1, 1, 1, 9], 4, 1.0) == 3
    assert num_affordable([50, 1], 4, 1.0) == 1


def test_populations_of_several_workers_are_even_in_cost_and_hold_every_trial_once(tmp_path):
    space, submitted = populations(
        tmp_path / "a.memory", WIDE, num_workers=3, n_trials=60, at_once=6
    )
    numbers = [claim.number for claims in submitted for claim in claims]
    assert sorted(numbers) == list(range(60)) and len(set(numbers)) == 60
    assert max(map(len, submitted)) == 6

    outputs = space.num_outputs(CLASSES)
    costs = [
        [predicted_cost(claim.genotype, SHAPE, outputs) for claim in claims] for claims in submitted
    ]
    mean_cost = sum(map(sum, costs)) / 60
    # the mean of what was drawn by then stands for that of all
    assert max(map(sum, costs[2:])) < 1.6 * 6 * mean_cost


def test_the_same_draws_give_the_same_populations(tmp_path):
    _, first = populations(tmp_path / "a.memory", WIDE, num_workers=2, n_trials=20, at_once=4)
    _, second = populations(tmp_path / "b.memory", WIDE, num_workers=2, n_trials=20, at_once=4)
    assert first == second
    _, alone = populations(tmp_path / "c.memory", WIDE, num_workers=1, n_trials=20, at_once=4)
    assert [len(claims) for claims in alone] == [4] * 5
