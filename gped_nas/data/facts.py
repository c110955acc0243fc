"""What a dataset is, in words: what ``init`` and ``space`` print."""

import numpy as np
import torch

from gped_nas.data.base import Dataset

_MOST_CLASSES = 10
_FAR_APART = 3.0
"""Times that the largest class is larger than the smallest one, from which it is said."""


def describe_inputs(shape: tuple[int, ...]) -> str:
    """What one input is, as it was read: ``pictures of 28 x 28 pixels, 1 channel``."""
    if len(shape) == 1:
        return f"{shape[0]:,} number" + "s" * (shape[0] > 1)
    channels, height, width = shape
    return f"pictures of {height} x {width} pixels, {channels} channel" + "s" * (channels > 1)


def describe_data(dataset: Dataset) -> dict[str, str]:
    """Facts by name: inputs, parts, labels, and whatever a reader should look at."""
    facts = {"inputs": describe_inputs(dataset.input_shape)}
    sizes = {part: len(dataset.split(part)) for part in ("train", "validation", "test")}
    facts["examples"] = ", ".join(f"{part} {size:,}" for part, size in sizes.items())
    if len(dataset.unlabeled):
        facts["examples"] += f", unlabeled {len(dataset.unlabeled):,}"

    if dataset.task == "regression":
        facts["labels"] = _describe_numbers(dataset)
    else:
        facts |= _describe_classes(dataset)
    if dataset.notes:
        facts["look at"] = " ".join(dataset.notes)
    return facts


def class_counts(dataset: Dataset) -> dict[str, int]:
    """Training examples by class, in label order."""
    counts = torch.bincount(dataset.train.y, minlength=dataset.num_classes)
    return dict(zip(dataset.class_names, counts.tolist(), strict=True))


def _describe_numbers(dataset: Dataset) -> str:
    labels = dataset.labels("train")
    mean, std = float(np.mean(labels)), float(np.std(labels))
    return (
        f"real numbers from {labels.min():.4g} to {labels.max():.4g}, mean {mean:.4g}, standard "
        f"deviation {std:.4g}"
    )


def _describe_classes(dataset: Dataset) -> dict[str, str]:
    counts = class_counts(dataset)
    listed = [f"{name} {count:,}" for name, count in list(counts.items())[:_MOST_CLASSES]]
    more = ", ..." if len(counts) > _MOST_CLASSES else ""
    facts = {"classes": f"{len(counts):,}; of train: {', '.join(listed)}{more}"}

    smallest, largest = min(counts.values()), max(counts.values())
    if largest >= _FAR_APART * smallest:
        total = sum(counts.values())
        facts["imbalance"] = (
            f"the largest class has {largest / total:.1%} of the training examples, the smallest "
            f"{smallest / total:.1%}"
        )
    return facts
