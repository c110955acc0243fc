"""Every registered condition keeps the promises that ``gped_nas.testing`` checks."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from gped_nas.evaluate.attacks.settings import AttackSettings
from gped_nas.evaluate.conditions import CONDITIONS, Condition, add_condition
from gped_nas.testing.conditions import CONDITION_CHECKS, ConditionCase, check_condition


def _tried(condition: Condition) -> ConditionCase:
    """A condition with a value that is possible for its main setting, where it needs one."""
    if not condition.needs_value:
        return ConditionCase(condition.name)
    if condition.has_severities:
        return ConditionCase(condition.name, settings={"severity": 2})
    if condition.settings is not None and issubclass(condition.settings, AttackSettings):
        few = {name: 4 for name in ("steps", "queries") if name in condition.settings.model_fields}
        return ConditionCase(condition.name, settings={"epsilon": 0.1, **few})
    return ConditionCase(condition.name, 0.1)


CASES = [_tried(condition) for condition in CONDITIONS.values()]


@pytest.mark.filterwarnings("ignore::gped_nas.errors.AttackWarning")
@pytest.mark.parametrize("check", CONDITION_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_condition_keeps_its_promises(
    case: ConditionCase, check: Callable[[ConditionCase], None]
) -> None:
    check(case)


@pytest.fixture
def _conditions_as_before() -> Iterator[None]:
    before = {name: CONDITIONS[name] for name in CONDITIONS}
    yield
    CONDITIONS._items.clear()
    CONDITIONS._items.update(before)


def _draws_globally(raw: Any, **_: Any) -> Any:
    return raw + torch.randn(raw.shape)


def _grows(raw: Any, **_: Any) -> Any:
    return torch.cat([raw, raw])


@pytest.mark.usefixtures("_conditions_as_before")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_draws_globally, "the same generator gives other inputs"),
        (_grows, "expected .* as they were"),
    ],
)
def test_a_broken_condition_is_found(change: Any, message: str) -> None:
    add_condition("broken", "broken")(change)
    state = torch.get_rng_state()
    with pytest.raises(AssertionError, match=message):
        check_condition("broken")
    torch.set_rng_state(state)
