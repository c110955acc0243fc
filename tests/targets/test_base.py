"""What a target is: lists of them, and what keeps a name from meaning two things."""

import pytest

from gped_nas.errors import ConfigError, RegistryError
from gped_nas.targets.base import TARGETS, check_targets
from gped_nas.targets.mean import mean_target

BOTH = ("predictive", "expected_entropy")


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ((), ConfigError, r"f: targets: found \[\], expected at least one target and none twice"),
        (("predictive", "predictive"), ConfigError, "f: targets: found .* none twice"),
        (("expected_entropy",), ConfigError, "list 'predictive' before it"),
        (("expected_entropy", "predictive"), ConfigError, "list 'predictive' before it"),
        (("predictve",), RegistryError, "unknown target 'predictve'; did you mean 'predictive'"),
    ],
)
def test_wrong_lists_of_targets_are_refused(names, error, message):
    with pytest.raises(error, match=message):
        check_targets(names, "f: targets")


def test_right_lists_of_targets_pass():
    check_targets(("predictive",), "")
    check_targets(BOTH, "")


def test_a_target_is_registered_under_the_name_it_states(monkeypatch):
    monkeypatch.setattr(TARGETS, "_items", dict(TARGETS._items))
    top = mean_target("top_probability", lambda log_prob: log_prob.exp().amax(-1, keepdim=True))
    message = "target 'top_probability' is registered under the name 'top'"
    with pytest.raises(RegistryError, match=message):
        TARGETS.register("top")(top)

    assert TARGETS.add(top) is top
    check_targets(("predictive", "top_probability"), "")
