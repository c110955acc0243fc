"""The search loop without training: what is counted, refused, repeated, stopped and killed."""

import random

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.engine.default import DefaultDialect

import gped_nas.search.drafts
import gped_nas.search.ledger
from gped_nas.errors import GpedError, Interrupted
from gped_nas.models.base import Genotype
from gped_nas.search.ledger import Ledger
from gped_nas.search.pareto import pareto_front
from gped_nas.search.record import FINISHED, TrialRecord
from gped_nas.search.run import FRUITLESS, FRUITLESS_DRAWS, Standing, TimeLimit
from gped_nas.search.trials import FOREIGN, INTERRUPTED, NOT_DRAWN
from tests.search.fakes import Fake, make_record, make_space, number, open_store, optuna_study, run

SAMPLERS = ["costs_known", "tpe", "nsga2", "nsga3", "gp", "qmc", "random", "brute_force", "grid"]
WIDE = {"depth": 1, "width": {"int": [1, 60_000]}}
TWELVE = {
    "depth": {"int": [1, 2]},
    "width": [{"choices": [1, 2]}, {"choices": [3, 4]}],
    "storage_dtype": {"choices": ["float32", "int8"]},
}
"""2 genotypes of depth 1 and 4 of depth 2, in two types."""
TYPES = {"choices": ["float32", "int8"]}


def states(store):
    return [record.state for record in store.records()]


def fail(reason, when=lambda genotype: True):
    """A fake whose students fail ``when`` their genotype says so."""

    def change(claim):
        return {"state": "failed", "reason": reason} if when(claim.genotype) else {}

    return Fake(change)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.memory"


# -- counting


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_exactly_n_trials_are_finished(path, sampler):
    space = make_space({"depth": {"int": [1, 2]}, "width": {"int": [1, 6]}}, sampler=sampler)
    store = open_store(space, path)
    trials = []
    counts = []

    def report(record, num_finished):
        trials.append(record.trial)
        counts.append(num_finished)

    assert run(space, store, n_trials=11, told=report) == "done"
    records = store.records()
    assert sum(record.is_counted for record in records) == 11 and set(states(store)) <= FINISHED
    assert sorted(counts) == counts and set(counts) - {0} == set(range(1, 12))
    assert sorted(trials) == list(range(len(records)))

    assert run(space, store, n_trials=11) == "done" and store.records() == records
    assert run(space, store, n_trials=5) == "done" and store.records() == records


def test_populations_are_as_large_as_asked_for(path):
    sizes = []
    space = make_space(WIDE, students_at_once=4)

    def train(asked):
        sizes.append(len(asked))
        return [make_record(claim) for claim in asked]

    run(space, open_store(space, path), train, n_trials=10)
    assert sizes == [4, 4, 2]


def test_duplicates_are_answered_from_the_record(path):
    space = make_space({"depth": 1, "width": {"choices": [2, 3]}})
    store = open_store(space, path)
    fake = Fake()
    assert run(space, store, fake, n_trials=12) == FRUITLESS
    assert len(fake.trained) == len(set(fake.trained)) == 2
    records = store.records()
    assert set(states(store)) == {"complete", "duplicate"}
    assert sum(record.is_counted for record in records) == 2

    originals = {r.genotype["width"][0]: r for r in records if r.state == "complete"}
    for record in records:
        original = originals[record.genotype["width"][0]]
        assert (record.metrics, record.costs) == (original.metrics, original.costs)
        if record.state == "duplicate":
            assert record.reason == f"same genotype as trial {original.trial}"
            assert record.repeat_of == original.trial

    again, store = Fake(), open_store(space, path)
    assert run(space, store, again, n_trials=16) == FRUITLESS
    assert again.trained == [] and store.records() == records


