"""What a comparison of methods does with methods that nobody knew when it was written."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from gped_nas.api.comparison import compare_methods
from gped_nas.api.session import Session
from gped_nas.errors import ConfigError
from gped_nas.posterior.base import METHODS, Method
from gped_nas.posterior.budget import Budget
from gped_nas.posterior.schedule import StepSize
from gped_nas.posterior.sgld import SgldConfig, sgld
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import parse_space


class PickyConfig(SgldConfig):
    """Settings of a method with a required one of its own."""

    stubbornness: float


@pytest.fixture
def space() -> SearchSpace:
    method = {
        "name": "sgld",
        "chains": 2,
        "num_samples": 4,
        "step_size": {"initial": 2e-4},
        "burn_in": 20,
        "thinning": 10,
    }
    genotype = {"depth": 1, "width": 3}
    return parse_space(
        {
            "name": "tiny",
            "dataset": {"name": "digits"},
            "teacher": {"family": "mlp", "genotype": genotype, "method": method},
            "students": [{"family": "mlp", "genotype": {"depth": 1, "width": {"choices": [2]}}}],
        },
        "tiny.yaml",
    )


@pytest.fixture(autouse=True)
def _few_methods() -> Iterator[None]:
    """As if ``sgld`` and ``import`` were all the methods that there are."""
    before = {name: METHODS[name] for name in METHODS}
    METHODS._items.clear()
    METHODS._items.update({name: before[name] for name in ("sgld", "import")})
    yield
    METHODS._items.clear()
    METHODS._items.update(before)


def test_a_method_whose_settings_do_not_suit_is_left_out_and_named(space: SearchSpace) -> None:
    METHODS.register("picky")(Method(PickyConfig, sgld))

    rows = compare_methods(space, reference=None, session=Session())

    assert [row.method for row in rows] == ["sgld"]
    assert set(rows.skipped) == {"import", "picky"}
    assert "list it with your own" in rows.skipped["import"]
    assert "stubbornness: missing; give it a value" in rows.skipped["picky"]


def test_a_method_says_what_suits_the_budget_of_the_space(space: SearchSpace) -> None:
    budgets: list[Budget] = []

    def suit(budget: Budget) -> dict[str, object]:
        budgets.append(budget)
        return {"step_size": {"initial": 1e-4}, "stubbornness": 0.5}

    METHODS.register("picky")(Method(PickyConfig, sgld, suited=suit))

    rows = compare_methods(space, reference=None, session=Session())

    assert [row.method for row in rows] == ["picky", "sgld"]
    assert [row.num_samples for row in rows] == [4, 4]
    (budget,) = budgets
    assert (budget.burn_in, budget.thinning, budget.steps) == (20, 10, 100)
    assert budget.step_size == StepSize(initial=2e-4).initial


def test_a_method_that_is_asked_for_by_name_is_not_left_out_silently(space: SearchSpace) -> None:
    METHODS.register("picky")(Method(PickyConfig, sgld))
    with pytest.raises(ConfigError, match="methods: picky: stubbornness: missing"):
        compare_methods(space, methods=["picky"], reference=None, session=Session())


def test_a_method_that_takes_all_data_is_for_small_networks(space: SearchSpace) -> None:
    greedy = Method(SgldConfig, sgld, suited=lambda budget: {}, takes_all_data=True)
    METHODS.register("greedy")(greedy)
    wide = replace(space, genotype=space.network.replace(width=400))

    rows = compare_methods(wide, reference=None, session=Session())
    assert "30,010 parameters, expected at most 20,000" in rows.skipped["greedy"]
