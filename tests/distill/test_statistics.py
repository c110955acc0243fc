"""Statistics of all samples: students learn them as the oracle does."""

import torch

from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import distill
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import Genotype
from gped_nas.targets.base import parse_targets
from gped_nas.targets.expectations import expect
from gped_nas.targets.layout import HeadLayout
from tests.distill.populations import CPU, relative_difference
from tests.distill.reference import distill_one

CLASSES, SAMPLES = 3, 5
RECIPE = Recipe(steps=12, batch_size=8, warmup=5, lr=0.02)
POPULATION = [
    Genotype("mlp", depth=1, width=6),
    Genotype("mlp", depth=2, width=[4, 6], group_penalty=0.05),
    Genotype("cnn", depth=1, width=4, kernel=3),
]


TARGETS = [
    "predictive",
    {"name": "interval", "share": 0.5},
    "intersection",
    "logit_variance",
    {"name": "factors", "rank": 2},
]


def test_students_equal_those_of_the_oracle():
    layout = HeadLayout(parse_targets(TARGETS, "here"), CLASSES)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn((60, 1, 4, 4), generator=generator)
    rules = torch.randn((SAMPLES, 16, CLASSES), generator=generator) / 2
    log_prob = (x.flatten(1) @ rules).log_softmax(-1).double()
    taught = {}
    for target in layout.learned:
        taught[target.name] = expect(target, log_prob, torch.ones(SAMPLES)).float()
    data = DistillationSet(x, taught, layout)

    students = distill(POPULATION, data, RECIPE, seed=0, device=CPU).students
    for genotype, student in zip(POPULATION, students, strict=True):
        expected = distill_one(genotype, data, RECIPE, seed=0)
        assert relative_difference(student.params, expected) < 1e-3, str(genotype)
