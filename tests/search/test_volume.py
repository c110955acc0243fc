"""Box, corner and history of a study's hypervolume."""

import numpy as np
import pytest

from gped_nas.search.document import Box
from gped_nas.search.goals import Objective
from gped_nas.search.region import Keep, Region, make_region
from gped_nas.search.volume import coverage, losses_in, reference_box
from tests.search.test_region import ACCURACY, BYTES, GOALS, KNOW_NOTHING, NLL, TEACHER, record

AXES = Box(best=(0.0, 1.0, 10), worst=(2.3026, 0.0, 1000))


def region(keep: Keep = 0.9) -> Region:
    return make_region(keep, GOALS, know_nothing=KNOW_NOTHING, teacher=TEACHER)


def test_the_box_ends_at_the_corners_of_the_region() -> None:
    box = reference_box(GOALS, AXES, region())
    assert box.best == AXES.best
    assert box.worst == pytest.approx((0.5, 0.1, 1000))

    box = reference_box(GOALS, AXES, region({"storage_bytes": 100, "accuracy": 0.8}))
    assert box.worst == pytest.approx((2.3, 0.8, 100))
    # nothing that can be drawn is larger than 1,000 bytes
    assert reference_box(GOALS, AXES, region({"storage_bytes": 5000})).worst[2] == 1000


def test_a_study_without_a_region_has_the_box_of_its_objectives() -> None:
    assert reference_box(GOALS, AXES, None) == AXES


def test_an_axis_never_ends_before_it_begins() -> None:
    """The best log-density of a real label is a convention: here a bound is beyond it."""
    beyond = make_region(0.9, [NLL], know_nothing={"nll": 0.0}, teacher={"nll": -10.0})
    box = reference_box([NLL], Box(best=(-3.0,), worst=(1.0,)), beyond)
    assert box.worst == (1.0,)


def test_ignorance_may_be_worse_than_the_declared_worst() -> None:
    """Of other labels than it knows, frequencies are worth less than log C."""
    made = make_region(0.01, [NLL], know_nothing={"nll": 2.4}, teacher={"nll": 0.4})
    assert reference_box([NLL], Box(best=(0,), worst=(2.3026,)), made).worst == (
        pytest.approx(2.38),
    )


def test_only_who_is_inside_covers_anything() -> None:
    goals, axes = (NLL, BYTES), Box(best=(0.0, 10), worst=(2.3026, 1000))
    made = make_region(0.9, goals, know_nothing=KNOW_NOTHING, teacher=TEACHER)
    records = [
        record(0, 0.6, num_bytes=10),  # outside
        record(1, 0.25, num_bytes=100),
        record(2, 0.1, num_bytes=10, state="failed"),
        record(3, 0.1, num_bytes=1000),  # as large as the largest
        record(4, 0.4, num_bytes=10),
    ]
    covered = coverage(records, goals, axes, made)
    assert covered.box.worst == pytest.approx((0.5, 1000))
    assert np.isnan(covered.losses[[0, 2]]).all()
    assert covered.losses[1] == pytest.approx([0.5, 0.5])  # half of .5 nats, 10 of 10 to 1,000
    # .5 * .5; then the whole height of a fifth of the width, and of that .3 * .5 beside it
    assert covered.history == pytest.approx([0, 0.25, 0.25, 0.25, 0.35])


def test_nll_parts_students_where_it_is_no_objective() -> None:
    goals, axes = (ACCURACY, BYTES), Box(best=(1.0, 10), worst=(0.0, 1000))
    made = make_region(0.9, goals, know_nothing=KNOW_NOTHING, teacher=TEACHER)
    records = [record(0, 0.6, accuracy=0.99, num_bytes=10), record(1, 0.4, 0.55, num_bytes=100)]
    covered = coverage(records, goals, axes, made)
    assert covered.history == pytest.approx([0, 0.25])  # (1 - .55) / .9 is half


def test_before_there_were_regions_everybody_covered() -> None:
    """As the hypervolumes that those studies have shown."""
    goals, axes = (NLL, BYTES), Box(best=(0.0, 10), worst=(2.0, 1000))
    guess = {"nll": (-0.01, -0.02, 0.01)}
    covered = coverage([record(0, 1.0, num_bytes=100, above_guess=guess)], goals, axes, None)
    assert covered.history == pytest.approx([0.25])


def test_a_study_without_trials_covers_nothing() -> None:
    covered = coverage([], GOALS, AXES, region())
    assert covered.losses.shape == (0, 3) and covered.history.shape == (0,)
    assert losses_in(AXES, [], GOALS).shape == (0, 3)


def test_an_unknown_objective_has_its_own_worst() -> None:
    other = Objective("kl_to_teacher", "minimize", "metric", "KL")
    assert reference_box([other], Box(best=(0,), worst=(2.3,)), region()).worst == (2.3,)
