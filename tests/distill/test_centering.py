"""Students trained on centered hidden units are folded back into students of plain activations."""

import pytest
import torch
import torch.nn.functional as F

from gped_nas.distill.centering import enter, leave, unit_means
from gped_nas.distill.feed import CachedFeed
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.models.activations import ACTIVATIONS
from gped_nas.models.base import FAMILIES, Genotype, shapes_of
from gped_nas.models.dense import dense_chain
from tests.distill.populations import (
    BY_ACTIVATION,
    MLP,
    OTHERS,
    batch,
    fresh,
    gradients,
    relative_difference,
    value_of,
)
from tests.distill.reference import _activated, _centered, distill_one
from tests.distill.test_kernel import CPU, MIXED, largest_difference, make_pool, mlp

POPULATION = [g for g in MIXED if g["depth"] < 3] + [mlp(3, [16, 15, 14], 0.02)]
"""Where all units of a layer are off and biases are still zero, the next layer is at zero but for
rounding, and a ReLU there passes a gradient or none: the narrow student of depth 3 meets such
inputs in its first steps."""
RECIPE = Recipe(steps=60, batch_size=37, warmup=5, lr=0.02, weight_decay=0.05, centered=True)


def run(genotypes, pool, recipe=RECIPE, **more):
    return distill(genotypes, pool, recipe, seed=0, device=CPU, **more).students


def centered_forward(params, centers, x):
    return _centered(params, x, dense_chain(FAMILIES["mlp"], shapes_of(params)), centers)


@pytest.mark.parametrize("genotype", [*MLP, *(BY_ACTIVATION[name][3] for name in OTHERS)], ids=str)
def test_a_student_is_the_same_function_in_both_forms(genotype):
    (student,) = fresh([genotype])
    x, _ = batch(48)
    centers = unit_means(student.params, student.chain, x, torch.float32)
    assert [len(center) for center in centers] == list(genotype["width"])

    centered = enter(student.params, student.chain, centers)
    plain = FAMILIES["mlp"].forward(student.params, x)
    torch.testing.assert_close(centered_forward(centered, centers, x), plain, atol=1e-5, rtol=1e-5)

    for name, value in leave(centered, student.chain, centers).items():
        torch.testing.assert_close(value, student.params[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_a_layer_reads_has_no_mean(activation):
    (student,) = fresh([Genotype("mlp", depth=2, width=[9, 7], activation=activation)])
    x, _ = batch(48)
    centers = unit_means(student.params, student.chain, x, torch.float32)
    assert centers[0].max() > 0.1
    hidden = x.flatten(1)
    for (weight, bias), center in zip(student.chain[:-1], centers, strict=True):
        hidden = _activated(weight, F.linear(hidden, student.params[weight], student.params[bias]))
        torch.testing.assert_close(hidden.mean(0), center)


def test_means_are_numbers_that_a_step_can_hold():
    (student,) = fresh([Genotype("mlp", depth=1, width=[9])])
    (center,) = unit_means(student.params, student.chain, batch(48)[0], torch.bfloat16)
    assert center.dtype == torch.float32 and torch.equal(center, center.bfloat16().float())


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("population", [MLP, *BY_ACTIVATION.values()], ids=["relu", *OTHERS])
def test_gradients_are_those_of_autograd(population, round_to):
    students = fresh(population, seed=3)
    x, expectations = batch(seed=3)
    for student in students:
        student.centers = unit_means(student.params, student.chain, x, torch.float32)
    bundled, _, _ = gradients(students, x, expectations, round_to=round_to)

    exact_expectations = {name: e.double() for name, e in expectations.items()}
    for gradient, student in zip(bundled, students, strict=True):
        leaves = {name: p.double().requires_grad_() for name, p in student.params.items()}
        centers = [center.double() for center in student.centers]
        raw = centered_forward(leaves, centers, x.double())
        value_of(raw[None], exact_expectations).sum().backward()
        expected = {name: leaf.grad for name, leaf in leaves.items()}
        assert relative_difference(gradient, expected) < 1e-6


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"average": 0.9},
        {"components": 4},
        {"optimizer": "muon", "lr_rest": 0.01},
        {"optimizer": "sgd"},
    ],
    ids=["plain", "average", "components", "muon", "sgd"],
)
def test_students_equal_those_of_the_oracle(changes):
    pool, recipe = make_pool(), RECIPE.model_copy(update=changes)
    students = run(POPULATION, pool, recipe)
    for genotype, student in zip(POPULATION, students, strict=True):
        expected = distill_one(genotype, pool, recipe, seed=0)
        assert largest_difference(student.params, expected) < 1e-5, str(genotype)
    assert sum(student.num_dead for student in students) > 5


