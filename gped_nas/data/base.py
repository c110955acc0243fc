"""A dataset: raw inputs in their own range, labels, fixed splits, and how inputs are normalized."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gped_nas.data.columns import TableColumns
from gped_nas.data.groups import describe_shared
from gped_nas.data.normalization import (
    AnyNormalization,
    Missing,
    Normalization,
    Normalize,
    check_float32_shows,
    fit,
    fit_axis,
    fit_imputing,
)
from gped_nas.data.outliers import describe_missing, describe_outliers
from gped_nas.data.parts import carve_parts
from gped_nas.data.preparation import AnyPreparation
from gped_nas.data.rows import join, mapped, sha256_tensors
from gped_nas.data.scale import Scale, check_value_range, scale_of
from gped_nas.data.seen import seen_rows
from gped_nas.data.splits import Part, Split, SplitRule, describe_absent
from gped_nas.errors import DataError
from gped_nas.io import Array, canonical_json, sha256_text
from gped_nas.registry import Registry

__all__ = (
    "DATASETS",
    "Dataset",
    "DatasetFactory",
    "Normalization",
    "Part",
    "Split",
    "Task",
    "build",
    "load",
    "split_of",
)

Task = Literal["classification", "regression"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset, split.

    Attributes:
        name: the registered name it was loaded by.
        input_shape: shape of one input as networks see it: (D,) or (channels, height, width).
        class_names: one name a class, in label order; empty for regression, where labels are real
            numbers.
        train, validation, test: the three parts; disjoint.
        calibration: a share of validation that no choice of students sees; None where none was
            asked for.
        unlabeled: raw inputs (M, *input_shape) that students may also be distilled on; M may be 0.
        normalization: of inputs, fitted on ``train``.
        label_normalization: of real labels, fitted on ``train``; None for classes.
        notes: what a reader of any result must know of the data, one sentence each.
        preparation: how a user's file becomes raw inputs, where that is more than to read it.
        known_scale: what a radius is a share of; computed from ``train`` where nobody says.
        digest: SHA-256 over all arrays and the split: what a stream's key covers.
        split_rule: how parts are carved.
        split_text: the split in words: which part was carved from what, with sizes.
    """

    name: str
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    unlabeled: Tensor
    normalization: AnyNormalization
    digest: str
    split_text: str
    label_normalization: Normalization | None = None
    notes: tuple[str, ...] = ()
    preparation: AnyPreparation | None = None
    known_scale: Scale | None = None
    calibration: Split | None = None
    split_rule: SplitRule = "random"

    @cached_property
    def scale(self) -> Scale:
        """What a radius is a share of: the range of pictures, the deviation of each column."""
        return self.known_scale or scale_of(self.train.x)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of one raw input: that of ``input_shape`` but for flags of missing numbers."""
        return tuple(self.train.x.shape[1:])

    @property
    def task(self) -> Task:
        """What labels are: classes or real numbers."""
        return "regression" if self.label_normalization else "classification"

    @property
    def num_outputs(self) -> int:
        """How many numbers a network predicts the label with: one a class, or 1 for regression."""
        return len(self.class_names) or 1

    @property
    def num_classes(self) -> int:
        """Number of classes.

        Raises:
            DataError: labels are real numbers.
        """
        if self.label_normalization:
            raise DataError(
                f"dataset '{self.name}': found labels that are real numbers, expected classes; "
                "take a dataset with classes"
            )
        return len(self.class_names)

    def raw(self, part: Part) -> Tensor:
        """Raw inputs of a part, (N, *input_shape).

        ``distillation`` is train followed by the unlabeled inputs.
        """
        if part == "unlabeled":
            return self.unlabeled
        if part != "distillation":
            return self.split(part).x
        if not len(self.unlabeled):
            return self.train.x  # no copy of large inputs
        return join([self.train.x, self.unlabeled])

    def inputs(self, part: Part) -> Tensor:
        """Normalized float32 inputs of a part, shape (N, *input_shape).

        Large ones are normalized batch by batch, where they are used; see ``rows``.
        """
        return mapped(self.raw(part), self.normalization)

    @property
    def held_out(self) -> tuple[Part, ...]:
        """The labeled parts that nobody is trained on."""
        if self.calibration is None:
            return ("validation", "test")
        return ("validation", "test", "calibration")

    def split(self, part: Part) -> Split:
        """One of the labeled parts.

        Raises:
            DataError: a calibration part that was not asked for.
        """
        if part == "calibration":
            if self.calibration is None:
                raise DataError(
                    f"dataset '{self.name}': found no calibration part; set "
                    "data: {calibration_share: 0.5}"
                )
            return self.calibration
        return {"train": self.train, "validation": self.validation, "test": self.test}[part]

    def labels(self, part: Part) -> Array:
        """Labels of a labeled part, (N,): int64 classes, or float64 in the source's own unit."""
        labels: Array = self.split(part).y.numpy()
        return labels

    def normalized_labels(self, part: Part) -> Tensor:
        """Labels (N,) as a likelihood reads them: int64 classes, or normalized float32 numbers."""
        labels = self.split(part).y
        return self.label_normalization(labels) if self.label_normalization else labels


