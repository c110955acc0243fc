"""Students pruned to budgets: units by hand, against the slow oracle, and where families land."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gped_nas.distill.budget import BudgetPath
from gped_nas.distill.course import Course, begin
from gped_nas.distill.kernel import distill, train
from gped_nas.distill.pruning import prox_group_lasso
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.training import TrainedBundle
from gped_nas.models.base import Genotype, shapes_of
from gped_nas.models.costs import budgeted_cost, with_units
from gped_nas.models.labels import CLOSE_TO_BUDGET
from tests.distill.populations import CPU, make_data, relative_difference
from tests.distill.reference import distill_one
from tests.distill.reference_budget import Budgeted

SHAPE, NUM_OUTPUTS = (1, 6, 6), 4
WHOLE = {
    "mlp": Genotype("mlp", depth=2, width=[24, 16]),
    "cnn": Genotype("cnn", depth=2, width=[6, 8], kernel=[3, 2], pool=[2, 1], head_width=[9]),
    "resnet": Genotype("resnet", depth=1, width=[6, 8]),
}
NORMED = Genotype("cnn", depth=2, width=[6, 8], kernel=3, padding="same", norm="batch")


def budget_for(genotype, share, value="prune_to_macs"):
    """The genotype with a budget this share of the way from its smallest network to the whole."""
    shapes = genotype.shapes(SHAPE, NUM_OUTPUTS)
    groups = genotype.prunable(shapes)
    budget = genotype.replace(**{value: 1}).budget
    least, most = (
        budgeted_cost(budget, genotype.family, each, SHAPE)
        for each in (with_units(shapes, groups, [1] * len(groups)), shapes)
    )
    return genotype.replace(**{value: round(least + share * (most - least))})


def share_of_budget(genotype, params):
    budget = genotype.budget
    return budgeted_cost(budget, genotype.family, shapes_of(params), SHAPE) / budget.most


# ---------------------------------------------------------------------------------------------
# prices


def test_the_cheapest_units_go_by_hand():
    """A unit of 3 inputs and 2 outputs costs 5 multiply-adds: a budget of 11 leaves two."""
    path = BudgetPath(Genotype("mlp", depth=1, width=4, prune_to_macs=11), (3,), 2)
    prices = [torch.tensor([0.3, 0.1, 0.4, 0.2])]
    assert path.threshold(prices, 1) == pytest.approx(0.2)
    assert path.threshold(prices, 4) == pytest.approx(0.2 / 4)
    assert path.land(prices)[0].tolist() == [True, False, True, False]


def test_a_network_within_its_budget_is_left_alone():
    path = BudgetPath(Genotype("mlp", depth=1, width=4, prune_to_macs=20), (3,), 2)
    prices = [torch.tensor([0.3, 0.1, 0.4, 0.2])]
    assert path.threshold(prices, 1) == 0
    assert path.land(prices)[0].all()


def test_a_group_is_not_removed_whole():
    """The first layer's units are all cheaper than the second's, and one of them stays."""
    path = BudgetPath(Genotype("mlp", depth=2, width=[2, 3], prune_to_macs=8), (3,), 2)
    prices = [torch.tensor([0.1, 0.2]), torch.tensor([3.0, 2.0, 1.0])]
    # one unit in the first layer: 3 + n + 2n <= 8 for one in the second
    assert path.threshold(prices, 1) == pytest.approx(0.99 * 0.2)
    assert [stays.tolist() for stays in path.land(prices)] == [[False, True], [True, False, False]]


def test_large_units_make_room_for_small_ones():
    """Units of the first layer cost 10 + n, those of the second 1 + 3.

    By price the second of the first layer goes, which leaves 10 + 4 + 12 = 26 of 36. Without one of
    the second layer's in its place it is 20 + 6 + 9 = 35.
    """
    path = BudgetPath(Genotype("mlp", depth=2, width=[2, 4], prune_to_macs=35), (10,), 3)
    prices = [torch.tensor([0.1, 0.9]), torch.tensor([0.5, 0.4, 0.3, 0.2])]
    assert path.cost((1, 4)) == 26 and path.cost((2, 3)) == 35
    assert [stays.tolist() for stays in path.land(prices)] == [[True, True], [True] * 3 + [False]]


def test_a_price_that_is_no_number_ends_nothing():
    path = BudgetPath(Genotype("mlp", depth=1, width=3, prune_to_macs=5), (3,), 2)
    (stays,) = path.land([torch.tensor([torch.nan, 1.0, 2.0])])
    assert stays.tolist() == [True, False, False]


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_bisection_finds_what_walking_up_finds(data):
    whole = WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))]
    share = data.draw(st.floats(0, 1.1))
    value = data.draw(st.sampled_from(["prune_to_macs", "prune_to_params", "prune_to_int8_bytes"]))
    genotype = budget_for(whole, share, value)
    path = BudgetPath(genotype, SHAPE, NUM_OUTPUTS)
    oracle = Budgeted(genotype, SHAPE, NUM_OUTPUTS)

    seed = data.draw(st.integers(0, 9))
    generator = torch.Generator().manual_seed(seed)
    sizes = [group.num_units(oracle.shapes) for group in oracle.groups]
    prices = [torch.rand(size, generator=generator).double() for size in sizes]
    for num_left in (1, 7):
        expected = oracle.threshold([p.tolist() for p in prices], num_left)
        assert path.threshold(prices, num_left) == pytest.approx(expected)

    removed = {(g, p) for _, g, p in oracle.landed([price.tolist() for price in prices])}
    for group, stays in enumerate(path.land(prices)):
        for place, remains in enumerate(stays.tolist()):
            assert remains == ((group, place) not in removed)


# ---------------------------------------------------------------------------------------------
# training

LANDING = [
    (family, value, share)
    for family in sorted(WHOLE)
    for value, share in (
        ("prune_to_macs", 0.5),
        ("prune_to_flops", 0.35),
        ("prune_to_params", 0.6),
        ("prune_to_int8_bytes", 0.8),
        ("prune_to_float32_bytes", 0.5),
    )
]
WIDE = {
    "mlp": Genotype("mlp", depth=2, width=[48, 32]),
    "cnn": Genotype("cnn", depth=2, width=[16, 16], kernel=[3, 2], pool=[2, 1], head_width=[24]),
    "resnet": Genotype("resnet", depth=1, width=[16, 20]),
}


@pytest.fixture(scope="module")
def landed():
    """Students of every budget, trained together."""
    recipe = Recipe(steps=60, batch_size=16, warmup=5, lr=0.01)
    genotypes = [budget_for(WIDE[family], share, value) for family, value, share in LANDING]
    return distill(genotypes, make_data(), recipe, seed=2, device=CPU).students


@pytest.mark.parametrize("family", sorted(WHOLE))
def test_every_family_lands_within_two_percent_under_its_budget(landed, family):
    shares = {}
    for student in landed:
        if student.genotype.family == family:
            assert student.num_dead > 0 and not student.failure
            share = share_of_budget(student.genotype, student.params)
            shares[str(student.genotype.budget)] = share
    assert len(shares) == 5
    assert all(CLOSE_TO_BUDGET <= share <= 1 for share in shares.values()), shares


KINDS = {
    "mlp": budget_for(WHOLE["mlp"], 0.5),
    "cnn": budget_for(WHOLE["cnn"], 0.6),
    "resnet": budget_for(WHOLE["resnet"], 0.6),
    "norm": budget_for(NORMED, 0.6),
    "magnitude": budget_for(WHOLE["mlp"], 0.4).replace(prune_criterion="magnitude"),
    "exempt": budget_for(WHOLE["mlp"], 0.7).replace(prune_exempt="last", prune_at=0.25),
    "penalty": WHOLE["mlp"].replace(group_penalty=0.3, prune_exempt="layers.0", prune_at=0.8),
}
EVERY_SECOND = {"steps": 24, "batch_size": 16, "warmup": 2, "lr": 0.02, "prox_every": 2}


def test_the_kernel_prunes_to_budgets_as_the_oracle_does():
    """All of them in one population, which is pruned at three different steps."""
    recipe = Recipe(**EVERY_SECOND)
    genotypes = [*KINDS.values()]
    assert len({recipe.prune_step_of(genotype) for genotype in genotypes}) == 3
    data = make_data()
    students = distill(genotypes, data, recipe, seed=3, device=CPU).students
    for name, student in zip(KINDS, students, strict=True):
        expected = distill_one(student.genotype, data, recipe, seed=3, prox=prox_group_lasso)
        assert shapes_of(student.params) == shapes_of(expected), name
        assert student.num_dead > 0, name
        for key, value in expected.items():
            torch.testing.assert_close(
                student.params[key], value, rtol=2e-3, atol=2e-3, msg=lambda m, k=key: f"{k}: {m}"
            )


def test_no_step_goes_below_a_budget_and_the_last_meets_it(monkeypatch):
    genotype = budget_for(WIDE["mlp"], 0.3)
    shrink_after = TrainedBundle.shrink_after
    path = BudgetPath(genotype, SHAPE, NUM_OUTPUTS)
    costs = []

    def watch(self, step):
        shrink_after(self, step)
        alive = [
            int(self._params[0][f"layers.{layer}.weight"].abs().sum(1).count_nonzero())
            for layer in range(2)
        ]
        costs.append(path.cost(tuple(alive)))

    monkeypatch.setattr(TrainedBundle, "shrink_after", watch)
    recipe = Recipe(steps=200, batch_size=16, warmup=5, lr=0.02, prox_every=4)
    distill([genotype], make_data(), recipe, seed=0, device=CPU)
    assert len(costs) == 120
    assert all(cost > genotype.budget.most for cost in costs[:-1])
    assert costs[-1] <= genotype.budget.most


def test_a_budget_above_the_network_prunes_nothing():
    genotype = budget_for(WHOLE["mlp"], 1.0)
    (student,) = distill(
        [genotype], make_data(), Recipe(**EVERY_SECOND), seed=0, device=CPU
    ).students
    assert student.num_dead == 0
    assert shapes_of(student.params) == genotype.shapes(SHAPE, NUM_OUTPUTS)


def test_an_exempt_layer_keeps_its_units_under_any_penalty():
    genotype = WHOLE["mlp"].replace(group_penalty=20.0, prune_exempt="first")
    (student,) = distill(
        [genotype], make_data(), Recipe(**EVERY_SECOND), seed=0, device=CPU
    ).students
    assert student.num_dead == 16
    assert [len(student.params[f"layers.{i}.weight"]) for i in range(2)] == [24, 1]


def test_a_student_that_is_pruned_at_another_time_is_trained_as_alone():
    recipe = Recipe(steps=40, batch_size=16, warmup=2, lr=0.02, prox_every=4, average=0.8, rungs=4)
    course = Course(make_data(), recipe, 0, make_data(30, seed=4))
    shares = [None, 0.2, 0.45, 0.05, 0.9]
    genotypes = [WHOLE["mlp"].replace(group_penalty=0.05)] + [
        budget_for(WHOLE["mlp"], 0.6).replace(prune_at=share) for share in shares[1:]
    ]
    assert recipe.prune_step_of(genotypes[3]) == 2, "before the first proximal step"

    together = train(course, begin(course, genotypes, device=CPU), until=40, device=CPU)
    # stopped between two of the pruning steps, and gone on with
    stopped = train(course, begin(course, genotypes, device=CPU), until=12, device=CPU)
    resumed = train(course, stopped, until=40, device=CPU)
    for i, genotype in enumerate(genotypes):
        (alone,) = train(course, begin(course, [genotype], device=CPU), until=40, device=CPU)
        for other in (together[i], resumed[i]):
            assert other.num_dead == alone.num_dead > 0
            assert relative_difference(other.outcome, alone.outcome) < 1e-4
            assert [step for step, _ in other.rungs] == [10, 20, 30, 40]


def test_components_change_no_cost():
    """The network that is stored reads plain inputs, and so does the budget."""
    recipe = Recipe(**EVERY_SECOND, components=5, centered=True)
    genotype = budget_for(WHOLE["mlp"], 0.6)
    (student,) = distill([genotype], make_data(), recipe, seed=0, device=CPU).students
    assert 0.94 <= share_of_budget(genotype, student.params) <= 1
    assert student.params["layers.0.weight"].shape[1] == 36
