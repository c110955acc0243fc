"""Whether a front still gets better, and searches that end where it does not."""

import numpy as np
import pytest

from gped_nas.errors import StudyError
from gped_nas.evaluate.measured import from_public
from gped_nas.search.drawn_volume import drawn_volumes, volumes_one_by_one
from gped_nas.search.draws import NUM_DRAWS, pack_draws, unpack_draws
from gped_nas.search.flatness import FrontWatch
from gped_nas.search.goals import Objective
from gped_nas.search.record import TrialRecord
from tests.search.fakes import Fake, make_space, open_store, run

NLL = Objective("nll", "minimize", "metric", "NLL (nats)")
PARAMS = Objective("params", "minimize", "cost", "parameters")


def record_of(trial, nll, params, spread=0.0, state="complete"):
    """A record whose draws lie alternately ``spread`` above and below its value."""
    signs = np.where(np.arange(NUM_DRAWS) % 2, 1.0, -1.0)
    return TrialRecord(
        trial,
        state,
        {},
        measures=from_public({"nll": nll}, {}, {"nll": 5}),
        costs={"params": params},
        draws={"nll": pack_draws(nll + spread * signs)},
    )


def watch(patience, *records):
    """Quality from 0 to 1, and parameters from 1 to 100: a decade is half of the axis."""
    front = FrontWatch(patience, (NLL, PARAMS), best=(0.0, 1.0), worst=(1.0, 100.0))
    for record in records:
        front.add(record)
    return front.look()


@pytest.mark.parametrize("shape", [(2, 1), (5, 2), (7, 3), (5, 4)])
@pytest.mark.parametrize("varying", [0, -1])
def test_volumes_by_cells_are_those_one_by_one(shape, varying):
    generator = np.random.default_rng(shape[0])
    num_points, num_axes = shape
    varying %= num_axes
    # coarse, so that points share values and touch the corner
    losses_NM = generator.integers(0, 5, size=(num_points, num_axes)) / 4
    losses_RNM = np.repeat(losses_NM[None], 6, axis=0)
    losses_RNM[:, :, varying] = generator.integers(0, 9, size=(6, num_points)) / 8
    losses_RNM[2, 0, varying] = np.nan

    volumes = drawn_volumes(losses_RNM, [varying])
    assert np.isnan(volumes[2]) and np.isfinite(np.delete(volumes, 2)).all()
    np.testing.assert_allclose(volumes, volumes_one_by_one(losses_RNM), atol=1e-12)


def test_two_varying_qualities_are_taken_one_by_one():
    losses_RNM = np.random.default_rng(0).random((4, 5, 3))
    np.testing.assert_array_equal(drawn_volumes(losses_RNM, [0, 1]), volumes_one_by_one(losses_RNM))


def test_draws_are_read_as_they_were_written():
    values = np.random.default_rng(0).random(1000)
    read = unpack_draws(pack_draws(values), "trial 3")
    np.testing.assert_array_equal(read, values[:NUM_DRAWS].astype(np.float32))
    for damaged in ("", "?", pack_draws(values[:-901])):
        with pytest.raises(StudyError, match="trial 3: found"):
            unpack_draws(damaged, "trial 3")


def test_gains_are_told_from_noise():
    """Trial 0 spans (1 - .5) (1 - .5) = .25.

    Trial 1 is better by .01 in NLL: .005 of volume. Its draws differ from trial 0's by +-.02, so
    the noise is .5 x .02 = .01 (to the factor of 99 degrees of freedom): no gain. Trial 3 is better
    by .1, which is .05.
    """
    first = record_of(0, 0.5, 10)
    lucky = record_of(1, 0.49, 10, spread=0.02)
    worse = record_of(2, 0.9, 50)
    better = record_of(3, 0.4, 10)

    flatness = watch(2, first, lucky, worse)
    assert (flatness.trial, flatness.num_since, flatness.is_flat) == (0, 2, True)
    assert flatness.gain == pytest.approx(0.005, abs=1e-6)
    assert flatness.noise == pytest.approx(0.01 * (100 / 99) ** 0.5, rel=1e-4)
    assert flatness.hypervolume == pytest.approx(0.255)
    assert "in 2 trials after trial 0" in flatness.sentence

    assert not watch(3, first, lucky, worse).is_flat
    flatness = watch(2, first, lucky, worse, better)
    assert (flatness.trial, flatness.num_since, flatness.is_flat) == (3, 0, False)


