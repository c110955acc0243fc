"""Students with a prior of their own: against the oracle, and beside students that have none."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from gped_nas.distill.checkpoint import load_trainee, save_trainee
from gped_nas.distill.course import Course, begin
from gped_nas.distill.kernel import distill, train
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.trainee import TrainedStudent
from gped_nas.models.base import Genotype
from tests.distill.populations import CPU, make_data, relative_difference
from tests.distill.reference import distill_one

RECIPE = Recipe(steps=40, batch_size=24, warmup=5, lr=0.02)
POPULATION = [
    Genotype("mlp", depth=1, width=6),
    Genotype("mlp", depth=2, width=[4, 6], group_penalty=0.05),
    Genotype("cnn", depth=1, width=4, kernel=3),
    Genotype("cnn", depth=2, width=[3, 4], kernel=3, norm="batch", group_penalty=0.01),
]
RIDGES = (0.3, 0.02, 0.1, 0.05)


def trained_with(
    ridges: Sequence[float], genotypes: Sequence[Genotype], recipe: Recipe = RECIPE
) -> list[TrainedStudent]:
    """Students of one population, each with its ridge."""
    course = Course(make_data(), recipe, seed=0)
    students = begin(course, genotypes, device=CPU)
    pulled = [replace(s, ridge=ridge) for s, ridge in zip(students, ridges, strict=True)]
    trained = train(course, pulled, until=recipe.steps, device=CPU)
    return [student.trained() for student in trained]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "lr": 0.05},
        {"optimizer": "muon"},
        {"average": 0.9},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "adamw",
)
def test_students_with_a_ridge_equal_those_of_the_oracle(changes: dict[str, object]) -> None:
    recipe = RECIPE.model_copy(update=changes)
    students = trained_with(RIDGES, POPULATION, recipe)

    for genotype, ridge, student in zip(POPULATION, RIDGES, students, strict=True):
        expected = distill_one(genotype, make_data(), recipe, seed=0, ridge=ridge)
        assert relative_difference(student.params, expected) < 2e-3, str(genotype)


def test_products_in_half_precision_are_pulled_too() -> None:
    recipe = RECIPE.model_copy(update={"precision": "bfloat16"})
    free, pulled = trained_with([0.0, 0.3], POPULATION[:1] * 2, recipe)
    expected = distill_one(POPULATION[0], make_data(), RECIPE, seed=0, ridge=0.3)
    assert relative_difference(pulled.params, expected) < 0.1
    assert relative_difference(free.params, expected) > 0.3


def test_siblings_without_a_ridge_do_not_change_a_bit() -> None:
    pair = [POPULATION[0], POPULATION[0]]
    plain = distill(pair, make_data(), RECIPE, seed=0, device=CPU).students
    beside = trained_with([0.0, 0.3], pair)

    for name, p in plain[0].params.items():
        assert torch.equal(p, beside[0].params[name])


def test_a_student_goes_on_with_its_ridge(tmp_path) -> None:
    course = Course(make_data(), RECIPE, seed=0)
    (student,) = begin(course, POPULATION[:1], device=CPU)
    (half,) = train(course, [replace(student, ridge=0.3)], until=20, device=CPU)
    save_trainee(tmp_path / "half", half, course)

    stored = load_trainee(tmp_path / "half", course)
    (whole,) = train(course, [stored], until=RECIPE.steps, device=CPU)

    (expected,) = trained_with([0.3], POPULATION[:1])
    assert stored.ridge == 0.3
    assert relative_difference(whole.trained().params, expected.params) < 1e-5
