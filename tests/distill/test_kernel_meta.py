"""A whole kernel step on ``meta``, where any wait for the device raises.

A wait is ``.item()``, for instance, or a branch on a value.
"""

import pytest
import torch

from gped_nas.distill.bundle import Bundle, InTurn
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.fused_mlp import FusedMlp
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.trainee import Trainee
from gped_nas.distill.training import TrainedBundle
from gped_nas.models.base import FAMILIES, Genotype, shapes_of
from gped_nas.models.dense import dense_chain
from gped_nas.targets.layout import HeadLayout

META = torch.device("meta")
TARGETS = ("predictive", "expected_entropy")
POPULATIONS = {
    "mlp": [
        Genotype("mlp", depth=2, width=8, group_penalty=0.1),
        Genotype("mlp", depth=1, width=5),
    ],
    "cnn": [
        Genotype("cnn", depth=1, width=4, kernel=3, group_penalty=0.1),
        Genotype("cnn", depth=1, width=2, kernel=3),
        Genotype("cnn", depth=1, width=4, kernel=3, norm="batch", group_penalty=0.1),
        Genotype("cnn", depth=1, width=4, kernel=3, norm="weight", group_penalty=0.1),
    ],
    "resnet": [Genotype("resnet", stages=2, depth=1, width=[2, 4], group_penalty=0.1)],
}


def fresh_on_meta(genotype: Genotype, pool: DistillationSet) -> Trainee:
    """A student before its first step, in its form."""
    shapes = pool.shapes(genotype)
    params = {name: torch.empty(shape, device=META) for name, shape in shapes.items()}
    student = Trainee(genotype, 1.0, params)
    if genotype.form is not None:
        student.params, student.constants = genotype.form.begin(params)
    return student


def meta_training(
    family: str, dtype: torch.dtype, recipe: Recipe, *, centered: bool = False
) -> tuple[DistillationSet, TrainedBundle]:
    """Data and a bundle in training, both on ``meta``."""
    pool = DistillationSet(
        inputs=torch.empty((40, 1, 8, 8), device=META),
        expectations={
            "predictive": torch.empty((40, 3), device=META),
            "expected_entropy": torch.empty((40, 1), device=META),
        },
        layout=HeadLayout(TARGETS, 3),
    )
    genotypes = POPULATIONS[family]
    students = [fresh_on_meta(genotype, pool) for genotype in genotypes]
    shapes = [shapes_of(student.params) for student in students]

    def value(raw_PBU, expectations):
        return pool.layout.loss(raw_PBU, expectations, {})

    bundle: Bundle
    if family == "mlp":
        chains = [dense_chain(FAMILIES[family], shape) for shape in shapes]
        centers = []
        if centered:
            for genotype in genotypes:
                centers.append(tuple(torch.empty(w, device=META) for w in genotype["width"]))
        bundle = FusedMlp(
            shapes, chains, value, dtype=dtype, device=META, round_to=8, centers=centers
        )
    else:
        forwards = [student.forward for student in students]
        bundle = InTurn(
            FAMILIES[family], shapes, value, dtype=dtype, device=META, forwards=forwards
        )
    return pool, TrainedBundle(bundle, students, recipe, updates=0)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", sorted(POPULATIONS))
def test_a_step_never_waits_for_the_device(family, dtype, optimizer) -> None:
    pool, training = meta_training(
        family, dtype, Recipe(steps=10, batch_size=8, optimizer=optimizer)
    )
    losses = training.step(*pool.batch(torch.empty(8, dtype=torch.long, device=META)), 0.1)
    training.shrink(0.1)
    assert losses.shape == (len(POPULATIONS[family]),)
    assert losses.device.type == "meta"


def test_nor_does_a_centered_one() -> None:
    pool, training = meta_training(
        "mlp", torch.bfloat16, Recipe(steps=10, batch_size=8), centered=True
    )
    losses = training.step(*pool.batch(torch.empty(8, dtype=torch.long, device=META)), 0.1)
    assert losses.shape == (2,)


def test_every_family_is_tried() -> None:
    # a module of one's own is a teacher, and no student
    assert set(POPULATIONS) == set(FAMILIES) - {"module"}


def test_meta_sees_a_wait() -> None:
    pool, training = meta_training("mlp", torch.float32, Recipe())
    losses = training.step(*pool.batch(torch.empty(8, dtype=torch.long, device=META)), 0.1)
    with pytest.raises((RuntimeError, NotImplementedError)):
        losses.sum().item()
