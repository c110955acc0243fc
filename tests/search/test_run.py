import random

import numpy as np
import optuna
import pytest
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import TrialState

from gped_nas.errors import GpedError, Interrupted
from gped_nas.models.base import Genotype
from gped_nas.search.ledger import Ledger
from gped_nas.search.pareto import pareto_front
from gped_nas.search.record import FINISHED, TrialRecord
from gped_nas.search.run import Standing
from gped_nas.search.trials import FOREIGN, INTERRUPTED
from tests.search.fakes import Fake, make_record, make_space, number, open_store, optuna_study, run

SAMPLERS = ["tpe", "nsga2", "random", "brute_force", "grid"]
WIDE = {"depth": 1, "width": {"int": [1, 60_000]}}
TWELVE = {
    "depth": {"int": [1, 2]},
    "width": [{"choices": [1, 2]}, {"choices": [3, 4]}],
    "storage_dtype": {"choices": ["float32", "int8"]},
}  # 2 genotypes of depth 1, 4 of depth 2, in two types


def states(store):
    return [r.state for r in store.records()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.memory"


# -- counting


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_exactly_n_trials_are_finished(path, sampler):
    space = make_space({"depth": {"int": [1, 2]}, "width": {"int": [1, 6]}}, sampler=sampler)
    store, told = open_store(space, path), []
    assert run(space, store, n_trials=11, told=lambda r, n: told.append((r.trial, n))) == "done"
    assert len(store.records()) == 11 and set(states(store)) <= FINISHED
    assert [n for _, n in told] == list(range(1, 12))
    assert sorted(trial for trial, _ in told) == list(range(11))
    assert run(space, store, n_trials=11) == "done" and len(store.records()) == 11
    assert run(space, store, n_trials=5) == "done" and len(store.records()) == 11


def test_populations_are_as_large_as_asked_for(path):
    sizes = []
    space = make_space(WIDE, students_at_once=4)

    def train(asked):
        sizes.append(len(asked))
        return [make_record(claim) for claim in asked]

    run(space, open_store(space, path), train, n_trials=10)
    assert sizes == [4, 4, 2]


def test_duplicates_are_answered_from_the_record(path):
    space, fake = make_space({"depth": 1, "width": {"choices": [2, 3]}}), Fake()
    store = open_store(space, path)
    run(space, store, fake, n_trials=12)
    assert len(fake.trained) == len(set(fake.trained)) == 2
    assert sorted(states(store)) == ["complete"] * 2 + ["duplicate"] * 10
    records = store.records()
    first = {r.genotype["width"][0]: r for r in records if r.state == "complete"}
    for record in records:
        original = first[record.genotype["width"][0]]
        assert (record.metrics, record.costs) == (original.metrics, original.costs)
        if record.state == "duplicate":
            assert record.reason == f"same genotype as trial {original.trial}"
    again = Fake()
    run(space, open_store(space, path), again, n_trials=16)
    assert again.trained == []


def test_a_copy_in_the_same_population_is_trained_once(path):
    space, fake = make_space({"depth": 1, "width": 3}), Fake()
    store = open_store(space, path)
    run(space, store, fake, n_trials=4)
    assert len(fake.trained) == 1
    assert states(store) == ["complete", "duplicate", "duplicate", "duplicate"]


# -- constraints


def test_early_refusal_and_infeasible_after_training(path):
    """On 4 inputs with 4 outputs width w has 9 w + 4 parameters: 6 w is too many from 5 on, at most
    40.
    """
    space = make_space(constraints={"params": 40, "nll": 0.5}, n_trials=30)
    store, fake = open_store(space, path), Fake()
    run(space, store, fake, n_trials=30)
    assert all(g["width"][0] <= 4 for g in fake.trained)
    seen = set()
    for record, trial in zip(store.records(), optuna_study(path).trials, strict=True):
        genotype = Genotype.from_json(record.genotype)
        if genotype["width"][0] >= 5:
            assert record.state == "infeasible" and not record.metrics
            assert record.reason.startswith("even its smallest network has params")
            assert record.reason.endswith("expected params <= 40")
            assert trial.state == TrialState.PRUNED and trial.constraints["params"] > 0
        elif number(genotype, "nll") > 0.5:
            assert record.state in ("infeasible", "duplicate") and record.metrics
            assert trial.state == TrialState.COMPLETE and trial.constraints["nll"] > 0
            if record.state == "infeasible":
                assert (
                    record.reason.startswith("nll is 0.") and "expected nll <= 0.5" in record.reason
                )
        else:
            assert record.state in ("complete", "duplicate")
            assert (
                all(value <= 0 for value in trial.constraints.values())
                and len(trial.constraints) == 2
            )
        seen.add(record.state)
    assert {"complete", "infeasible"} <= seen
    records = store.records()
    for best in optuna_study(path).best_trials:
        assert records[best.number].metrics["nll"] <= 0.5


def test_what_pruning_may_still_save_is_trained(path):
    space = make_space({"depth": 1, "width": 50, "group_penalty": 0.1}, constraints={"params": 40})
    store, fake = open_store(space, path), Fake()
    run(space, store, fake, n_trials=1)
    assert len(fake.trained) == 1
    (record,) = store.records()
    assert record.state == "infeasible" and record.reason == "params is 454, expected params <= 40"
    smaller = Fake(
        lambda claim: {"costs": {"macs": 8, "flops": 16, "params": 13, "storage_bytes": 300}}
    )
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
    genotype = {"depth": {"int": [1, 3]}, "width": {"int": [1, 9]}}
    space = make_space(
        genotype,
        constraints={"params": 100, "nll": 0.9},
        sampler=sampler,
        n_trials=24,
        max_failures=3,
    )
    fake = Fake(
        lambda claim: {"state": "failed", "reason": "r"} if claim.genotype["width"][0] == 2 else {}
    )
    store = open_store(space, path)
    assert run(space, store, fake, n_trials=24) == "done"
    assert sum(state in FINISHED for state in states(store)) == 24


# -- failures


def test_failed_trials_do_not_count(path):
    space = make_space(WIDE, max_failures=100)
    fake = Fake(
        lambda claim: (
            {"state": "failed", "reason": "diverged"}
            if number(claim.genotype, "fails") < 0.4
            else {}
        )
    )
    store, told = open_store(space, path), []
    run(space, store, fake, n_trials=10, told=lambda r, n: told.append(n))
    assert sum(s in FINISHED for s in states(store)) == 10
    failed = [r for r in store.records() if r.state == "failed"]
    assert failed and all(r.reason == "diverged" for r in failed)
    assert told[-1] == 10 and len(told) == 10 + len(failed)
    finals = {t.number: t.state for t in optuna_study(path).trials}
    assert all(finals[r.trial] == TrialState.FAIL for r in failed)


def test_too_many_failures_stop_the_study(path):
    space = make_space(WIDE, max_failures=5, students_at_once=2)
    store, fake = (
        open_store(space, path),
        Fake(lambda claim: {"state": "failed", "reason": "it burst"}),
    )
    with pytest.raises(
        GpedError, match="6 trials failed, more than search.max_failures=5; .*trial 5.*: it burst"
    ):
        run(space, store, fake, n_trials=10)
    assert states(store) == ["failed"] * 6


def test_a_failure_is_answered_from_the_record_too(path):
    """Told as failed again and again, it would be invisible to the sampler and one genotype would
    end the study.
    """
    space = make_space({"depth": 1, "width": 3}, max_failures=1, students_at_once=2)
    store, fake = (
        open_store(space, path),
        Fake(lambda claim: {"state": "failed", "reason": "it burst"}),
    )
    assert run(space, store, fake, n_trials=5) == "done"
    assert len(fake.trained) == 1
    assert states(store) == ["failed"] + ["duplicate"] * 5
    assert all(r.reason.endswith("trial 0, which failed: it burst") for r in store.records()[1:])
    assert [t.state for t in optuna_study(path).trials[1:]] == [TrialState.PRUNED] * 5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_not_finite_never_reaches_the_front(path, value):
    """Even under a constraint on that very metric, and with a duplicate of it in the same
    population.
    """
    space = make_space(
        {"depth": 1, "width": {"choices": [2, 3]}}, constraints={"nll": 2.0}, max_failures=50
    )
    fake = Fake(
        lambda claim: (
            {"metrics": {"nll": value, "accuracy": 1.0}} if claim.genotype["width"] == (2,) else {}
        )
    )
    store = open_store(space, path)
    run(space, store, fake, n_trials=6)
    bad = [r for r in store.records() if r.genotype["width"] == [2]]
    assert bad and all(r.state in ("failed", "duplicate") and not r.metrics for r in bad)
    assert all("a metric is not finite" in r.reason for r in bad)
    front = [t.number for t in optuna_study(path).best_trials]
    assert front and all(store.records()[n].genotype["width"] == [3] for n in front)


# -- finite spaces


@pytest.mark.parametrize("sampler", ["brute_force", "grid"])
def test_finite_spaces_are_listed_once_and_then_exhausted(path, sampler):
    space, fake = make_space(TWELVE, sampler=sampler, students_at_once=5), Fake()
    store = open_store(space, path)
    assert run(space, store, fake, n_trials=100) == "exhausted"
    assert len(fake.trained) == len(set(fake.trained)) == 12
    assert states(store) == ["complete"] * 12
    assert run(space, store, n_trials=100) == "exhausted" and len(store.records()) == 12


@pytest.mark.parametrize("sampler", ["brute_force", "grid"])
def test_an_interruption_loses_and_repeats_no_genotype_of_a_finite_space(path, sampler):
    space = make_space(TWELVE, sampler=sampler, students_at_once=5)

    class Dies(Fake):
        def __call__(self, asked):
            if len(self.trained) >= 5:
                raise KeyboardInterrupt
            return super().__call__(asked)

    first, second = Dies(), Fake()
    with pytest.raises(KeyboardInterrupt):
        run(space, open_store(space, path), first, n_trials=100)
    store = open_store(space, path)
    assert run(space, store, second, n_trials=100) == "exhausted"
    trained = first.trained + second.trained
    assert len(trained) == len(set(trained)) == 12
    assert sorted(states(store)) == ["complete"] * 12 + ["failed"] * 5


def test_one_genotype_that_always_fails_does_not_stop_a_finite_space(path):
    space = make_space(TWELVE, sampler="brute_force", students_at_once=5, max_failures=1)
    bad = Genotype("mlp", depth=1, width=[2], storage_dtype="int8")
    fake = Fake(
        lambda claim: {"state": "failed", "reason": "it burst"} if claim.genotype == bad else {}
    )
    store = open_store(space, path)
    assert run(space, store, fake, n_trials=100) == "exhausted"
    assert len(fake.trained) == 12
    assert sorted(states(store)) == ["complete"] * 11 + ["failed"]
    assert (
        run(space, open_store(space, path), fake, n_trials=100) == "exhausted"
        and len(fake.trained) == 12
    )


def test_the_grid_is_in_order_and_brute_force_is_shuffled(path):
    genotype = {"depth": 1, "width": {"int": [1, 12]}}
    drawn = {}
    for sampler in ("grid", "brute_force"):
        space, fake = make_space(genotype, sampler=sampler), Fake()
        run(space, open_store(space, path.with_name(f"{sampler}.memory")), fake, n_trials=12)
        drawn[sampler] = [g["width"][0] for g in fake.trained]
    assert drawn["grid"] == list(range(1, 13))
    assert sorted(drawn["brute_force"]) == drawn["grid"] != drawn["brute_force"]


def test_a_finite_sampler_goes_on_where_another_one_drew(path):
    """What a random sampler drew, inactive widths left out, is not listed again."""
    random_space, fake = make_space(TWELVE, sampler="random"), Fake()
    run(random_space, open_store(random_space, path), fake, n_trials=6)
    space = make_space(TWELVE, sampler="grid")
    store = open_store(space, path)
    assert run(space, store, fake, n_trials=100) == "exhausted"
    assert len(fake.trained) == len(set(fake.trained)) == 12
    assert sum(s == "complete" for s in states(store)) == 12


# -- stopping


def test_a_wish_to_stop_between_populations(path):
    space, answers = make_space(WIDE), iter([False, True])
    store = open_store(space, path)
    with pytest.raises(Interrupted):
        run(space, store, should_stop=lambda: next(answers))
    assert states(store) == ["complete"] * 4


def test_a_wish_to_stop_while_training_leaves_nothing_running(path):
    space = make_space(
        {"depth": 1, "width": {"int": [1, 9]}}, constraints={"params": 60}, students_at_once=12
    )
    store = open_store(space, path)

    def stopped(asked):
        raise Interrupted("stopped", 143)

    with pytest.raises(Interrupted) as caught:
        run(space, store, stopped)
    assert caught.value.exit_code == 143
    records = store.records()
    assert {r.state for r in records} == {"failed", "infeasible"}
    assert all(r.reason == INTERRUPTED for r in records if r.state == "failed")
    assert not any(t.state == TrialState.RUNNING for t in optuna_study(path).trials)
    fake = Fake()
    run(
        space, open_store(space, path), fake, n_trials=20
    )  # interruptions are no failures of the students
    assert sum(r.state in FINISHED for r in open_store(space, path).records()) == 20


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


def test_a_time_limit_starts_no_new_population(path):
    space = make_space(WIDE)
    store = open_store(space, path)
    assert run(space, store, timeout_s=0.0) == "timeout"
    assert store.records() == []
    assert run(space, store, timeout_s=1000.0, n_trials=4) == "done"


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


# every call that changes the storage, and training itself
KILLABLE = {
    "ask": (optuna.Study, "ask"),
    "enqueue": (optuna.Study, "enqueue_trial"),
    "suggest": (optuna.Trial, "suggest_int"),
    "constraint": (optuna.storages.BaseStorage, "set_trial_system_attr"),
    "attribute": (optuna.storages.BaseStorage, "set_trial_user_attr"),
    "tell": (optuna.Study, "tell"),
    "ledger.finish": (Ledger, "finish"),
    "train": (Fake, "__call__"),
}


def kill_after(patch, owner, name, num_calls, *, before):
    """Make the ``num_calls``-th call die, before or after its work."""
    if owner is optuna.storages.BaseStorage:  # the one that each test uses
        for backend in (_CachedStorage, optuna.storages.InMemoryStorage):
            kill_after(patch, backend, name, num_calls, before=before)
        return
    original, calls = getattr(owner, name), []

    def dying(*args, **more):
        calls.append(1)
        if len(calls) == num_calls and before:
            raise Killed
        result = original(*args, **more)
        if len(calls) == num_calls:
            raise Killed
        return result

    patch.setattr(owner, name, dying)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("point", sorted(KILLABLE))
@pytest.mark.parametrize("sampler", ["random", "brute_force"])
def test_killed_anywhere_a_study_ends_with_exactly_n_finished_trials(
    tmp_path, sampler, point, before
):
    path = tmp_path / ("study.db" if before else "study.memory")
    space = make_space(
        {"depth": 1, "width": {"int": [1, 11]}},
        sampler=sampler,
        students_at_once=2,
        constraints={"params": 80, "nll": 0.8},
        max_failures=0,
    )
    generator, trained, finished, kills = random.Random(f"{point}{before}"), [], {}, 0
    for num_calls in (1, 2, generator.randint(3, 6), None):
        fake = Fake()
        try:
            with pytest.MonkeyPatch.context() as patch:
                if num_calls is not None:
                    kill_after(patch, *KILLABLE[point], num_calls, before=before)
                run(space, open_store(space, path), fake, n_trials=6)
        except Killed:
            kills += 1
        trained += fake.trained
        now = {r.trial: r for r in open_store(space, path).records()}
        assert all(now[trial] == record for trial, record in finished.items()), (
            "a finished trial changed"
        )
        finished = {trial: record for trial, record in now.items() if record.state in FINISHED}
    assert kills >= (0 if (sampler, point) == ("random", "enqueue") else 1)
    assert len(finished) == 6
    states_left = {t.state for t in optuna_study(path).trials}
    assert not states_left & {TrialState.RUNNING, TrialState.WAITING}
    # nothing that was recorded is trained again, and nothing is recorded twice
    recorded = [r.genotype["width"][0] for r in finished.values() if r.state == "complete"]
    assert len(recorded) == len(set(recorded))
    if sampler == "brute_force":
        assert len({r.genotype["width"][0] for r in finished.values()}) == 6


def test_killed_between_record_and_tell_the_record_counts(tmp_path):
    path = tmp_path / "study.db"
    space = make_space(WIDE, students_at_once=1)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, optuna.Study, "tell", 1, before=True)
        with pytest.raises(Killed):
            run(space, open_store(space, path), n_trials=2)
    (left,) = open_store(space, path).records()
    fake = Fake()
    run(space, open_store(space, path), fake, n_trials=2)
    store = open_store(space, path)
    assert states(store) == ["complete", "complete"] and len(fake.trained) == 1
    assert store.records()[0] == left
    first = optuna_study(path).trials[0]
    assert first.state == TrialState.COMPLETE and first.values == [
        left.value("nll"),
        left.value("params"),
    ]


def test_reaping_can_be_killed_too(path):
    space = make_space(WIDE, students_at_once=5)
    with pytest.raises(Killed):

        def die(asked):
            raise Killed

        run(space, open_store(space, path), die)
    for num_calls in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            kill_after(patch, optuna.Study, "tell", num_calls, before=False)
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
        return {
            "metrics": {
                n: round(4 * number(claim.genotype, f"{n}{seed}")) / 4 for n in ("nll", "accuracy")
            }
        }

    store = open_store(space, path)
    run(space, store, Fake(coarse), n_trials=24)
    counted = [
        r
        for r in store.records()
        if r.metrics and all(r.metrics[name] <= bound for name, bound in constraints.items())
    ]
    points = np.array([[r.value(name) for name in objectives] for r in counted]).reshape(
        -1, len(objectives)
    )
    mask = pareto_front(points, [o.direction for o in space.objectives])
    found = {r.trial for r, is_front in zip(counted, mask, strict=True) if is_front}
    best = optuna_study(path).best_trials
    assert found == {t.number for t in best} and found


def test_no_optuna_message_reaches_the_user(tmp_path, capfd):
    space = make_space(WIDE)
    run(space, open_store(space, tmp_path / "study.db"), n_trials=5)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
