"""Objectives: their ends, what targets and conditions they need, and constraints on them."""

import math

import pytest

from gped_nas.errors import ConfigError, RegistryError
from gped_nas.evaluate.base import LabelFacts
from gped_nas.models.labels import COSTS
from gped_nas.search.objectives import (
    asked_metrics,
    axis_ends,
    check_available,
    check_measurable,
    check_objectives,
    describe_constraint,
    objective,
    violations,
)
from gped_nas.targets.base import resolve
from gped_nas.targets.mean import UtilitySettings, utility


def test_costs_are_minimized():
    smallest = dict.fromkeys(COSTS, 3)
    largest = dict.fromkeys(COSTS, 7)
    for name in COSTS:
        goal = objective(name, "f")
        assert (goal.direction, goal.kind) == ("minimize", "cost")
        assert axis_ends(goal, LabelFacts(10), smallest, largest) == (3.0, 7.0)


def test_unknown_names_get_the_nearest_one():
    message = "f.yaml: objectives: unknown metric or cost 'acuracy'; did you mean 'acc"
    with pytest.raises(RegistryError, match=message):
        objective("acuracy", "f.yaml: objectives")


def test_violations_are_positive_where_a_constraint_is_broken():
    """Costs and losses are bounded above, shares that are maximized below.

    The bound itself is allowed.
    """
    values = {"macs": 100, "accuracy": 0.7, "nll": 0.5}
    excess = violations(values, {"macs": 90, "accuracy": 0.75, "nll": 0.5})
    assert excess == pytest.approx({"macs": 10, "accuracy": 0.05, "nll": 0.0})
    assert violations({"macs": 80, "accuracy": 0.8}, {"macs": 90, "accuracy": 0.75})["macs"] < 0


def test_descriptions_point_the_right_way():
    assert describe_constraint("storage_bytes", 200000) == "storage_bytes <= 200000"
    assert describe_constraint("accuracy", 0.9) == "accuracy >= 0.9"


ENDS_OF_CLASSES = {
    "nll": (0.0, math.log(10)),
    "nll_above_teacher": (0.0, math.log(10)),
    "kl_to_teacher": (0.0, math.log(10)),
    "entropy_error": (0.0, math.log(10)),
    "information_error": (0.0, math.log(10)),
    "entropy_excess": (0.0, 1.0),
    "accuracy": (1.0, 0.0),
    "agreement": (1.0, 0.0),
    "brier": (0.0, 2.0),
    "ece": (0.0, 1.0),
}
STD = 3.0
ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
ENDS_OF_REAL_LABELS = {
    "nll": (ENTROPY + math.log(STD / 100), ENTROPY + math.log(STD)),
    "rmse": (0.0, STD),
    "nll_above_teacher": (0.0, 1.0),
    "kl_to_teacher": (0.0, 1.0),
    "coverage_error": (0.0, 1.0),
    "mean_error": (0.0, 1.0),
    "variance_error": (0.0, 1.0),
}


@pytest.mark.parametrize("name", ENDS_OF_CLASSES)
def test_the_box_of_studies_of_classes_is_where_it_was(name):
    ends = axis_ends(objective(name, ""), LabelFacts(10), {}, {})
    assert ends == pytest.approx(ENDS_OF_CLASSES[name], abs=0.0)


@pytest.mark.parametrize("name", ENDS_OF_REAL_LABELS)
def test_the_box_of_studies_of_real_labels_is_where_it_was(name):
    ends = axis_ends(objective(name, ""), LabelFacts(1, STD), {}, {})
    assert ends == pytest.approx(ENDS_OF_REAL_LABELS[name], rel=1e-15)


def test_the_ends_of_costs_follow_from_their_matrix():
    """Action 0 costs 1 or 5, action 1 costs 2 or 2: regrets of at most 1 and 3."""
    target = utility(UtilitySettings(costs=((1.0, 2.0), (5.0, 2.0))))
    facts = LabelFacts(2, None, {"utility": target})
    assert axis_ends(objective("realized_cost", ""), facts, {}, {}) == (1.0, 5.0)
    assert axis_ends(objective("utility_regret", ""), facts, {}, {}) == (0.0, 3.0)


def test_a_metric_without_a_worst_value_is_no_objective():
    with pytest.raises(ConfigError, match="f: metric 'dirichlet_kl' has no worst value"):
        check_objectives(("nll", "dirichlet_kl"), "f")
    check_objectives(("nll", "macs"), "f")


def test_ends_that_are_equal_are_refused():
    """Where every action costs the same, nothing can be regretted."""
    target = utility(UtilitySettings(costs=((2.0, 2.0), (2.0, 2.0))))
    facts = LabelFacts(2, None, {"utility": target})
    with pytest.raises(ConfigError, match="'utility_regret': found best 0 and worst 0"):
        axis_ends(objective("utility_regret", ""), facts, {}, {})


def test_a_metric_of_the_test_part_is_no_objective():
    with pytest.raises(RegistryError, match="unknown metric or cost 'test_nll'"):
        objective("test_nll", "f")


def test_an_objective_may_be_under_a_condition():
    goal = objective("nll@permuted", "f")
    assert (goal.name, goal.direction) == ("nll@permuted", "minimize")
    assert goal.label == "NLL (nats), permuted"

    targets = resolve(("predictive",))
    check_available(("nll@permuted",), targets, "f", ("clean", "permuted"))
    with pytest.raises(ConfigError, match="'nll@permuted' is measured under .*'permuted'; add it"):
        check_available(("nll@permuted",), targets, "f", ("clean",))


def test_metrics_that_need_a_target():
    predictive = resolve(("predictive",))
    check_available(("nll", "macs", "entropy_excess"), predictive, "f")
    message = "f: 'entropy_error' needs 'expected_entropy' among the targets"
    with pytest.raises(ConfigError, match=message):
        check_available(("nll", "entropy_error"), predictive, "f")

    # A derived target is there as soon as what it is computed from is.
    with pytest.raises(ConfigError, match="'information_error' needs 'expected_entropy' among"):
        check_available(("information_error",), predictive, "f")
    check_available(("information_error",), resolve(("predictive", "expected_entropy")), "f")


def test_a_metric_that_needs_more_examples_than_there_are_is_refused():
    facts = {"has_weights": True, "num_samples": 5}
    check_measurable(["ndcg20_expected"], "f", **facts, num_examples=20)
    with pytest.raises(ConfigError, match="f: 'ndcg20_expected' needs 20 examples.* has 19"):
        check_measurable(["nll", "ndcg20_expected"], "f", **facts, num_examples=19)


def test_metrics_are_asked_for_under_the_condition_that_names_them():
    names = ["nll", "aurc_total@permuted", "params", "ece"]
    assert asked_metrics(names) == {"nll", "aurc_total", "ece"}
    assert asked_metrics(names, "clean") == {"nll", "ece"}
    assert asked_metrics(names, "permuted") == {"aurc_total"}
