"""The student that is picked when nobody gave a budget."""

import numpy as np
import pytest

from gped_nas.evaluate.measured import from_public
from gped_nas.search.choice import choose
from gped_nas.search.objectives import Objective
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
    assert "one standard error (0.01)" in rule and "2 of 3" in rule and "storage_bytes" in rule


def test_a_maximized_quality_counts_downwards() -> None:
    front = [
        record(0, "accuracy", 0.95, (0.9304, 0.9696)),
        record(1, "accuracy", 0.941),
        record(2, "accuracy", 0.939),
    ]
    picked, _ = choose(front, [ACCURACY, BYTES], np.array([[0.0, 0.9], [0.1, 0.5], [0.2, 0.1]]))
    assert picked == 1


def test_the_earlier_of_equally_cheap_ones() -> None:
    front = [BEST, record(3, "nll", 0.105)]
    assert choose(front, [NLL, BYTES], np.array([[0.1, 0.5], [0.2, 0.5]]))[0] == 0


@pytest.mark.parametrize("objectives", [[NLL], [BYTES, NLL]])
def test_without_a_quality_to_trade_for_a_cost_the_knee(objectives: list[Objective]) -> None:
    box = np.full((1, len(objectives)), 0.5)
    assert choose([BEST], objectives, box) == (0, KNEE_RULE)


def test_an_empty_front_has_none() -> None:
    assert choose([], [NLL, BYTES], np.empty((0, 2)))[0] is None
