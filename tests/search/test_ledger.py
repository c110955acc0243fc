"""Claims on a real storage: who may take them back, what comes too late, and what it all costs."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine

from gped_nas import rng
from gped_nas.search.answers import Answer
from gped_nas.search.changes import Change, End, StoredTrial, change_trial
from gped_nas.search.drawing import sampler_seed
from gped_nas.search.ledger import Claim, Ledger
from gped_nas.search.owners import Owner
from gped_nas.search.planning import is_answer
from gped_nas.search.record import FINISHED, TrialRecord
from gped_nas.search.rows import LEASE_S, ROW, Refusal, Row
from gped_nas.search.storage import clock_of, utc_seconds
from gped_nas.search.trials import FOREIGN, INTERRUPTED, UNBELIEVED, check_undamaged
from tests.search.fakes import Fake, make_record, make_space, open_store, optuna_study, run

WIDE = {"depth": 1, "width": {"int": [1, 60_000]}}
VAST = {"depth": 4, "width": [{"int": [1, 100]}] * 4}
"""No genotype is drawn twice."""


class Clock:
    """The storage's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


class Office:
    """One study in memory, and ledgers of as many processes as are asked for."""

    def __init__(self, folder: Path, genotype: Any = None, **settings: Any) -> None:
        self.space = make_space(genotype or WIDE, **settings)
        self.clock = Clock()
        self.path = folder / "study.memory"
        open_store(self.space, self.path)
        self.storage = optuna_study(self.path)._storage

    def ledger(self, name: str, home: str = "") -> Ledger:
        """That of a process elsewhere, of which nothing is known but its name."""
        owner = Owner(name=name, machine=name, home=home)
        return Ledger(self.storage, "fake", owner=owner, clock=self.clock)

    def attributes(self) -> list[tuple[TrialState, dict[str, Any], dict[str, Any]]]:
        """Everything that is stored of the trials."""
        trials = optuna_study(self.path).get_trials()
        assert trials
        return [(t.state, t.user_attrs, t.system_attrs) for t in trials]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def claim_one(office: Office, ledger: Ledger) -> Claim:
    (claim,) = ledger.claim(office.space, 1, 0)
    return claim


def row_of(ledger: Ledger, number: int) -> Row:
    return ledger.rows()[number]


# -- taking back


def test_a_live_claim_of_somebody_else_is_left_alone(office: Office) -> None:
    worker, asker = office.ledger("worker"), office.ledger("asker")
    claim = claim_one(office, worker)
    office.clock.now += LEASE_S
    before = office.attributes()
    assert asker.reap() == 0
    assert office.attributes() == before
    assert isinstance(worker.finish(Answer(make_record(claim))), TrialRecord)


def test_an_expired_claim_is_taken_back(office: Office) -> None:
    worker, asker = office.ledger("worker"), office.ledger("asker")
    claim_one(office, worker)
    office.clock.now += LEASE_S + 1
    assert asker.reap() == 1
    (record,) = asker.records()
    assert (record.state, record.reason) == ("failed", INTERRUPTED)
    assert asker.rows() == {} and asker.reap() == 0


