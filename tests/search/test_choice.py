"""The student that is picked when nobody gave a budget."""

import numpy as np
import pytest

from gped_nas.evaluate.measured import from_public
from gped_nas.search.choice import FrontDifferences, StudentDifference, choose
from gped_nas.search.goals import Objective
from gped_nas.search.pareto import KNEE_RULE
from gped_nas.search.record import TrialRecord

NLL = Objective("nll", "minimize", "metric", "NLL (nats)")
ACCURACY = Objective("accuracy", "maximize", "metric", "accuracy")
BYTES = Objective("storage_bytes", "minimize", "cost", "storage (bytes)")
GENOTYPE = {"family": "mlp", "depth": 0}


def record(
    trial: int, name: str, value: float, interval: tuple[float, float] | None = None
) -> TrialRecord:
    intervals = {} if interval is None else {name: interval}
    return TrialRecord(trial, "complete", GENOTYPE, measures=from_public({name: value}, intervals))


# half of a 95 % interval is 1.96 standard errors: (0.0804, 0.1196) is 0.1 with a standard error of
# 0.01
BEST = record(7, "nll", 0.100, (0.0804, 0.1196))


def test_the_cheapest_within_one_standard_error_of_the_best() -> None:
    front = [BEST, record(3, "nll", 0.109), record(1, "nll", 0.111)]
    picked, rule = choose(front, [NLL, BYTES], np.array([[0.1, 0.9], [0.11, 0.5], [0.12, 0.1]]))
    assert picked == 1
    assert "standard error of 0.01." in rule and "2 of 3" in rule and "storage_bytes" in rule


def test_a_maximized_quality_counts_downwards() -> None:
    front = [
        record(0, "accuracy", 0.95, (0.9304, 0.9696)),
        record(1, "accuracy", 0.941),
        record(2, "accuracy", 0.939),
    ]
    picked, _ = choose(front, [ACCURACY, BYTES], np.array([[0.0, 0.9], [0.1, 0.5], [0.2, 0.1]]))
    assert picked == 1


def paired(*rows: tuple[int, float, float], metric: str = "nll", best: int = 7) -> FrontDifferences:
    students = tuple(StudentDifference(*row) for row in rows)
    return FrontDifferences(metric=metric, best=best, n=100, students=students)


FRONT = [BEST, record(3, "nll", 0.104), record(1, "nll", 0.108)]
BOX = np.array([[0.1, 0.9], [0.11, 0.5], [0.12, 0.1]])


def test_the_standard_error_is_that_of_the_paired_difference() -> None:
    # by their own values all three are within 0.01 of the best; paired, the last is not
    picked, rule = choose(FRONT, [NLL, BYTES], BOX, paired((3, 0.004, 0.005), (1, 0.008, 0.007)))
    assert picked == 1
    assert "2 of 3" in rule and "0.004 worse, with a standard error of 0.005" in rule
    assert rule.endswith("that of the paired difference on the same examples.")

    # and a difference of exactly one standard error is within it
    picked, rule = choose(FRONT, [NLL, BYTES], BOX, paired((3, 0.004, 0.001), (1, 0.008, 0.008)))
    assert picked == 2 and "2 of 3" in rule


def test_a_maximized_quality_is_worse_where_the_difference_is_negative() -> None:
    front = [record(trial, "accuracy", value) for trial, value in ((7, 0.95), (3, 0.94), (1, 0.93))]
    rows = paired((3, -0.01, 0.012), (1, -0.02, 0.012), metric="accuracy")
    picked, rule = choose(front, [ACCURACY, BYTES], BOX, rows)
    assert picked == 1 and "0.01 worse" in rule


@pytest.mark.parametrize(
    "differences",
    [
        None,
        paired((3, 0.004, 0.001)),  # the front has grown since
        paired((3, 0.004, 0.001), (1, 0.008, 0.001), best=3),
        paired((3, 0.004, 0.001), (1, 0.008, 0.001), metric="brier"),
    ],
)
def test_without_the_differences_of_this_front_the_rule_of_before(
    differences: FrontDifferences | None,
) -> None:
    picked, rule = choose(FRONT, [NLL, BYTES], BOX, differences)
    assert picked == 2
    assert "not written of this front, so the standard error is that of its own value" in rule


def test_the_earlier_of_equally_cheap_ones() -> None:
    front = [BEST, record(3, "nll", 0.105)]
    assert choose(front, [NLL, BYTES], np.array([[0.1, 0.5], [0.2, 0.5]]))[0] == 0


@pytest.mark.parametrize("objectives", [[NLL], [BYTES, NLL]])
def test_without_a_quality_to_trade_for_a_cost_the_knee(objectives: list[Objective]) -> None:
    box = np.full((1, len(objectives)), 0.5)
    assert choose([BEST], objectives, box) == (0, KNEE_RULE)


def test_an_empty_front_has_none() -> None:
    assert choose([], [NLL, BYTES], np.empty((0, 2)))[0] is None