def test_a_genotype_that_is_refused_again_does_not_count(path):
    space = make_space(constraints={"params": 20}, n_trials=30)
    store = open_store(space, path)
    assert run(space, store, n_trials=30) == FRUITLESS
    records = store.records()
    refused = [record for record in records if record.state == "infeasible"]
    assert len(refused) == 5 and sum(record.is_counted for record in records) == 6
    first = {record.genotype["width"][0]: record.trial for record in refused}
    for record, trial in zip(records, optuna_study(path).trials, strict=True):
        width = record.genotype["width"][0]
        if record.state == "duplicate" and width in first:
            assert record.repeat_of == first[width] and trial.constraints["params"] > 0


def test_only_so_many_draws_in_a_row_are_fruitless(path):
    space = make_space({"depth": 1, "width": 3}, students_at_once=7)
    store = open_store(space, path)
    assert run(space, store, n_trials=4) == FRUITLESS
    num_repeats = states(store).count("duplicate")
    assert FRUITLESS_DRAWS <= num_repeats < FRUITLESS_DRAWS + 7


def test_in_studies_begun_before_a_repeat_counts(path):
    """And a student has one storage type."""
    space, fake = make_space({"depth": 1, "width": 3, "storage_dtype": TYPES}), Fake()
    store = open_store(space, path)
    store.change(counted="drawn")
    store = open_store(space, path)
    assert run(space, store, fake, n_trials=4) == "done"
    assert len(store.records()) == 4 and len(fake.trained) == len(set(fake.trained)) == 2
    assert all(record.is_counted for record in store.records())


def test_a_copy_in_the_same_population_is_trained_once(path):
    space, fake = make_space({"depth": 1, "width": 3}), Fake()
    store = open_store(space, path)
    run(space, store, fake, n_trials=4)
    assert len(fake.trained) == 1
    assert states(store)[:4] == ["complete", "duplicate", "duplicate", "duplicate"]


# -- constraints


def test_early_refusal_and_infeasible_after_training(path):
    """On 4 inputs with 4 outputs, width w has 9 w + 4 parameters: too many from 5 on."""
    space = make_space(constraints={"params": 40, "nll": 0.5}, n_trials=30)
    store = open_store(space, path)
    fake = Fake()
    run(space, store, fake, n_trials=30)
    assert all(genotype["width"][0] <= 4 for genotype in fake.trained)

    records = store.records()
    assert {"complete", "infeasible"} <= {record.state for record in records}
    for record, trial in zip(records, optuna_study(path).trials, strict=True):
        genotype = Genotype.from_json(record.genotype)
        if genotype["width"][0] >= 5:
            assert_refused_early(record, trial)
        elif number(genotype, "nll") > 0.5:
            assert_infeasible_after_training(record, trial)
        else:
            assert record.state in ("complete", "duplicate")
            assert len(trial.constraints) == 2
            assert all(value <= 0 for value in trial.constraints.values())

    for best in optuna_study(path).best_trials:
        assert records[best.number].metrics["nll"] <= 0.5


def assert_refused_early(record, trial):
    assert record.state in ("infeasible", "duplicate") and not record.metrics
    if record.state == "infeasible":
        assert record.reason.startswith("even its smallest network has params")
        assert record.reason.endswith("expected params <= 40")
    assert trial.state == TrialState.PRUNED and trial.constraints["params"] > 0


def assert_infeasible_after_training(record, trial):
    assert record.state in ("infeasible", "duplicate") and record.metrics
    assert trial.state == TrialState.COMPLETE and trial.constraints["nll"] > 0
    if record.state == "infeasible":
        assert record.reason.startswith("nll is 0.")
        assert "expected nll <= 0.5" in record.reason


def test_what_pruning_may_still_save_is_trained(path):
    space = make_space({"depth": 1, "width": 50, "group_penalty": 0.1}, constraints={"params": 40})
    store = open_store(space, path)
    fake = Fake()
    run(space, store, fake, n_trials=1)
    assert len(fake.trained) == 1
    (record,) = store.records()
    assert record.state == "infeasible" and record.reason == "params is 454, expected params <= 40"

    costs = {"macs": 8, "flops": 16, "params": 13, "storage_bytes": 300}
    smaller = Fake(lambda claim: {"costs": costs})
    other = open_store(space, path.with_name("other.memory"))
    run(space, other, smaller, n_trials=1)
    assert states(other) == ["complete"]