def test_a_sign_of_life_keeps_a_claim(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, asker = office.ledger("worker"), office.ledger("asker")
    finished, held = worker.claim(office.space, 2, 0)
    worker.finish(Answer(make_record(finished)))
    worker.renew()  # too soon: nothing is written
    assert row_of(asker, held.number).renewed == 1e9
    for _ in range(4):
        office.clock.now += LEASE_S / 2
        later = time.monotonic() + LEASE_S / 2
        monkeypatch.setattr("gped_nas.search.ledger.time.monotonic", lambda later=later: later)
        worker.renew()
        assert asker.reap() == 0
    assert row_of(asker, held.number).renewed == office.clock.now
    assert row_of(asker, held.number).claimed == 1e9


def test_who_holds_the_lock_of_the_folder_need_not_wait(office: Office) -> None:
    claim_one(office, office.ledger("before the crash", home="a folder"))
    other = office.ledger("elsewhere", home="another folder")
    assert other.reap() == 0
    assert office.ledger("after it", home="a folder").reap() == 1


def test_a_claim_with_a_checkpoint_is_claimed_again_and_goes_on(office: Office) -> None:
    worker, asker = office.ledger("worker"), office.ledger("asker")
    claim = claim_one(office, worker)
    worker.report(claim.number, budget=10, metrics={"nll": 0.9}, checkpoint="a/10")
    office.clock.now += LEASE_S + 1
    assert asker.reap() == 1
    again, new = asker.claim(office.space, 2, 0)
    assert (again.number, again.genotype) == (claim.number, claim.genotype)
    assert (again.budget, again.checkpoint) == (10, "a/10")
    assert (new.number, new.budget, new.checkpoint) == (claim.number + 1, 0, "")

    # the worker wakes up
    before = office.attributes()
    late = worker.report(claim.number, budget=20, metrics={"nll": 0.1}, checkpoint="a/20")
    assert late == Refusal("it is claimed by somebody else")
    assert isinstance(worker.finish(Answer(make_record(claim))), Refusal)
    assert isinstance(worker.finish(Answer(make_record(claim))), Refusal)
    assert office.attributes() == before

    stored = asker.finish(Answer(make_record(again)))
    assert isinstance(stored, TrialRecord) and asker.records()[claim.number] == stored


def test_what_waits_cannot_be_ended_by_the_worker_that_lost_it(office: Office) -> None:
    worker, asker = office.ledger("worker"), office.ledger("asker")
    claim = claim_one(office, worker)
    worker.report(claim.number, budget=10, metrics={}, checkpoint="a/10")
    office.clock.now += LEASE_S + 1
    asker.reap()
    assert isinstance(worker.finish(Answer(make_record(claim))), Refusal)
    assert row_of(asker, claim.number).state == "waiting"
    assert isinstance(asker.finish(Answer(make_record(claim))), TrialRecord)


# -- finishing


def test_a_trial_is_finished_once(office: Office) -> None:
    worker, asker = office.ledger("worker"), office.ledger("asker")
    claim = claim_one(office, worker)
    stored = worker.finish(Answer(make_record(claim), {"params": -1.0}))
    before = office.attributes()
    better = make_record(claim, seconds=9.0)
    for ledger in (worker, asker):
        assert ledger.finish(Answer(better, {"nll": 1.0})) == Refusal("it is finished already")
    assert office.attributes() == before and asker.records() == [stored]


def test_what_another_program_finished_is_refused(office: Office) -> None:
    worker = office.ledger("worker")
    claim = claim_one(office, worker)
    optuna_study(office.path).tell(claim.number, [1.0, 2.0])
    before = office.attributes()
    assert worker.finish(Answer(make_record(claim))) == Refusal(FOREIGN)
    assert worker.report(claim.number, budget=1, metrics={}) == Refusal(FOREIGN)
    assert office.attributes() == before
    assert worker.record(claim.number).reason == FOREIGN


def test_what_another_program_finishes_just_before_is_refused(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = office.ledger("worker")
    claim = claim_one(office, worker)
    write = worker._storage.set_trial_user_attr

    def finished_after(trial_id: int, key: str, value: Any) -> None:
        write(trial_id, key, value)
        if key == ROW:
            optuna_study(office.path).tell(claim.number, [1.0, 2.0])

    monkeypatch.setattr(worker._storage, "set_trial_user_attr", finished_after)

    assert worker.finish(Answer(make_record(claim))) == Refusal(FOREIGN)


def test_in_a_database_nobody_comes_between_reading_and_writing(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    url = f"sqlite:///{path}"
    space = make_space(WIDE)
    ledger = open_store(space, path)
    (claim,) = ledger.claim(space, 1, 0)
    stranger = RDBStorage(f"{url}?timeout=0.1")

    def decide(stored: StoredTrial) -> Change:
        with pytest.raises(StorageInternalError):
            stranger.set_trial_state_values(1, TrialState.FAIL)
        return Change(stored.row, End(TrialState.COMPLETE, (1.0, 2.0), {"nll": 1.0}, {"c": 0.5}))

    change_trial(ledger._storage, 1, decide)
    (trial,) = RDBStorage(url).get_all_trials(1)
    assert (trial.number, trial.state) == (claim.number, TrialState.COMPLETE)
    assert (trial.values, trial.user_attrs["nll"]) == ([1.0, 2.0], 1.0)
    assert trial.constraints == {"c": 0.5} and trial.duration is not None


def test_a_change_that_dies_midway_leaves_the_trial_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.db"
    space = make_space(WIDE)
    ledger = open_store(space, path)
    (claim,) = ledger.claim(space, 1, 0)
    before = RDBStorage(f"sqlite:///{path}").get_all_trials(1)

    def die(*args: Any) -> None:
        raise Killed

    monkeypatch.setattr("gped_nas.search.changes.write_values", die)
    with pytest.raises(Killed):
        ledger.finish(Answer(make_record(claim)))
    assert RDBStorage(f"sqlite:///{path}").get_all_trials(1) == before


def test_a_trial_is_promoted_and_another_one_pruned(office: Office) -> None:
    asker = office.ledger("asker")
    good, bad = asker.claim(office.space, 2, 0)
    for claim in (good, bad):  # budgets come with the search that promotes: here by hand
        row = row_of(asker, claim.number).model_copy(update={"until": 10})
        asker._write_row(claim.number, row)
        paused = asker.report(claim.number, budget=10, metrics={"nll": 0.5}, checkpoint="c")
        assert isinstance(paused, Row) and paused.state == "paused"
    assert asker.reap() == 0  # nobody need work on them
    assert isinstance(asker.promote(good.number, 40), Row)
    pruned = asker.finish(Answer(make_record(bad, state="pruned", reason="worse than half")))
    assert isinstance(pruned, TrialRecord) and pruned.state in FINISHED

    (again,) = asker.claim(office.space, 1, 0)
    assert (again.number, again.budget, again.until) == (good.number, 10, 40)
    asker.finish(Answer(make_record(again)))
    assert [r.state for r in asker.records()] == ["complete", "pruned"]
    # its numbers are those of a tenth of the training: Optuna must not rank it
    assert [t.state.name for t in optuna_study(office.path).trials] == ["COMPLETE", "PRUNED"]
    assert [t.number for t in optuna_study(office.path).best_trials] == [0]


# -- rows that another program wrote


FORGED = ["garbage", "a record", "a claim", "nothing"]


def forge(office: Office, claim: Claim, kind: str) -> None:
    """Write into a trial that runs, as somebody who knows the layout of a row."""
    record = make_record(claim, metrics={"nll": -9.0, "accuracy": 1.0})
    edits: dict[str, Any] = {
        "garbage": {"state": 3},
        "a record": Row(state="finished", record=record.dumps()).to_json(),
        "a claim": Row(state="claimed", owner=Owner(name="stranger"), renewed=9e9).to_json(),
        "nothing": None,
    }
    trial = optuna_study(office.path).trials[claim.number]
    office.storage.set_trial_user_attr(trial._trial_id, ROW, edits[kind])


@pytest.mark.parametrize("kind", FORGED)
def test_who_holds_a_claim_finishes_it_whatever_another_program_wrote(
    office: Office, kind: str
) -> None:
    worker = office.ledger("worker")
    claim = claim_one(office, worker)
    forge(office, claim, kind)
    assert worker.record(claim.number).state == "running"

    stored = worker.finish(Answer(make_record(claim)))
    assert isinstance(stored, TrialRecord) and stored.value("nll") >= 0
    assert office.ledger("reader").records() == [stored]


@pytest.mark.parametrize("kind", ["garbage", "a record"])
def test_what_another_program_wrote_is_not_told_when_nobody_holds_the_claim(
    office: Office, kind: str
) -> None:
    claim = claim_one(office, office.ledger("worker"))
    forge(office, claim, kind)
    asker = office.ledger("asker")
    assert isinstance(asker.finish(Answer(make_record(claim))), Refusal)

    assert asker.reap() == 1
    (record,) = office.ledger("reader").records()
    assert (record.state, record.reason, dict(record.values)) == ("failed", UNBELIEVED, {})
    assert optuna_study(office.path).trials[0].state == TrialState.FAIL
    check_undamaged([record])

    # The genotype is as good as before.
    assert not is_answer(record)


# -- seeds


def test_the_first_asker_draws_as_ever_and_another_one_otherwise() -> None:
    assert sampler_seed(7, 0, 12) == rng.seed(7, "sampler", 12) % 2**32
    seeds = {sampler_seed(7, asker, num) for asker in range(3) for num in range(5)}
    assert len(seeds) == 15


def test_a_second_asker_beside_a_living_one_draws_otherwise(office: Office) -> None:
    """Both ask when as many trials are there, as two processes do that start together."""
    first, second = office.ledger("first"), office.ledger("second")
    first.reap()
    claim_one(office, first)
    second.reap()
    assert (first.owner.asker, second.owner.asker) == (0, 1)
    office.clock.now += LEASE_S + 1
    third = office.ledger("third")
    third.reap()
    assert third.owner.asker == 0  # the dead have no number


# -- the clock


def test_a_claim_ages_by_the_clock_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's clock is a day off; that of the database is asked for."""
    storage = optuna.storages.get_storage(f"sqlite:///{tmp_path}/study.db")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    assert abs(clock_of(storage)() - now) < 60

    memory = clock_of(InMemoryStorage())
    assert memory() == now + 86_400  # it has no clock but the process's own


def test_moments_with_and_without_a_time_zone_are_the_same() -> None:
    from datetime import UTC, datetime, timedelta, timezone

    noon = datetime(2026, 1, 1, 12)
    abroad = noon.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=5)))
    assert utc_seconds(noon) == utc_seconds(abroad) == 1767268800


