"""Bundles of every family: gradients against autograd, bfloat16's error against autocast's."""

import pytest
import torch

from gped_nas.distill.trainee import Trainee
from gped_nas.models.base import FAMILIES, Genotype
from tests.distill.populations import (
    FAMILIES_OF,
    autograd,
    batch,
    bundle_of,
    fresh,
    gradients,
    relative_difference,
    value_of,
    weights,
)

HALF_MATTERS = {
    "mlp": [
        Genotype("mlp", depth=1, width=32),
        Genotype("mlp", depth=2, width=24),
        Genotype("mlp", depth=3, width=32),
    ],
    "cnn": [Genotype("cnn", depth=2, width=8, kernel=2, head_width=[16])],
    "resnet": [
        Genotype("resnet", stages=1, depth=2, width=6),
        Genotype("resnet", stages=2, depth=1, width=[4, 8]),
    ],
}


def test_every_family_is_tried() -> None:
    # a module is a teacher's network, and no student's
    assert set(FAMILIES_OF) == set(HALF_MATTERS) == set(FAMILIES) - {"module"}


@pytest.mark.parametrize("family", sorted(FAMILIES_OF))
def test_gradients_are_those_of_autograd(family) -> None:
    """Those of float32, by the same operations, and of float64, within rounding."""
    students = fresh(FAMILIES_OF[family])
    x, expectations = batch()
    bundled, _, _ = gradients(students, x, expectations)
    for student, gradient in zip(students, bundled, strict=True):
        expected = autograd(student, x, expectations, dtype=torch.float32)
        difference = relative_difference(weights(gradient), weights(expected))
        assert difference < 1e-6, str(student.genotype)
        exact = autograd(student, x, expectations)
        assert relative_difference(gradient, exact) < 5e-6, str(student.genotype)


@pytest.mark.parametrize("family", sorted(FAMILIES_OF))
def test_nothing_is_left_of_the_step_before(family) -> None:
    students = fresh(FAMILIES_OF[family])
    x, expectations = batch()
    before, losses, bundle = gradients(students, x, expectations)
    assert torch.equal(bundle.compute(x, expectations), losses)
    after = bundle.views(bundle.buffers.work_grad.float())
    for gradient, expected in zip(after, before, strict=True):
        assert relative_difference(gradient, expected) == 0


@pytest.mark.parametrize("family", sorted(FAMILIES_OF))
def test_every_number_has_its_own_place(family) -> None:
    students = fresh(FAMILIES_OF[family])
    bundle = bundle_of(students)
    flat = torch.zeros_like(bundle.buffers.theta)

    for views, student in zip(bundle.views(flat), students, strict=True):
        shapes = {name: p.shape for name, p in student.params.items()}
        assert {name: view.shape for name, view in views.items()} == shapes
        for view in views.values():
            assert (view == 0).all(), "of nobody else"
            view.fill_(1)

    for piece in bundle.pieces():
        flat[piece.cut] -= 1
        params = students[piece.student].params
        shape = params[piece.name].shape
        last_weight = [name for name, p in params.items() if p.dim() > 1][-1]
        is_matrix = len(shape) > 1 and piece.name != last_weight
        assert piece.matrix == ((shape[0], shape[1:].numel()) if is_matrix else None)
    assert (flat == 0).all()


def autocast(student: Trainee, x, expectations):
    """The gradient by torch's own mixed precision."""
    leaves = {name: p.clone().requires_grad_() for name, p in student.params.items()}
    with torch.autocast("cpu", torch.bfloat16):
        raw = FAMILIES[student.genotype.family].forward(leaves, x)
    value = value_of(raw.float(), expectations)
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


def errors_of_bfloat16(family: str, *, draws: int):
    """How far weights' gradients in bfloat16 are from those of float32, and how far autocast's are.

    Both are (draws, students).
    """
    ours, theirs = torch.zeros(2, draws, len(HALF_MATTERS[family]))
    for seed in range(draws):
        students = fresh(HALF_MATTERS[family], seed=seed)
        x, expectations = batch(60, seed=seed)
        bundled, losses, bundle = gradients(students, x, expectations, dtype=torch.bfloat16)
        assert losses.dtype == bundle.buffers.theta.dtype == torch.float32

        for i, (student, gradient) in enumerate(zip(students, bundled, strict=True)):
            expected = weights(autograd(student, x, expectations, dtype=torch.float32))
            mixed = weights(autocast(student, x, expectations))
            ours[seed, i] = relative_difference(weights(gradient), expected)
            theirs[seed, i] = relative_difference(mixed, expected)

    assert (theirs > 0).all() and (ours > 0).all()
    return ours, theirs


@pytest.mark.parametrize("family", ["cnn", "mlp"])
def test_bfloat16_errs_no_more_than_autocast(family) -> None:
    """At most 1.5 times as much in every draw: both round at the same places."""
    ours, theirs = errors_of_bfloat16(family, draws=12)
    assert (ours <= 1.5 * theirs).all(), ours / theirs


def test_bfloat16_of_residual_students_errs_no_more_than_autocast_on_the_whole() -> None:
    """At most 1.5 times as much as the root mean square over draws.

    Autocast keeps norms and the residual stream in float32, and a ReLU that rounding turns on or
    off is most of the error, so that in one draw alone either can be twice the other.
    """
    errors = errors_of_bfloat16("resnet", draws=4)
    ours, theirs = (error.square().mean(0).sqrt() for error in errors)
    assert (ours <= 1.5 * theirs).all(), ours / theirs


@pytest.mark.parametrize("family", sorted(FAMILIES_OF))
def test_losses_of_bfloat16_are_reduced_in_float32(family) -> None:
    """Each is the float32 loss of raw outputs that bfloat16 gave: no sum was taken in bfloat16."""
    students = fresh(FAMILIES_OF[family])
    x, expectations = batch(60)
    _, losses, _ = gradients(students, x, expectations, dtype=torch.bfloat16)
    for student, value in zip(students, losses, strict=True):
        half = {name: p.bfloat16() for name, p in student.params.items()}
        raw = FAMILIES[student.genotype.family].forward(half, x.bfloat16())
        exact = value_of(raw.float(), expectations)
        # what a bfloat16 sum would lose is 1 part in 256; products in another order change a raw
        # output now and then
        assert float(value) == pytest.approx(float(exact), rel=1e-3)
        assert float(value) != float(value.bfloat16()), "a number that bfloat16 could not hold"
