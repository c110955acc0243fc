"""Fused fully connected students against plain autograd: gradients, layout, rounded-up widths,
bfloat16.
"""

import pytest
import torch

from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES, Genotype
from tests.distill.populations import (
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
    "shared-last": [Genotype("mlp", depth=2, width=[3, 6]), Genotype("mlp", depth=2, width=[5, 6])],
}


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("name", sorted(POPULATIONS))
def test_gradients_are_those_of_autograd(name, round_to):
    students = fresh(POPULATIONS[name], seed=3)
    x, said = batch(seed=3)
    found, losses, _ = gradients(students, x, said, round_to=round_to)
    for student, own, value in zip(students, found, losses, strict=True):
        assert relative_difference(own, autograd(student, x, said)) < 1e-6, str(student.genotype)
        raw = FAMILIES["mlp"].forward(
            {k: p.double() for k, p in student.params.items()}, x.double()
        )
        assert float(value) == pytest.approx(
            float(value_of(raw, {k: e.double() for k, e in said.items()})), rel=1e-6
        )


def test_another_batch_size_is_another_plan():
    students = fresh(MLP)
    bundle = gradients(students, *batch(24))[2]
    x, said = batch(7)
    bundle.compute(x, said)
    for student, own in zip(students, bundle.views(bundle.buffers.work_grad.float()), strict=True):
        assert relative_difference(weights(own), weights(autograd(student, x, said))) < 1e-6


@pytest.mark.parametrize("round_to", [1, 8])
def test_every_number_has_its_own_place(round_to):
    """Views, each filled with a number of its own, keep it; pieces cover them and nothing twice."""
    bundle = bundle_of(fresh(MLP), round_to=round_to)
    flat = torch.zeros_like(bundle.buffers.theta)
    for i, own in enumerate(bundle.views(flat)):
        for j, view in enumerate(own.values()):
            assert (view == 0).all(), "of nobody else"
            view.fill_(1 + i + 100 * j)
    covered = torch.zeros_like(flat)
    for piece in bundle.pieces():
        covered[piece.cut] += 1
        numbers = flat[piece.cut]
        names = list(bundle.shapes[piece.student])
        mine = 1 + piece.student + 100 * names.index(piece.name)
        assert set(numbers.unique().tolist()) <= {0.0, float(mine)}
        if piece.matrix is not None:
            assert numbers.numel() == piece.matrix[0] * piece.matrix[1]
    assert covered.max() == 1 and (covered[flat != 0] == 1).all()
    matrices = {
        (piece.student, piece.name) for piece in bundle.pieces() if piece.matrix is not None
    }
    expected = {
        (i, f"layers.{j}.weight")
        for i, genotype in enumerate(MLP)
        for j in range(genotype["depth"])
    }
    assert matrices == expected, "all weights but the last layer's"


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_widths_rounded_up_change_rounding_alone(optimizer):
    """Twenty steps with proximal ones, of which the last ten after a layout of its own."""
    recipe = Recipe(steps=20, optimizer=optimizer, lr=0.02, lr_rest=0.01, weight_decay=0.1)
    results, num_numbers = [], 0
    for round_to in (1, 8):
        students = fresh(MLP)
        for half in range(2):
            training = training_of(students, recipe, updates=10 * half, round_to=round_to)
            for step in range(10):
                training.step(*batch(seed=10 * half + step), 0.02)
            training.shrink(0.05)
            training.unload()
        results.append(students)
        buffers = training.bundle.buffers
        assert round_to == 1 or len(buffers.theta) > 1.3 * num_numbers
        num_numbers = len(buffers.theta)
        used = torch.zeros_like(buffers.theta)
        for own in training.bundle.views(used):
            for view in own.values():
                view.fill_(1)
        for flat in (buffers.theta, *training._optimizer.memory.values()):
            assert (flat[used == 0] == 0).all(), "units that rounding added stay zero"
    for plain, rounded in zip(*results, strict=True):
        assert relative_difference(rounded.params, plain.params) < 2e-5, str(plain.genotype)
        for name, memory in plain.memory.items():
            assert relative_difference(rounded.memory[name], memory) < 2e-4, name