def test_a_bound_from_below_for_what_is_maximized(path):
    space = make_space(WIDE, constraints={"accuracy": 0.5})
    store = open_store(space, path)
    run(space, store, n_trials=12)
    for record in store.records():
        assert record.state == ("complete" if record.metrics["accuracy"] >= 0.5 else "infeasible")
    assert {"complete", "infeasible"} == set(states(store))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_lives_with_refused_failed_and_repeated_trials(path, sampler):
    genotype = {"depth": {"int": [1, 3]}, "width": {"int": [1, 30]}}
    space = make_space(
        genotype,
        constraints={"params": 100, "nll": 0.9},
        sampler=sampler,
        n_trials=24,
        max_failures=3,
    )
    fake = fail("r", when=lambda genotype: genotype["width"][0] == 2)
    store = open_store(space, path)
    assert run(space, store, fake, n_trials=24) == "done"
    assert sum(record.is_counted for record in store.records()) == 24


# -- failures


def test_failed_trials_do_not_count(path):
    space = make_space(WIDE, max_failures=100)
    fake = fail("diverged", when=lambda genotype: number(genotype, "fails") < 0.4)
    store = open_store(space, path)
    counts = []
    run(space, store, fake, n_trials=10, told=lambda record, num: counts.append(num))
    assert sum(state in FINISHED for state in states(store)) == 10

    failed = [r for r in store.records() if r.state == "failed"]
    assert failed and all(r.reason == "diverged" for r in failed)
    assert counts[-1] == 10 and len(counts) == 10 + len(failed)
    finals = {t.number: t.state for t in optuna_study(path).trials}
    assert all(finals[r.trial] == TrialState.FAIL for r in failed)


def test_too_many_failures_stop_the_study(path):
    space = make_space(WIDE, max_failures=5, students_at_once=2)
    store = open_store(space, path)
    message = "6 trials failed, more than search.max_failures=5; .*trial 5.*: it burst"
    with pytest.raises(GpedError, match=message):
        run(space, store, fail("it burst"), n_trials=10)
    assert states(store) == ["failed"] * 6


def test_a_study_that_gave_up_trains_nothing_more_when_it_is_started_again(path):
    space = make_space(WIDE, max_failures=5, students_at_once=2)
    with pytest.raises(GpedError):
        run(space, open_store(space, path), fail("it burst"), n_trials=10)

    fake = Fake()
    with pytest.raises(GpedError, match="6 trials failed"):
        run(space, open_store(space, path), fake, n_trials=10)
    assert fake.trained == []

    patient = make_space(WIDE, max_failures=6, students_at_once=2)
    assert run(patient, open_store(patient, path), fake, n_trials=10) == "done"


def test_a_failure_is_answered_from_the_record_too(path):
    """Told as failed again and again, one genotype would end the study.

    The sampler would not see it either.
    """
    space = make_space({"depth": 1, "width": 3}, max_failures=1, students_at_once=2)
    store = open_store(space, path)
    fake = fail("it burst")
    assert run(space, store, fake, n_trials=5) == FRUITLESS
    assert len(fake.trained) == 1
    assert states(store)[0] == "failed" and set(states(store)[1:]) == {"duplicate"}
    assert all(r.reason.endswith("trial 0, which failed: it burst") for r in store.records()[1:])
    assert {t.state for t in optuna_study(path).trials[1:]} == {TrialState.PRUNED}


