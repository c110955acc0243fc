"""Who is no better than a guess: from the paired differences that a record has."""

import pytest

from gped_nas.api.snapshots import front_of
from gped_nas.evaluate.measured import from_public
from gped_nas.search.goals import Objective
from gped_nas.search.guess import (
    explain_guesses,
    is_guess,
    is_teacher_guess,
    near_guesses,
    note_guesses,
)
from gped_nas.search.record import Above, State, TrialRecord

NLL = Objective("nll", "minimize", "metric", "NLL (nats)")
ACCURACY = Objective("accuracy", "maximize", "metric", "accuracy")
BYTES = Objective("storage_bytes", "minimize", "cost", "storage (bytes)")


def record(
    trial: int, value: float, num_bytes: int, state: State = "complete", **above: Above
) -> TrialRecord:
    measures = from_public({"nll": value})
    costs = {"storage_bytes": num_bytes}
    return TrialRecord(trial, state, {}, measures=measures, costs=costs, above_guess=above)


@pytest.mark.parametrize(
    ("above", "is_one"),
    [
        ({}, False),  # not compared
        ({"nll": (-0.1, -0.2, -0.01)}, False),
        ({"nll": (-0.1, -0.2, 0.01)}, True),  # not told apart
        ({"nll": (-0.1, -0.2, 0.0)}, True),
        ({"nll": (0.1, 0.05, 0.2)}, True),  # worse
        ({"nll": None}, False),  # the guess has no finite NLL, the student has one
        ({"accuracy": (0.1, 0.05, 0.2)}, False),
        ({"accuracy": (-0.1, -0.2, -0.05)}, True),
        ({"nll": (0.1, 0.05, 0.2), "accuracy": (0.1, 0.05, 0.2)}, False),  # better in one
        ({"nll": (0.1, 0.05, 0.2), "accuracy": (0.1, -0.05, 0.2)}, True),
    ],
)
def test_a_student_guesses_unless_it_is_better_in_a_quality(
    above: dict[str, Above], is_one: bool
) -> None:
    assert is_guess(record(0, 1.0, 10, **above), [NLL, ACCURACY, BYTES]) is is_one


@pytest.mark.parametrize(
    ("gains", "near"),
    [
        ({"nll": (-0.09, -0.1, -0.05)}, {1}),  # 9 % of the best one's gain of 1
        ({"nll": (-0.11, -0.2, -0.05)}, set()),
        ({"nll": (-0.01, -0.02, -0.005), "accuracy": (0.3, 0.2, 0.4)}, set()),  # half in one
        ({"nll": (-0.01, -0.02, -0.005), "accuracy": (0.01, 0.0, 0.02)}, {1}),
        ({"nll": None}, set()),  # the guess has no NLL: nothing to measure a gain by
        ({}, set()),
    ],
)
def test_a_student_is_near_a_guess_where_it_gains_little_beside_the_best(
    gains: dict[str, Above], near: set[int]
) -> None:
    best = record(0, 0.1, 1000, nll=(-1.0, -1.1, -0.9), accuracy=(0.6, 0.5, 0.7))
    assert near_guesses([best, record(1, 2.0, 10, **gains)], [NLL, ACCURACY, BYTES]) == near


def test_a_front_holds_no_student_that_guesses() -> None:
    told, guess = (-1.0, -1.1, -0.9), (-0.001, -0.01, 0.01)
    records = [
        record(0, 0.1, 1000, nll=told),
        record(1, 0.5, 100, nll=told),
        record(2, 2.3, 10, nll=guess),
    ]
    assert front_of(records, [NLL, BYTES], None) == [0, 1]
    (note,) = note_guesses(records, [NLL, BYTES])
    assert note.startswith("1 of 3 complete students are on no front")

    # of studies that were begun before there was a guess, fronts are as they were
    before = [r.replace(above_guess={}) for r in records]
    assert front_of(before, [NLL, BYTES], None) == [0, 1, 2]
    assert note_guesses(before, [NLL, BYTES]) == ()


def test_students_that_all_guess_are_explained() -> None:
    what, remedy = explain_guesses([record(0, 2.3, 10, nll=(0.0, -0.1, 0.1))], [NLL, BYTES])
    assert "of none of the 1 complete ones can validation nll be told from the guess's" in what
    assert remedy


def test_a_record_keeps_its_differences() -> None:
    whole = record(0, 1.0, 10, nll=(-0.5, -0.75, -0.25), accuracy=None)
    assert TrialRecord.loads(whole.dumps()) == whole


def test_a_teacher_guesses_where_its_diagnosis_says_so() -> None:
    assert is_teacher_guess({"guess": {"is_better": False}})
    assert not is_teacher_guess({"guess": {"is_better": True}})
    assert not is_teacher_guess({}) and not is_teacher_guess({"guess": None})
