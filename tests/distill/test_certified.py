"""Certified training: against the oracle, against points of boxes, and where it is refused."""

import dataclasses

import pytest
import torch

from gped_nas.distill.certified import WorstLoss, worst_differences
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.errors import ConfigError
from gped_nas.models.base import FAMILIES, Genotype, initialize
from tests.distill.populations import CPU, make_data, relative_difference
from tests.distill.reference import distill_one

RECIPE = Recipe(steps=8, batch_size=8, warmup=3, lr=0.02, certify=0.05)
POPULATION = [
    Genotype("mlp", depth=1, width=6),
    Genotype("mlp", depth=2, width=[4, 6], group_penalty=0.05),
]


def boxes() -> DistillationSet:
    """The usual task, with numbers that move by 1 to 2."""
    reach = 1 + torch.rand((1, 6, 6), generator=torch.Generator().manual_seed(3))
    return dataclasses.replace(make_data(), reach=reach)


def test_students_equal_those_of_the_oracle() -> None:
    data = boxes()
    students = distill(POPULATION, data, RECIPE, seed=0, device=CPU).students
    for genotype, student in zip(POPULATION, students, strict=True):
        expected = distill_one(genotype, data, RECIPE, seed=0)
        assert relative_difference(student.params, expected) < 1e-3, str(genotype)

    plain = RECIPE.model_copy(update={"certify": 0.0})
    without = distill_one(POPULATION[0], data, plain, seed=0)
    assert relative_difference(students[0].params, without) > 0.01


def test_what_students_may_lose_in_boxes_becomes_less() -> None:
    data = boxes()
    recipe = RECIPE.model_copy(update={"steps": 200})
    plain = recipe.model_copy(update={"certify": 0.0})
    worst = WorstLoss(
        FAMILIES["mlp"], 0.05 * data.reach, "predictive", data.layout.slices["predictive"]
    )

    lost = []
    for each in (recipe, plain):
        (student,) = distill(POPULATION[:1], data, each, seed=0, device=CPU).students
        lost.append(float(worst(student.params, *data.batch(torch.arange(60)))))
    assert lost[0] < lost[1] - 0.1


@pytest.mark.parametrize(
    "genotype",
    [
        Genotype("mlp", depth=2, width=[5, 4], activation="tanh"),
        Genotype("cnn", depth=1, width=3, kernel=3, pool=2),
    ],
    ids=lambda genotype: genotype.family,
)
def test_no_point_of_a_box_loses_more_than_its_bound(genotype: Genotype) -> None:
    data = boxes()
    generator = torch.Generator().manual_seed(1)
    params = initialize(data.shapes(genotype), generator=generator)
    family, rows = FAMILIES[genotype.family], data.layout.slices["predictive"]
    x, reach = data.inputs[:4], 0.05 * data.reach
    upper_BCC = worst_differences(family.layers(params), x, reach, rows)

    for _ in range(200):
        moved = x + reach * (2 * torch.rand(x.shape, generator=generator) - 1).sign()
        logits = family.forward(params, moved)[:, rows]
        assert (logits[:, None] - logits[:, :, None] <= upper_BCC + 1e-5).all()
    middle = family.forward(params, x)[:, rows]
    of_points = worst_differences(family.layers(params), x, 0 * reach, rows)
    assert torch.allclose(of_points, middle[:, None] - middle[:, :, None], atol=1e-5)


@pytest.mark.parametrize(
    ("genotype", "settings", "message"),
    [
        (Genotype("mlp", depth=1, width=3, activation="gelu"), {}, "with 'gelu', which no interv"),
        (Genotype("cnn", depth=1, width=3, kernel=3, norm="batch"), {}, "trained in other param"),
        (Genotype("cnn", depth=1, width=3, kernel=3, norm="weight"), {}, "take norm none, or"),
        (POPULATION[0], {"centered": True}, "recipe.centered: found it with certify 0.05"),
        (POPULATION[0], {"components": 2}, "recipe.components: found it with certify 0.05"),
    ],
)
def test_what_no_interval_goes_through_is_refused(
    genotype: Genotype, settings: dict[str, object], message: str
) -> None:
    recipe = Recipe(**{**RECIPE.model_dump(), **settings})
    with pytest.raises(ConfigError, match=message):
        distill([genotype], boxes(), recipe, seed=0, device=CPU)
