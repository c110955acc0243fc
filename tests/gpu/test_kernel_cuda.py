"""The kernel on CUDA against the reference on the CPU; run with ``pytest tests/gpu`` where there is a device."""

import pytest
import torch

from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.kernel import distill
from gped_nas.distill.kernel_reference import distill_one
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import Genotype

pytestmark = pytest.mark.gpu


def test_kernel_on_cuda_agrees_with_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand((64, 3), generator=generator).softmax(-1)
    pool = DistillationSet(
        inputs=torch.randn((64, 6), generator=generator),
        expectations={"predictive": probability, "expected_entropy": torch.full((64, 1), 0.3)},
        targets=("predictive", "expected_entropy"),
        num_classes=3,
    )
    genotypes = [Genotype("mlp", depth=2, width=8, group_penalty=1e-2), Genotype("mlp", depth=1, width=5)]
    recipe = Recipe(steps=40, batch_size=16, warmup=5)
    torch.backends.cuda.matmul.allow_tf32 = False
    population = distill(genotypes, pool, recipe, seed=0, device=torch.device("cuda"))
    for student in population.students:
        expected = distill_one(student.genotype, pool, recipe, seed=0)
        for name, value in expected.items():
            assert torch.allclose(student.params[name], value, atol=1e-4)
