"""The group lasso: its proximal step against bisection and by hand, and what pruning leaves."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_digits

from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import distill
from gped_nas.distill.pruning import prox_group_lasso, rows_of, write_rows
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES, Genotype, shapes_of
from gped_nas.models.compact import compact, dead_units
from gped_nas.search.space_file import load_space
from gped_nas.targets.layout import HeadLayout
from tests.distill.reference import distill_one, prox_reference

CPU = torch.device("cpu")
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 9))
WEIGHTS = st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-9)


@st.composite
def problems(draw):
    shape = draw(SIZES)
    weight = draw(hnp.arrays(np.float64, shape, elements=WEIGHTS))
    exponent = draw(hnp.arrays(np.float64, shape, elements=st.floats(-2, 8)))
    return torch.from_numpy(weight), torch.from_numpy(10.0**exponent)


@given(problems(), st.floats(1e-5, 1.0), st.floats(1e-6, 10.0))
@settings(max_examples=100, deadline=None)
def test_prox_equals_bisection(problem, step, penalty):
    weight, scale = problem
    expected = prox_reference(weight, scale, step, penalty)
    shrunk = prox_group_lasso(weight, scale, step, penalty)
    size = expected.norm(dim=1, keepdim=True).clamp_min(1e-9)
    assert ((shrunk - expected) / size).abs().max() < 1e-6


@given(problems(), st.floats(1e-5, 1.0), st.floats(1e-6, 10.0))
@settings(max_examples=100, deadline=None)
def test_prox_minimizes_its_objective(problem, step, penalty):
    """The optimality condition: 0 in (z - w) / (step D) + lambda sqrt(n) d||z||."""
    weight, scale = problem
    shrunk = prox_group_lasso(weight, scale, step, penalty)
    bound = penalty * weight.shape[1] ** 0.5
    for w, d, z in zip(weight, scale, shrunk, strict=True):
        pull = (w - z) / (step * d)
        if z.norm() == 0:
            # z = 0 exactly, so nothing cancels
            assert pull.norm() <= bound * (1 + 1e-9)
        else:
            rounding = 1e-14 * (w / (step * d)).norm()
            assert (pull - bound * z / z.norm()).norm() <= 1e-5 * bound + rounding


def test_a_group_dies_exactly_at_its_threshold():
    """||D^-1 w|| = sqrt((3/3)^2 + (4/2)^2) = sqrt 5 against step lambda sqrt 2, a step of 0.5."""
    weight = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    scale = torch.tensor([[3.0, 2.0]], dtype=torch.float64)
    threshold = math.sqrt(5) / (0.5 * math.sqrt(2))
    assert (prox_group_lasso(weight, scale, 0.5, threshold * (1 + 1e-9)) == 0).all()
    assert (prox_group_lasso(weight, scale, 0.5, threshold * (1 - 1e-9)) != 0).all()


def test_one_weight_a_group_is_soft_thresholding():
    weight = torch.tensor([[5.0], [-5.0], [0.1], [0.0]], dtype=torch.float64)
    scale = torch.full((4, 1), 2.0, dtype=torch.float64)
    shrunk = prox_group_lasso(weight, scale, 0.5, 0.3)
    assert shrunk.squeeze(1).tolist() == pytest.approx([4.7, -4.7, 0.0, 0.0])


def test_nan_stays_nan_and_harms_no_other_group():
    weight = torch.tensor([[float("nan"), 1.0], [2.0, 1.0], [float("inf"), 1.0]])
    shrunk = prox_group_lasso(weight, torch.ones(3, 2), 0.1, 0.1)
    assert shrunk[0].isnan().any() and not shrunk[2].isfinite().all()
    alone = prox_group_lasso(weight[1:2], torch.ones(1, 2), 0.1, 0.1)
    torch.testing.assert_close(shrunk[1:2], alone)


def test_zero_rows_stay_zero():
    weight = torch.tensor([[0.0, 0.0], [2.0, 1.0]])
    shrunk = prox_group_lasso(weight, torch.ones(2, 2), 0.1, 0.1)
    assert shrunk[0].tolist() == [0.0, 0.0]
    assert shrunk[1].abs().min() > 0


def test_no_penalty_changes_nothing():
    weight = torch.tensor([[0.0, 0.0], [2.0, -1.0]])
    assert torch.equal(prox_group_lasso(weight, torch.ones(2, 2), 0.1, 0.0), weight)


def test_fixed_points_are_stationary_points_of_loss_plus_penalty():
    """Least squares with groups of very unequal curvature.

    Where the iteration rests, grad = -lambda sqrt(n) w/||w||. Thresholding as if D were one would
    rest elsewhere.
    """
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([1.0, 3.0, 0.3]).double()
    x = torch.randn((200, 3), generator=generator, dtype=torch.float64) * spread
    truth = torch.tensor(
        [[1.0, -2.0, 0.5], [0.3, 0.2, -3.0], [0.005, 0.001, 0.01]], dtype=torch.float64
    )
    y = x @ truth.T
    penalty = 0.05
    scale = torch.tensor([[0.5, 0.05, 4.0]] * 3, dtype=torch.float64)

    weight = torch.randn((3, 3), generator=generator, dtype=torch.float64)
    for _ in range(1500):
        grad = (weight @ x.T - y.T) @ x / 200
        weight = prox_group_lasso(weight - 0.2 * scale * grad, scale, 0.2, penalty)

    grad = (weight @ x.T - y.T) @ x / 200
    assert (weight[2] == 0).all() and grad[2].norm() <= penalty * math.sqrt(3)
    for w, g in zip(weight[:2], grad[:2], strict=True):
        assert torch.allclose(g, -penalty * math.sqrt(3) * w / w.norm(), atol=1e-8)


def test_kernel_training_rests_near_a_stationary_point():
    """At the end of the penalized phase every living group balances loss and penalty."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((64, 4), generator=generator)
    soft = (x @ torch.randn((4, 3), generator=generator)).softmax(-1)
    pool = DistillationSet(x, {"predictive": soft}, HeadLayout(("predictive",), 3))
    penalty = 0.01
    recipe = Recipe(
        steps=1500, batch_size=64, warmup=10, lr=0.01, prune_at=0.999, prox_every=1, beta2=0.999
    )
    genotype = Genotype("mlp", depth=1, width=8, group_penalty=penalty)
    (student,) = distill([genotype], pool, recipe, seed=0, device=CPU).students

    params = {k: p.clone().requires_grad_() for k, p in student.params.items()}
    F.cross_entropy(FAMILIES["mlp"].forward(params, x), soft).backward()
    weight, grad = params["layers.0.weight"].detach(), params["layers.0.weight"].grad
    assert len(weight) >= 2
    for w, g in zip(weight, grad, strict=True):
        force = -penalty * 2 * w / w.norm()  # sqrt(4) = 2
        assert (g - force).norm() < 0.1 * force.norm()


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x = torch.tensor((data.data - data.data.mean()) / data.data.std(), dtype=torch.float32)
    soft = 0.9 * F.one_hot(torch.from_numpy(data.target), 10) + 0.01
    entropy = torch.full((len(x), 1), 0.3)
    layout = HeadLayout(("predictive", "expected_entropy"), 10)
    return DistillationSet(x, {"predictive": soft, "expected_entropy": entropy}, layout)


