"""Targets that are quantiles: credible bounds of each class probability over the posterior."""

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gped_nas.config import Config
from gped_nas.targets.base import TARGETS, QuantileTarget, RawHeads
from gped_nas.targets.formulas import constant


class QuantileSettings(Config):
    """Settings of ``quantile``."""

    levels: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...],
        Field(strict=False, min_length=1, description="levels of the quantiles, rising"),
    ] = (0.05, 0.5, 0.95)

    @model_validator(mode="after")
    def _levels_rise(self) -> "QuantileSettings":
        if any(low >= high for low, high in pairwise(self.levels)):
            raise ValueError(f"levels: found {list(self.levels)}, expected rising levels")
        return self


def empirical_quantile(values_SBG: Tensor, weight_S: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Weighted quantiles over posterior samples: (B, G * levels), levels last.

    The quantile is the least value that at least a share ``level`` of the weight does not exceed;
    among the minimizers of the samples' pinball loss it is the least.
    """
    ordered, order = values_SBG.sort(0)
    weight_S = weight_S.double()
    share = (weight_S / weight_S.sum())[order].cumsum(0)
    share[-1] = 1  # rounding must not leave the highest level without a value

    quantiles = []
    for level in levels:
        row = (share >= level - 1e-12).byte().argmax(0, keepdim=True)
        quantiles.append(ordered.gather(0, row)[0])
    return torch.stack(quantiles, -1).flatten(-2)


def quantile(settings: QuantileSettings) -> QuantileTarget:
    """Quantiles over the posterior of each class's probability: (..., B, C * levels), levels last.

    The quantiles of a class are running sums of a softmax over ``levels + 1`` raw outputs: they lie
    in [0, 1] and rise with the level by construction. Their loss is the pinball loss (Koenker &
    Bassett 1978, Econometrica 46).
    """
    num_levels = len(settings.levels)
    written_levels = ", ".join(f"{level:g}" for level in settings.levels)

    def predict(raw: Tensor, heads: RawHeads) -> Tensor:
        steps = torch.unflatten(raw, -1, (-1, num_levels + 1)).softmax(-1)
        # Rounded sums may end a hair above 1.
        return steps.cumsum(-1)[..., :num_levels].clamp_max(1).flatten(-2)

    def pinball(raw: Tensor, heads: RawHeads, value: Tensor) -> Tensor:
        level = constant(settings.levels, raw.dtype, raw.device)
        above = value.unsqueeze(-1) - torch.unflatten(predict(raw, heads), -1, (-1, num_levels))
        return torch.maximum(level * above, (level - 1) * above).sum((-1, -2))

    return QuantileTarget(
        name="quantile",
        label=f"posterior quantiles of each probability at {written_levels}",
        settings=settings,
        build=quantile,
        values=torch.exp,
        num_outputs=lambda num_classes: num_classes * (num_levels + 1),
        predict=predict,
        loss=pinball,
    )


TARGETS.add(quantile(QuantileSettings()))