def test_draws_that_both_fronts_share_are_no_noise():
    """Both shift alike, so the small gain is sure."""
    records = record_of(0, 0.5, 10, spread=0.1), record_of(1, 0.49, 10, spread=0.1)
    assert watch(1, *records).trial == 1


def test_many_small_gains_are_one_gain():
    """Each gain is within its noise, their sum is not: the front is compared with the last gain."""
    records = [record_of(0, 0.5, 10)]
    records += [record_of(i, 0.5 - 0.015 * i, 10, spread=0.02) for i in range(1, 3)]
    assert watch(5, *records).trial == 2


def test_who_is_not_complete_is_a_trial_all_the_same():
    """A failed trial is none; an empty front is not flat."""
    records = [record_of(0, 0.5, 10), record_of(1, 0.1, 1, state="infeasible")]
    records.append(record_of(2, 0.1, 1, state="failed"))
    flatness = watch(9, *records)
    assert (flatness.num_trials, flatness.trial, flatness.room) == (2, 0, 8)
    flatness = watch(1, *records[1:])
    assert (flatness.trial, flatness.is_flat, flatness.room) == (None, False, 1)


def test_a_variant_is_a_student_and_no_trial():
    """Trial 5 is trial 0's student in another type: its gain is at the first of three trials."""
    variant = record_of(5, 0.5, 5).replace(variant_of=0)
    flatness = watch(2, record_of(0, 0.5, 10), record_of(1, 0.6, 20), record_of(2, 0.6, 9), variant)
    assert (flatness.num_trials, flatness.trial, flatness.num_since) == (3, 5, 2)


def test_records_without_draws_are_refused():
    record = record_of(4, 0.5, 10).replace(draws={})
    with pytest.raises(StudyError, match=r"trial 4: found no draws of nll.*--stop-when-flat"):
        watch(1, record)


# -- the loop


class Drawn(Fake):
    """As ``Fake``, with draws."""

    def __call__(self, asked):
        records = super().__call__(asked)
        return [
            record.replace(draws={"nll": pack_draws(np.full(NUM_DRAWS, record.metrics["nll"]))})
            for record in records
        ]


def watch_of(space, patience):
    return FrontWatch(patience, space.objectives, best=(0.0, 1.0), worst=(1.0, 1000.0))


@pytest.mark.parametrize("patience", [1, 5, 6])
def test_a_search_ends_so_many_trials_after_the_last_gain(tmp_path, patience):
    space = make_space({"depth": 1, "width": {"int": [1, 60]}}, students_at_once=4)
    store = open_store(space, tmp_path / "study.memory")
    watched = watch_of(space, patience)
    assert run(space, store, Drawn(), n_trials=200, watch=watched) == "flat"

    records = store.records()
    flatness = watched.look()
    counted = [record.trial for record in records if record.is_counted]
    assert flatness.num_since == patience and flatness.num_trials == len(counted)
    assert sum(trial > flatness.trial for trial in counted) == patience
    best = min(records, key=lambda record: record.metrics["nll"])
    assert best.trial <= flatness.trial

    # the same again: nothing is trained
    again = Drawn()
    assert run(space, store, again, n_trials=200, watch=watch_of(space, patience)) == "flat"
    assert not again.trained
    assert run(space, store, again, n_trials=flatness.num_trials + 1) == "done"


def test_a_search_that_was_killed_decides_the_same(tmp_path):
    space = make_space({"depth": 1, "width": {"int": [1, 60]}}, students_at_once=4)
    whole = open_store(space, tmp_path / "whole.memory")
    run(space, whole, Drawn(), n_trials=200, watch=watch_of(space, 8))

    class Killed(Exception):
        """Stands for the end of the process."""

    def die(record, num_finished):
        if all(record.state != "running" for record in parts.records()):
            raise Killed

    parts = open_store(space, tmp_path / "parts.memory")
    for _ in range(100):
        try:
            reason = run(space, parts, Drawn(), n_trials=200, watch=watch_of(space, 8), told=die)
            break
        except Killed:
            continue
    assert reason == "flat"
    assert [record.genotype for record in parts.records()] == [
        record.genotype for record in whole.records()
    ]