# A program does not make errors of warnings, as these tests do.
@pytest.mark.filterwarnings("ignore:Fixed parameter")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_trial_that_was_queued_with_a_wrong_value_fails_by_itself(path, sampler):
    """It counts neither as finished nor as a failure of the study; a good one is trained."""
    genotype = {"depth": {"int": [1, 2]}, "width": {"int": [1, 6]}}
    space = make_space(genotype, sampler=sampler, students_at_once=2, max_failures=0)
    store = open_store(space, path)
    for params in ({"width": 7}, {"depth": 9}, {"depth": "many"}, {"depth": 1, "width": 4}):
        optuna_study(path).enqueue_trial(params)

    fake = Fake()
    assert run(space, store, fake, n_trials=3) == "done"
    assert fake.trained[0] == Genotype("mlp", depth=1, width=[4])
    records = store.records()
    assert [record.state == "failed" for record in records] == [True] * 3 + [False] * 3
    assert [trial.state for trial in optuna_study(path).trials[:3]] == [TrialState.FAIL] * 3
    for record, value in zip(records, ("7", "9", "many"), strict=False):
        assert record.reason.startswith(f"{NOT_DRAWN}: ") and value in record.reason

    # Nor when the study goes on.
    assert run(space, open_store(space, path), n_trials=5) == "done"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_not_finite_never_reaches_the_front(path, value):
    """Nor under a constraint on that very metric, or with a duplicate in the same population."""
    space = make_space(
        {"depth": 1, "width": {"choices": [2, 3]}}, constraints={"nll": 2.0}, max_failures=50
    )

    def spoil(claim):
        is_bad = claim.genotype["width"] == (2,)
        return {"metrics": {"nll": value, "accuracy": 1.0}} if is_bad else {}

    store = open_store(space, path)
    run(space, store, Fake(spoil), n_trials=6)
    bad = [r for r in store.records() if r.genotype["width"] == [2]]
    assert bad and all(r.state in ("failed", "duplicate") and not r.metrics for r in bad)
    assert all("a metric is not finite" in r.reason for r in bad)

    front = [t.number for t in optuna_study(path).best_trials]
    assert front and all(store.records()[n].genotype["width"] == [3] for n in front)


# -- finite spaces


@pytest.mark.parametrize("sampler", ["brute_force", "grid"])
def test_finite_spaces_are_listed_once_and_then_exhausted(path, sampler):
    space = make_space(TWELVE, sampler=sampler, students_at_once=5, every_dtype=False)
    store = open_store(space, path)
    fake = Fake()
    assert run(space, store, fake, n_trials=100) == "exhausted"
    assert len(fake.trained) == len(set(fake.trained)) == 12
    assert states(store) == ["complete"] * 12
    assert run(space, store, n_trials=100) == "exhausted" and len(store.records()) == 12


@pytest.mark.parametrize("sampler", ["brute_force", "grid"])
def test_an_interruption_loses_and_repeats_no_genotype_of_a_finite_space(path, sampler):
    space = make_space(TWELVE, sampler=sampler, students_at_once=5, every_dtype=False)

    class Dies(Fake):
        def __call__(self, asked):
            if len(self.trained) >= 5:
                raise KeyboardInterrupt
            return super().__call__(asked)

    before = Dies()
    with pytest.raises(KeyboardInterrupt):
        run(space, open_store(space, path), before, n_trials=100)

    after = Fake()
    store = open_store(space, path)
    assert run(space, store, after, n_trials=100) == "exhausted"
    trained = before.trained + after.trained
    assert len(trained) == len(set(trained)) == 12
    assert sorted(states(store)) == ["complete"] * 12 + ["failed"] * 5


def test_one_genotype_that_always_fails_does_not_stop_a_finite_space(path):
    space = make_space(
        TWELVE, sampler="brute_force", students_at_once=5, max_failures=1, every_dtype=False
    )
    bad = Genotype("mlp", depth=1, width=[2], storage_dtype="int8")
    fake = fail("it burst", when=lambda genotype: genotype == bad)
    store = open_store(space, path)
    assert run(space, store, fake, n_trials=100) == "exhausted"
    assert len(fake.trained) == 12
    assert sorted(states(store)) == ["complete"] * 11 + ["failed"]
    assert run(space, open_store(space, path), fake, n_trials=100) == "exhausted"
    assert len(fake.trained) == 12


def test_the_grid_is_in_order_and_brute_force_is_shuffled(path):
    genotype = {"depth": 1, "width": {"int": [1, 12]}}
    widths = {}
    for sampler in ("grid", "brute_force"):
        space = make_space(genotype, sampler=sampler)
        store = open_store(space, path.with_name(f"{sampler}.memory"))
        fake = Fake()
        run(space, store, fake, n_trials=12)
        widths[sampler] = [genotype["width"][0] for genotype in fake.trained]
    assert widths["grid"] == list(range(1, 13))
    assert sorted(widths["brute_force"]) == widths["grid"] != widths["brute_force"]


