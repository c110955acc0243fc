"""Optimizers over flat buffers against torch's own, their metrics, and students on their own."""

import math

import pytest
import torch

from gped_nas.distill.optim import Muon, Sgd, orthogonalize
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES
from tests.distill.populations import (
    FAMILIES_OF,
    MLP,
    RESNET,
    batch,
    copies,
    fresh,
    relative_difference,
    training_of,
    value_of,
)

KINDS = ("adamw", "muon", "sgd")


def recipe_of(kind, **more):
    return Recipe(
        optimizer=kind, steps=100, weight_decay=0.1, beta2=0.95, momentum=0.8, lr_rest=1e-3, **more
    )


def trained(students, recipe, steps=6, lr=0.02, **more):
    """Copies of the students after some steps, and what trained them."""
    students = copies(students)
    training = training_of(students, recipe, **more)
    for step in range(steps):
        training.step(*batch(seed=step), lr)
    training.unload()
    return students, training


def torch_alone(student, recipe, steps=6, lr=0.02):
    """One student by ``torch.optim``, on the gradients of autograd."""
    leaves = {name: p.clone().requires_grad_() for name, p in student.params.items()}
    if recipe.optimizer == "adamw":
        betas = (recipe.beta1, recipe.beta2)
        optimizer = torch.optim.AdamW(
            leaves.values(), lr=lr, betas=betas, weight_decay=recipe.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            leaves.values(),
            lr=lr,
            momentum=recipe.momentum,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        )

    forward = FAMILIES[student.genotype.family].forward
    for step in range(steps):
        x, expectations = batch(seed=step)
        optimizer.zero_grad()
        value_of(forward(leaves, x), expectations).backward()
        optimizer.step()
    return {name: p.detach() for name, p in leaves.items()}


def gradients_of(training):
    """The gradients that the last step left, one dictionary a student."""
    return training.bundle.views(training.bundle.buffers.work_grad.float())


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize(
    ("factors", "small"),
    [(False, 100), (True, 0), (True, 100), (True, 10**6)],
    ids=["equal", "each", "mixed", "joined"],
)
def test_updates_are_those_of_torch(kind, factors, small, monkeypatch):
    monkeypatch.setattr("gped_nas.distill.optim._SMALL", small)
    scale = [0.25 * (1 + i % 7) for i in range(len(MLP))] if factors else [1.0] * len(MLP)
    students = fresh(MLP, factors=scale)
    recipe = recipe_of(kind)
    updated, _ = trained(students, recipe)
    for before, after, factor in zip(students, updated, scale, strict=True):
        expected = torch_alone(before, recipe, lr=0.02 * factor)
        assert relative_difference(after.params, expected) < 1e-5, str(before.genotype)
        assert relative_difference(expected, before.params) > 1e-3, "it moved"