# -- everything at once


class Killed(BaseException):
    """Stands for SIGKILL."""


class Mishaps(Fake):
    """A fake evaluator to which things happen, drawn with a seed.

    Attributes:
        events: how often what happened.
    """

    def __init__(self, office: Office, share: float) -> None:
        super().__init__()
        self.office, self.share = office, share
        self.draw = random.Random(0)
        self.events: Counter[str] = Counter()
        self.ledger: Ledger | None = None

    def __call__(self, claims: Any) -> list[TrialRecord]:
        happens = self.draw.random() < self.share
        what = self.draw.choice(["kill", "expire", "late", "double"]) if happens else "nothing"
        self.events[what] += 1
        if what == "kill":
            raise Killed

        records = super().__call__(claims)
        other = self.office.ledger("somebody else")
        assert self.ledger is not None
        if what == "expire":  # and all that follows comes too late
            self.office.clock.now += LEASE_S + 1
            assert other.reap() >= len(claims)
        elif what == "late":  # somebody else went on with one of them, and finished it
            number = claims[0].number
            self.ledger.report(number, budget=5, metrics={"nll": 0.1}, checkpoint="c/5")
            self.office.clock.now += LEASE_S + 1
            other.reap()
            (again,) = other.claim(self.office.space, 1, 0)
            assert again.number == number
            late = self.ledger.report(number, budget=6, metrics={"nll": 0.2})
            assert isinstance(late, Refusal)
            other.finish(Answer(records[0]))
        elif what == "double":
            self.ledger.finish(Answer(records[0]))
        return records


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Calls of the storage by name, and trials and records that were parsed."""
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for name in BaseStorage.__abstractmethods__:
        count(InMemoryStorage, name)
    count(TrialRecord, "loads")
    count(TrialRecord, "dumps")
    yield calls


def test_2000_trials_of_mishaps_end_with_2000_finished_ones(tmp_path: Path) -> None:
    office = Office(tmp_path, students_at_once=8, max_failures=0)
    fake = Mishaps(office, share=0.2)
    while True:
        fake.ledger = office.ledger(f"asker {fake.events.total()}", home="a folder")
        try:
            assert run(office.space, fake.ledger, fake, n_trials=2000) == "done"
            break
        except Killed:
            pass

    assert min(fake.events.values()) > 3 and len(fake.events) == 5, fake.events
    records = office.ledger("reader").records()
    states = Counter(record.state for record in records)
    assert sum(record.is_counted for record in records) == 2000
    assert set(states) <= FINISHED | {"failed"}
    assert {r.reason for r in records if r.state == "failed"} == {INTERRUPTED}
    assert not [t for t in optuna_study(office.path).trials if not t.state.is_finished()]
    complete = [str(r.genotype) for r in records if r.state == "complete"]
    assert len(complete) == len(set(complete))


def test_storage_calls_are_linear_in_trials(tmp_path: Path, counted: Counter[str]) -> None:
    """Eight populations of 250: the last one makes as many calls as the second one, to the call."""
    office = Office(tmp_path, VAST, students_at_once=50)
    ledger = office.ledger("asker")
    spent = []

    def told(record: TrialRecord, num_finished: int) -> None:
        if num_finished % 250 == 0:
            spent.append(dict(counted))

    assert run(office.space, ledger, n_trials=2000, told=told) == "done"
    steps = [
        {name: after[name] - before.get(name, 0) for name in after}
        for before, after in zip(spent, spent[1:], strict=False)
    ]
    assert len(steps) == 7 and all(step == steps[0] for step in steps), steps
    assert sum(steps[0].values()) / 250 < 11
    assert steps[0].get("loads", 0) == 0  # no record is read back


def test_statements_and_commits_are_linear_in_trials(tmp_path: Path) -> None:
    """On a database: what a trial costs does not grow, nor does it cost more than it did."""
    space = make_space(VAST, students_at_once=20)
    ledger = open_store(space, tmp_path / "study.db")
    seen: Counter[str] = Counter()
    spent = []

    def statement(_: Any, __: Any, sql: str, *rest: Any) -> None:
        seen["statements"] += 1

    def commit(_: Any) -> None:
        seen["commits"] += 1

    def told(record: TrialRecord, num_finished: int) -> None:
        if num_finished % 40 == 0:
            spent.append(dict(seen))

    event.listen(Engine, "before_cursor_execute", statement)
    event.listen(Engine, "commit", commit)
    try:
        run(space, ledger, n_trials=240, told=told)
    finally:
        event.remove(Engine, "before_cursor_execute", statement)
        event.remove(Engine, "commit", commit)
    steps = [
        {name: (after[name] - before[name]) / 40 for name in after}
        for before, after in zip(spent, spent[1:], strict=False)
    ]
    assert len(steps) == 5 and all(step == steps[0] for step in steps), steps
    assert steps[0]["statements"] < 28 and steps[0]["commits"] < 2.2