def test_a_finite_sampler_goes_on_where_another_one_drew(path):
    """What a random sampler drew, inactive widths left out, is not listed again."""
    fake = Fake()
    random_space = make_space(TWELVE, sampler="random", every_dtype=False)
    run(random_space, open_store(random_space, path), fake, n_trials=6)

    space = make_space(TWELVE, sampler="grid", every_dtype=False)
    store = open_store(space, path)
    assert run(space, store, fake, n_trials=100) == "exhausted"
    assert len(fake.trained) == len(set(fake.trained)) == 12
    assert sum(s == "complete" for s in states(store)) == 12


# -- stopping


def test_a_wish_to_stop_between_populations(path):
    space = make_space(WIDE)
    answers = iter([False, True])
    store = open_store(space, path)
    with pytest.raises(Interrupted):
        run(space, store, should_stop=lambda: next(answers))
    assert states(store) == ["complete"] * 4


def test_a_wish_to_stop_while_training_leaves_nothing_running(path):
    space = make_space(
        {"depth": 1, "width": {"int": [1, 40]}}, constraints={"params": 100}, students_at_once=12
    )
    store = open_store(space, path)

    def stopped(asked):
        raise Interrupted("stopped", 143)

    with pytest.raises(Interrupted) as caught:
        run(space, store, stopped)
    assert caught.value.exit_code == 143

    records = store.records()
    assert {r.state for r in records} - {"duplicate"} == {"failed", "infeasible"}
    assert all(r.reason == INTERRUPTED for r in records if r.state == "failed")
    assert not any(t.state == TrialState.RUNNING for t in optuna_study(path).trials)

    # Interruptions are not failures of the students.
    run(space, open_store(space, path), Fake(), n_trials=20)
    assert sum(record.is_counted for record in open_store(space, path).records()) == 20


def test_what_a_study_knows_follows_from_its_records_alone():
    """A failure of a genotype is an answer to it; one that is not its fault is none."""
    genotypes = [{"width": width} for width in range(6)]
    records = [
        TrialRecord(0, "complete", genotypes[0]),
        TrialRecord(1, "infeasible", genotypes[1]),
        TrialRecord(2, "failed", genotypes[2], reason="it burst"),
        TrialRecord(3, "failed", genotypes[3], reason=INTERRUPTED),
        TrialRecord(4, "failed", genotypes[4], reason=FOREIGN),
        TrialRecord(5, "running", genotypes[5]),
        TrialRecord(6, "duplicate", genotypes[0]),
        TrialRecord(7, "pruned", genotypes[5]),
    ]
    standing = Standing()
    for record in records:
        standing.add(record)

    assert [record.trial for record in standing.answers.values()] == [0, 1, 2]
    assert [record.trial for record in standing.failed] == [2, 4]
    assert standing.num_finished == 4


def test_interruptions_do_not_count_as_failures(path):
    space = make_space(WIDE, max_failures=0)

    def stopped(asked):
        raise Interrupted("stopped")

    for _ in range(3):
        with pytest.raises(Interrupted):
            run(space, open_store(space, path), stopped)
    assert run(space, open_store(space, path), n_trials=5) == "done"


