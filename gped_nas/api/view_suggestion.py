"""Views that suit a dataset, by what kind of inputs it has.

Which ones was measured on one set of each kind (``tests/bench/bench_views.py``). Whether a mirrored
picture is one of the same class, as a mirrored shape is and a mirrored digit is not, the pictures
themselves say: a classifier by nearest neighbors looks at some that it does not know, as they are
and mirrored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from gped_nas import rng
from gped_nas.data.base import Dataset

InputKind = Literal["table", "pictures", "one-sided pictures"]
"""Of one-sided pictures, the mirrored ones are not like the others of their class."""

_MOST_PICTURES = 1_500
_NEIGHBORS = 5

CLEAN: Mapping[str, Any] = {"policy": "clean"}
NOISE: Mapping[str, Any] = {"policy": "noise", "std": 0.1}
MIXUP: Mapping[str, Any] = {"policy": "mixup"}
FLIP: Mapping[str, Any] = {"policy": "flip", "answers": "clean"}


@dataclass(frozen=True)
class SuggestedViews:
    """Views for a search space, and how they are drawn.

    Attributes:
        kind: of inputs.
        views: as ``views`` of a space has them.
        draw_views: as ``recipe.draw_views`` has it.
    """

    kind: InputKind
    views: tuple[Mapping[str, Any], ...]
    draw_views: Literal["once", "fresh"]


def suggest_views(dataset: Dataset, *, can_be_asked: bool = True) -> SuggestedViews:
    """Views that suit a dataset.

    Args:
        dataset: its training part is looked at.
        can_be_asked: whether the teacher answers at any input; one that is known by its
            predictions alone does not.
    """
    kind = kind_of_inputs(dataset)
    if kind == "pictures":
        return SuggestedViews(kind, (FLIP,), "fresh")
    if not can_be_asked:
        return SuggestedViews(kind, ({**NOISE, "answers": "clean"},), "fresh")
    if kind == "table":
        return SuggestedViews(kind, (CLEAN, NOISE, MIXUP), "once")
    return SuggestedViews(kind, (CLEAN, NOISE), "once")


def kind_of_inputs(dataset: Dataset) -> InputKind:
    """What kind of inputs a dataset has, by their shape and by the training pictures."""
    if len(dataset.input_shape) != 3:
        return "table"
    return "pictures" if _mirrors_are_alike(dataset) else "one-sided pictures"


def _mirrors_are_alike(dataset: Dataset) -> bool:
    """Whether unknown pictures are told as well when they are mirrored, within two standard errors.

    Real labels have no class to be told; their pictures are left as they are.
    """
    if dataset.task != "classification":
        return False

    train = dataset.train
    order = torch.randperm(len(train), generator=rng.generator(0, "mirrored pictures"))
    order = order[:_MOST_PICTURES]
    pictures = dataset.normalization(train.x[order])
    labels = train.y[order].numpy()

    num_known = max(_NEIGHBORS, 2 * len(order) // 3)
    if num_known >= len(order):
        return False
    known = pictures[:num_known].flatten(1).numpy()
    classifier = KNeighborsClassifier(_NEIGHBORS).fit(known, labels[:num_known])

    right = []
    for unknown in (pictures[num_known:], pictures[num_known:].flip(-1)):
        told = classifier.predict(unknown.flatten(1).numpy())
        right.append((told == labels[num_known:]).astype(np.float64))
    loss_N = right[0] - right[1]
    return bool(loss_N.mean() <= 2 * loss_N.std() / np.sqrt(len(loss_N)))