DatasetFactory = Callable[[dict[str, object], str], Dataset]
"""``factory(settings, where)`` parses its own settings, ``name`` too, and loads the dataset.

``where`` is the file and key of the settings, for messages.
"""

DATASETS: Registry[DatasetFactory] = Registry("dataset", "gped_nas.data")


def load(settings: dict[str, object], where: str = "dataset") -> Dataset:
    """Load the dataset that ``settings["name"]`` names.

    Raises:
        RegistryError: unknown name.
        ConfigError: no name, or settings the dataset does not take.
        DataError: arrays that cannot be used as they are.
        EnvironmentProblem: files are missing and may not be downloaded.
    """
    factory = DATASETS.named(settings, "name", where)
    return factory(settings, where)


def split_of(x: Array, y: Array) -> Split:
    """Raw inputs (N, *input_shape) of a dtype torch has, and labels (N,), as a ``Split``.

    Labels are integers or real numbers.
    """
    labels = y.astype(np.float64 if y.dtype.kind == "f" else np.int64)
    return Split(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(labels))


def build(
    name: str,
    examples: Split,
    *,
    class_names: tuple[str, ...],
    test: Split | float,
    validation: Split | float,
    seed: int,
    where: str,
    unlabeled: Tensor | None = None,
    normalize: Normalize = "whole",
    rule: SplitRule = "random",
    preparation: AnyPreparation | None = None,
    notes: tuple[str, ...] = (),
    missing: Missing = "refuse",
    value_range: tuple[float, float] | None = None,
) -> Dataset:
    """A dataset from the examples of one source.

    Args:
        name: the registered name.
        examples: the labeled ones to split; what is carved from them is no longer in ``train``.
        class_names: one name a class, in label order; none for regression.
        test: the source's own test part, or the fraction of ``examples`` to carve as one.
        validation: the source's own validation part, or the fraction of the examples outside
            ``test`` to carve as one.
        seed: of the permutations.
        where: file or folder of the source, for messages.
        unlabeled: further raw inputs (M, *input_shape), of the dtype of ``examples.x``.
        normalize: what shares one mean and deviation. ``whole`` casts before it subtracts, as
            versions did that had nothing else.
        rule: how parts are carved.
        preparation: how the user's file became inputs; the digest covers it.
        notes: what the source tells of itself.
        missing: whether NaN may stand in tables; sources refuse it otherwise.
        value_range: the smallest and the largest value that a picture can have, see ``scale_of``.

    Raises:
        DataError: labels do not fit the inputs or the classes, inputs of two kinds, a part would be
            empty, or a rule or the range does not fit the data.
    """
    _check_labels(examples, len(class_names), where, "train")
    _check_rules(normalize, rule, examples, len(class_names), where)
    if missing == "impute" and normalize != "columns":
        raise DataError(
            f"{where}: found missing: impute and normalize: {normalize}, expected a table that is "
            "normalized by columns; set normalize: columns, or missing: refuse"
        )

    for part, split in (("test", test), ("val", validation)):
        if isinstance(split, Split):
            _check_labels(split, len(class_names), where, part)
            _check_like_train(split.x, examples.x, where, part)
    carved = carve_parts(
        examples,
        test,
        validation,
        seed=seed,
        where=where,
        rule=rule,
        seen_N=seen_rows(len(examples)),
    )
    train, validation_part, test = carved.train, carved.validation, carved.test

    if unlabeled is None:
        unlabeled = examples.x[:0].clone()  # the slice alone would hold on to all inputs
    _check_like_train(unlabeled, examples.x, where, "pool")

    split_text = (
        f"test: {carved.test_text}; validation: {carved.validation_text}; train: the other "
        f"{len(train)}; unlabeled: {len(unlabeled)} inputs"
    )
    parts = {"train": train, "validation": validation_part, "test": test}
    normalization: AnyNormalization
    known, num_flags = train.x, 0
    if missing == "impute":
        normalization = fit_imputing(train.x, f"{where}: x_train")
        known, num_flags = normalization.fill_in(train.x), len(normalization.flagged)
        notes += describe_missing(train.x, normalization)
    else:
        normalization = fit(train.x) if normalize == "whole" else fit_axis(train.x)
    check_float32_shows(known, normalize, f"{where}: x_train")
    if value_range is not None:
        check_value_range(value_range, train.x, where)
    return Dataset(
        name=name,
        input_shape=(train.x.shape[1] + num_flags, *examples.x.shape[2:]),
        class_names=class_names,
        train=train,
        validation=validation_part,
        test=test,
        unlabeled=unlabeled,
        normalization=normalization,
        label_normalization=None if class_names else fit(train.y),
        digest=_digest(
            tuple(parts.values()), unlabeled, len(class_names), normalize, missing, preparation
        ),
        split_text=split_text,
        notes=notes + carved.notes + notes_on(parts, class_names, normalization, preparation),
        preparation=preparation,
        known_scale=scale_of(known, value_range),
        split_rule=rule,
    )