def test_no_population_is_begun_after_the_time_or_that_would_not_end_in_time(path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("gped_nas.search.run.time.monotonic", lambda: now[0])
    space = make_space(WIDE, students_at_once=2)
    store = open_store(space, path)
    assert run(space, store, limit=TimeLimit(0.0)) == "timeout"
    assert store.records() == []

    def train(asked):
        now[0] += 10
        return [make_record(claim) for claim in asked]

    # the first one is begun whatever it takes, the third one would end after 30 of 29 seconds
    limit = TimeLimit(5.0)
    assert run(space, store, train, n_trials=50, limit=limit) == "timeout"
    assert (len(store.records()), limit.population_s, limit.is_over) == (2, 10, True)
    limit = TimeLimit(29.0)
    assert run(space, store, train, n_trials=50, limit=limit) == "timeout"
    assert (len(store.records()), limit.is_over) == (6, False)
    assert run(space, store, train, n_trials=8, limit=TimeLimit(1000.0)) == "done"


def test_other_errors_of_training_are_passed_on_and_mended_at_the_next_start(path):
    space = make_space(WIDE)

    def broken(asked):
        raise GpedError("no disk space")

    with pytest.raises(GpedError, match="no disk space"):
        run(space, open_store(space, path), broken)

    store = open_store(space, path)
    assert states(store) == ["running"] * 4
    run(space, store, n_trials=4)
    assert states(store) == ["failed"] * 4 + ["complete"] * 4
    assert {r.reason for r in store.records()} == {INTERRUPTED, ""}


# -- killed at any point


class Killed(BaseException):
    """Stands for SIGKILL: nothing but a new process goes on after it."""


EVERYWHERE = {
    "ask": (optuna.Study, "ask"),
    "enqueue": (optuna.Study, "enqueue_trial"),
    "suggest": (optuna.Trial, "suggest_int"),
    "create": (gped_nas.search.drafts, "create_trials"),
    "change": (gped_nas.search.ledger, "change_trials"),
    "ledger.finish": (Ledger, "finish_all"),
    "train": (Fake, "__call__"),
}
IN_MEMORY = {
    "create one": (optuna.storages.InMemoryStorage, "create_new_trial"),
    "constraint": (optuna.storages.InMemoryStorage, "set_trial_system_attr"),
    "attribute": (optuna.storages.InMemoryStorage, "set_trial_user_attr"),
    "state": (optuna.storages.InMemoryStorage, "set_trial_state_values"),
}
IN_A_DATABASE = {
    "statement": (DefaultDialect, "do_execute"),
    "statement of many": (DefaultDialect, "do_executemany"),
    "commit": (DefaultDialect, "do_commit"),
}
KILLABLE = {**EVERYWHERE, **IN_MEMORY, **IN_A_DATABASE}
"""Every call that changes the storage, and training itself."""


def kill_after(patch, owner, name, num_calls, *, before):
    """Make the ``num_calls``-th call die, before or after its work."""
    original = getattr(owner, name)
    calls = []

    def call_and_die(*args, **more):
        calls.append(1)
        if len(calls) == num_calls and before:
            raise Killed
        result = original(*args, **more)
        if len(calls) == num_calls:
            raise Killed
        return result

    patch.setattr(owner, name, call_and_die)


def kills():
    """A point, whether to die before it, and the storage."""
    cases = [(point, True, "study.db") for point in EVERYWHERE]
    cases += [(point, False, "study.memory") for point in EVERYWHERE]
    for before in (True, False):
        cases += [(point, before, "study.memory") for point in IN_MEMORY]
        cases += [(point, before, "study.db") for point in IN_A_DATABASE]
    return cases


def cases():
    """Each of ``kills`` by two samplers; how a storage writes does not depend on who draws."""
    for point, before, file in kills():
        yield "random", point, before, file
        marks = () if point in EVERYWHERE else (pytest.mark.soak,)
        yield pytest.param("brute_force", point, before, file, marks=marks)


@pytest.mark.parametrize(("sampler", "point", "before", "file"), list(cases()))
def test_killed_anywhere_a_study_ends_with_exactly_n_finished_trials(
    tmp_path, sampler, point, before, file
):
    path = tmp_path / file
    space = make_space(
        {"depth": 1, "width": {"int": [1, 11]}},
        sampler=sampler,
        students_at_once=2,
        constraints={"params": 80, "nll": 0.8},
        max_failures=0,
    )
    generator = random.Random(f"{point}{before}")
    finished = {}
    num_kills = 0
    later = generator.randint(30, 300) if point == "statement" else generator.randint(3, 6)
    for num_calls in (1, 2, later, None):
        answered = {Genotype.from_json(r.genotype) for r in finished.values()}
        fake = Fake()
        try:
            with pytest.MonkeyPatch.context() as patch:
                if num_calls is not None:
                    kill_after(patch, *KILLABLE[point], num_calls, before=before)
                run(space, open_store(space, path), fake, n_trials=6)
        except Killed:
            num_kills += 1
        assert not answered & set(fake.trained), "what has a record was trained again"

        now = {r.trial: r for r in open_store(space, path).records()}
        for trial, record in finished.items():
            assert now[trial] == record, "a finished trial changed"
        finished = {trial: record for trial, record in now.items() if record.is_counted}

    # A random sampler enqueues nothing, so it is never killed there.
    assert num_kills > 0 or (sampler, point) == ("random", "enqueue")
    assert len(finished) == 6
    final_states = {trial.state for trial in optuna_study(path).trials}
    assert not final_states & {TrialState.RUNNING, TrialState.WAITING}

    # Nothing is recorded twice.
    recorded = [r.genotype["width"][0] for r in finished.values() if r.state == "complete"]
    assert len(recorded) == len(set(recorded))
    if sampler == "brute_force":
        assert len({r.genotype["width"][0] for r in finished.values()}) == 6


def test_killed_between_record_and_state_the_record_counts(path):
    """In memory; in a database there is nothing between them."""
    space = make_space(WIDE, students_at_once=1)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, *IN_MEMORY["state"], 1, before=True)
        with pytest.raises(Killed):
            run(space, open_store(space, path), n_trials=2)
    (record,) = open_store(space, path).records()

    fake = Fake()
    run(space, open_store(space, path), fake, n_trials=2)
    store = open_store(space, path)
    assert states(store) == ["complete", "complete"] and len(fake.trained) == 1
    assert store.records()[0] == record
    trial = optuna_study(path).trials[0]
    assert trial.state == TrialState.COMPLETE
    assert trial.values == [record.value("nll"), record.value("params")]


