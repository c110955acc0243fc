"""Labels that students learn from beside the teacher: at which inputs one is known, and which.

The label of a training input counts wherever a view keeps it: at the input as it is, flipped,
cropped or with noise. No label is known where inputs are mixed or moved, and none of the unlabeled
inputs. Of inputs that came with imported predictions those have one that are training inputs, or
copies of these that keep it.
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
    return known_labels(views, dataset, layout) if space.largest_label_weight else None


def known_labels(views: Sequence[View], dataset: Dataset, layout: HeadLayout) -> Tensor:
    """What labels say at the inputs of all views, one after the other; NaN where none is known."""
    of_train = layout.labels(dataset.normalized_labels("train"))
    of_rest = of_train.new_full((len(dataset.unlabeled), of_train.shape[1]), torch.nan)
    by_view = []
    for view in views:
        parts = {"unlabeled": [of_rest], "distillation": [of_train, of_rest]}
        labels = torch.cat(parts.get(view.part, [of_train]))
        by_view.append(labels if view.keeps_label else torch.full_like(labels, torch.nan))
    return torch.cat(by_view)


def labels_at_inputs(
    space: SearchSpace,
    inputs_MD: Array,
    dataset: Dataset,
    layout: HeadLayout,
    *,
    rows: Sequence[int],
    origin_M: Array | None = None,
) -> Tensor:
    """What labels say at each view of inputs that may be training inputs; see ``DistillationSet``.

    Of a training input that is there with several labels it is what they say on average. A copy has
    the label of the input that it is a copy of.

    Args:
        space: has the views.
        inputs_MD: normalized inputs that were imported, float32.
        dataset: has the labels.
        layout: the students' heads.
        rows: which of the inputs students learn at.
        origin_M: of which row each input is a copy, see ``posterior.shards``.
    """
    labels = _labels_of_train(inputs_MD, dataset, layout)
    if origin_M is not None:
        origin = torch.from_numpy(np.array(origin_M))
        labels = torch.where((origin >= 0)[:, None], labels[origin.clamp_min(0)], labels)
    labels = labels[rows]
    unknown = torch.full_like(labels, torch.nan)
    return torch.cat([labels if view.keeps_label else unknown for view in space.views])


def _labels_of_train(inputs_MD: Array, dataset: Dataset, layout: HeadLayout) -> Tensor:
    """What labels say of those inputs that are training inputs, (M, G); NaN at others."""
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
    return (f"Labels count in the students' loss with {_count(space, data.labels)}.",)


def label_facts(space: SearchSpace, dataset: Dataset) -> dict[str, str]:
    """How much labels count, by what it is called for people; nothing where they do not.

    Imported inputs are counted when a run reads them.
    """
    if not space.largest_label_weight:
        return {}
    if space.method.predictions() is not None:
        return {"labels": f"{_weight_text(space)} at the training inputs that were imported"}

    labels = labels_at_views(space, space.views, dataset, space.layout(dataset.num_outputs))
    assert labels is not None, "some student learns from labels"
    return {"labels": _count(space, labels)}


def _count(space: SearchSpace, labels_MG: Tensor) -> str:
    """How much labels count, and at how many inputs."""
    num_known = int((~labels_MG.isnan().any(1)).sum())
    share = num_known / len(labels_MG)
    return f"{_weight_text(space)} at {num_known:,} of {len(labels_MG):,} inputs ({share:.0%})"


def _weight_text(space: SearchSpace) -> str:
    weights = space.label_weights
    if len(weights) == 1:
        return f"weight {weights[0]:g}"
    return f"weight {weights[0]:g} to {weights[-1]:g}"
