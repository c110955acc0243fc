"""The engine of several workers without training: who dies, hangs, is full, fails or waits."""

import random
from collections import Counter

import pytest

from gped_nas.api.engines.crew import Died, Raised, Ready, Records
from gped_nas.api.engines.idleness import Idleness
from gped_nas.api.engines.pool import Pool
from gped_nas.errors import EnvironmentProblem, EnvironmentWarning, GpedError, Interrupted
from gped_nas.search.ledger import Claim
from gped_nas.search.record import FINISHED
from gped_nas.search.run import TimeLimit, search
from tests.search.fakes import CLASSES, SHAPE, make_record, make_space, open_store

WIDE = {"depth": 1, "width": {"int": [1, 60_000]}}


class FakeCrew:
    """Workers that answer at once; ``happens`` says what becomes of a population they are sent.

    Attributes:
        sent: populations by trial numbers, in the order in which workers were sent them.
        starts: how often each place was started.
    """

    def __init__(self, num_workers, happens=lambda worker, claims: "trained"):
        self.num_workers = num_workers
        self.happens = happens
        self.sent = []
        self.starts = Counter()
        self.ended = []
        self._queue = []

    def start(self, worker):
        self.starts[worker] += 1
        self._queue.append((worker, Ready(f"fake {worker}")))

    def send(self, worker, claims):
        self.sent.append(tuple(claim.number for claim in claims))
        what = self.happens(worker, claims)
        if what == "trained":
            what = Records(tuple(make_record(claim) for claim in claims), 0.0)
        if what != "hangs":
            self._queue.append((worker, what))

    def messages(self, timeout_s):
        queue, self._queue = self._queue, []
        return queue

    def end(self, worker):
        self.ended.append(worker)
        self._queue = [(i, message) for i, message in self._queue if i != worker]


def claims_of(*numbers):
    """Claims of trials that train ``number + 1`` units."""
    space = make_space(WIDE)
    return [Claim(i, space.genotype_of({"width": i + 1})) for i in numbers]


def outcomes(trained):
    return {record.trial: (record.state, record.reason) for record in trained.records}


KILLED = Died("was killed by SIGKILL")
COMPLETE = ("complete", "")


def test_several_populations_are_trained_at_the_same_time():
    crew = FakeCrew(2)
    pool = Pool(crew)
    assert pool.has_room
    pool.submit(claims_of(0, 1))
    assert pool.has_room
    pool.submit(claims_of(2, 3))
    assert not pool.has_room

    trained = [pool.wait(), pool.wait()]
    assert [set(outcomes(each)) for each in trained] == [{0, 1}, {2, 3}]
    assert pool.has_room


def test_the_population_of_a_worker_that_died_is_trained_again_whole():
    deaths = [KILLED]
    crew = FakeCrew(2, lambda worker, claims: deaths.pop() if deaths else "trained")
    pool = Pool(crew)
    pool.submit(claims_of(0, 1, 2))
    assert outcomes(pool.wait()) == dict.fromkeys((0, 1, 2), COMPLETE)
    assert crew.sent == [(0, 1, 2), (0, 1, 2)]
    assert sum(crew.starts.values()) == 3


def test_a_student_that_kills_its_workers_fails_alone():
    def happens(worker, claims):
        return KILLED if any(claim.number == 2 for claim in claims) else "trained"

    crew = FakeCrew(2, happens)
    pool = Pool(crew)
    pool.submit(claims_of(0, 1, 2, 3))
    ends = outcomes(pool.wait())
    assert ends.pop(2) == ("failed", "its process was killed by SIGKILL")
    assert ends == dict.fromkeys((0, 1, 3), COMPLETE)
    # whole twice, then in halves
    assert crew.sent[:2] == [(0, 1, 2, 3)] * 2
    assert set(crew.sent[2:]) == {(0, 1), (2, 3), (2,), (3,)}


def test_a_population_too_large_for_memory_is_halved_and_others_go_on():
    def happens(worker, claims):
        if any(claim.number == 5 for claim in claims):
            return Raised(MemoryError("40 GB"))
        return Raised(MemoryError()) if len(claims) > 2 else "trained"

    crew = FakeCrew(1, happens)
    pool = Pool(crew)
    pool.submit(claims_of(0, 1, 2, 3))
    assert outcomes(pool.wait()) == dict.fromkeys((0, 1, 2, 3), COMPLETE)
    assert crew.sent == [(0, 1, 2, 3), (0, 1), (2, 3)]

    pool.submit(claims_of(5))
    assert outcomes(pool.wait()) == {5: ("failed", "out of memory: 40 GB")}
    assert crew.starts[0] == 1


