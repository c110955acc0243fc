"""Fused dense students against plain autograd: gradients, layout, rounded-up widths."""

import pytest
import torch

from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES, Genotype
from tests.distill.populations import (
    BY_ACTIVATION,
    MLP,
    autograd,
    batch,
    bundle_of,
    fresh,
    gradients,
    relative_difference,
    training_of,
    value_of,
    weights,
)

POPULATIONS = {
    "all": MLP,
    "one": [MLP[5]],
    "linear": [MLP[0], MLP[0]],
    "equal": [MLP[4]] * 3,
    "width-one": [Genotype("mlp", depth=3, width=1), Genotype("mlp", depth=3, width=1)],
    # of one last layer's shape, but not of one layer before it: the last layers are one product all
    # the same
    **BY_ACTIVATION,
    "shared-last": [Genotype("mlp", depth=2, width=[3, 6]), Genotype("mlp", depth=2, width=[5, 6])],
}


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("name", sorted(POPULATIONS))
def test_gradients_are_those_of_autograd(name, round_to):
    students = fresh(POPULATIONS[name], seed=3)
    x, expectations = batch(seed=3)
    bundled, losses, _ = gradients(students, x, expectations, round_to=round_to)

    exact_expectations = {k: e.double() for k, e in expectations.items()}
    for student, gradient, loss in zip(students, bundled, losses, strict=True):
        expected = autograd(student, x, expectations)
        assert relative_difference(gradient, expected) < 1e-6, str(student.genotype)
        params = {k: p.double() for k, p in student.params.items()}
        raw = FAMILIES["mlp"].forward(params, x.double())
        assert float(loss) == pytest.approx(float(value_of(raw, exact_expectations)), rel=1e-6)


def test_another_batch_size_is_another_plan():
    students = fresh(MLP)
    _, _, bundle = gradients(students, *batch(24))
    x, expectations = batch(7)
    bundle.compute(x, expectations)
    bundled = bundle.views(bundle.buffers.work_grad.float())
    for student, gradient in zip(students, bundled, strict=True):
        expected = autograd(student, x, expectations)
        assert relative_difference(weights(gradient), weights(expected)) < 1e-6


@pytest.mark.parametrize("round_to", [1, 8])
def test_every_number_has_its_own_place(round_to):
    """Views, each filled with a number of its own, keep it; pieces cover them and nothing twice."""
    bundle = bundle_of(fresh(MLP), round_to=round_to)
    flat = torch.zeros_like(bundle.buffers.theta)
    for i, views in enumerate(bundle.views(flat)):
        for j, view in enumerate(views.values()):
            assert (view == 0).all(), "of nobody else"
            view.fill_(1 + i + 100 * j)

    covered = torch.zeros_like(flat)
    for piece in bundle.pieces():
        covered[piece.cut] += 1
        numbers = flat[piece.cut]
        names = list(bundle.shapes[piece.student])
        filled_with = 1 + piece.student + 100 * names.index(piece.name)
        assert set(numbers.unique().tolist()) <= {0.0, float(filled_with)}
        if piece.matrix is not None:
            assert numbers.numel() == piece.matrix[0] * piece.matrix[1]
    assert covered.max() == 1 and (covered[flat != 0] == 1).all()


@pytest.mark.parametrize("round_to", [1, 8])
def test_all_weights_but_the_last_layers_are_matrices(round_to):
    bundle = bundle_of(fresh(MLP), round_to=round_to)
    pieces = [piece for piece in bundle.pieces() if piece.matrix is not None]
    expected = set()
    for student, genotype in enumerate(MLP):
        for layer in range(genotype["depth"]):
            expected.add((student, f"layers.{layer}.weight"))
    assert {(piece.student, piece.name) for piece in pieces} == expected


def train_rounded(recipe, round_to):
    """Students after ten steps and a proximal one, twice, each time in a layout of its own.

    Returns:
        The students and the length of a flat buffer.
    """
    students = fresh(MLP)
    for half in range(2):
        training = training_of(students, recipe, updates=10 * half, round_to=round_to)
        for step in range(10):
            training.step(*batch(seed=10 * half + step), 0.02)
        training.shrink(0.05)
        training.unload()

    theta = training.bundle.buffers.theta
    is_used = torch.zeros_like(theta)
    for views in training.bundle.views(is_used):
        for view in views.values():
            view.fill_(1)
    for flat in (theta, *training._optimizer.memory.values()):
        assert (flat[is_used == 0] == 0).all(), "units that rounding added stay zero"
    return students, len(theta)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_widths_rounded_up_change_rounding_alone(optimizer):
    recipe = Recipe(steps=20, optimizer=optimizer, lr=0.02, lr_rest=0.01, weight_decay=0.1)
    students, num_plain = train_rounded(recipe, 1)
    twins, num_rounded = train_rounded(recipe, 8)
    assert num_rounded > 1.3 * num_plain
    for student, twin in zip(students, twins, strict=True):
        assert relative_difference(twin.params, student.params) < 2e-5, str(student.genotype)
        for name, memory in student.memory.items():
            assert relative_difference(twin.memory[name], memory) < 2e-4, name