def test_reaping_can_be_killed_too(path):
    space = make_space(WIDE, students_at_once=5)

    def die(asked):
        raise Killed

    with pytest.raises(Killed):
        run(space, open_store(space, path), die)

    for num_calls in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            kill_after(patch, gped_nas.search.ledger, "change_trial", num_calls, before=False)
            with pytest.raises(Killed):
                open_store(space, path).reap()
    assert open_store(space, path).reap() == 2
    assert open_store(space, path).reap() == 0
    assert states(open_store(space, path)) == ["failed"] * 5


# -- the front


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "objectives", [("nll", "params"), ("accuracy", "nll", "storage_bytes"), ("nll",)]
)
def test_the_front_of_the_records_is_that_of_optuna(path, objectives, seed):
    """On coarse numbers with many ties; duplicates are points as their originals are."""
    genotype = {
        "depth": 1,
        "width": {"int": [1, 8]},
        "storage_dtype": {"choices": ["float32", "int8"]},
    }
    constraints = {"nll": 0.75} if seed % 2 else {}
    space = make_space(genotype, objectives, constraints, seed=seed, students_at_once=12)

    def coarse(claim):
        metrics = {}
        for name in ("nll", "accuracy"):
            metrics[name] = round(4 * number(claim.genotype, f"{name}{seed}")) / 4
        return {"metrics": metrics}

    def is_counted(record):
        if not record.metrics:
            return False
        return all(record.metrics[name] <= bound for name, bound in constraints.items())

    store = open_store(space, path)
    run(space, store, Fake(coarse), n_trials=24)

    counted = [record for record in store.records() if is_counted(record)]
    points = [[record.value(name) for name in objectives] for record in counted]
    directions = [objective.direction for objective in space.objectives]
    mask = pareto_front(np.array(points).reshape(-1, len(objectives)), directions)
    front = {counted[i].trial for i in np.flatnonzero(mask)}
    assert front
    assert front == {trial.number for trial in optuna_study(path).best_trials}


def test_no_optuna_message_reaches_the_user(tmp_path, capfd):
    space = make_space(WIDE)
    run(space, open_store(space, tmp_path / "study.db"), n_trials=5)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
