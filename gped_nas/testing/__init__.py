"""Contract suites: what every piece of a kind promises, to be run on pieces of one's own.

A piece from outside is tried by one call in a test of its author's:

    from gped_nas.testing import check_family, check_metric

    def test_my_pieces():
        check_family("tanh", genotypes=[{"depth": 1, "width": 4}])
        check_metric("second_guess")

A call tries all promises and raises ``AssertionError`` at the first one that is broken. For a test
a promise, go over ``FAMILY_CHECKS`` and its like, which are functions of one case each. Nothing
here needs pytest.
"""

from gped_nas.testing.conditions import CONDITION_CHECKS, ConditionCase, check_condition
from gped_nas.testing.datasets import DATASET_CHECKS, DatasetCase, check_dataset
from gped_nas.testing.families import FAMILY_CHECKS, FamilyCase, check_family, family_cases
from gped_nas.testing.methods import METHOD_CHECKS, MethodCase, check_method, method_case
from gped_nas.testing.metrics import METRIC_CHECKS, MetricCase, check_metric, metric_cases
from gped_nas.testing.policies import POLICY_CHECKS, PolicyCase, check_policy, policy_case
from gped_nas.testing.targets import TARGET_CHECKS, TargetCase, check_target

__all__ = [
    "CONDITION_CHECKS",
    "ConditionCase",
    "DATASET_CHECKS",
    "DatasetCase",
    "FAMILY_CHECKS",
    "FamilyCase",
    "METHOD_CHECKS",
    "METRIC_CHECKS",
    "MethodCase",
    "MetricCase",
    "POLICY_CHECKS",
    "PolicyCase",
    "TARGET_CHECKS",
    "TargetCase",
    "check_condition",
    "check_dataset",
    "check_family",
    "check_method",
    "check_metric",
    "check_policy",
    "check_target",
    "family_cases",
    "method_case",
    "metric_cases",
    "policy_case",
]