def notes_on(
    parts: dict[str, Split],
    class_names: tuple[str, ...],
    normalization: AnyNormalization,
    preparation: AnyPreparation | None,
) -> tuple[str, ...]:
    """See ``Dataset.notes``.

    Args:
        parts: by name; has ``train``.
        class_names: none for real labels.
        normalization: of inputs; one pair for all says nothing of columns.
        preparation: has the names of columns.
    """
    notes = describe_absent(parts, class_names)
    notes += describe_shared({name: split.group for name, split in parts.items()})
    train = parts["train"].x
    if train.dim() == 2 and not isinstance(normalization, Normalization):
        names = preparation.labels if isinstance(preparation, TableColumns) else ()
        notes += describe_outliers(train, names)
    return notes


def _check_labels(split: Split, num_classes: int, where: str, part: str) -> None:
    """Refuse labels that nothing can be learned from.

    Each input needs one, of one column. It is a class in [0, num_classes), or a finite number where
    there are no classes; training needs two different ones.

    Raises:
        DataError: the labels are not like that.
    """
    if split.y.dim() != 1:
        raise DataError(
            f"{where}: y_{part}: found shape {tuple(split.y.shape)}, labels of several columns, "
            "expected (N,), one label an input; make a study of each column"
        )
    if len(split.x) != len(split.y):
        raise DataError(
            f"{where}: y_{part}: found {len(split.y)} labels for {len(split.x)} inputs, expected "
            "one each; check that both come from the same examples"
        )

    if split.group is not None and len(split.group) != len(split.x):
        raise DataError(
            f"{where}: groups_{part}: found {len(split.group)} groups for {len(split.x)} inputs, "
            "expected one each; check that both come from the same examples"
        )

    labels = np.unique(split.y.numpy())
    if not np.isfinite(labels).all():
        raise DataError(
            f"{where}: y_{part}: found labels that are NaN or infinite, expected finite numbers; "
            "remove those examples"
        )

    if part == "train" and len(labels) < 2:
        kind = "class" if num_classes else "value"
        remedy = "of every class" if num_classes else "with different labels"
        raise DataError(
            f"{where}: y_{part}: found {len(labels)} {kind} in {len(split)} examples, expected at "
            f"least 2; bring examples {remedy}"
        )

    if not num_classes:
        return
    impossible = labels[(labels < 0) | (labels >= num_classes)]
    if len(impossible):
        raise DataError(
            f"{where}: y_{part}: found the label {impossible[0]}, expected labels from 0 to "
            f"{num_classes - 1}; number the classes from 0, one for each class name"
        )


def _check_like_train(x: Tensor, train: Tensor, where: str, part: str) -> None:
    """Raise ``DataError`` unless inputs of ``x`` have the shape and dtype of those of ``train``."""
    if x.shape[1:] != train.shape[1:] or x.dtype != train.dtype:
        raise DataError(
            f"{where}: x_{part}: found inputs {_describe(x)}, expected {_describe(train)} as in "
            "x_train; convert one of them"
        )


def _check_rules(
    normalize: Normalize, rule: SplitRule, examples: Split, num_classes: int, where: str
) -> None:
    """Raise ``DataError`` where a rule does not fit the data."""
    dims = {"columns": 2, "channels": 4}.get(normalize)
    if dims is not None and examples.x.dim() != dims:
        other = {"columns": "channels", "channels": "columns"}[normalize]
        raise DataError(
            f"{where}: found normalize: {normalize} and inputs of shape "
            f"{tuple(examples.x.shape[1:])}; set normalize: {other}, or whole"
        )
    if rule == "stratified" and not num_classes:
        raise DataError(
            f"{where}: found split: stratified and labels that are real numbers, expected classes; "
            "set split: random"
        )


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape[1:])} of {str(x.dtype).removeprefix('torch.')}"


def _digest(
    parts: tuple[Split, ...],
    unlabeled: Tensor,
    num_classes: int,
    normalize: Normalize,
    missing: Missing,
    preparation: AnyPreparation | None,
) -> str:
    """What a stream's key covers; ``whole`` is left out, for it came first."""
    arrays = []
    for split in parts:
        arrays += [split.x, split.y]

    covered: list[object] = [sha256_tensors(*arrays, unlabeled), num_classes]
    if normalize != "whole":
        covered.append({"normalize": normalize, "version": 1})
    if missing == "impute":
        covered.append({"missing": missing, "version": 1})
    if preparation is not None:
        covered.append({"preparation": preparation.key(), "version": 1})
    return sha256_text(canonical_json(covered))
