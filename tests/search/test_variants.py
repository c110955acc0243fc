"""One training answers for every storage type: what is trained, counted, numbered and repeated."""

import gc
import json
import sqlite3
import tracemalloc
from collections import Counter
from dataclasses import replace

import pytest
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine

from gped_nas.models.base import STORAGE_DTYPES
from gped_nas.search.record import TrialRecord
from tests.search.fakes import (
    Fake,
    make_record,
    make_space,
    open_store,
    optuna_study,
    run,
    with_variants,
)

GENOTYPE = {
    "depth": 1,
    "width": {"int": [1, 60]},
    "storage_dtype": {"choices": ["float32", "float16", "int8"]},
}
SMALL = {**GENOTYPE, "width": {"choices": [2, 3]}}


@pytest.fixture(params=["study.memory", "study.db"])
def path(request, tmp_path):
    return tmp_path / request.param


def trainings(records):
    """Width to the trials of its student, the one that was trained first."""
    by_width = {}
    for record in records:
        if record.state in ("complete", "infeasible"):
            by_width.setdefault(record.genotype["width"][0], []).append(record)
    for members in by_width.values():
        members.sort(key=lambda record: record.variant_of is not None)
    return by_width


def test_each_training_has_a_trial_in_every_storage_type(path):
    space, fake = make_space(GENOTYPE), Fake()
    store = open_store(space, path)
    told = []
    run(space, store, fake, n_trials=8, told=lambda record, num: told.append((record, num)))

    records = store.records()
    by_width = trainings(records)
    assert len(fake.trained) == len({genotype["width"] for genotype in fake.trained})
    for first, *variants in by_width.values():
        assert first.variant_of is None
        assert {variant.variant_of for variant in variants} == {first.trial}
        dtypes = [member.genotype["storage_dtype"] for member in (first, *variants)]
        assert sorted(dtypes) == sorted(STORAGE_DTYPES)

    # told as they are stored, and numbered without a gap
    assert sorted(record.trial for record, _ in told) == list(range(len(records)))
    assert {record.trial: record for record, _ in told} == {r.trial: r for r in records}
    assert [num for _, num in told][-1] == 8
    assert not any(record.variants for record, _ in told)


def test_variants_count_neither_as_trials_nor_in_time(path):
    space = make_space(GENOTYPE)
    store = open_store(space, path)
    run(space, store, n_trials=8)
    records = store.records()
    assert sum(record.is_counted for record in records) == 8
    assert len(records) > 16
    assert all(record.seconds == 0 for record in records if record.variant_of is not None)

    run(space, open_store(space, path), n_trials=8)
    assert len(store.records()) == len(records)


def test_one_that_waits_for_another_ones_training_is_its_variant(path):
    """Both widths are drawn in more than one type at once: each is trained once."""
    space, fake = make_space(SMALL, students_at_once=12, n_trials=12), Fake()
    store = open_store(space, path)
    run(space, store, fake, n_trials=12)
    assert len(fake.trained) == 2
    first_two = trainings(store.records())
    assert [len(members) for members in first_two.values()] == [3, 3]
    waited = [record for record in store.records()[:12] if record.variant_of is not None]
    assert waited and all(record.state == "complete" for record in waited)


def test_constraints_judge_each_type_by_itself(path):
    """9 w + 4 parameters are 4 times as many bytes in float32 as in int8."""
    space = make_space(GENOTYPE, constraints={"storage_bytes": 1000})
    store = open_store(space, path)
    run(space, store, n_trials=12)
    records = [record for record in store.records() if record.variant_of is not None]
    states = {record.state for record in records}
    assert states == {"complete", "infeasible"}
    for record in records:
        assert (record.state == "infeasible") == (record.costs["storage_bytes"] > 1000)


def test_optuna_knows_variants_as_complete_trials_of_its_own(path):
    space = make_space(GENOTYPE)
    store = open_store(space, path)
    run(space, store, n_trials=4)
    trials = optuna_study(path).get_trials()
    for trial, record in zip(trials, store.records(), strict=True):
        assert trial.state == TrialState.COMPLETE
        assert trial.params["storage_dtype"] == record.genotype["storage_dtype"]
        assert trial.values == [record.value(goal.name) for goal in space.objectives]
        assert trial.datetime_start is not None and trial.datetime_complete is not None


@pytest.mark.parametrize("sampler", ["brute_force", "grid"])
def test_a_finite_space_is_trained_once_a_student(path, sampler):
    space, fake = make_space(SMALL, sampler=sampler, students_at_once=1), Fake()
    store = open_store(space, path)
    assert run(space, store, fake, n_trials=100) == "exhausted"
    assert len(fake.trained) == 2
    assert [record.state for record in store.records()] == ["complete"] * 6


@pytest.mark.parametrize("sampler", ["brute_force", "grid"])
def test_a_population_of_a_finite_space_holds_no_student_twice(path, sampler):
    sizes = []
    genotype = {**GENOTYPE, "width": {"choices": [1, 2, 3, 4]}}

    def train(asked):
        sizes.append(len(asked))
        return [with_variants(claim) for claim in asked]

    space = make_space(genotype, sampler=sampler, students_at_once=3)
    run(space, open_store(space, path), train, n_trials=100)
    assert sizes == [3, 1]