def test_sgd_without_momentum_is_plain_descent():
    recipe = recipe_of("sgd").model_copy(update={"momentum": 0.0, "weight_decay": 0.0})
    students = fresh(MLP)
    updated, training = trained(students, recipe, steps=1, lr=0.5)
    for before, after, gradient in zip(students, updated, gradients_of(training), strict=True):
        for name, p in before.params.items():
            assert torch.allclose(after.params[name], p - 0.5 * gradient[name], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factors", [False, True], ids=["equal", "own-step-sizes"])
def test_an_update_block_by_block_is_that_of_the_whole(kind, factors, monkeypatch):
    scale = [0.25 * (1 + i % 3) for i in range(len(MLP))] if factors else [1.0] * len(MLP)
    students = fresh(MLP, factors=scale)
    whole, _ = trained(students, recipe_of(kind), dtype=torch.bfloat16)

    monkeypatch.setattr("gped_nas.distill.buffers._BLOCK", 7)
    parts, training = trained(students, recipe_of(kind), dtype=torch.bfloat16)
    buffers = training.bundle.buffers
    assert len(buffers.blocks([slice(0, 20), slice(30, 41)])) == 5
    for student, twin in zip(whole, parts, strict=True):
        for name, value in student.params.items():
            torch.testing.assert_close(twin.params[name], value, rtol=1e-6, atol=1e-7)
    # the next step computes with what was updated
    assert torch.equal(buffers.work, buffers.theta.bfloat16())


# -- muon


def test_orthogonalized_matrices_keep_their_singular_vectors():
    generator = torch.Generator().manual_seed(0)
    stack = torch.randn((3, 5, 9), generator=generator, dtype=torch.float64)
    for matrices in (stack, stack.mT):
        u, singular_before, v = torch.linalg.svd(matrices, full_matrices=False)
        inner = u.mT @ orthogonalize(matrices) @ v.mT
        singular = inner.diagonal(dim1=1, dim2=2)
        assert (inner - torch.diag_embed(singular)).abs().max() < 1e-9
        assert singular_before.max() > 3
        assert (singular > 0.6).all() and (singular < 1.3).all(), "about one, whatever they were"
    assert torch.allclose(orthogonalize(stack.mT), orthogonalize(stack).mT)


def test_no_gradient_is_no_step():
    assert torch.equal(orthogonalize(torch.zeros(2, 3, 3)), torch.zeros(2, 3, 3))


def test_muon_by_hand_of_a_row():
    """A matrix (1, n) has one singular value s.

    Each iteration is s <- 3.4445 s - 4.775 s^3 + 2.0315 s^5, from s = 1.
    """
    value = 1.0
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5

    students = fresh([MLP[1]])
    recipe = recipe_of("muon").model_copy(update={"weight_decay": 0.0})
    updated, training = trained(students, recipe, steps=1, lr=0.5)
    name = "layers.0.weight"
    gradient = gradients_of(training)[0][name]
    moved = students[0].params[name] - updated[0].params[name]
    assert torch.allclose(moved, 0.5 * value * gradient / gradient.norm(), atol=1e-5)


@pytest.mark.parametrize("name", ["layers.1.bias", "layers.2.weight"], ids=["biases", "last"])
def test_muon_leaves_biases_and_last_layers_to_adamw(name):
    """They move as under adamw at ``lr * lr_rest / lr``: the first step is about that large."""
    recipe = recipe_of("muon", lr=0.1).model_copy(update={"weight_decay": 0.0})
    students = fresh(MLP[4:6])
    updated, _ = trained(students, recipe, steps=1, lr=0.05)
    for before, after in zip(students, updated, strict=True):
        moved = (after.params[name] - before.params[name]).abs()
        assert moved.max() == pytest.approx(0.05 * 1e-3 / 0.1, rel=1e-3)


# -- metrics


def test_metric_of_adamw_by_hand():
    """D = 1 / (sqrt(v) + 1e-8) with an unbiased second moment.

    v = (1 - beta2) sum of beta2^(k - i) g_i^2, over 1 - beta2^k.
    """
    students = copies(fresh(MLP[3:5]))
    recipe = recipe_of("adamw").model_copy(update={"beta2": 0.999})
    training = training_of(students, recipe)
    name = "layers.1.weight"
    second_moment = torch.zeros((), dtype=torch.float64)
    for step in range(3):
        training.step(*batch(seed=step), 0.01)
        gradient = gradients_of(training)[1][name].double()
        second_moment = 0.999 * second_moment + 0.001 * gradient.square()
        expected = 1 / ((second_moment / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)

        metric = training._optimizer.metric(1, name)
        assert metric.dtype == torch.float32
        assert ((metric - expected) / expected).abs().max() < 2e-6


def test_metric_of_sgd_by_hand():
    """It is 1 / (1 - 0.8)."""
    _, training = trained(fresh(MLP), recipe_of("sgd"))
    assert isinstance(training._optimizer, Sgd)
    metric = training._optimizer.metric(4, "layers.1.weight")
    assert torch.allclose(metric, torch.full((6, 4), 5.0))


def test_metric_of_muon_is_of_the_step_that_was_taken():
    """For a matrix it is the length of a row's step over its momentum's."""
    students, training = trained(fresh(RESNET), recipe_of("muon", lr=0.1), steps=1)
    assert isinstance(training._optimizer, Muon)
    name = "layers.1.0.conv1.weight"
    # up to its scale, the first gradient is the Nesterov momentum
    gradient = gradients_of(training)[1][name].flatten(1)
    step = orthogonalize(gradient[None])[0]
    momentum = students[1].memory["momentum"][name].flatten(1)

    metric = training._optimizer.metric(1, name)
    expected = step.norm(dim=1) / momentum.norm(dim=1)
    assert torch.allclose(metric[:, 0, 0, 0], expected, rtol=1e-4)
    assert (metric == metric[:, :1, :1, :1]).all()


def test_metric_of_muon_is_adamws_for_the_rest():
    """In units of ``lr``."""
    _, training = trained(fresh(RESNET), recipe_of("muon", lr=0.1), steps=1)
    name = "layers.1.0.norm1.gain"
    gradient = gradients_of(training)[1][name]
    expected = 1e-3 / 0.1 / (gradient.abs() + 1e-8)
    assert torch.allclose(training._optimizer.metric(1, name), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", sorted(FAMILIES_OF))
def test_metrics_are_positive_and_finite(family, kind):
    """The proximal step divides by them; here also of units that no example reaches."""
    students = fresh(FAMILIES_OF[family])
    if family == "mlp":
        students[2].params["layers.0.weight"][0] = 0
        students[2].params["layers.0.bias"][0] = -1
    _, training = trained(students, recipe_of(kind), steps=2)
    for i, student in enumerate(students):
        for name, p in student.params.items():
            metric = training._optimizer.metric(i, name)
            assert metric.shape == p.shape
            assert bool((metric > 0).all()) and bool(metric.isfinite().all()), name


# -- siblings


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e30, -3e38])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("family", "bad"), [("mlp", 3), ("mlp", 5), ("cnn", 0), ("resnet", 1)])
def test_one_that_diverges_changes_no_bit_of_another(family, bad, kind, value):
    """In one layout, through updates and proximal steps.

    Number 3 shares products and an optimizer's stacks.
    """
    population = FAMILIES_OF[family]
    factors = [1.0, 0.5, 1.0, 1.0, 2.0, 1.0, 1.0][: len(population)]

    def train(*, is_broken):
        students = fresh(population, factors=factors)
        if is_broken:
            next(iter(students[bad].params.values())).fill_(value)
        training = training_of(students, recipe_of(kind))
        losses = []
        for step in range(4):
            losses.append(training.step(*batch(seed=step), 0.02))
            training.shrink(0.02)
        training.unload()
        return students, torch.stack(losses)

    clean, clean_losses = train(is_broken=False)
    siblings, losses = train(is_broken=True)
    others = [i for i in range(len(clean)) if i != bad]
    assert not torch.equal(losses, clean_losses)
    assert torch.equal(losses[:, others], clean_losses[:, others])
    for i in others:
        for name, p in clean[i].params.items():
            assert torch.equal(siblings[i].params[name], p)
        for part, memory in clean[i].memory.items():
            for name, expected in memory.items():
                assert torch.equal(siblings[i].memory[part][name], expected)