def shipped_range():
    """Bottom and top of the penalties that ``digits_sgld`` draws."""
    return load_space("digits_sgld").resolved["students"][0]["genotype"]["group_penalty"]["float"]


def test_the_range_of_the_penalty_on_digits(digits):
    """The shipped one: its bottom kills no unit, its top at least half of them.

    The network in between tells digits apart.
    """
    recipe = Recipe(steps=800, batch_size=128, warmup=50)
    bottom, top = shipped_range()
    genotypes = [Genotype("mlp", depth=2, width=64, group_penalty=p) for p in (bottom, 3e-3, top)]
    weak, middle, strong = distill(genotypes, digits, recipe, seed=1, device=CPU).students
    assert weak.num_dead == 0
    assert 20 < middle.num_dead < 128
    assert strong.num_dead >= 64

    labels = digits.expectations["predictive"].argmax(-1)
    for student in (weak, middle):
        raw = FAMILIES["mlp"].forward(student.params, digits.inputs)[:, :10]
        assert (raw.argmax(-1) == labels).float().mean() > 0.9


def test_a_weak_penalty_kills_only_units_that_no_example_reaches(digits, monkeypatch):
    """The gradient of such a unit fades to zero, and any penalty removes it."""
    gradients_of_killed = []

    def watch(weight, scale, step, penalty):
        out = prox_group_lasso(weight, scale, step, penalty)
        has_died = (out == 0).all(1) & (weight != 0).any(1)
        gradients_of_killed.extend((1 / scale[has_died]).amax(1).tolist())
        return out

    monkeypatch.setattr("gped_nas.distill.training.prox_group_lasso", watch)
    recipe = Recipe(steps=800, batch_size=128, warmup=50)
    genotype = Genotype("mlp", depth=2, width=64, group_penalty=shipped_range()[0])
    num_dead = 0
    for seed in range(3):
        (student,) = distill([genotype], digits, recipe, seed=seed, device=CPU).students
        num_dead += student.num_dead
    assert num_dead <= 3
    assert all(gradient < 1e-5 for gradient in gradients_of_killed), gradients_of_killed