def test_a_worker_that_cannot_work_is_left_out_and_the_last_one_says_why():
    full = EnvironmentProblem("/full: no space left on device; free some")

    def happens(worker, claims):
        return Raised(full) if worker == 0 else "trained"

    crew = FakeCrew(2, happens)
    pool = Pool(crew)
    pool.submit(claims_of(0))
    with pytest.warns(EnvironmentWarning, match="fake 0 is left out: /full"):
        assert outcomes(pool.wait()) == {0: COMPLETE}
    assert pool.num_workers == 1 and pool.has_room and crew.ended == [0]

    alone = Pool(FakeCrew(1, happens))
    alone.submit(claims_of(0))
    with pytest.raises(EnvironmentProblem, match="no space left"):
        alone.wait()


def test_a_worker_that_dies_again_and_again_is_left_out():
    crew = FakeCrew(2, lambda worker, claims: KILLED)
    crew.start = lambda worker: crew._queue.append((worker, KILLED))
    pool = Pool(crew)
    pool.submit(claims_of(0))
    with pytest.warns(EnvironmentWarning, match="worker 1 is left out: .*5 times in turn"):
        with pytest.raises(EnvironmentProblem, match="was killed by SIGKILL, 5 times in turn"):
            pool.wait()


def test_whatever_training_raises_ends_the_search():
    pool = Pool(FakeCrew(2, lambda worker, claims: Raised(GpedError("the rules are wrong"))))
    pool.submit(claims_of(0))
    with pytest.raises(GpedError, match="the rules are wrong"):
        pool.wait()


def test_students_that_hang_are_found_one_by_one():
    def happens(worker, claims):
        return "hangs" if any(claim.number == 1 for claim in claims) else "trained"

    crew = FakeCrew(1, happens)
    pool = Pool(crew, limit_s=0.01)
    pool.submit(claims_of(0, 1, 2))
    ends = outcomes(pool.wait())
    assert ends.pop(1) == (
        "failed",
        "took longer than search.student_timeout=0.01 seconds; was ended",
    )
    assert ends == {0: COMPLETE, 2: COMPLETE}
    assert crew.sent == [(0, 1, 2), (0,), (1,), (2,)]


def test_stopping_ends_all_workers():
    crew = FakeCrew(2, lambda worker, claims: "hangs")
    pool = Pool(crew, should_stop=lambda: bool(crew.sent))
    pool.submit(claims_of(0))
    with pytest.raises(Interrupted):
        pool.wait()
    assert sorted(crew.ended) == [0, 1]
    pool.close()
    assert sorted(crew.ended) == [0, 1]


def test_idle_time_is_what_ready_workers_did_not_work():
    now = [0.0]
    idleness = Idleness(2, clock=lambda: now[0])
    assert idleness.share is None

    idleness.rest(0)
    now[0] = 2.0
    idleness.work(0)
    now[0] = 10.0
    idleness.rest(0, worked_s=6.0)  # its answer was heard two seconds late
    idleness.leave(0)
    now[0] = 100.0
    assert idleness.share == pytest.approx((2 + 2) / 10)

    idleness.work(1)
    now[0] = 110.0
    assert idleness.share == pytest.approx(4 / 20)


@pytest.mark.parametrize("seed", range(4))
def test_with_random_deaths_each_trial_ends_once_and_exactly_n_are_finished(tmp_path, seed):
    chance = random.Random(seed)

    def happens(worker, claims):
        return KILLED if chance.random() < 0.4 else "trained"

    space = make_space(WIDE, students_at_once=4, max_failures=1000)
    store = open_store(space, tmp_path / "study.memory")
    crew, told = FakeCrew(3, happens), []
    reason = search(
        space,
        store,
        Pool(crew),
        n_trials=60,
        limit=TimeLimit(),
        input_shape=SHAPE,
        num_classes=CLASSES,
        told=lambda record, finished: told.append(record.trial),
        should_stop=lambda: False,
    )
    assert reason == "done" and crew.starts.total() > 5
    records = store.records()
    assert sum(record.state in FINISHED for record in records) == 60
    assert sorted(told) == [record.trial for record in records]
    assert all(record.state != "running" for record in records)