def test_failed_students_have_no_variants_and_who_waits_repeats_the_failure(path):
    space = make_space(SMALL, students_at_once=12, n_trials=12)
    store = open_store(space, path)
    fake = Fake(lambda claim: {"state": "failed", "reason": "it burst"})
    run(space, store, fake, n_trials=1)
    records = store.records()
    assert all(record.variant_of is None for record in records)
    assert {record.state for record in records} == {"failed", "duplicate"}
    assert not any(record.metrics for record in records if record.state == "duplicate")


def test_a_variant_that_is_of_no_use_is_left_out(path):
    def train(asked):
        records = []
        for claim in asked:
            record = with_variants(claim)
            broken = record.variants[0]
            costs = {**broken.costs, "params": float("nan")}
            variants = (broken.replace(costs=costs), *record.variants[1:])
            records.append(record.replace(variants=variants))
        return records

    space = make_space(GENOTYPE, students_at_once=1)
    store = open_store(space, path)
    run(space, store, train, n_trials=3)
    records = store.records()
    assert [record.state for record in records] == ["complete"] * len(records)
    assert len(records) == 6


def test_without_every_dtype_each_type_is_trained(path):
    space, fake = make_space(SMALL, every_dtype=False, sampler="grid"), Fake()
    store = open_store(space, path)
    run(space, store, fake, n_trials=100)
    assert len(fake.trained) == 6
    assert all(record.variant_of is None for record in store.records())


def test_nobody_ever_sees_a_trial_without_its_variants(tmp_path, monkeypatch):
    """A transaction that fails in the middle leaves neither the trial nor its variants."""
    path = tmp_path / "study.db"
    space = make_space(GENOTYPE, students_at_once=1)
    store = open_store(space, path)

    def burst(*args):
        raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patch:
        patch.setattr("gped_nas.search.variants.insert_trials", burst)
        with pytest.raises(RuntimeError, match="plug"):
            run(space, store, n_trials=1)

    with sqlite3.connect(path) as connection:
        states = connection.execute("select state from trials").fetchall()
    assert states == [("RUNNING",)]

    run(space, open_store(space, path), n_trials=1)
    assert [record.state for record in store.records()][1:] == ["complete"] * 3


def test_a_record_says_whose_variant_it_is_and_nothing_where_it_is_none():
    space = make_space(GENOTYPE)
    record = TrialRecord(3, "complete", {"family": "mlp"})
    assert "variant_of" not in json.loads(record.dumps())
    variant = record.replace(variant_of=0)
    assert TrialRecord.loads(variant.dumps()) == variant
    assert variant.trained_in == 0 and record.trained_in == 3
    assert not variant.is_counted and record.is_counted
    assert space.other_dtypes({"width": 3, "storage_dtype": "int8"}) == ("float32", "float16")


def test_records_of_variants_survive_a_lost_answer_to_commit(tmp_path, monkeypatch):
    """The connection is lost after the database took the transaction: it is not written twice."""
    import gped_nas.search.changes as changes

    path = tmp_path / "study.db"
    space = make_space(GENOTYPE, students_at_once=2)
    store = open_store(space, path)

    def twice(backend, write):
        write()
        return write()

    with monkeypatch.context() as patch:
        patch.setattr(changes, "patiently", twice)
        run(space, store, n_trials=4)
    records = store.records()
    assert sum(record.is_counted for record in records) == 4
    assert {record.state for record in records} == {"complete"}
    assert len(records) == 12


def test_a_claim_says_the_types_that_follow(path):
    space = make_space(GENOTYPE)
    (claim,) = open_store(space, path).claim(space, 1, 0)
    assert {claim.genotype["storage_dtype"], *claim.dtypes} == set(STORAGE_DTYPES)
    assert make_record(replace(claim, dtypes=())).variants == ()


@pytest.mark.parametrize("num", [120, pytest.param(2000, marks=pytest.mark.soak)])
def test_variants_and_repeats_cost_the_same_all_along(tmp_path, num):
    """On a database: what a training costs does not grow, and the memory of a run stays flat."""
    genotype = {**GENOTYPE, "depth": 4, "width": [{"int": [1, 100]}] * 4}
    space = make_space(genotype, students_at_once=10)
    ledger = open_store(space, tmp_path / "study.db")
    seen = Counter()
    marks = []

    def statement(*call):
        seen["statements"] += 1

    def told(record, num_finished):
        if len(marks) < 4 * num_finished // num and record.is_counted:
            gc.collect()
            marks.append((seen["statements"], tracemalloc.get_traced_memory()[0]))

    event.listen(Engine, "before_cursor_execute", statement)
    tracemalloc.start()
    try:
        assert run(space, ledger, n_trials=num, told=told) == "done"
    finally:
        tracemalloc.stop()
        event.remove(Engine, "before_cursor_execute", statement)

    records = ledger.records()
    assert sum(record.is_counted for record in records) == num
    assert len(records) >= 3 * num

    statements = [count for count, _ in marks]
    first, last = statements[1] - statements[0], statements[3] - statements[2]
    assert last <= 1.1 * first, statements
    # the answers to all genotypes stay, and nothing that grows faster
    memory = [num_bytes for _, num_bytes in marks]
    per_quarter = max(memory[1] - memory[0], 500_000)
    assert memory[3] - memory[2] < 2 * per_quarter, memory
