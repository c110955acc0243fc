"""Every registered input policy keeps the promises that ``gped_nas.testing`` checks."""

from collections.abc import Callable

import pytest

from gped_nas.data.views import POLICIES
from gped_nas.testing.policies import POLICY_CHECKS, PolicyCase, policy_case


@pytest.mark.parametrize("check", POLICY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_keeps_its_promises(name: str, check: Callable[[PolicyCase], None]) -> None:
    check(policy_case(name))
