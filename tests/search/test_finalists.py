"""Who is a finalist, and which student of a front the finalists' means choose."""

import numpy as np
import pytest

from gped_nas.search.choice import FrontDifferences, StudentDifference, choose
from gped_nas.search.finalists import Finalist, Finalists, describe_ties, near_front
from gped_nas.search.goals import Objective
from tests.search.test_flatness import NLL, PARAMS, record_of

ACCURACY = Objective("accuracy", "maximize", "metric", "accuracy")


def test_who_is_near_a_front():
    """exp(-.2) = .819: an NLL of .6 is tried as .491, just better than .5; .62 as .508 is not."""
    front = [record_of(0, 0.5, 10), record_of(1, 0.8, 2)]
    records = [*front, record_of(2, 0.6, 12), record_of(3, 0.62, 12), record_of(4, 0.9, 5)]
    near = near_front(records, front, (NLL, PARAMS), (0.0, 1.0), 0.2)
    assert [record.trial for record in near] == [2, 4]
    assert not near_front(records, front, (NLL, PARAMS), (0.0, 1.0), 0.0)


def test_who_is_near_by_a_quality_that_is_maximized():
    """An accuracy of .90 lacks .10, is tried with .082 and beats .91; .88 is tried as .902."""

    def having(trial, accuracy):
        record = record_of(trial, accuracy, 10)
        measures = {key._replace(metric="accuracy"): row for key, row in record.measures.items()}
        return record.replace(measures=measures)

    front = [having(0, 0.91)]
    records = [*front, having(1, 0.90), having(2, 0.88)]
    near = near_front(records, front, (ACCURACY, PARAMS), (1.0, 1.0), 0.2)
    assert [record.trial for record in near] == [1]


FRONT = [record_of(7, 0.10, 90), record_of(3, 0.11, 50), record_of(1, 0.12, 10)]
BOX = np.array([[0.1, 0.9], [0.11, 0.5], [0.12, 0.1]])


def over_seeds(best, *rows):
    students = tuple(StudentDifference(*row) for row in rows)
    return FrontDifferences(metric="nll", best=best, n=100, students=students)


def test_means_over_seeds_choose():
    """By the means trial 3 is best; trial 1 is within a standard error of it, and cheapest."""
    picked, rule = choose(
        FRONT, [NLL, PARAMS], BOX, None, over_seeds(3, (7, 0.004, 0.005), (1, 0.006, 0.008))
    )
    assert FRONT[picked].trial == 1
    assert "mean over fresh seeds" in rule and "(trial 3): 3 of 3" in rule
    assert "Trials that tie with it: 3, 7." in rule and "0.006 worse" in rule

    picked, rule = choose(FRONT, [NLL, PARAMS], BOX, None, over_seeds(3, (1, 0.009, 0.008)))
    assert FRONT[picked].trial == 3 and "tie" not in rule


@pytest.mark.parametrize("other", [over_seeds(5), over_seeds(3, (5, 0.0, 0.1))])
def test_means_of_another_front_say_nothing(other):
    assert choose(FRONT, [NLL, PARAMS], BOX, None, other) == choose(FRONT, [NLL, PARAMS], BOX)


def test_a_front_with_a_student_who_is_no_finalist_is_another_one():
    students = tuple(Finalist(trial, 2, tied_with=tied) for trial, tied in ((7, (3, 1)), (3, ())))
    finalists = Finalists(seeds=2, near=0.2, students=students, differences=over_seeds(7))
    assert finalists.deciding([7, 3]) == over_seeds(7)
    assert finalists.deciding([7, 3, 1]) is None
    assert describe_ties(finalists, [7, 3]).endswith("not told from a cheaper one: 7 from 3.")
    assert describe_ties(finalists, [3]) == ""
