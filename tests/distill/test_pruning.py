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
from gped_nas.distill.pruning import prox_group_lasso, prox_reference
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES, Genotype
from gped_nas.models.compact import compact, dead_units

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
    found = prox_group_lasso(weight, scale, step, penalty)
    size = expected.norm(dim=1, keepdim=True).clamp_min(1e-9)
    assert ((found - expected) / size).abs().max() < 1e-6


@given(problems(), st.floats(1e-5, 1.0), st.floats(1e-6, 10.0))
@settings(max_examples=100, deadline=None)
def test_prox_minimises_its_objective(problem, step, penalty):
    """The optimality condition of the definition itself: 0 in (z - w) / (step D) + lambda sqrt(n) d||z||."""
    weight, scale = problem
    found = prox_group_lasso(weight, scale, step, penalty)
    bound = penalty * weight.shape[1] ** 0.5
    for w, d, z in zip(weight, scale, found, strict=True):
        pull = (w - z) / (step * d)
        if z.norm() == 0:
            assert pull.norm() <= bound * (1 + 1e-9)  # z = 0 exactly, so nothing cancels
        else:
            rounding = 1e-14 * (w / (step * d)).norm()
            assert (pull - bound * z / z.norm()).norm() <= 1e-5 * bound + rounding


def test_a_group_dies_exactly_at_its_threshold():
    """||D^-1 w|| = sqrt((3/3)^2 + (4/2)^2) = sqrt 5 against step * lambda * sqrt 2 = 0.5 lambda sqrt 2."""
    weight, scale = torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.tensor([[3.0, 2.0]]).double()
    threshold = math.sqrt(5) / (0.5 * math.sqrt(2))
    assert (prox_group_lasso(weight, scale, 0.5, threshold * (1 + 1e-9)) == 0).all()
    assert (prox_group_lasso(weight, scale, 0.5, threshold * (1 - 1e-9)) != 0).all()


def test_one_weight_a_group_is_soft_thresholding():
    weight = torch.tensor([[5.0], [-5.0], [0.1], [0.0]], dtype=torch.float64)
    scale = torch.full((4, 1), 2.0, dtype=torch.float64)
    found = prox_group_lasso(weight, scale, 0.5, 0.3)
    assert found.squeeze(1).tolist() == pytest.approx([4.7, -4.7, 0.0, 0.0])


def test_nan_stays_nan_and_harms_no_other_group():
    weight = torch.tensor([[float("nan"), 1.0], [2.0, 1.0], [float("inf"), 1.0]])
    found = prox_group_lasso(weight, torch.ones(3, 2), 0.1, 0.1)
    assert found[0].isnan().any() and not found[2].isfinite().all()
    assert torch.equal(found[1], prox_group_lasso(weight[1:2], torch.ones(1, 2), 0.1, 0.1)[0])


def test_zero_rows_stay_zero():
    weight = torch.tensor([[0.0, 0.0], [2.0, 1.0]])
    found = prox_group_lasso(weight, torch.ones(2, 2), 0.1, 0.1)
    assert found[0].tolist() == [0.0, 0.0]
    assert found[1].abs().min() > 0


def test_no_penalty_changes_nothing():
    weight = torch.tensor([[0.0, 0.0], [2.0, -1.0]])
    assert torch.equal(prox_group_lasso(weight, torch.ones(2, 2), 0.1, 0.0), weight)


