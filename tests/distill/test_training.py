"""A bundle in training: averages by hand, a new layout halfway, proximal steps of many together."""

from functools import partial

import pytest
import torch

from gped_nas.distill.pruning import prox_group_lasso, rows_of
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import FAMILIES, shapes_of
from tests.distill.populations import (
    FAMILIES_OF,
    MLP,
    batch,
    copies,
    fresh,
    relative_difference,
    training_of,
)

OPTIMIZERS = ("adamw", "muon", "sgd")


def recipe_of(optimizer, **more):
    return Recipe(optimizer=optimizer, steps=100, weight_decay=0.1, lr_rest=2e-3, **more)


def advance(training, steps, start=0):
    for step in range(start, start + steps):
        training.step(*batch(seed=step), 0.02)
        if step % 3 == 2:
            training.shrink(0.06)
        training.add_to_average()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("family", sorted(FAMILIES_OF))
def test_a_new_layout_halfway_changes_rounding_alone(family, optimizer):
    """Students are taken apart, put together in another order and without one of them.

    They go on as if never moved.
    """
    recipe = recipe_of(optimizer, average=0.8)
    factors = [0.5 + 0.5 * (i % 2) for i in range(len(FAMILIES_OF[family]))]
    everyone = fresh(FAMILIES_OF[family], factors=factors)
    for student in everyone:
        student.average = {name: p.clone() for name, p in student.params.items()}
    moved = copies(everyone)

    whole = training_of(everyone, recipe)
    advance(whole, 12)
    whole.unload()

    before = training_of(moved, recipe)
    advance(before, 6)
    before.unload()
    staying = moved[:0:-1]
    after = training_of(staying, recipe, updates=6)
    advance(after, 6, start=6)
    after.unload()

    for student, expected in zip(staying, everyone[:0:-1], strict=True):
        genotype = str(student.genotype)
        assert relative_difference(student.params, expected.params) < 1e-4, genotype
        assert relative_difference(student.average, expected.average) < 1e-4
        assert relative_difference(expected.average, expected.params) > 1e-3
        assert student.memory.keys() == expected.memory.keys()
        for name, memory in expected.memory.items():
            assert relative_difference(student.memory[name], memory) < 1e-3, name


@pytest.mark.parametrize("family", sorted(FAMILIES_OF))
def test_what_a_layout_is_given_comes_back_unchanged(family):
    students = fresh(FAMILIES_OF[family])
    for i, student in enumerate(students):
        for number, part in ((10, "first"), (20, "second")):
            filled = {k: torch.full_like(p, number + i) for k, p in student.params.items()}
            student.memory[part] = filled
        student.average = {k: torch.full_like(p, 30.0 + i) for k, p in student.params.items()}
    before = copies(students)

    more = {"round_to": 8} if family == "mlp" else {}
    training_of(students, recipe_of("adamw", average=0.9), updates=3, **more).unload()
    for student, expected in zip(students, before, strict=True):
        assert relative_difference(student.params, expected.params) == 0
        assert relative_difference(student.average, expected.average) == 0
        for name, memory in expected.memory.items():
            assert relative_difference(student.memory[name], memory) == 0


def test_the_average_is_a_plain_mean_and_then_decays_by_hand():
    """At 0.75 the weight of the newest is 1/2, 1/3, 1/4 and then 1/4 for ever.

    From 0, over 1, 2, 3, 4, 5: 0.5, 1, 1.5 (the plain mean of 0 to 3), 1.5 + 2.5 / 4 = 2.125, 2.125
        + 2.875 / 4.
    """
    students = fresh(MLP[2:4])
    for student in students:
        student.average = {name: torch.zeros_like(p) for name, p in student.params.items()}
    training = training_of(students, recipe_of("adamw", average=0.75))
    for value, expected in zip(range(1, 6), (0.5, 1.0, 1.5, 2.125, 2.84375), strict=True):
        training.bundle.buffers.theta.fill_(value)
        training.add_to_average()
        training.unload()
        for student in students:
            assert student.outcome is student.average
            for average in student.average.values():
                assert average.flatten().tolist() == pytest.approx([expected] * average.numel())


def test_the_average_goes_on_where_another_layout_stopped():
    """After two updates the next weight is 1/4, not 1/2."""
    students = fresh(MLP[2:3])
    students[0].average = {name: torch.ones_like(p) for name, p in students[0].params.items()}
    training = training_of(students, recipe_of("adamw", average=0.99), updates=2)
    training.bundle.buffers.theta.fill_(5)
    training.add_to_average()
    training.unload()
    assert students[0].average["layers.0.bias"].tolist() == pytest.approx([2.0] * 6)


def test_without_an_average_the_outcome_is_the_parameters():
    students = fresh(MLP[2:4])
    training = training_of(students, recipe_of("adamw"))
    advance(training, 3)
    training.unload()
    assert all(s.average == {} and s.outcome is s.params for s in students)


def shrink_alone(student, metric, lr_sum):
    """The parameters of a student after ``prox_group_lasso`` of each of its groups alone.

    Args:
        student: with a penalty.
        metric: a parameter's name to the optimizer's metric of it.
        lr_sum: the sum of step sizes over which the penalty acts.
    """
    params = dict(student.params)
    shapes = shapes_of(params)
    for group in FAMILIES[student.genotype.family].groups(shapes):
        weight = rows_of([student.params[name] for name in group.weights])
        scale = rows_of([metric(name) for name in group.weights])
        step = lr_sum * student.lr_factor
        rows = prox_group_lasso(weight, scale, step, student.genotype["group_penalty"])
        assert float(rows.norm()) < float(weight.norm())

        parts = rows.split([student.params[name][0].numel() for name in group.weights], 1)
        for name, part in zip(group.weights, parts, strict=True):
            params[name] = part.reshape(shapes[name])
    return params


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("family", sorted(FAMILIES_OF))
def test_shrinking_together_is_shrinking_each(family, optimizer):
    """Who has no penalty is left as he is, to the bit."""
    factors = [0.5 + 0.25 * i for i in range(len(FAMILIES_OF[family]))]
    students = fresh(FAMILIES_OF[family], factors=factors)
    training = training_of(students, recipe_of(optimizer))
    training.step(*batch(), 0.02)
    training.unload()
    before = copies(students)
    training.shrink(0.03)
    training.unload()

    assert any(student.genotype["group_penalty"] for student in students)
    for i, (old, new) in enumerate(zip(before, students, strict=True)):
        if old.genotype["group_penalty"] == 0:
            assert all(torch.equal(new.params[name], p) for name, p in old.params.items())
            continue
        expected = shrink_alone(old, partial(training._optimizer.metric, i), 0.03)
        assert relative_difference(new.params, expected) < 1e-5
