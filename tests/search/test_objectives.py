import math

import pytest

from gped_nas.errors import ConfigError, RegistryError
from gped_nas.models.costs import COSTS
from gped_nas.search.objectives import (
    check_available,
    describe_constraint,
    objective,
    violations,
    worst_value,
)


def test_costs_are_minimised():
    for name in COSTS:
        one = objective(name, "f")
        assert (one.direction, one.kind) == ("minimize", "cost")
        assert worst_value(one, 10, None, dict.fromkeys(COSTS, 7)) == 7.0


def test_unknown_names_get_the_nearest_one():
    with pytest.raises(
        RegistryError,
        match="f.yaml: objectives: unknown metric or cost 'acuracy'; did you mean 'acc",
    ):
        objective("acuracy", "f.yaml: objectives")


def test_violations_are_positive_where_a_constraint_is_broken():
    """Costs and losses are bounded above, shares that are maximised below; the bound itself is
    allowed.
    """
    found = violations(
        {"macs": 100, "accuracy": 0.7, "nll": 0.5}, {"macs": 90, "accuracy": 0.75, "nll": 0.5}
    )
    assert found == pytest.approx({"macs": 10, "accuracy": 0.05, "nll": 0.0})
    assert violations({"macs": 80, "accuracy": 0.8}, {"macs": 90, "accuracy": 0.75})["macs"] < 0


def test_descriptions_point_the_right_way():
    assert describe_constraint("storage_bytes", 200000) == "storage_bytes <= 200000"
    assert describe_constraint("accuracy", 0.9) == "accuracy >= 0.9"


def test_worst_values_of_quality():
    assert worst_value(objective("nll", ""), 10, None, {}) == pytest.approx(math.log(10))
    assert worst_value(objective("accuracy", ""), 10, None, {}) == 0.0
    assert worst_value(objective("brier", ""), 10, None, {}) == 2.0
    assert worst_value(objective("ece", ""), 10, None, {}) == 1.0


def test_metrics_that_need_a_target():
    check_available(("nll", "macs", "entropy_excess"), ("predictive",), "f")
    with pytest.raises(
        ConfigError, match="f: 'entropy_error' needs 'expected_entropy' among the targets"
    ):
        check_available(("nll", "entropy_error"), ("predictive",), "f")
