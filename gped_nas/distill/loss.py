"""The loss of a few students side by side, as a bundle computes it."""

from collections.abc import Sequence
from functools import partial

import torch

from gped_nas.distill.bundle import Loss
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.trainee import Trainee
from gped_nas.targets.layout import HeadLayout


def loss_of(
    students: Sequence[Trainee], layout: HeadLayout, recipe: Recipe, device: torch.device
) -> Loss:
    """Raw outputs (P, B, U) of these students, and what they are shown, to losses (P,).

    Args:
        students: in the order of the raw outputs; each has its own share of the labels.
        layout: their heads.
        recipe: weights of the targets, and the share of the labels.
        device: where they are trained.
    """
    shares = [recipe.label_weight_of(student.genotype) for student in students]
    label_weight: torch.Tensor | float = shares[0]
    if len(set(shares)) > 1:
        label_weight = torch.tensor(shares, device=device)
    return partial(layout.loss, weights=recipe.target_weights, label_weight=label_weight)
