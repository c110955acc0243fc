"""Labels that students learn from beside the teacher: at which inputs one is known, and which.

The label of a training input counts wherever a view keeps it: at the input as it is, flipped,
cropped or with noise. No label is known where inputs are mixed or moved, and none of the unlabeled
inputs. Of inputs that came with imported predictions those have one that are training inputs.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.base import Dataset
from gped_nas.data.views import View
from gped_nas.distill.feed import DistillationSet
from gped_nas.io import Array
from gped_nas.search.space import SearchSpace
from gped_nas.targets.layout import HeadLayout


def labels_at_views(
    space: SearchSpace, views: Sequence[View], dataset: Dataset, layout: HeadLayout
) -> Tensor | None:
    """What labels say at the inputs of all views, one after the other; see ``DistillationSet``.

    Args:
        space: says whether students learn from labels at all.
        views: of a teacher whose networks are known.
        dataset: has the labels.
        layout: the students' heads.
    """
    if not space.largest_label_weight:
        return None

    of_train = layout.labels(dataset.normalized_labels("train"))
    of_rest = of_train.new_full((len(dataset.unlabeled), of_train.shape[1]), torch.nan)
    by_view = []
    for view in views:
        parts = {"unlabeled": [of_rest], "distillation": [of_train, of_rest]}
        labels = torch.cat(parts.get(view.part, [of_train]))
        by_view.append(labels if view.keeps_label else torch.full_like(labels, torch.nan))
    return torch.cat(by_view)


def labels_at_inputs(
    space: SearchSpace, inputs_MD: Array, dataset: Dataset, layout: HeadLayout
) -> Tensor | None:
    """What labels say at inputs that may be training inputs; see ``DistillationSet``.

    Of a training input that is there with several labels it is what they say on average.

    Args:
        space: says whether students learn from labels at all.
        inputs_MD: normalized inputs, float32.
        dataset: has the labels.
        layout: the students' heads.
    """
    if not space.largest_label_weight:
        return None

    of_train = layout.labels(dataset.normalized_labels("train"))
    rows_of: dict[bytes, list[int]] = {}
    for row, x in enumerate(dataset.inputs("train").flatten(1).numpy()):
        rows_of.setdefault(x.tobytes(), []).append(row)

    labels = of_train.new_full((len(inputs_MD), of_train.shape[1]), torch.nan)
    for i, x in enumerate(np.asarray(inputs_MD)):
        rows = rows_of.get(x.tobytes(), [])
        if rows:
            labels[i] = of_train[rows].mean(0)
    return labels


def describe_labels(space: SearchSpace, data: DistillationSet) -> tuple[str, ...]:
    """A sentence on the labels that students learn from; none where they learn from none."""
    if data.labels is None:
        return ()
    num_known = int((~data.labels.isnan().any(1)).sum())
    return (labels_text(space, num_known, len(data.labels)),)


def labels_text(space: SearchSpace, num_known: int, num_inputs: int) -> str:
    """How much labels count, and where."""
    share = num_known / max(1, num_inputs)
    return (
        f"Labels count in the students' loss with weight {_weight_text(space)} at {num_known:,} of "
        f"{num_inputs:,} inputs ({share:.0%}), those whose label is known."
    )


def _weight_text(space: SearchSpace) -> str:
    weights = space.label_weights
    if len(weights) == 1:
        return f"{weights[0]:g}"
    return f"{weights[0]:g} to {weights[-1]:g}"