@pytest.mark.parametrize("changes", [{}, {"components": 4}], ids=["plain", "components"])
def test_students_of_any_activation_equal_those_of_the_oracle(changes):
    """All in one population, so that they are laid out apart."""
    population = [mlp(2, [6, 5], 0.05, activation=name) for name in ACTIVATIONS]
    population += [mlp(1, 12, 0.1, activation=name) for name in OTHERS]
    pool, recipe = make_pool(), RECIPE.model_copy(update={"average": 0.9, **changes})
    for centered in (True, False):
        plan = recipe.model_copy(update={"centered": centered})
        students = run(population, pool, plan)
        for genotype, student in zip(population, students, strict=True):
            expected = distill_one(genotype, pool, plan, seed=0)
            assert largest_difference(student.params, expected) < 1e-5, str(genotype)
        assert sum(student.num_dead for student in students) > 5


def test_it_changes_what_is_learnt():
    pool = make_pool()
    (centered,) = run([mlp(2, 7)], pool)
    (plain,) = run([mlp(2, 7)], pool, RECIPE.model_copy(update={"centered": False}))
    assert largest_difference(centered.params, plain.params) > 1e-3


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_rungs_look_at_the_plain_student_and_change_nothing(average):
    pool, validation = make_pool(), make_pool(size=60)
    recipe = RECIPE.model_copy(update={"average": average})
    students = run(POPULATION, pool, recipe.model_copy(update={"rungs": 6}), validation=validation)
    for student in students:
        raw = FAMILIES["mlp"].forward(student.params, validation.inputs)
        loss = validation.layout.loss(raw[None], validation.expectations, {})
        assert student.rungs[-1][1] == pytest.approx(float(loss), rel=1e-4)

    without_rungs = run(POPULATION, pool, recipe)
    for student, twin in zip(students, without_rungs, strict=True):
        assert largest_difference(student.params, twin.params) < 1e-5


def test_a_student_keeps_its_means_when_siblings_leave():
    pool, validation = make_pool(), make_pool(size=60)
    recipe = RECIPE.model_copy(update={"steps": 200, "lr": 0.1, "rungs": 20, "patience": 1})
    students = run(POPULATION, pool, recipe, validation=validation)
    last_rungs = [student.rungs[-1][0] for student in students]
    assert min(last_rungs) < max(last_rungs), "some leave"

    longest = last_rungs.index(max(last_rungs))
    (alone,) = run([POPULATION[longest]], pool, recipe, validation=validation)
    assert largest_difference(alone.params, students[longest].params) < 1e-4


def test_a_feed_of_its_own_is_followed_alike():
    pool = make_pool()
    (fed,) = run([mlp(2, 7)], pool, feed=CachedFeed(pool, RECIPE, 0))
    assert largest_difference(fed.params, run([mlp(2, 7)], pool)[0].params) < 1e-5


def test_pictures_are_refused():
    genotype = Genotype("cnn", depth=1, width=2, kernel=3, pool=1, head_width=())
    message = r"recipe.centered: found true with students of family cnn, expected false"
    with pytest.raises(ConfigError, match=message):
        run([genotype], make_pool())