def test_fixed_points_are_stationary_points_of_loss_plus_penalty():
    """Least squares with groups of very unequal curvature: where the iteration rests, grad = -lambda sqrt(n) w/||w||.

    Thresholding as if D were one would rest elsewhere.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((200, 3), generator=generator, dtype=torch.float64) * torch.tensor([1.0, 3.0, 0.3]).double()
    truth = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.2, -3.0], [0.005, 0.001, 0.01]], dtype=torch.float64)
    y, penalty, scale = x @ truth.T, 0.05, torch.tensor([[0.5, 0.05, 4.0]] * 3, dtype=torch.float64)
    weight = torch.randn((3, 3), generator=generator, dtype=torch.float64)
    for _ in range(1500):
        grad = (weight @ x.T - y.T) @ x / 200
        weight = prox_group_lasso(weight - 0.2 * scale * grad, scale, 0.2, penalty)
    grad = (weight @ x.T - y.T) @ x / 200
    assert (weight[2] == 0).all() and grad[2].norm() <= penalty * math.sqrt(3)
    for w, g in zip(weight[:2], grad[:2], strict=True):
        assert torch.allclose(g, -penalty * math.sqrt(3) * w / w.norm(), atol=1e-8)


def test_kernel_training_rests_near_a_stationary_point():
    """A student trained to the end of its penalised phase: every living group balances loss and penalty."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((64, 4), generator=generator)
    soft = (x @ torch.randn((4, 3), generator=generator)).softmax(-1)
    pool, penalty = DistillationSet(x, {"predictive": soft}, ("predictive",), 3), 0.01
    recipe = Recipe(steps=1500, batch_size=64, warmup=10, lr=0.01, prune_at=0.999, prox_every=1, beta2=0.999)
    student = distill(
        [Genotype("mlp", depth=1, width=8, group_penalty=penalty)], pool, recipe, seed=0, device=CPU
    ).students[0]
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
    return DistillationSet(x, {"predictive": soft, "expected_entropy": entropy}, ("predictive", "expected_entropy"), 10)


def test_the_range_of_the_penalty_on_digits(digits):
    """Its bottom kills no unit and its top at least half of them; the network in between tells digits apart."""
    recipe = Recipe(steps=800, batch_size=128, warmup=50)
    genotypes = [Genotype("mlp", depth=2, width=64, group_penalty=p) for p in (1e-6, 3e-3, 3e-2)]
    weak, middle, strong = distill(genotypes, digits, recipe, seed=1, device=CPU).students
    assert weak.num_dead == 0
    assert 20 < middle.num_dead < 128
    assert strong.num_dead >= 64
    for student in (weak, middle):
        raw = FAMILIES["mlp"].forward(student.params, digits.inputs)[:, :10]
        right = (raw.argmax(-1) == digits.expectations["predictive"].argmax(-1)).float().mean()
        assert right > 0.9


def test_a_weak_penalty_kills_only_units_that_no_example_reaches(digits, monkeypatch):
    """Where a unit of He's initialisation never fires, its gradient fades to zero and any penalty removes it."""
    killed = []

    def watched(weight, scale, step, penalty):
        out = prox_group_lasso(weight, scale, step, penalty)
        died = (out == 0).all(1) & (weight != 0).any(1)
        killed.extend((1 / scale[died]).amax(1).tolist())
        return out

    monkeypatch.setattr("gped_nas.distill.training.prox_group_lasso", watched)
    recipe = Recipe(steps=800, batch_size=128, warmup=50)
    genotype = Genotype("mlp", depth=2, width=64, group_penalty=1e-6)
    dead = [distill([genotype], digits, recipe, seed=s, device=CPU).students[0].num_dead for s in range(3)]
    assert sum(dead) <= 3
    assert all(gradient < 1e-5 for gradient in killed), killed


def test_the_pruned_network_computes_what_the_masked_one_computed(digits):
    """The whole kernel without fine-tuning: masked weights before ``compact``, removed ones after it."""
    recipe = Recipe(steps=200, batch_size=128, warmup=10, prune_at=0.999)
    assert recipe.prune_step == recipe.steps
    genotype = Genotype("mlp", depth=2, width=64, group_penalty=1e-2)
    seen = {}

    def keep(family, params):
        seen.update({name: p.detach().clone() for name, p in params.items()})
        return compact(family, params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gped_nas.distill.kernel.compact", keep)
        student = distill([genotype], digits, recipe, seed=0, device=CPU).students[0]
    assert 20 < student.num_dead
    masked = FAMILIES["mlp"].forward(seen, digits.inputs)
    pruned = FAMILIES["mlp"].forward(student.params, digits.inputs)
    assert (masked - pruned).abs().max() < 1e-5 * masked.abs().max()
    # in float64, where rounding cannot hide a wrong constant
    double = [{k: p.double() for k, p in own.items()} for own in (seen, compact("mlp", seen))]
    masked, pruned = (FAMILIES["mlp"].forward(own, digits.inputs.double()) for own in double)
    assert (masked - pruned).abs().max() < 1e-6
    groups = FAMILIES["mlp"].groups({name: tuple(p.shape) for name, p in student.params.items()})
    assert not any(dead_units(student.params, group).any() for group in groups)
