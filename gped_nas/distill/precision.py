"""What the products of a population are computed in, decided once for all of it."""

from collections.abc import Sequence

import torch

from gped_nas import device as devices
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.recipe import Recipe
from gped_nas.models.base import Genotype
from gped_nas.models.costs import largest_product


def decided(
    recipe: Recipe, genotypes: Sequence[Genotype], data: DistillationSet, device: torch.device
) -> Recipe:
    """The recipe with ``precision: auto`` decided.

    It is bfloat16 where the device is good at it and the largest product of a step is large: of
    small ones the calls cost more in bfloat16 than the products save.
    """
    if recipe.precision != "auto":
        return recipe

    input_shape = tuple(data.inputs.shape[1:])
    batch_size = min(recipe.batch_size, len(data.inputs))
    macs = max(
        largest_product(genotype.family, data.shapes(genotype), input_shape, batch_size)
        for genotype in genotypes
    )

    # the device is asked last, since the probe takes time
    is_half = macs >= devices.SHARED_MACS and devices.half_is_fast(device)
    return recipe.model_copy(update={"precision": "bfloat16" if is_half else "float32"})
