"""A whole kernel step on ``meta``, where any wait for the device (``.item()``, a branch on a value) raises."""

import pytest
import torch

from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import _Phase
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import Genotype

TARGETS = ("predictive", "expected_entropy")


def meta_phase() -> _Phase:
    pool = DistillationSet(
        inputs=torch.empty((40, 1, 4, 4), device="meta"),
        expectations={
            "predictive": torch.empty((40, 3), device="meta"),
            "expected_entropy": torch.empty((40, 1), device="meta"),
        },
        targets=TARGETS,
        num_classes=3,
    )
    genotypes = [Genotype("mlp", depth=2, width=8, group_penalty=0.1), Genotype("mlp", depth=1, width=5)]
    params = [{k: torch.empty(s, device="meta") for k, s in pool.shapes(g).items()} for g in genotypes]
    return _Phase(genotypes, params, pool, Recipe(steps=10, batch_size=8))


def test_a_step_never_waits_for_the_device() -> None:
    phase = meta_phase()
    losses = phase.step(*phase.data.batch(torch.empty(8, dtype=torch.long, device="meta")), 0)
    phase.shrink(0)
    assert losses.shape == (2,)
    assert losses.device.type == "meta"
    assert phase.theta.device.type == "meta"


def test_meta_sees_a_wait() -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        meta_phase().theta.sum().item()