IMAGES = {
    "cnn": Genotype("cnn", depth=2, width=[8, 16], kernel=3, pool=[2, 1], head_width=[24]),
    "resnet": Genotype("resnet", depth=1, width=[4, 6]),
}


@pytest.fixture(scope="module")
def pictures(digits):
    """The same data with inputs as images."""
    return dataclasses.replace(digits, inputs=digits.inputs.view(-1, 1, 8, 8))


@pytest.mark.parametrize(
    ("family", "bottom", "top", "steps"), [("cnn", 1e-7, 1e-1, 200), ("resnet", 1e-5, 5e-1, 80)]
)
def test_the_range_of_the_penalty_of_families_that_read_images(
    pictures, family, bottom, top, steps
):
    """Its bottom kills no unit and its top at least half of them.

    The tops of the shipped spaces are lower, since a penalty acts for as long as training takes: of
    a student of fashion_cnn with 8 and 16 filters and 32 units, 1e-7 kills none and 1e-2 kills 37
    of 56 in 2,000 steps.
    """
    recipe = Recipe(steps=steps, batch_size=64, warmup=20, lr=3e-3)
    genotypes = [IMAGES[family].replace(group_penalty=p) for p in (bottom, top)]
    weak, strong = distill(genotypes, pictures, recipe, seed=3, device=CPU).students
    shapes = pictures.shapes(IMAGES[family])
    num_units = sum(group.num_units(shapes) for group in FAMILIES[family].groups(shapes))
    assert weak.num_dead == 0
    assert strong.num_dead >= num_units / 2
    assert weak.losses[-1][1] < weak.losses[0][1]


@pytest.mark.parametrize(("family", "penalty"), [("cnn", 2e-2), ("resnet", 5e-2)])
def test_the_kernel_prunes_families_that_read_images_as_the_oracle_does(pictures, family, penalty):
    recipe = Recipe(steps=24, batch_size=16, warmup=2, lr=0.02, prox_every=3)
    genotype = IMAGES[family].replace(group_penalty=penalty)
    (student,) = distill([genotype], pictures, recipe, seed=3, device=CPU).students
    expected = distill_one(genotype, pictures, recipe, seed=3, prox=prox_group_lasso)
    assert student.num_dead > 0
    assert shapes_of(student.params) == shapes_of(expected)
    for name, value in expected.items():
        torch.testing.assert_close(student.params[name], value, rtol=1e-3, atol=1e-3)


def test_rows_are_written_back_where_they_came_from():
    weights = [torch.arange(12.0).view(2, 3, 2), torch.tensor([12.0, 13.0])]
    rows = rows_of(weights)
    assert rows.tolist() == [[0, 1, 2, 3, 4, 5, 12], [6, 7, 8, 9, 10, 11, 13]]
    write_rows(weights, -rows)
    assert torch.equal(weights[0], -torch.arange(12.0).view(2, 3, 2))
    assert weights[1].tolist() == [-12, -13]


@pytest.mark.parametrize(
    ("genotype", "at_least"),
    [
        (Genotype("mlp", depth=2, width=64, group_penalty=2e-2), 20),
        (IMAGES["cnn"].replace(group_penalty=1e-1), 3),
        (IMAGES["resnet"].replace(group_penalty=2e-1), 3),
    ],
    ids=lambda value: getattr(value, "family", None),
)
def test_the_pruned_network_computes_what_the_masked_one_computed(pictures, genotype, at_least):
    """The whole kernel without fine-tuning: weights before ``compact`` and after it."""
    recipe = Recipe(steps=120, batch_size=64, warmup=10, prune_at=0.999)
    assert recipe.prune_step == recipe.steps
    family, inputs = FAMILIES[genotype.family], pictures.inputs
    masked_params = {}

    def keep(family, params):
        masked_params.update({name: p.detach().clone() for name, p in params.items()})
        return compact(family, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gped_nas.distill.kernel.compact", keep)
        (student,) = distill([genotype], pictures, recipe, seed=0, device=CPU).students
    assert at_least <= student.num_dead
    masked = family.forward(masked_params, inputs)
    pruned = family.forward(student.params, inputs)
    assert (masked - pruned).abs().max() < 1e-5 * masked.abs().max()

    # in float64, where rounding cannot hide a wrong constant
    masked_double = {k: p.double() for k, p in masked_params.items()}
    pruned_double = {k: p.double() for k, p in compact(genotype.family, masked_params).items()}
    masked = family.forward(masked_double, inputs.double())
    pruned = family.forward(pruned_double, inputs.double())
    assert (masked - pruned).abs().max() < 1e-6

    shapes = shapes_of(student.params)
    for group in family.groups(shapes):
        assert group.num_units(shapes) == 1 or not dead_units(student.params, group).any()
