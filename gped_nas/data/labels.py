"""Labels as users have them, as class numbers: integers of any kind, booleans, or text.

The distinct labels of the training examples are the classes, in order. For example, the labels 1, 2
and 4 are three classes called "1", "2" and "4". A list of class names fixes the classes instead:
labels are then places in it, or names of it.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gped_nas.errors import DataError
from gped_nas.io import Array

_FEW = 10
"""Examples a class, below which many numbers with gaps between them are taken for measured."""
_MANY = 50
"""Distinct labels beyond which it is asked whether they are classes at all."""


def number_classes(
    labels: Mapping[str, Array], class_names: tuple[str, ...], path: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Class numbers (N,), int64, of each array, and the names of the classes.

    Args:
        labels: ``y_train`` first, then those of other parts; (N,) or (N, 1).
        class_names: of all classes, in order; empty where the training labels are to say.
        path: the file, for messages.

    Raises:
        DataError: labels that are no classes, of two kinds, or that no training example has.
    """
    flat = {name: _flatten(array, f"{path}: {name}") for name, array in labels.items()}
    _check_kinds(flat, path)
    training = flat["y_train"]

    if class_names and training.dtype.kind == "U":
        classes = np.array(class_names)
    elif class_names:
        # Their range is checked when the dataset is built.
        return {name: torch.from_numpy(array) for name, array in flat.items()}, class_names
    else:
        classes = np.unique(training)
        _check_number(classes, training, f"{path}: y_train")

    numbers = {}
    for name, array in flat.items():
        numbers[name] = _places(array, classes, f"{path}: {name}", is_named=bool(class_names))
    return numbers, class_names or tuple(str(label) for label in classes.tolist())


def look_real(labels: Array) -> bool:
    """Whether labels are more likely real numbers than classes.

    Those are not whole; or they are many, with gaps between them, and few examples each.
    """
    if labels.dtype.kind not in "iuf":
        return False
    if not (np.isfinite(labels) & (labels == np.rint(labels))).all():
        return True
    values = np.unique(labels)
    has_gaps = values[-1] - values[0] >= len(values)
    return bool(has_gaps and len(values) > _MANY and _FEW * len(values) > len(labels))


def _flatten(y: Array, name: str) -> Array:
    """Labels (N,) as int64, or as text."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(
            f"{name}: found shape {y.shape}, expected (N,), one class an input; use argmax(axis=1) "
            "if there is one column a class"
        )

    if y.dtype.kind == "U":
        return y
    if y.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: found dtype {y.dtype}, expected integers, booleans or text; convert them "
            "with astype"
        )
    is_whole = y.dtype.kind != "f" or (np.isfinite(y) & (y == np.rint(y))).all()
    if not is_whole:
        raise DataError(
            f"{name}: found dtype {y.dtype} with numbers that are not whole, expected classes; set "
            "dataset.task: regression if they are real numbers"
        )
    return y.astype(np.int64)


def _check_kinds(labels: Mapping[str, Array], path: str) -> None:
    """Refuse text beside numbers."""
    kind = labels["y_train"].dtype.kind
    for name, array in labels.items():
        if array.dtype.kind != kind:
            expected = "text" if kind == "U" else "numbers"
            raise DataError(
                f"{path}: {name}: found dtype {array.dtype}, expected {expected} as in y_train; "
                "convert one of them"
            )


def _check_number(classes: Array, labels: Array, name: str) -> None:
    """Refuse numbers that are more likely measured than counted."""
    if _are_measured(classes, labels):
        raise DataError(
            f"{name}: found {len(classes)} different labels in {len(labels)} examples, expected "
            "classes; set dataset.task: regression if they are real numbers"
        )


def _are_measured(classes: Array, labels: Array) -> bool:
    """Whether distinct labels are too many and too scattered for classes."""
    is_counted = classes.dtype.kind == "U" or np.array_equal(classes, np.arange(len(classes)))
    return not is_counted and len(classes) > _MANY and 2 * len(classes) > len(labels)


def _places(labels: Array, classes: Array, name: str, *, is_named: bool) -> Tensor:
    """Where each label stands among the classes; these are sorted, unless they are named."""
    order = np.argsort(classes)
    places = order[np.searchsorted(classes, labels, sorter=order).clip(max=len(classes) - 1)]

    unknown = labels[classes[places] != labels]
    if len(unknown):
        source = "class_names does not have" if is_named else "no example of y_train has"
        raise DataError(
            f"{name}: found the label {unknown[0]!s:.80}, which {source}, expected one of "
            f"{len(classes)} classes; remove those examples, or name every class in class_names"
        )
    return torch.from_numpy(places.astype(np.int64))
