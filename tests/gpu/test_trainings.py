"""Drawn trainings of chains of dense layers on a GPU against the oracle on the CPU."""

import pytest
import torch

from gped_nas.distill.buffers import Buffers
from gped_nas.distill.kernel import distill
from gped_nas.distill.phases.bundle import PhasedMlp
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.phases.update import PenalizedUnits, Shrinking
from gped_nas.distill.pruning import prox_group_lasso
from gped_nas.distill.recipe import Recipe
from tests.distill.drawn import Training, drawn_training
from tests.distill.populations import fresh, relative_difference
from tests.distill.reference import distill_one
from tests.gpu.place import DEVICE, IS_CARD, cases
from tests.gpu.test_phases import POPULATION, gradients, worst

SIZE = {"steps": 20 if IS_CARD else 6, "most_students": 5 if IS_CARD else 3}


def run(drawn: Training, **changes):
    recipe = drawn.recipe.model_copy(update=changes)
    return distill(
        drawn.genotypes,
        drawn.data,
        recipe,
        seed=0,
        device=DEVICE,
        validation=drawn.validation if recipe.rungs else None,
    ).students


@pytest.mark.parametrize("seed", cases(range(8), [4]))
def test_drawn_trainings_are_those_of_the_oracle(seed):
    """Every update rule, targets, adamw and sgd, penalties, averages, components, rungs."""
    drawn = drawn_training(seed, **SIZE)
    for student in run(drawn):
        expected = distill_one(
            student.genotype, drawn.data, drawn.recipe, seed=0, prox=prox_group_lasso
        )
        assert relative_difference(student.params, expected) < 1e-3, str(student.genotype)
        assert [step for step, _ in student.rungs] == list(drawn.recipe.rung_steps)
        assert not student.failure


@pytest.mark.parametrize("seed", cases([0, 2, 3, 4], [4]))
def test_a_rounded_training_is_that_of_the_graph(seed):
    """bfloat16 under either kernel: the same losses, but for rounding."""
    drawn = drawn_training(seed, **SIZE)
    ours = run(drawn, precision="bfloat16")
    theirs = run(drawn, precision="bfloat16", kernel="graph")
    for student, twin in zip(ours, theirs, strict=True):
        assert not student.failure
        assert [step for step, _ in student.losses] == [step for step, _ in twin.losses]
        for (_, loss), (_, other) in zip(student.losses, twin.losses, strict=True):
            assert loss == pytest.approx(other, rel=0.05, abs=0.02)


@pytest.mark.parametrize("dtype", cases([torch.float32, torch.bfloat16], [torch.float32]))
def test_a_proximal_step_in_one_launch_is_that_of_torch(dtype):
    """Thousands of units, wide and narrow, of which some die; the rounded copy follows."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = (1000, 784) if IS_CARD else (20, 40)
    theta = torch.randn(rows * columns, generator=generator)
    theta.view(rows, columns)[::3] *= 1e-3
    second = 0.1 + torch.rand(rows * columns, generator=generator)
    scale = 1 / ((second / (1 - 0.9**4)).sqrt() + 1e-8)
    weight = theta.view(rows, columns)
    expected = prox_group_lasso(weight, scale.view(rows, columns), 0.02, 0.3)

    buffers = Buffers(theta.to(DEVICE), dtype)
    units = PenalizedUnits(buffers.theta.view(rows, columns), 0.3)
    updates = torch.tensor(4.0, device=DEVICE)
    recipe = Recipe(beta2=0.9)
    Shrinking(buffers, [units], recipe, second=second.to(DEVICE), updates=updates)(0.02)
    shrunk = buffers.theta.cpu().view(rows, columns)
    assert torch.allclose(shrunk, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(shrunk == 0, expected == 0)
    assert torch.equal(buffers.work.float(), buffers.theta.to(dtype).float())
    assert 0 < int((shrunk == 0).all(1).sum()) < rows


@pytest.mark.parametrize("programs", cases([1, 16, 64], [2]))
def test_programs_that_do_not_fit_at_once_change_no_bit(programs):
    """One a processor, or far more than a device holds: none waits for one that cannot begin."""
    students = fresh(POPULATION)
    _, few = gradients(PhasedMlp, students, launch=Launch(depth=32))
    many = Launch(depth=32, programs_a_processor=programs)
    _, ours = gradients(PhasedMlp, students, launch=many)
    assert worst(ours, few) == 0
